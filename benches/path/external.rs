//! Services that the network reaches, with their backend here or on another host, and masquerade.

use std::net::SocketAddr;

use super::{CLIENT, ROUTER, Row, SERVER, Sent, UPLINK, local};
use crate::common::packet::{Packet, tcp, udp};
use crate::common::runner::{Node, Verdict, host_mac};
use dpd::bpf::attach::hook::Hook;

const ADDED: &str = r#"
[masquerade]
except = ["10.0.0.0/8"]

[nodes.node-b]
addresses = ["192.0.2.2"]
cidrs = ["10.200.1.0/24"]

[services.here]
frontends = ["203.0.113.80:443/udp", "203.0.113.80:443/tcp"]
backends = ["10.200.0.44:7000"]
external = true

[services.elsewhere]
frontends = ["203.0.113.81:443/udp", "203.0.113.81:443/tcp"]
backends = ["10.200.1.44:7000"]
external = true

[policies.network]
subject = "server"
ingress = [{ from = ["world"], ports = ["7000/tcp"] }]
"#;
const AT_THE_HOST: &str = r#"
[services.host]
frontends = ["192.0.2.1:443/udp", "192.0.2.1:443/tcp"]
backends = ["10.200.0.44:7000"]
external = true
"#;
/// The only source port of SNAT in rows that need to know it.
const PORT: u16 = 40_000;
const ONE_PORT: &str = "net.ipv4.ip_local_reserved_ports=1024-39999,40001-65535";

/// With services at addresses that are routed to the node, SNAT and masquerade.
pub fn routed() -> String {
    let masquerade = "role = \"uplink\"\nmasquerade = \"ipv4\"";
    local::CONFIG.replace("role = \"uplink\"", masquerade) + ADDED
}

/// And with a service at the host's own address.
pub fn config() -> String {
    routed() + AT_THE_HOST
}

/// A node for the row: established connections have the known source port.
pub fn node(config: &str, row: &Row) -> Node {
    let node = Node::new(config);
    if !row.before.is_empty() {
        node.namespace().sysctl(ONE_PORT);
        node.reload(config);
    }
    node
}

/// A way through the node: the addresses as the opener knows them, and as its peer does.
#[derive(Clone, Copy)]
struct Way {
    what: &'static str,
    client: &'static str,
    server: SocketAddr,
    opener: (Hook, &'static str),
    /// With a source of this host, if it is translated.
    source: Option<&'static str>,
    backend: SocketAddr,
    peer: (Hook, &'static str),
}

fn ways() -> [Way; 4] {
    let address = |text: &str| text.parse().expect("an address");
    let (network, server) = ((Hook::FromNetdev, UPLINK), (Hook::FromContainer, SERVER));
    [
        Way {
            what: "to a backend here",
            client: "203.0.113.9",
            server: address("203.0.113.80:443"),
            opener: network,
            source: None,
            backend: address("10.200.0.44:7000"),
            peer: server,
        },
        Way {
            what: "by the host's address",
            client: "203.0.113.9",
            server: address("192.0.2.1:443"),
            opener: network,
            source: None,
            backend: address("10.200.0.44:7000"),
            peer: server,
        },
        Way {
            what: "to another host (SNAT)",
            client: "203.0.113.9",
            server: address("203.0.113.81:443"),
            opener: network,
            source: Some("192.0.2.1"),
            backend: address("10.200.1.44:7000"),
            peer: network,
        },
        Way {
            what: "masqueraded",
            client: "10.200.0.64",
            server: address("203.0.113.9:443"),
            opener: (Hook::FromContainer, CLIENT),
            source: Some("192.0.2.1"),
            backend: address("203.0.113.9:443"),
            peer: network,
        },
    ]
}

type Build = fn(SocketAddr, SocketAddr) -> Packet;

impl Way {
    /// A packet of the client's port, as the node gets it.
    fn out(self, port: u16, build: Build) -> Sent {
        let client = SocketAddr::new(self.client.parse().expect("an address"), port);
        sent(self.opener, build(client, self.server))
    }

    fn back(self, port: u16, build: Build) -> Sent {
        let (ip, port) = match self.source {
            Some(source) => (source, PORT),
            None => (self.client, port),
        };
        let source = SocketAddr::new(ip.parse().expect("an address"), port);
        sent(self.peer, build(self.backend, source))
    }

    fn row(self, what: &str, is_back: bool, before: Vec<Sent>, build: Build) -> Row {
        let is_new = before.is_empty();
        let (hook, interface) = if is_back { self.peer } else { self.opener };
        Row {
            what: format!("{}: {what}", self.what),
            hook,
            interface,
            before,
            verdict: Verdict::Redirect,
            packet: Box::new(move |number| {
                let port = if is_new { number } else { 9 };
                let sent = match is_back {
                    true => self.back(port, build),
                    false => self.out(port, build),
                };
                sent.2
            }),
        }
    }

    fn rows(self) -> Vec<Row> {
        let udp: Build = |src, dst| udp(src, dst).payload(&[0; 36]);
        let syn: Build = |src, dst| tcp(src, dst).syn().seq(1000);
        let syn_ack: Build = |src, dst| tcp(src, dst).syn().ack().seq(7).ack_number(1001);
        let data: Build = |src, dst| {
            let segment = tcp(src, dst).ack().seq(1001).ack_number(8);
            segment.payload(&[0; 36])
        };
        let data_back: Build = |src, dst| {
            let segment = tcp(src, dst).ack().seq(8).ack_number(1001);
            segment.payload(&[0; 36])
        };
        let flow = |packets: [Build; 4]| {
            let [first, second, third, fourth] = packets;
            vec![
                self.out(9, first),
                self.back(9, second),
                self.out(9, third),
                self.back(9, fourth),
            ]
        };
        let in_udp = || flow([udp, udp, udp, udp]);
        let in_tcp = || flow([syn, syn_ack, data, data_back]);
        vec![
            self.row("UDP, established", false, in_udp(), udp),
            self.row("UDP reply, established", true, in_udp(), udp),
            self.row("TCP, established", false, in_tcp(), data),
            self.row("TCP reply, established", true, in_tcp(), data_back),
            self.row("UDP, a new connection", false, vec![], udp),
            self.row("TCP, a new connection", false, vec![], syn),
        ]
    }
}

fn sent((hook, interface): (Hook, &'static str), packet: Packet) -> Sent {
    let packet = match hook {
        Hook::FromNetdev => packet.macs(ROUTER, host_mac(interface)),
        _ => packet,
    };
    (hook, interface, packet)
}

pub fn rows() -> Vec<Row> {
    ways().into_iter().flat_map(Way::rows).collect()
}

/// What the network sends to servers of the host itself.
pub fn rows_of_the_host(services: &str) -> [Row; 2] {
    let row = |protocol: &str, packet: fn(u16) -> Packet| Row {
        what: format!("the host's own {protocol}, services {services}"),
        hook: Hook::FromNetdev,
        interface: UPLINK,
        before: vec![],
        verdict: Verdict::Pass,
        packet: Box::new(packet),
    };
    [row("UDP", local::foreign), row("TCP", local::foreign_tcp)]
}
