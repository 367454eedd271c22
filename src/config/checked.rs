//! The checked configuration: what the program works with. These types can't hold a wrong value.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::catalog::InEffect;
use crate::model::families::Families;
use crate::model::forwarding::ForwardingMode;
use crate::model::maglev::table_size;
use crate::model::policy::{Action, Peer, Ports};
use crate::model::service::{Algorithm, BackendState, Frontend, Locality, NodePort};
use crate::model::state::Aggregation;
use crate::model::xdp::XdpMode;

/// A whole checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The main file, as it was named.
    pub path: PathBuf,
    pub node: Node,
    pub daemon: Daemon,
    /// By Linux interface name.
    pub interfaces: BTreeMap<String, Interface>,
    pub identities: BTreeMap<String, Identity>,
    pub services: BTreeMap<String, Service>,
    pub policies: BTreeMap<String, Policy>,
    /// The other nodes by name.
    pub nodes: BTreeMap<String, RemoteNode>,
    /// Prefixes that the uplinks drop, by the name of their table. A prefix may be in several tables.
    pub prefilter: BTreeMap<String, Vec<IpNet>>,
    pub masquerade: MasqueradeSettings,
    pub host: HostSettings,
    pub policy: PolicySettings,
    pub conntrack: Conntrack,
    pub events: Events,
    /// The runtime drop-ins that are part of it.
    pub drop_ins: InEffect,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    /// `None`: all addresses of the host, on its uplinks and other interfaces.
    pub addresses: Option<Vec<IpAddr>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Daemon {
    pub bpf_root: PathBuf,
    pub socket: PathBuf,
    /// The folder of the runtime drop-ins; `None`: there are none.
    pub runtime_config: Option<PathBuf>,
    pub log: LogTarget,
    /// The address that Prometheus reads from; `None`: no metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Whether RCU grace periods of the whole host may be expedited while many programs are attached or detached.
    pub expedite_rcu: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// journald if it runs and stderr is connected to it, else stderr.
    Auto,
    Journald,
    Stderr,
}

/// An interface by its role.
#[derive(Clone, Debug, PartialEq)]
pub enum Interface {
    /// The host side of a workload's link.
    Endpoint {
        /// The allowed source addresses; a single address is a prefix of full length.
        addresses: Vec<IpNet>,
        /// A name of `identities`.
        identity: String,
        /// Its multicast and broadcast pass on to the host or its bridge, and theirs to it.
        multicast: bool,
    },
    /// The host's link to the network.
    Uplink {
        xdp: XdpMode,
        forwarding: ForwardingMode,
        masquerade: Families,
        /// It answers ARP and neighbour discovery for external frontends that no interface of the host has.
        l2_announce: bool,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct MasqueradeSettings {
    /// Destinations that see the workloads' own addresses.
    pub except: Vec<IpNet>,
}

/// What the host's own processes have of dpd.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSettings {
    /// Their sockets reach the services.
    pub services: bool,
}

/// Another node.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteNode {
    pub addresses: Vec<IpAddr>,
    /// The addresses of its workloads.
    pub cidrs: Vec<IpNet>,
    /// The identities of single workloads, as names of `identities`.
    pub endpoints: BTreeMap<IpAddr, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// 256 to 65535.
    pub id: u32,
    /// (key, value) in the file's order.
    pub labels: Vec<(String, String)>,
    /// Remote addresses that have it.
    pub cidrs: Vec<IpNet>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    pub frontends: Vec<Frontend>,
    /// The ports that are frontends at every address of this host.
    pub node_ports: Vec<NodePort>,
    /// The network reaches it by the uplinks.
    pub external: bool,
    /// Who of the network may; empty: everybody.
    pub sources: Vec<IpNet>,
    pub locality: Locality,
    pub algorithm: Algorithm,
    /// The size of the Maglev tables, one of `TABLE_SIZES`; `None`: by the number of backends.
    pub table_size: Option<u32>,
    /// How long a client keeps its backend after its last packet; zero: it does not.
    pub affinity: Duration,
    /// How long connections of a backend that drains or has left the file may continue; zero: those of a draining one
    /// have no limit, those of one that has left end at once.
    pub drain_timeout: Duration,
    /// Those by address.
    pub backends: Vec<Backend>,
    /// Those by identity: `Members` has their addresses.
    pub identity_backends: Vec<IdentityBackends>,
}

impl Service {
    /// The size of its Maglev tables in a family with so many backends; `None`: it has none. All backends count, so that one that
    /// drains or is under maintenance changes no size.
    pub fn maglev_size(&self, backends: usize) -> Option<u32> {
        match self.algorithm {
            Algorithm::Random => None,
            Algorithm::Maglev => Some(self.table_size.unwrap_or_else(|| table_size(backends))),
        }
    }

    /// The families in which it may have backends: both with one by identity, whose workloads come and go.
    pub fn families(&self) -> Families {
        if !self.identity_backends.is_empty() {
            return Families::BOTH;
        }
        let backends = self.backends.iter();
        backends.fold(Families::NONE, |families, backend| {
            families.union(Families::of(backend.address.ip()))
        })
    }

    /// The frontends that its node ports are at these addresses: in the families of its backends.
    pub fn frontends_at(&self, addresses: impl Iterator<Item = IpAddr>) -> Vec<Frontend> {
        if self.node_ports.is_empty() {
            return Vec::new();
        }
        let families = self.families();
        let served = addresses.filter(|address| families.covers(*address));
        served
            .flat_map(|address| self.node_ports.iter().map(move |port| port.at(address)))
            .collect()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub address: SocketAddr,
    /// 0 to 65535; 0: gets no new connections.
    pub weight: u16,
    pub state: BackendState,
}

/// The backends that an identity stands for: each single address of its workloads, at this port.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityBackends {
    /// A name of `identities`.
    pub identity: String,
    pub port: u16,
    /// Of each backend; as of [`Backend`].
    pub weight: u16,
    pub state: BackendState,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// A name of `identities`.
    pub subject: String,
    /// `None`: the policy does not concern the direction; empty: nothing is allowed.
    pub ingress: Option<Vec<Rule>>,
    pub egress: Option<Vec<Rule>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `from` of an ingress rule, `to` of an egress rule.
    pub peers: Vec<Peer>,
    /// Empty: all traffic.
    pub ports: Vec<Ports>,
    pub action: Action,
    /// Where the rule is defined.
    pub location: SourceLocation,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnforcementMode {
    Default,
    Always,
    Never,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PolicySettings {
    pub enforcement: EnforcementMode,
    pub audit: bool,
    pub allow_host: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Conntrack {
    /// Connections.
    pub size: u32,
    /// 0: no limit; `None`: half of each conntrack table.
    pub per_endpoint: Option<u32>,
    pub strict: bool,
    pub tcp: Duration,
    pub tcp_syn: Duration,
    pub tcp_close: Duration,
    pub udp: Duration,
    pub udp_once: Duration,
    pub icmp: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Events {
    pub aggregation: Aggregation,
    pub interval: Duration,
    /// Events a second on each CPU.
    pub rate: u32,
    pub journal: JournalFlows,
}

/// Which flow lines go to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalFlows {
    Drops,
    All,
    Off,
}
