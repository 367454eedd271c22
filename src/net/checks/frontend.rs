//! Services that hide something of the host: its other ports at a frontend's address, and its sockets.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::{Config, Service};
use crate::model::host::HostState;
use crate::model::service::Frontend;
use crate::net::socket_owner;
use crate::net::sockets::{Listener, list_listeners};

pub fn check(config: &Config, host: &HostState) -> Vec<String> {
    let mut lacks = Vec::new();
    let mut own = Vec::new();
    let external = external_addresses(config);
    for (name, service) in &config.services {
        let frontends = service.frontends.iter();
        let of_host: Vec<_> = frontends
            .filter(|frontend| host.receives(frontend.address))
            .collect();
        let addresses: BTreeSet<IpAddr> = of_host.iter().map(|frontend| frontend.address).collect();
        let hidden = addresses
            .into_iter()
            .filter(|address| !keeps_ports(host, *address, &external));
        lacks.extend(hidden.map(|address| hides_ports(name, service, address)));
        own.extend(of_host.into_iter().map(|frontend| Taken {
            name,
            service,
            what: frontend,
            frontends: vec![*frontend],
        }));
        own.extend(node_ports(name, service, host));
    }
    if own.is_empty() {
        return lacks;
    }
    let listeners = list_listeners();
    lacks.extend(
        own.iter()
            .filter_map(|taken| taken.hidden_socket(host, &listeners)),
    );
    lacks
}

fn external_addresses(config: &Config) -> BTreeSet<IpAddr> {
    let external = config.services.values().filter(|service| service.external);
    let frontends = external.flat_map(|service| &service.frontends);
    frontends.map(|frontend| frontend.address).collect()
}

/// Whether the host keeps the ports of the address that no frontend has: those of its interfaces, and, unless it is for the network,
/// an address that has a local route of its own, not one inside a prefix.
fn keeps_ports(host: &HostState, address: IpAddr, external: &BTreeSet<IpAddr>) -> bool {
    let has_route = host.local_prefixes.contains(&IpNet::from(address));
    host.addresses.contains(&address) || (has_route && !external.contains(&address))
}

fn node_ports<'a>(
    name: &'a str,
    service: &'a Service,
    host: &HostState,
) -> impl Iterator<Item = Taken<'a>> {
    let frontends = service.frontends_at(host.unicast_addresses());
    service.node_ports.iter().map(move |node_port| Taken {
        name,
        service,
        what: node_port,
        frontends: frontends
            .iter()
            .filter(|frontend| node_port.at(frontend.address) == **frontend)
            .copied()
            .collect(),
    })
}

fn hides_ports(name: &str, service: &Service, address: IpAddr) -> String {
    let who = who(service);
    format!(
        "service {name} has {address}, which is the host's own, as a frontend: {who} reach no other port of the \
         host at this address; give the service an address that nobody has"
    )
}

/// Whom its frontends answer.
fn who(service: &Service) -> &'static str {
    match service.external {
        true => "the network and workloads",
        false => "workloads",
    }
}

/// What a service takes of the host.
struct Taken<'a> {
    name: &'a str,
    service: &'a Service,
    /// The frontend as the file writes it.
    what: &'a dyn Display,
    frontends: Vec<Frontend>,
}

impl Taken<'_> {
    fn hidden_socket(&self, host: &HostState, listeners: &BTreeSet<Listener>) -> Option<String> {
        let Taken {
            name,
            service,
            what,
            frontends,
        } = self;
        let hidden = listeners.iter().find(|listener| {
            let is_hidden = frontends.iter().any(|frontend| listener.receives(frontend));
            is_hidden && !is_backend(host, service, listener)
        })?;
        let socket = SocketAddr::new(hidden.address, hidden.port);
        let owners = Vec::from_iter(socket_owner::owners(hidden.inode)).join(", ");
        let of = if owners.is_empty() { "" } else { " of " };
        let who = who(service);
        Some(format!(
            "service {name} has {what} as a frontend, at which a socket of the host listens ({socket}{of}{owners}): {who} reach \
             the service's backends there, and not the socket; give the service another address or port"
        ))
    }
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
