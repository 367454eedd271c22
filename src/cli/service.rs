//! `dpd service`: frontends and their backends, as the kernel holds them.

mod wait;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde::Serialize;

use super::node::Node;
use super::output::{self, Listing, Row};
use crate::bpf::reader::Part;
use crate::bpf::state::conntrack::now_ns;
use crate::host_sockets;
use crate::model::conntrack::BackendConnections;
use crate::model::prefix;
use crate::model::service::{Algorithm, Frontend, Locality, NodePort};
use crate::model::state::{AddressScope, Backend, ServiceEntry, State};
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
    /// Wait until a backend has no connection left, for taking it away without a loss.
    ///
    /// Set its state to draining first, or remove it from a service with a drain_timeout: an active backend gets new connections
    /// all the time.
    Wait(wait::Arguments),
}

pub fn run(node: &Node, command: &Command) -> Result<()> {
    let listing = match command {
        Command::List(listing) | Command::Get { listing, .. } => listing,
        Command::Wait(arguments) => return wait::run(node, arguments),
    };
    let reader = node.reader()?;
    let (mut open, _) = reader.conntrack()?;
    if let Err(error) = host_sockets::count_untracked(reader.pins(), &mut open.by_backend) {
        log::warn!("sockets of the host are not counted: {error:#}");
    }
    let state = reader.parts(&[Part::Services, Part::Ipcache])?;
    let services = Services::new(&state, &open.by_backend, now_ns());
    let rows = match command {
        Command::Get { name, .. } => services.get(name)?,
        _ => services.rows(),
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
    /// How long connections of a backend that drains or has left the file may continue; `None`: those of a draining one have no
    /// limit, those of one that has left end at once.
    drain_timeout_seconds: Option<f64>,
    backends: Vec<BackendRow>,
}

#[derive(Debug, Serialize)]
struct BackendRow {
    id: u32,
    address: String,
    /// The identity that it came by; `None`: the file names its address.
    identity: Option<String>,
    /// `active`, `draining`, `maintenance`, `drained` or `removed`.
    state: String,
    /// Until it loses its connections; `None`: there is no limit, or it has lost them.
    drain_seconds_left: Option<f64>,
    weight: u16,
    /// Open ones, by all frontends of the service.
    connections: u64,
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

    /// `draining (4m12s)`
    fn state_text(&self) -> String {
        match self.drain_seconds_left {
            Some(left) => {
                let left = output::span(Duration::from_secs_f64(left.ceil()));
                format!("{} ({left})", self.state)
            }
            None => self.state.clone(),
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
        "CONNECTIONS",
        "LOCATION",
        "ANSWERS",
        "LOCALITY",
        "ALGORITHM",
        "BACKENDS",
    ];

    fn lines(&self) -> Vec<Vec<String>> {
        let line = |to: &str, of_backend: [String; 5]| {
            let head = [
                self.service.clone(),
                self.id.to_string(),
                format!("{} → {to}", self.frontend),
            ];
            let tail = [
                self.answers(),
                self.locality.name().to_owned(),
                self.picks(),
                self.backends.len().to_string(),
            ];
            [&head[..], &of_backend, &tail].concat()
        };
        if self.backends.is_empty() {
            return vec![line("none", Default::default())];
        }
        let of_backend = |backend: &BackendRow| {
            let words = [
                backend.id.to_string(),
                backend.state_text(),
                backend.weight.to_string(),
                backend.connections.to_string(),
                backend.location_text().to_owned(),
            ];
            line(&backend.origin_text(), words)
        };
        self.backends.iter().map(of_backend).collect()
    }
}

/// The services of a state, for their rows.
pub struct Services<'a> {
    state: &'a State,
    /// The connections by the service's and the backend's number.
    open: &'a BTreeMap<(u32, u32), BackendConnections>,
    /// CLOCK_MONOTONIC, in nanoseconds.
    now_ns: u64,
    /// The numbers of each service's backends.
    backends: BTreeMap<u32, Vec<u32>>,
    sources: BTreeMap<u32, Vec<String>>,
}

impl<'a> Services<'a> {
    pub fn new(
        state: &'a State,
        open: &'a BTreeMap<(u32, u32), BackendConnections>,
        now_ns: u64,
    ) -> Services<'a> {
        let mut backends: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (number, backend) in &state.backends {
            backends.entry(backend.service).or_default().push(*number);
        }
        let mut sources: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (service, source) in &state.service_sources {
            let source = prefix::text(*source);
            sources.entry(*service).or_default().push(source);
        }
        Services {
            state,
            open,
            now_ns,
            backends,
            sources,
        }
    }

    /// All frontends, by service.
    pub fn rows(&self) -> Vec<ServiceRow> {
        self.rows_of(|_| true)
    }

    /// The frontends of one service, by its name or number.
    ///
    /// # Errors
    /// If there is no such service.
    pub fn get(&self, name: &str) -> Result<Vec<ServiceRow>> {
        let rows = self.rows_of(|number| {
            let info = self.state.catalog.services.get(&number);
            info.is_some_and(|info| info.name == name) || number.to_string() == name
        });
        if rows.is_empty() {
            bail!("the datapath has no service {name:?}: see `dpd service list`");
        }
        Ok(rows)
    }

    fn rows_of(&self, is_wanted: impl Fn(u32) -> bool) -> Vec<ServiceRow> {
        let services = self.state.services.iter();
        let wanted = services.filter(|(_, entry)| is_wanted(entry.service));
        let mut rows: Vec<ServiceRow> = wanted
            .map(|(frontend, entry)| self.row(frontend, entry))
            .collect();
        rows.sort_by(|a, b| a.service.cmp(&b.service));
        rows
    }

    fn row(&self, frontend: &Frontend, entry: &ServiceEntry) -> ServiceRow {
        let state = self.state;
        let info = state.catalog.services.get(&entry.service);
        let node_port = NodePort {
            port: frontend.port,
            protocol: frontend.protocol,
        };
        let is_at_node = info.is_some_and(|info| {
            info.node_ports.contains(&node_port) && !info.frontends.contains(frontend)
        });
        let sources = self.sources.get(&entry.service).cloned();
        let backends = self.backends.get(&entry.service).into_iter().flatten();
        let backends = backends.filter_map(|number| {
            let backend = state.backends.get(number)?;
            // There is no NAT between the families.
            let is_of_family = backend.address.is_ipv4() == frontend.address.is_ipv4();
            is_of_family.then(|| self.backend(*number, backend, entry))
        });
        let table_size = (entry.maglev_size > 0).then_some(entry.maglev_size);
        let seconds = |ns: u64| (ns > 0).then(|| Duration::from_nanos(ns).as_secs_f64());
        ServiceRow {
            service: info.map_or_else(|| entry.service.to_string(), |info| info.name.clone()),
            id: entry.service,
            frontend: frontend.to_string(),
            node_port: is_at_node.then(|| node_port.to_string()),
            external: entry.is_external,
            host: state.settings.netns_cookie != 0,
            sources: sources.unwrap_or_default(),
            locality: info.map(|info| info.locality).unwrap_or_default(),
            algorithm: match table_size {
                Some(_) => Algorithm::Maglev,
                None => Algorithm::Random,
            },
            table_size,
            affinity_seconds: seconds(entry.affinity_ns),
            drain_timeout_seconds: seconds(info.map_or(0, |info| info.drain_timeout_ns)),
            backends: backends.collect(),
        }
    }

    fn backend(&self, number: u32, backend: &Backend, entry: &ServiceEntry) -> BackendRow {
        let location = Location::of(self.state, backend.address.ip());
        let info = self.state.catalog.backends.get(&number);
        let open = self.open.get(&(entry.service, number)).copied();
        let left = |end: u64| Duration::from_nanos(end.saturating_sub(self.now_ns));
        let end = self.state.drain_end_ns(number);
        BackendRow {
            id: number,
            address: backend.address.to_string(),
            identity: info.and_then(|info| info.identity.clone()),
            state: backend.state.to_string(),
            drain_seconds_left: end.map(|end| left(end).as_secs_f64()),
            weight: backend.weight,
            connections: open.unwrap_or_default().kept(backend.state),
            location,
            network_path: location.network_path().filter(|_| entry.is_external),
        }
    }
}
