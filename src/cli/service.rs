//! `dpd service`: frontends and their backends, as the kernel holds them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde::Serialize;

use super::node::Node;
use super::output::{self, Listing, Row};
use crate::model::prefix;
use crate::model::service::{Algorithm, Frontend, Locality, NodePort};
use crate::model::state::{AddressScope, ServiceEntry, State};
use crate::plan::ipcache;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all services.
    List(#[command(flatten)] Listing),
    /// Show one service.
    Get {
        /// Its name or number.
        name: String,
        #[command(flatten)]
        listing: Listing,
    },
}

pub fn run(node: &Node, command: &Command) -> Result<()> {
    let rows = rows(&node.reader()?.state()?);
    let (rows, listing) = match command {
        Command::List(listing) => (rows, listing),
        Command::Get { name, listing } => (get(rows, name)?, listing),
    };
    output::print(&output::render(listing.output, &rows)?)
}

/// One frontend.
#[derive(Debug, Serialize)]
pub struct ServiceRow {
    service: String,
    id: u32,
    /// `10.32.0.10:53/udp`
    frontend: String,
    /// What the file has for it, where that is `node:PORT/PROTOCOL`.
    node_port: Option<String>,
    /// The network reaches it by the uplinks.
    external: bool,
    /// The host's own sockets reach it.
    host: bool,
    /// Who of the network; empty: everybody, or nobody if it is not external.
    sources: Vec<String>,
    locality: Locality,
    algorithm: Algorithm,
    /// The columns of its Maglev table.
    table_size: Option<u32>,
    /// How long a client keeps its backend after its last packet; `None`: it does not.
    affinity_seconds: Option<f64>,
    backends: Vec<BackendRow>,
}

#[derive(Debug, Serialize)]
struct BackendRow {
    id: u32,
    address: String,
    /// The identity that it came by; `None`: the file names its address.
    identity: Option<String>,
    state: String,
    weight: u16,
    location: Location,
    /// How the network's clients reach it; `None`: they do not.
    network_path: Option<NetworkPath>,
}

/// Where a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Location {
    /// Behind an endpoint of this host.
    Here,
    /// The same, while its interface is missing.
    Pending,
    /// At an address of the host itself.
    Host,
    Remote,
}

/// How packets of the network get from the uplink to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum NetworkPath {
    /// With the client's own address.
    Direct,
    /// With an address of this host.
    Snat,
}

impl Location {
    fn of(state: &State, address: IpAddr) -> Location {
        let entry = ipcache::find(state, address);
        match entry.map_or(AddressScope::Remote, |entry| entry.scope) {
            AddressScope::Endpoint { .. } => Location::Here,
            AddressScope::Pending => Location::Pending,
            AddressScope::Host => Location::Host,
            AddressScope::Remote => Location::Remote,
        }
    }

    fn network_path(self) -> Option<NetworkPath> {
        match self {
            Location::Here => Some(NetworkPath::Direct),
            Location::Remote => Some(NetworkPath::Snat),
            Location::Pending | Location::Host => None,
        }
    }
}

impl BackendRow {
    /// `10.200.0.80:8443 (identity web)`
    fn origin_text(&self) -> String {
        match &self.identity {
            Some(identity) => format!("{} (identity {identity})", self.address),
            None => self.address.clone(),
        }
    }

    /// `remote (snat)`
    fn location_text(&self) -> &'static str {
        match (self.location, self.network_path) {
            (Location::Remote, Some(NetworkPath::Snat)) => "remote (snat)",
            (Location::Remote, _) => "remote",
            (Location::Here, _) => "here",
            (Location::Pending, _) => "pending",
            (Location::Host, _) => "host",
        }
    }
}

impl ServiceRow {
    /// Whom the frontend answers: `network (198.51.100.0/24), workloads, host`
    fn answers(&self) -> String {
        let network = match (self.external, self.sources.as_slice()) {
            (false, _) => String::new(),
            (true, []) => "network, ".to_owned(),
            (true, sources) => format!("network ({}), ", sources.join(" ")),
        };
        let host = if self.host { ", host" } else { "" };
        format!("{network}workloads{host}")
    }

    /// How a backend is picked: `random`, `maglev 1021`, `random, affinity 10m`
    fn picks(&self) -> String {
        let mut picks = self.algorithm.name().to_owned();
        if let Some(size) = self.table_size {
            picks += &format!(" {size}");
        }
        if let Some(affinity) = self.affinity_seconds {
            let affinity = output::span(Duration::from_secs_f64(affinity));
            picks += &format!(", affinity {affinity}");
        }
        picks
    }
}

impl Row for ServiceRow {
    const HEADER: &[&str] = &[
        "SERVICE",
        "ID",
        "FRONTEND → BACKEND",
        "BACKEND-ID",
        "STATE",
        "WEIGHT",
        "LOCATION",
        "ANSWERS",
        "LOCALITY",
        "ALGORITHM",
        "BACKENDS",
    ];

    fn lines(&self) -> Vec<Vec<String>> {
        let line = |to: &str, [id, state, weight, location]: [&str; 4]| {
            let head = [
                self.service.clone(),
                self.id.to_string(),
                format!("{} → {to}", self.frontend),
            ];
            let of_backend = [id, state, weight, location].map(str::to_owned);
            let tail = [
                self.answers(),
                self.locality.name().to_owned(),
                self.picks(),
                self.backends.len().to_string(),
            ];
            [&head[..], &of_backend, &tail].concat()
        };
        if self.backends.is_empty() {
            return vec![line("none", [""; 4])];
        }
        let of_backend = |backend: &BackendRow| {
            let (id, weight) = (backend.id.to_string(), backend.weight.to_string());
            let words = [&id, &backend.state, &weight, backend.location_text()];
            line(&backend.origin_text(), words)
        };
        self.backends.iter().map(of_backend).collect()
    }
}

/// All frontends, by service.
pub fn rows(state: &State) -> Vec<ServiceRow> {
    let rows = state.services.iter();
    let mut rows: Vec<ServiceRow> = rows
        .map(|(frontend, entry)| row(state, frontend, entry))
        .collect();
    rows.sort_by(|a, b| a.service.cmp(&b.service));
    rows
}

fn row(state: &State, frontend: &Frontend, entry: &ServiceEntry) -> ServiceRow {
    let info = state.catalog.services.get(&entry.service);
    let node_port = NodePort {
        port: frontend.port,
        protocol: frontend.protocol,
    };
    let is_at_node = info.is_some_and(|info| {
        info.node_ports.contains(&node_port) && !info.frontends.contains(frontend)
    });
    let sources = state.service_sources.iter();
    let sources = sources.filter(|(service, _)| *service == entry.service);
    let backends = state.backends.iter().filter(|(_, backend)| {
        // There is no NAT between the families.
        backend.service == entry.service && backend.address.is_ipv4() == frontend.address.is_ipv4()
    });
    let table_size = (entry.maglev_size > 0).then_some(entry.maglev_size);
    ServiceRow {
        service: info.map_or_else(|| entry.service.to_string(), |info| info.name.clone()),
        id: entry.service,
        frontend: frontend.to_string(),
        node_port: is_at_node.then(|| node_port.to_string()),
        external: entry.is_external,
        host: state.settings.netns_cookie != 0,
        sources: sources.map(|(_, source)| prefix::text(*source)).collect(),
        locality: info.map(|info| info.locality).unwrap_or_default(),
        algorithm: match table_size {
            Some(_) => Algorithm::Maglev,
            None => Algorithm::Random,
        },
        table_size,
        affinity_seconds: (entry.affinity_ns > 0)
            .then(|| Duration::from_nanos(entry.affinity_ns).as_secs_f64()),
        backends: backends
            .map(|(id, backend)| {
                let location = Location::of(state, backend.address.ip());
                let info = state.catalog.backends.get(id);
                BackendRow {
                    id: *id,
                    address: backend.address.to_string(),
                    identity: info.and_then(|info| info.identity.clone()),
                    state: backend.state.to_string(),
                    weight: backend.weight,
                    location,
                    network_path: location.network_path().filter(|_| entry.is_external),
                }
            })
            .collect(),
    }
}

pub fn get(mut rows: Vec<ServiceRow>, name: &str) -> Result<Vec<ServiceRow>> {
    rows.retain(|row| row.service == name || row.id.to_string() == name);
    if rows.is_empty() {
        bail!("the datapath has no service {name:?}: see `dpd service list`");
    }
    Ok(rows)
}
