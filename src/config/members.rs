//! The workloads of identities, and the backends of a service with those by identity.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::checked::{Backend, Config, Interface, Service};
use crate::model::link_local::is_of_a_link;

/// The single addresses of the workloads of each identity: of the endpoints here, and of `nodes.*.endpoints`. A prefix is none,
/// and so is a link-local address, which is one on each link.
#[derive(Debug, Default)]
pub struct Members<'c>(BTreeMap<&'c str, BTreeSet<IpAddr>>);

/// A backend of a service.
#[derive(Debug, PartialEq)]
pub struct ServiceBackend<'c> {
    pub backend: Backend,
    /// The identity that it came by; `None`: the file names its address.
    pub identity: Option<&'c str>,
}

impl<'c> Members<'c> {
    /// Those of the identities that are backends, with the endpoints whose interface `is_ready`.
    pub fn new(config: &'c Config, is_ready: impl Fn(&str) -> bool) -> Members<'c> {
        let services = config.services.values();
        let backends = services.flat_map(|service| &service.identity_backends);
        let empty = |name: &'c String| (name.as_str(), BTreeSet::new());
        let mut members: BTreeMap<&str, BTreeSet<IpAddr>> =
            backends.map(|backend| empty(&backend.identity)).collect();
        if members.is_empty() {
            return Members(members);
        }
        for (name, interface) in &config.interfaces {
            let Interface::Endpoint {
                addresses,
                identity,
                ..
            } = interface
            else {
                continue;
            };
            if let Some(members) = members.get_mut(identity.as_str())
                && is_ready(name)
            {
                let single = addresses.iter().filter(|prefix| {
                    let is_single = prefix.prefix_len() == prefix.max_prefix_len();
                    is_single && !is_of_a_link(**prefix)
                });
                members.extend(single.map(|prefix| prefix.addr()));
            }
        }
        for (address, identity) in config.nodes.values().flat_map(|node| &node.endpoints) {
            if let Some(members) = members.get_mut(identity.as_str()) {
                members.insert(*address);
            }
        }
        Members(members)
    }

    /// The addresses of an identity.
    pub fn of(&self, identity: &str) -> impl Iterator<Item = IpAddr> {
        self.0.get(identity).into_iter().flatten().copied()
    }

    /// All backends of a service. One that the file names by its address has the weight and state given there, also where it has the
    /// identity.
    pub fn backends(&self, service: &'c Service) -> Vec<ServiceBackend<'c>> {
        let mut backends: Vec<ServiceBackend> = service
            .backends
            .iter()
            .map(|backend| ServiceBackend {
                backend: backend.clone(),
                identity: None,
            })
            .collect();
        if service.identity_backends.is_empty() {
            return backends;
        }
        let named: BTreeSet<SocketAddr> = service.backends.iter().map(|b| b.address).collect();
        for by_identity in &service.identity_backends {
            let members = self.of(&by_identity.identity);
            let addresses = members.map(|member| SocketAddr::new(member, by_identity.port));
            let unnamed = addresses.filter(|address| !named.contains(address));
            backends.extend(unnamed.map(|address| ServiceBackend {
                backend: Backend {
                    address,
                    weight: by_identity.weight,
                    state: by_identity.state,
                },
                identity: Some(&by_identity.identity),
            }));
        }
        backends
    }
}
