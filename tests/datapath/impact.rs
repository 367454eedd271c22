//! The impact analysis of a plan, compared with what the programs do: connections opened under one random configuration meet
//! another one with their next packets.

use std::net::{IpAddr, SocketAddr};

use dpd::model::conntrack::{Connection, FlowGroup};
use dpd::model::policy::Action;
use dpd::model::protocol::Protocol;
use dpd::model::state::State;
use dpd::plan::change::{ImpactAnalysis, Outcome};
use dpd::plan::policy::verdict;

use crate::common::packet::{self, Packet, echo_reply, echo_request, summary};
use crate::common::runner::{Answer, Node, Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::random::{Rng, policy};

const UPLINK: &str = "ens5";
const PAIRS: usize = 32;
const CONNECTIONS: usize = 8;
const ENDPOINTS: [(&str, &str, &str); 4] = [
    (CLIENT, "\"10.200.0.64\", \"fd00:200::64\"", "client"),
    (DNS, "\"10.200.0.44\", \"fd00:200::44\"", "kube-dns"),
    (INTRUDER, "\"10.200.0.65\", \"fd00:200::65\"", "intruder"),
    (WEB, "\"10.200.0.45\", \"fd00:200::45\"", "web"),
];
const FRONTENDS: [&str; 4] = [
    "10.32.0.10:53/udp",
    "10.32.0.10:53/tcp",
    "[fd00:32::10]:53/udp",
    "[fd00:32::10]:53/tcp",
];
/// Local ones, and a remote one of each family.
const BACKENDS: [&str; 6] = [
    "10.200.0.44:53",
    "[fd00:200::44]:53",
    "10.200.0.45:53",
    "[fd00:200::45]:53",
    "10.200.1.45:53",
    "[fd00:201::45]:53",
];

/// What the pairs of configurations differ in.
#[derive(Clone)]
struct TestConfig {
    /// By the rows of `ENDPOINTS`: the identity, or none if the file does not declare the endpoint.
    endpoints: [Option<&'static str>; 4],
    service: &'static str,
    /// By the rows of `FRONTENDS`.
    frontends: [bool; 4],
    /// By the rows of `BACKENDS`.
    backends: [Option<&'static str>; 6],
    /// An address that is remote without it.
    has_other_service: bool,
    tier: &'static str,
    office: &'static str,
    prefilter: &'static str,
    policies: Vec<String>,
    enforcement: &'static str,
    audit: bool,
    allow_host: bool,
}

impl TestConfig {
    /// Everything is declared, so that a node has all interfaces.
    fn whole() -> TestConfig {
        TestConfig {
            endpoints: ENDPOINTS.map(|(_, _, identity)| Some(identity)),
            service: "kube-dns",
            frontends: [true; 4],
            backends: [Some("active"); 6],
            has_other_service: false,
            tier: "front",
            office: "198.51.100.0/24",
            prefilter: "",
            policies: Vec::new(),
            enforcement: "default",
            audit: false,
            allow_host: true,
        }
    }

    fn random(rng: &mut Rng) -> TestConfig {
        let mut config = TestConfig::whole();
        for _ in 0..rng.below(3) {
            config.change(rng);
        }
        config
    }

    /// Changes one property.
    fn change(&mut self, rng: &mut Rng) {
        match rng.below(14) {
            0 => self.change_endpoint(rng),
            1 => self.service = ["kube-dns", "names"][rng.below(2)],
            2 => self.frontends[rng.below(4)] ^= true,
            3..=5 => {
                let states = [None, Some("active"), Some("draining"), Some("maintenance")];
                self.backends[rng.below(6)] = states[rng.below(4)];
            }
            6 => self.has_other_service ^= true,
            7 => self.tier = ["front", "back"][rng.below(2)],
            8 => {
                self.office =
                    ["198.51.100.0/24", "198.51.100.4/30", "198.51.100.128/25"][rng.below(3)]
            }
            9 => {
                let prefixes = [
                    "\"198.51.100.0/29\"",
                    "\"2001:db8:ffff::/64\", \"192.0.2.2\"",
                    "",
                ];
                self.prefilter = prefixes[rng.below(3)];
            }
            10 => {
                self.enforcement = ["default", "default", "always", "never"][rng.below(4)];
                self.audit = rng.below(5) == 0;
                self.allow_host = rng.below(3) > 0;
            }
            _ => match rng.below(4) {
                0 => drop(self.policies.pop()),
                _ => self.policies.push(policy(rng, self.policies.len())),
            },
        }
    }

    fn change_endpoint(&mut self, rng: &mut Rng) {
        let row = rng.below(4);
        let identities = ["client", "kube-dns", "intruder", "web"];
        self.endpoints[row] = match rng.below(3) {
            0 => None,
            1 => Some(ENDPOINTS[row].2),
            _ => Some(identities[rng.below(4)]),
        };
    }

    fn is_declared(&self, interface: &str) -> bool {
        let mut rows = ENDPOINTS.iter().zip(&self.endpoints);
        rows.any(|((name, ..), identity)| *name == interface && identity.is_some())
    }

    fn text(&self) -> String {
        let mut text = format!(
            r#"
[node]
addresses = ["192.0.2.1", "2001:db8::1"]
[interfaces.ens5]
role = "uplink"
[nodes.node-b]
addresses = ["192.0.2.2", "2001:db8::2"]
[identities]
client = {{ id = 20001, labels = ["tier={}"] }}
kube-dns = {{ id = 18203, labels = ["tier=back"] }}
intruder = {{ id = 20002, labels = ["tier=back"] }}
web = {{ id = 20003, labels = ["tier=front"] }}
office = {{ id = 20005, labels = ["tier=front", "tier2=back"], cidrs = ["{}", "2001:db8:ffff::/64"] }}
[conntrack]
size = 4096
[prefilter.abusers]
deny = [{}]
[policy]
enforcement = "{}"
audit = {}
allow_host = {}
"#,
            self.tier, self.office, self.prefilter, self.enforcement, self.audit, self.allow_host
        );
        for ((interface, addresses, _), identity) in ENDPOINTS.iter().zip(self.endpoints) {
            if let Some(identity) = identity {
                text += &format!(
                    "[interfaces.{interface}]\nrole = \"endpoint\"\naddresses = [{addresses}]\nidentity = \"{identity}\"\n"
                );
            }
        }
        text + &self.services() + &self.policies.concat()
    }

    fn services(&self) -> String {
        let mut text = String::new();
        let chosen = FRONTENDS
            .iter()
            .zip(self.frontends)
            .filter(|(_, chosen)| *chosen);
        let frontends: Vec<String> = chosen
            .map(|(frontend, _)| format!("{frontend:?}"))
            .collect();
        let is_v4 = |text: &str| !text.contains("[");
        // A frontend without any backend of its family is refused; a service without any backend is not.
        let backends = BACKENDS.iter().zip(self.backends);
        let backends = backends.filter_map(|(address, state)| Some((address, state?)));
        let backends: Vec<(&&str, &str)> = backends.collect();
        let fits = |frontend: &String| {
            let mut family = backends.iter().map(|(address, _)| is_v4(address));
            backends.is_empty() || family.any(|v4| v4 == is_v4(frontend))
        };
        let frontends: Vec<String> = frontends.into_iter().filter(fits).collect();
        let backends = backends
            .iter()
            .map(|(address, state)| format!("{{ address = {address:?}, state = {state:?} }}"));
        if !frontends.is_empty() {
            text += &format!(
                "[services.{}]\nfrontends = [{}]\nbackends = [{}]\n",
                self.service,
                frontends.join(", "),
                backends.collect::<Vec<_>>().join(", ")
            );
        }
        if self.has_other_service {
            text += "[services.other]\nfrontends = [\"203.0.113.9:80/tcp\", \"203.0.113.9:53/udp\"]\nbackends = [\"10.200.0.45:80\"]\n";
        }
        text
    }
}

/// Where an address is.
#[derive(Clone, Copy)]
enum Site {
    Workload(&'static str),
    Host,
    Network,
}

fn site(address: IpAddr) -> Site {
    let text = format!("\"{address}\"");
    let mut endpoints = ENDPOINTS.iter();
    match endpoints.find(|(_, addresses, _)| addresses.contains(&text)) {
        Some((interface, ..)) => Site::Workload(interface),
        None if [ip("192.0.2.1"), ip("2001:db8::1")].contains(&address) => Site::Host,
        None => Site::Network,
    }
}

/// A connection as its peers see it.
#[derive(Clone, Copy, Debug)]
struct Flow {
    protocol: u8,
    client: SocketAddr,
    destination: SocketAddr,
}

impl Flow {
    fn random(rng: &mut Rng, source_port: u16) -> Flow {
        let family = families()[rng.below(2)];
        let (other, node_b, service) = match family.is_v4() {
            true => ("203.0.113.9", "192.0.2.2", "10.32.0.10"),
            false => ("2001:db8:1::9", "2001:db8::2", "fd00:32::10"),
        };
        let local = [family.client, family.dns, family.web, family.intruder];
        let remote = [family.host, family.world, ip(other), ip(node_b)];
        let to_service = rng.below(2) == 0;
        let (client, destination) = match rng.below(5) {
            _ if to_service => (local[rng.below(4)], ip(service)),
            0..=1 => (local[rng.below(4)], local[rng.below(4)]),
            2 => (local[rng.below(4)], remote[rng.below(4)]),
            _ => (remote[rng.below(4)], local[rng.below(4)]),
        };
        let (protocol, port) = match rng.below(6) {
            nth if to_service => (if nth < 3 { 6 } else { 17 }, 53),
            0 => (if family.is_v4() { 1 } else { 58 }, 0),
            1 => (132, 53),
            2..=3 => (6, [53, 53, 80, 1024][rng.below(4)]),
            _ => (17, [53, 53, 53, 9000][rng.below(4)]),
        };
        Flow {
            protocol,
            client: at(client, source_port),
            destination: at(destination, port),
        }
    }

    fn find(&self, node: &Node) -> Option<Connection> {
        let id = self.client.port();
        let mut connections = node.connections().into_iter();
        connections.find(|found| {
            found.protocol == self.protocol
                && (found.src.ip(), found.dst.ip()) == (self.client.ip(), self.destination.ip())
                && [found.src.port(), found.dst.port()].contains(&id)
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Open,
    Reply,
    Next,
    NextReply,
}

fn build(protocol: u8, stage: Stage, id: u16, src: SocketAddr, dst: SocketAddr) -> Packet {
    match (protocol, stage) {
        (6, Stage::Open) => packet::tcp(src, dst).syn().seq(1000),
        (6, Stage::Reply) => packet::tcp(src, dst).syn().ack().seq(5000).ack_number(1001),
        (6, Stage::Next) => packet::tcp(src, dst).ack().seq(1001).ack_number(5001),
        (6, _) => packet::tcp(src, dst).ack().seq(5001).ack_number(1001),
        (17, _) => packet::udp(src, dst).payload(b"payload"),
        (132, _) => packet::sctp(src, dst),
        (_, Stage::Open | Stage::Next) => echo_request(src.ip(), dst.ip(), id, 1),
        _ => echo_reply(src.ip(), dst.ip(), id, 1),
    }
}

/// Sends a packet as it travels under this configuration; `None`: it meets no program.
fn send(node: &Node, config: &TestConfig, packet: Packet) -> Option<Answer> {
    let addresses = packet.ip().map(|ip| (ip.src, ip.dst))?;
    let (from, to) = (site(addresses.0), site(addresses.1));
    match (from, to) {
        (Site::Workload(interface), _) if config.is_declared(interface) => {
            let packet = packet.macs(workload_mac(interface), host_mac(interface));
            Some(node.from_container(interface, &packet.build()))
        }
        (Site::Network, _) => {
            let frame = packet.macs(workload_mac(UPLINK), host_mac(UPLINK)).build();
            let answer = node.xdp_entry(&frame);
            match answer.verdict {
                Verdict::Drop => Some(answer),
                _ => Some(node.from_netdev(UPLINK, &frame)),
            }
        }
        // By the routes of the host.
        (_, Site::Workload(interface)) if config.is_declared(interface) => {
            let packet = packet.macs(host_mac(interface), workload_mac(interface));
            Some(node.to_container(interface, &packet.build()))
        }
        _ => None,
    }
}

fn is_dropped(answer: &Option<Answer>) -> bool {
    answer
        .as_ref()
        .is_some_and(|answer| !answer.drops.is_empty())
}

/// An open connection, with the sockets as the backend sees them.
struct Open {
    flow: Flow,
    group: FlowGroup,
    source: SocketAddr,
    backend: SocketAddr,
}

impl Open {
    /// `None`: it can't be opened, or dpd does not track it.
    fn new(node: &Node, config: &TestConfig, flow: Flow) -> Option<Open> {
        let (protocol, id) = (flow.protocol, flow.client.port());
        let first = build(protocol, Stage::Open, id, flow.client, flow.destination);
        if is_dropped(&send(node, config, first)) {
            return None;
        }
        let found = flow.find(node)?;
        let open = Open {
            flow,
            group: group_of(&found),
            source: found.source_translation.unwrap_or(flow.client),
            backend: found.backend.unwrap_or(flow.destination),
        };
        let replied = send(node, config, open.packet(Stage::Reply));
        let acknowledged = send(node, config, open.packet(Stage::Next));
        (!is_dropped(&replied) && !is_dropped(&acknowledged)).then_some(open)
    }

    fn packet(&self, stage: Stage) -> Packet {
        let Flow {
            protocol,
            client,
            destination,
        } = self.flow;
        let id = client.port();
        match stage {
            Stage::Open | Stage::Next => build(protocol, stage, id, client, destination),
            Stage::Reply | Stage::NextReply => {
                build(protocol, stage, id, self.backend, self.source)
            }
        }
    }

    /// What becomes of the connection with its next packet and the reply to it.
    fn observe(&self, node: &Node, config: &TestConfig) -> Observed {
        let is_lost = match site(self.flow.client.ip()) {
            Site::Workload(client) => !config.is_declared(client) && self.group.is_translated(),
            Site::Host | Site::Network => false,
        };
        if is_lost {
            return Observed::Ended(Vec::new()); // nothing translates its packets
        }
        let answer = send(node, config, self.packet(Stage::Next));
        if let Some(answer) = answer.filter(|answer| !answer.drops.is_empty()) {
            return Observed::Ended(answer.drops);
        }
        let backend = |group: &FlowGroup| (group.service, group.backend_id);
        let found = self.flow.find(node).map(|found| group_of(&found));
        if found.is_some_and(|found| backend(&found) != backend(&self.group)) {
            let has_service = found.is_some_and(|found| found.service != 0);
            return match has_service || self.group.service == 0 {
                true => Observed::Moved,
                false => Observed::Ended(Vec::new()), // sent to the service address itself
            };
        }
        match send(node, config, self.packet(Stage::NextReply)) {
            Some(answer) if !answer.drops.is_empty() => Observed::Ended(answer.drops),
            _ => Observed::GoesOn,
        }
    }
}

#[derive(Debug)]
enum Observed {
    GoesOn,
    Moved,
    /// With the reasons of the drop.
    Ended(Vec<u8>),
}

fn group_of(connection: &Connection) -> FlowGroup {
    let has_ports = Protocol::from_number(connection.protocol).is_some_and(Protocol::has_ports);
    let socket = |socket: SocketAddr| at(socket.ip(), if has_ports { socket.port() } else { 0 });
    FlowGroup {
        protocol: connection.protocol,
        src: connection.src.ip(),
        dst: socket(connection.dst),
        backend: socket(connection.backend.unwrap_or(connection.dst)),
        link_local_of: [0; 2],
        snat: None,
        service: connection.service,
        is_of_socket: false,
        backend_id: connection.backend_id,
    }
}

/// Whether policy denies at least one of the backends that a moved connection may get.
fn may_be_denied(state: &State, group: &FlowGroup) -> bool {
    let mut backends = state.backends.values();
    backends.any(|backend| {
        let (to, port) = (backend.address.ip(), backend.address.port());
        to.is_ipv4() == group.src.is_ipv4()
            && verdict(state, group.src, to, group.protocol, port).action() == Action::Deny
    })
}

fn agree(state: &State, group: &FlowGroup, predicted: Option<Outcome>, seen: &Observed) -> bool {
    match (predicted, seen) {
        (None | Some(Outcome::Released), Observed::GoesOn) => true,
        (Some(Outcome::Ended), Observed::Ended(_)) => true,
        (Some(Outcome::Moved), Observed::Moved) => true,
        // Which backend it gets is random.
        (Some(Outcome::Moved), Observed::Ended(reasons)) => {
            may_be_denied(state, group) && reasons.iter().all(|reason| [133, 181].contains(reason))
        }
        _ => false,
    }
}

#[test]
fn the_predicted_impact_of_a_change_is_what_becomes_of_connections() {
    let mut rng = Rng(20_261_129);
    let node = Node::new(&TestConfig::whole().text());
    let mut source_port = 1024;
    let mut counts = [0; 4];
    for _ in 0..PAIRS {
        let old_config = TestConfig::random(&mut rng);
        node.reload(&old_config.text());
        let old = node.state();
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            source_port += 1;
            let flow = Flow::random(&mut rng, source_port);
            open.extend(Open::new(&node, &old_config, flow));
        }
        let mut new_config = old_config.clone();
        for _ in 0..2 + rng.below(4) {
            new_config.change(&mut rng);
        }
        node.reload(&new_config.text());
        let new = node.state();
        let mut analysis = ImpactAnalysis::new(&old, &new);
        for connection in &open {
            let impact = analysis.impact(&connection.group);
            let predicted = impact.as_ref().map(|impact| impact.outcome);
            let seen = connection.observe(&node, &new_config);
            assert!(
                agree(&new, &connection.group, predicted, &seen),
                "predicted {impact:?}, but {seen:?}:\n{}\nas {:?}, opened under\n{}\nthen\n{}",
                summary(&connection.packet(Stage::Next).build()),
                connection.group,
                old_config.text(),
                new_config.text()
            );
            counts[match predicted {
                None => 0,
                Some(Outcome::Ended) => 1,
                Some(Outcome::Moved) => 2,
                Some(Outcome::Released) => 3,
            }] += 1;
        }
    }
    let [goes_on, ended, moved, released] = counts;
    assert!(
        goes_on > 100 && ended > 30 && moved > 3 && released > 0,
        "{counts:?}: the numbers are of no use"
    );
}
