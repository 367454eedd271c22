//! Services that hide something of the host from the workloads: its other ports at a frontend's address, and its sockets.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, Service};
use crate::model::host::HostState;
use crate::model::service::Frontend;
use crate::net::sockets::{Listener, list_listeners};

pub fn check(config: &Config, host: &HostState) -> Vec<String> {
    let mut lacks = Vec::new();
    let mut own = Vec::new();
    for (name, service) in &config.services {
        let frontends = service.frontends.iter();
        let of_host: Vec<_> = frontends
            .filter(|frontend| host.receives(frontend.address))
            .collect();
        let addresses: BTreeSet<IpAddr> = of_host.iter().map(|frontend| frontend.address).collect();
        lacks.extend(addresses.iter().map(|address| hides_ports(name, *address)));
        own.extend(
            of_host
                .into_iter()
                .map(|frontend| (name, service, frontend)),
        );
    }
    if own.is_empty() {
        return lacks;
    }
    let listeners = list_listeners();
    for (name, service, frontend) in own {
        let hidden = listeners
            .iter()
            .find(|listener| listener.receives(frontend) && !is_backend(host, service, listener));
        lacks.extend(hidden.map(|listener| hides_socket(name, frontend, listener)));
    }
    lacks
}

fn hides_ports(service: &str, address: IpAddr) -> String {
    format!(
        "service {service} has {address}, which is the host's own, as a frontend: workloads reach no other port of the \
         host at this address; give the service an address that nobody has"
    )
}

fn hides_socket(service: &str, frontend: &Frontend, listener: &Listener) -> String {
    let socket = SocketAddr::new(listener.address, listener.port);
    format!(
        "service {service} has {frontend} as a frontend, at which a socket of the host listens ({socket}): workloads reach \
         the service's backends there, and not the socket; give the service another address or port"
    )
}

/// Whether the socket itself is what the service leads to.
fn is_backend(host: &HostState, service: &Service, listener: &Listener) -> bool {
    let mut backends = service.backends.iter();
    backends.any(|backend| {
        let address = backend.address.ip();
        let is_address = match listener.address.is_unspecified() {
            true => host.receives(address),
            false => listener.address == address,
        };
        is_address && backend.address.port() == listener.port
    })
}
