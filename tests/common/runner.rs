//! A node for test runs: the real programs with the real tables, in a network namespace of its own, run on packets
//! that the test has built. Nothing is attached, so that no other packet ever meets them.
#![allow(
    clippy::wrong_self_convention,
    reason = "the hooks' names say where packets come from"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use dpd::bpf::attach::hook::Hook;
use dpd::model::conntrack::{Connection, Tally};
use dpd::model::flow::Flow;
use dpd::model::state::State;
use dpd::model::status::{EndpointCounts, EventLoss, ProgramStatus};
use libbpf_rs::MapHandle;
use tempfile::TempDir;

use super::namespace::Namespace;
use super::packet::Mac;
use super::programs::{Bench, Programs};

/// What a hook did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `bpf_redirect` of some kind was called: to another workload, or back to the sender.
    Redirect,
    /// On to whatever stands behind us on the hook.
    Pass,
    Drop,
}

/// How many segments a packet stands for, which the kernel has merged into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub count: u16,
    /// Bytes of payload in each but the last.
    pub size: u16,
}

/// The outcome of one packet.
#[derive(Clone, Debug)]
pub struct Answer {
    pub verdict: Verdict,
    /// The frame as the hook left it.
    pub packet: Vec<u8>,
    /// What it made the datapath report.
    pub events: Vec<Flow>,
    /// The reasons under which drops were counted, in rising order.
    pub drops: Vec<u8>,
    /// Drops whose report was suppressed, or lost and counted.
    pub suppressed: u64,
}

/// The datapath of one node, as a test drives it. Implemented over the real programs.
pub trait Datapath {
    /// Runs a frame through `dpd_from_container` as if the workload behind `interface` had sent it.
    fn from_container(&self, interface: &str, frame: &[u8], merged: Merged) -> Answer;
    /// Runs a frame through `dpd_to_container` as if the host's stack had sent it to the workload.
    fn to_container(&self, interface: &str, frame: &[u8]) -> Answer;
    /// The same of a packet with a mark that arrived at another interface; "": it is the host's own.
    fn to_container_from(
        &self,
        arrived_at: &str,
        interface: &str,
        frame: &[u8],
        mark: u32,
    ) -> Answer;
    /// Runs a frame through `dpd_from_netdev` as if it had come from the network.
    fn from_netdev(&self, interface: &str, frame: &[u8], merged: Merged) -> Answer;
    fn from_l3dev(&self, interface: &str, frame: &[u8]) -> Answer;
    /// Runs a frame through `dpd_to_netdev` as if it left for the network.
    fn to_netdev(&self, interface: &str, frame: &[u8]) -> Answer;
    /// Runs a frame through `dpd_xdp_entry`. It comes in by `lo`, since the kernel wants an interface with XDP memory.
    fn xdp_entry(&self, frame: &[u8]) -> Answer;
    /// How long each of these frames takes, one after the other, at a hook of this interface.
    fn time(&self, hook: Hook, interface: &str, frames: Vec<Vec<u8>>) -> Vec<Duration>;
    /// The same in `dpd_xdp_entry`.
    fn time_xdp(&self, frames: Vec<Vec<u8>>) -> Vec<Duration>;
    /// The connections that the tables hold, oldest first.
    fn connections(&self) -> Vec<Connection>;
    /// Takes the entry of packets of this protocol from here to there away, as the kernel does with the least used one
    /// when a table is full.
    fn evict(&self, protocol: u8, src: SocketAddr, dst: SocketAddr);
    /// Adds so many connections that look like those that are there, from other clients.
    fn multiply(&self, connections: u32);
    /// How long the sweeper takes for one walk over all connections.
    fn sweep(&self) -> Duration;
    /// What such a walk counts.
    fn tally(&self) -> Tally;
    /// As if no daemon had run for a long time: nothing was swept, no count set right.
    fn neglect(&self);
    /// Frames that XDP counted as malformed.
    fn xdp_malformed(&self) -> u64;
    /// How many entries one of the conntrack tables has.
    fn conntrack_rows(&self, table: &str) -> usize;
    /// Errors and resets that were not sent: too many a second.
    fn responses_limited(&self) -> u64;
    /// What became of an endpoint's packets.
    fn endpoint_counts(&self, interface: &str) -> EndpointCounts;
    /// The mark of packets that a hook has judged.
    fn mark(&self) -> u32;
    /// Takes the step at this place out of the chain.
    fn break_chain(&self, place: u32);
    /// Takes the live table of settings away.
    fn lose_settings(&self);
    /// Says that the interface is no endpoint for so many epochs, whatever the table of those says after them.
    fn announce(&self, interface: &str, epochs: u64);
    /// What the kernel says of the programs.
    fn programs(&self) -> Vec<ProgramStatus>;
    /// Makes the tables those of the changed configuration.
    fn reload(&self, config: &Path);
    /// The hits of each rule, by its name.
    fn rule_hits(&self) -> BTreeMap<String, u64>;
    /// Takes the drops that were suppressed, as the daemon would so much later.
    fn suppressed_drops(&self, later: Duration) -> Vec<Flow>;
    /// What the tables hold.
    fn state(&self) -> State;
    fn event_loss(&self) -> EventLoss;
    /// The programs for threads of the test's own, in addition to what the datapath is asked for here.
    fn bench(&self) -> Bench;
    /// A map of the datapath, for what is asked nowhere else.
    fn map(&self, name: &str) -> MapHandle;
}

/// A node with one veth pair for each interface of its configuration; an uplink leads everywhere.
pub struct Node {
    datapath: Box<dyn Datapath>,
    config: TempDir,
    /// After the datapath: maps and programs go first.
    namespace: Namespace,
    _workloads: Namespace,
}

impl Node {
    /// Lays the interfaces, loads the programs and fills the tables from the text of a configuration file.
    pub fn new(config_toml: &str) -> Node {
        let (namespace, workloads) = (Namespace::new(), Namespace::new());
        lay_interfaces(&namespace, &workloads, config_toml);
        let config = tempfile::tempdir().expect("make a folder for the configuration");
        let path = config.path().join("config.toml");
        fs::write(&path, config_toml).expect("write the configuration");
        let datapath = Box::new(Programs::load(&namespace, &path));
        Node {
            datapath,
            config,
            namespace,
            _workloads: workloads,
        }
    }

    pub fn from_container(&self, interface: &str, frame: &[u8]) -> Answer {
        self.from_container_merged(interface, frame, Merged::default())
    }

    pub fn from_container_merged(&self, interface: &str, frame: &[u8], merged: Merged) -> Answer {
        self.datapath.from_container(interface, frame, merged)
    }

    pub fn to_container(&self, interface: &str, frame: &[u8]) -> Answer {
        self.datapath.to_container(interface, frame)
    }

    pub fn to_container_from(
        &self,
        arrived_at: &str,
        interface: &str,
        frame: &[u8],
        mark: u32,
    ) -> Answer {
        self.datapath
            .to_container_from(arrived_at, interface, frame, mark)
    }

    pub fn conntrack_rows(&self, table: &str) -> usize {
        self.datapath.conntrack_rows(table)
    }

    pub fn responses_limited(&self) -> u64 {
        self.datapath.responses_limited()
    }

    pub fn endpoint_counts(&self, interface: &str) -> EndpointCounts {
        self.datapath.endpoint_counts(interface)
    }

    pub fn mark(&self) -> u32 {
        self.datapath.mark()
    }

    pub fn from_netdev(&self, interface: &str, frame: &[u8]) -> Answer {
        self.from_netdev_merged(interface, frame, Merged::default())
    }

    /// From the network by an uplink without Ethernet headers. A test run starts at one, as packets of XFRM interfaces do.
    pub fn from_l3dev(&self, interface: &str, frame: &[u8]) -> Answer {
        self.datapath.from_l3dev(interface, frame)
    }

    pub fn from_netdev_merged(&self, interface: &str, frame: &[u8], merged: Merged) -> Answer {
        self.datapath.from_netdev(interface, frame, merged)
    }

    pub fn to_netdev(&self, interface: &str, frame: &[u8]) -> Answer {
        self.datapath.to_netdev(interface, frame)
    }

    pub fn xdp_entry(&self, frame: &[u8]) -> Answer {
        self.datapath.xdp_entry(frame)
    }

    pub fn time(&self, hook: Hook, interface: &str, frames: Vec<Vec<u8>>) -> Vec<Duration> {
        self.datapath.time(hook, interface, frames)
    }

    pub fn time_xdp(&self, frames: Vec<Vec<u8>>) -> Vec<Duration> {
        self.datapath.time_xdp(frames)
    }

    pub fn connections(&self) -> Vec<Connection> {
        self.datapath.connections()
    }

    pub fn evict(&self, protocol: u8, src: SocketAddr, dst: SocketAddr) {
        self.datapath.evict(protocol, src, dst);
    }

    pub fn multiply(&self, connections: u32) {
        self.datapath.multiply(connections);
    }

    pub fn sweep(&self) -> Duration {
        self.datapath.sweep()
    }

    pub fn tally(&self) -> Tally {
        self.datapath.tally()
    }

    pub fn neglect(&self) {
        self.datapath.neglect();
    }

    pub fn break_chain(&self, place: u32) {
        self.datapath.break_chain(place);
    }

    pub fn lose_settings(&self) {
        self.datapath.lose_settings();
    }

    pub fn announce(&self, interface: &str, epochs: u64) {
        self.datapath.announce(interface, epochs);
    }

    pub fn xdp_malformed(&self) -> u64 {
        self.datapath.xdp_malformed()
    }

    pub fn programs(&self) -> Vec<ProgramStatus> {
        self.datapath.programs()
    }

    pub fn rule_hits(&self) -> BTreeMap<String, u64> {
        self.datapath.rule_hits()
    }

    pub fn suppressed_drops(&self, later: Duration) -> Vec<Flow> {
        self.datapath.suppressed_drops(later)
    }

    pub fn state(&self) -> State {
        self.datapath.state()
    }

    pub fn event_loss(&self) -> EventLoss {
        self.datapath.event_loss()
    }

    pub fn reload(&self, config_toml: &str) {
        let path = self.config.path().join("config.toml");
        fs::write(&path, config_toml).expect("write the configuration");
        self.datapath.reload(&path);
    }

    pub fn bench(&self) -> Bench {
        self.datapath.bench()
    }

    pub fn map(&self, name: &str) -> MapHandle {
        self.datapath.map(name)
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

/// The host's side of a workload's link. Known from the name, so that expected packets can be written down.
pub fn host_mac(interface: &str) -> Mac {
    mac_of(0x02, interface)
}

/// The workload's side.
pub fn workload_mac(interface: &str) -> Mac {
    mac_of(0x06, interface)
}

/// A locally administered address from a hash of the name (FNV-1a).
fn mac_of(first: u8, interface: &str) -> Mac {
    let hash = interface
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    [first, a, b, c, d, e]
}

fn lay_interfaces(namespace: &Namespace, workloads: &Namespace, config_toml: &str) {
    let config: toml::Table = config_toml
        .parse()
        .expect("a test's configuration is valid TOML");
    for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        namespace.sysctl(setting);
    }
    // Nothing but the test's packets: no router solicitations, no reports of groups.
    workloads.sysctl("net.ipv6.conf.default.disable_ipv6=1");
    for address in addresses(config.get("node")) {
        namespace.ip(&format!("address add {address} dev lo"));
    }
    let Some(interfaces) = config.get("interfaces").and_then(toml::Value::as_table) else {
        return;
    };
    for (number, (name, settings)) in interfaces.iter().enumerate() {
        namespace.ip(&format!(
            "link add {name} address {} type veth peer name workload{number} address {} netns {}",
            text_of(host_mac(name)),
            text_of(workload_mac(name)),
            workloads.pid()
        ));
        workloads.ip(&format!("link set workload{number} up"));
        namespace.ip(&format!("link set {name} up"));
        for address in addresses(Some(settings)) {
            namespace.ip(&format!("route add {address} dev {name}"));
        }
        if settings.get("role").and_then(toml::Value::as_str) == Some("uplink") {
            lead_everywhere(namespace, name, number);
        }
    }
}

/// By a router whose MAC is known: nothing waits for it. The first uplink's route is the one that counts.
fn lead_everywhere(namespace: &Namespace, uplink: &str, number: usize) {
    for (family, router) in [("-4", "198.18.0.1"), ("-6", "fe80::9")] {
        let mac = text_of(workload_mac(uplink));
        namespace.ip(&format!(
            "{family} route add default via {router} dev {uplink} onlink metric {}",
            100 + number
        ));
        namespace.ip(&format!(
            "neigh add {router} lladdr {mac} dev {uplink} nud permanent"
        ));
    }
}

/// The `addresses` of a table of the file.
fn addresses(table: Option<&toml::Value>) -> Vec<String> {
    let list = table
        .and_then(|table| table.get("addresses"))
        .and_then(toml::Value::as_array);
    let texts = list.into_iter().flatten().filter_map(toml::Value::as_str);
    texts.map(str::to_owned).collect()
}

fn text_of(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}
