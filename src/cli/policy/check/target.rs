//! Where a packet is sent after load balancing: a service means its backends, since policy is applied after it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use ipnet::IpNet;

use super::traffic::Traffic;
use crate::cli::policy::peer::Peer;
use crate::model::protocol::Protocol;
use crate::model::state::{AddressScope, ExternalFrontend, ServiceEntry, State};
use crate::plan::ipcache;

/// The destination of a packet, and its service.
pub struct Target {
    pub to: SocketAddr,
    pub service: Option<String>,
    pub refusal: Option<Refusal>,
    /// The backend is on another host, to which the network's clients come with an address of this one.
    pub is_snat: bool,
}

/// What ends a connection before policy is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No source of the service has the sender.
    Sources { service: String },
    /// The network reaches no backend at an address of the host: its replies would not come back through the service.
    HostBackend,
}

impl Refusal {
    pub fn name(&self) -> String {
        match self {
            Refusal::Sources { service } => format!("sources of {service}"),
            Refusal::HostBackend => "no route".to_owned(),
        }
    }

    pub fn why(&self) -> &'static str {
        match self {
            Refusal::Sources { .. } => "none has the sender",
            Refusal::HostBackend => "the network reaches no backend at an address of the host",
        }
    }
}

/// The prefixes by which the services at these receivers tell their clients apart.
pub fn sources(state: &State, receivers: &[Peer], traffic: Traffic) -> BTreeSet<IpNet> {
    let services = receivers
        .iter()
        .filter_map(|receiver| state.services.get(&traffic.at(receiver.address)));
    let services: BTreeSet<u32> = services.map(|entry| entry.service).collect();
    let sources = state.service_sources.iter();
    let sources = sources.filter(|(service, _)| services.contains(service));
    sources.map(|(_, source)| *source).collect()
}

/// The destinations of a new connection. Workloads and the host's sockets reach every service, the network the external ones.
pub fn targets(state: &State, from: &Peer, to: IpAddr, traffic: Traffic) -> Result<Vec<Target>> {
    let of_address = |refusal, service| Target {
        to: SocketAddr::new(to, traffic.port),
        service,
        refusal,
        is_snat: false,
    };
    let is_of_network = from.entry.scope == AddressScope::Remote;
    let is_served = from.is_workload() || is_served_host(state, from, traffic);
    let is_answered = |entry: &&ServiceEntry| is_served || (is_of_network && entry.is_external);
    let found = state.services.get(&traffic.at(to)).filter(is_answered);
    let Some(entry) = found else {
        if is_rejected(state, from, to, traffic) {
            bail!(
                "the service at {to} has no frontend {traffic}: rejected before policy is applied"
            );
        }
        return Ok(vec![of_address(None, None)]);
    };
    let info = state.catalog.services.get(&entry.service);
    let service = info.map(|info| info.name.clone());
    if is_of_network && !admits(state, entry, from.address) {
        let name = service.clone().unwrap_or_else(|| entry.service.to_string());
        let refusal = Refusal::Sources { service: name };
        return Ok(vec![of_address(Some(refusal), service)]);
    }
    let targets: Vec<Target> = backends(state, entry)
        .map(|backend| {
            let scope = scope(state, backend.ip());
            let is_refused = is_of_network && scope == AddressScope::Host;
            Target {
                to: backend,
                service: service.clone(),
                refusal: is_refused.then_some(Refusal::HostBackend),
                is_snat: is_of_network && scope == AddressScope::Remote,
            }
        })
        .collect();
    if targets.is_empty() {
        bail!("the service at {to} has no backend that takes new connections");
    }
    Ok(targets)
}

/// Whether the sender is the host and its sockets are translated: those of other protocols are not.
fn is_served_host(state: &State, from: &Peer, traffic: Traffic) -> bool {
    from.entry.scope == AddressScope::Host
        && state.settings.netns_cookie != 0
        && matches!(traffic.protocol, Protocol::Tcp | Protocol::Udp)
}

/// Whether what no frontend answers is a service's nevertheless.
fn is_rejected(state: &State, from: &Peer, to: IpAddr, traffic: Traffic) -> bool {
    let row = ipcache::find(state, to);
    let is_routed = row.is_some_and(|row| row.external_frontend == ExternalFrontend::Routed);
    match from.entry.scope {
        AddressScope::Endpoint { .. } => state.is_service_address(to),
        AddressScope::Remote => is_routed,
        AddressScope::Host => {
            is_served_host(state, from, traffic)
                && state.is_service_address(to)
                && scope(state, to) != AddressScope::Host
        }
        AddressScope::Pending => false,
    }
}

fn admits(state: &State, entry: &ServiceEntry, client: IpAddr) -> bool {
    let mut around = ipcache::covering(client);
    let is_source = |prefix| state.service_sources.contains(&(entry.service, prefix));
    !entry.has_sources || around.any(is_source)
}

/// Those that new connections may get.
fn backends(state: &State, entry: &ServiceEntry) -> impl Iterator<Item = SocketAddr> {
    let rows = state.backend_lut.iter().skip(entry.lut_first as usize);
    let rows = rows.take(entry.lut_count as usize);
    let candidates: BTreeSet<u32> = rows.flat_map(|row| [row.backend, row.alias]).collect();
    let found = candidates
        .into_iter()
        .filter_map(|number| state.backends.get(&number));
    found.map(|backend| backend.address)
}

fn scope(state: &State, address: IpAddr) -> AddressScope {
    let entry = ipcache::find(state, address);
    entry.map_or(AddressScope::Remote, |entry| entry.scope)
}
