//! The configuration: what the program works with once a file has been read and checked.
//!
//! A file passes through `load` (reading), `tree` (TOML, several files joined), `shape` (the tree against the keys of
//! `schema`) and `check` (what values mean and whether they fit together); `report` gathers every problem on the way.
//! The types here are the end of it: they can't hold a wrong value.

mod check;
mod load;
mod name;
mod path;
mod problem;
mod report;
mod schema;
mod section;
mod shape;
mod source;
mod tree;
mod value;

pub use load::{
    Loaded, SIZE_MAX, drop_in_folder, drop_ins, is_drop_in, load, load_again, read_lossy,
};
pub use problem::{Excerpt, Note, Problem, Problems, Severity};
pub use schema::keys;
pub use source::Source;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::policy::{Action, Peer, Ports};
use crate::model::service::{BackendState, Frontend};
use crate::model::state::Aggregation;
pub use crate::model::state::XdpMode;

/// Checks the texts of a configuration, the main file first.
///
/// The error holds every problem of all texts; where one is not even TOML, what is wrong with its form.
pub fn parse(sources: Vec<Source>) -> Result<Config, Problems> {
    check_sources(&sources, &load::host_name()).map(|(config, _)| config)
}

/// The configuration and its warnings. Without `node.name` the node is called `host_name`.
fn check_sources(sources: &[Source], host_name: &str) -> Result<(Config, Vec<Problem>), Problems> {
    let files = source::Files::new(sources);
    let mut report = report::Report::default();
    let config = tree::read(sources, &mut report).map(|root| {
        shape::check(&root, &mut report);
        check::config(&root, &files, host_name, &mut report)
    });
    let has_errors = report.has_errors();
    let problems = report.into_problems(&files);
    match config.filter(|_| !has_errors) {
        Some(config) => Ok((config, problems)),
        None => Err(Problems(problems)),
    }
}

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
    /// The other hosts by name.
    pub nodes: BTreeMap<String, RemoteNode>,
    /// Prefixes that the uplinks drop, by the name of their table. A prefix may stand in several tables.
    pub prefilter: BTreeMap<String, Vec<IpNet>>,
    pub policy: PolicySettings,
    pub conntrack: Conntrack,
    pub events: Events,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    /// `None`: all that the host has, on its uplinks and elsewhere.
    pub addresses: Option<Vec<IpAddr>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Daemon {
    pub bpf_root: PathBuf,
    pub socket: PathBuf,
    pub log: LogTarget,
    /// Where Prometheus reads; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// journald if it is there and stderr is its stream, else stderr.
    Auto,
    Journald,
    Stderr,
}

/// What an interface is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Interface {
    /// The host side of a workload's link.
    Endpoint {
        /// What it may send from; a whole address is a prefix of full length.
        addresses: Vec<IpNet>,
        /// A name of `identities`.
        identity: String,
    },
    /// The host's link to the network.
    Uplink { xdp: XdpMode },
}

/// Another host.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteNode {
    pub addresses: Vec<IpAddr>,
    /// The workloads behind it.
    pub cidrs: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// 256 to 65535.
    pub id: u32,
    /// (key, value) in the file's order.
    pub labels: Vec<(String, String)>,
    /// Addresses elsewhere that carry it.
    pub cidrs: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub frontends: Vec<Frontend>,
    pub backends: Vec<Backend>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub address: SocketAddr,
    /// 0 to 65535; 0: gets nothing new.
    pub weight: u16,
    pub state: BackendState,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// A name of `identities`.
    pub subject: String,
    /// `None`: the policy does not name the direction; empty: nothing passes.
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
    /// Where the rule stands.
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
    /// 0: no bound.
    pub per_endpoint: u32,
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
