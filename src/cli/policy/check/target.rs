//! Where a packet is sent after load balancing: a service means its backends, since policy is applied after it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use ipnet::IpNet;

use super::traffic::Traffic;
use crate::cli::policy::peer::Peer;
use crate::model::state::{AddressScope, ExternalFrontend, ServiceEntry, State};
use crate::plan::ipcache;

/// The destination of a packet, and its service.
pub struct Target {
    pub to: SocketAddr,
    pub service: Option<String>,
    /// What refuses the connection before policy is applied.
    pub refused_by: Option<String>,
    /// The backend is on another host, to which the network's clients come with an address of this one.
    pub is_snat: bool,
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

/// The destinations of a new connection. Workloads reach every service, the network the external ones, the host none.
pub fn targets(state: &State, from: &Peer, to: IpAddr, traffic: Traffic) -> Result<Vec<Target>> {
    let of_address = |refused_by, service| Target {
        to: SocketAddr::new(to, traffic.port),
        service,
        refused_by,
        is_snat: false,
    };
    let is_of_network = from.entry.scope == AddressScope::Remote;
    let is_answered =
        |entry: &&ServiceEntry| from.is_workload() || (is_of_network && entry.is_external);
    let found = state.services.get(&traffic.at(to)).filter(is_answered);
    let Some(entry) = found else {
        if is_rejected(state, from, to) {
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
        return Ok(vec![of_address(
            Some(format!("sources of {name}")),
            service,
        )]);
    }
    let targets: Vec<Target> = backends(state, entry)
        .map(|backend| Target {
            to: backend,
            service: service.clone(),
            refused_by: None,
            is_snat: is_of_network && is_remote(state, backend.ip()),
        })
        .collect();
    if targets.is_empty() {
        bail!("the service at {to} has no backend that takes new connections");
    }
    Ok(targets)
}

/// Whether what no frontend answers is a service's nevertheless.
fn is_rejected(state: &State, from: &Peer, to: IpAddr) -> bool {
    let row = ipcache::find(state, to);
    let is_routed = row.is_some_and(|row| row.external_frontend == ExternalFrontend::Routed);
    match from.entry.scope {
        AddressScope::Endpoint { .. } => state.is_service_address(to),
        AddressScope::Remote => is_routed,
        AddressScope::Pending | AddressScope::Host => false,
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

fn is_remote(state: &State, address: IpAddr) -> bool {
    let entry = ipcache::find(state, address);
    entry.is_none_or(|entry| entry.scope == AddressScope::Remote)
}
