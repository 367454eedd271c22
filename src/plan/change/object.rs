//! The objects that a plan speaks of, by kind and name.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::catalog::Catalog;
use crate::model::prefix;
use crate::model::service::{Frontend, NodePort};
use crate::model::state::Backend;

/// What can be added, changed or removed, as the file calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// `address`, `backend`, `endpoint`, `identity`, `node`, `policy`, `prefilter`, `rule`, `service`, `setting` or
    /// `uplink`.
    pub kind: &'static str,
    pub name: String,
}

impl Object {
    pub fn new(kind: &'static str, name: impl Into<String>) -> Object {
        Object {
            kind,
            name: name.into(),
        }
    }

    pub fn backend(backend: &Backend, catalog: &Catalog) -> Object {
        let service = catalog.services.get(&backend.service);
        let service = service.map_or("", |info| info.name.as_str());
        Object::new(
            "backend",
            format!("{} of service {service}", backend.address),
        )
    }

    pub fn endpoint(interface: &str) -> Object {
        Object::new("endpoint", interface)
    }

    pub fn identity(name: &str) -> Object {
        Object::new("identity", name)
    }

    pub fn prefilter(prefix: &IpNet, table: &str) -> Object {
        Object::new("prefilter", format!("{} of {table}", prefix::text(*prefix)))
    }

    /// A destination that is not masqueraded.
    pub fn exception(prefix: &IpNet) -> Object {
        Object::new("masquerade", format!("except {}", prefix::text(*prefix)))
    }

    /// Who reaches a service, and which of its backends, picked how.
    pub fn service(name: &str) -> Object {
        Object::new("service", name)
    }

    pub fn frontend(service: &str, frontend: &Frontend) -> Object {
        Object::new("service", format!("{service} {frontend}"))
    }

    pub fn node_port(service: &str, node_port: NodePort) -> Object {
        Object::new("service", format!("{service} {node_port}"))
    }

    pub fn host_address(address: IpAddr) -> Object {
        Object::new("address", format!("{address} of host"))
    }

    pub fn setting(key: &str) -> Object {
        Object::new("setting", key)
    }
}

/// The words that are not empty.
pub fn join_words(words: &[&str]) -> String {
    let words = words.iter().copied().filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}
