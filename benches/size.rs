//! The cost of packets by the size of everything else: connections, services, rules, prefixes, endpoints; and the time
//! to sweep the connections. By test runs, all sizes in turn, so that the ratios hold.

#[path = "../tests/common/mod.rs"]
mod common;
mod generate;

use std::net::Ipv4Addr;

use common::packet::{Packet, tcp, udp};
use common::runner::Node;
use dpd::bpf::attach::hook::Hook;
use generate::Size;

const CONFIG: &str = r#"
[node]
name = "node-a"
addresses = ["192.0.2.1"]

[interfaces.lxc-client]
role = "endpoint"
addresses = ["10.200.0.64"]
identity = "client"

[interfaces.lxc-server]
role = "endpoint"
addresses = ["10.200.0.44"]
identity = "server"

[identities]
client = { id = 65500 }
server = { id = 65501 }

[services.echo]
frontends = ["10.32.0.10:7/udp", "10.32.0.10:7/tcp"]
backends = ["10.200.0.44:7000"]

[policies.clients]
subject = "server"
ingress = [{ from = ["client"], ports = ["7000/udp", "7000/tcp"] }]
"#;

const CLIENT: &str = "lxc-client";
const SERVER: &str = "lxc-server";
const ROUNDS: usize = 5;
/// Packets of each kind in a round.
const PACKETS: u16 = 2000;
/// Connections that the largest table of the sweep holds.
const MANY: u32 = 1_000_000;

struct Row {
    what: &'static str,
    size: Size,
    connections: u32,
}

const NONE: Size = Size {
    services: 0,
    backends_per_service: 0,
    endpoints: 0,
    identities: 0,
    rules: 0,
    prefixes: 0,
};

const ROWS: [Row; 8] = [
    row("nothing else", NONE, 0),
    row("10,000 connections", NONE, 10_000),
    row("100,000 connections", NONE, 100_000),
    row("1,000,000 connections", NONE, MANY),
    row(
        "100,000 services of 10 backends",
        Size {
            services: 100_000,
            backends_per_service: 10,
            ..NONE
        },
        0,
    ),
    row(
        "20,000 rules, 5,000 identities",
        Size {
            identities: 5_000,
            rules: 20_000,
            ..NONE
        },
        0,
    ),
    row(
        "50,000 prefixes",
        Size {
            identities: 1_000,
            prefixes: 50_000,
            ..NONE
        },
        0,
    ),
    row(
        "1,000 endpoints",
        Size {
            identities: 100,
            endpoints: 1_000,
            ..NONE
        },
        0,
    ),
];

const fn row(what: &'static str, size: Size, connections: u32) -> Row {
    Row {
        what,
        size,
        connections,
    }
}

fn request(port: u16) -> Packet {
    udp(format!("10.200.0.64:{port}").as_str(), "10.32.0.10:7").payload(&[0; 36])
}

fn reply(port: u16) -> Packet {
    udp("10.200.0.44:7000", format!("10.200.0.64:{port}").as_str()).payload(&[0; 36])
}

fn segment(port: u16) -> Packet {
    tcp(format!("10.200.0.64:{port}").as_str(), "10.32.0.10:7").ack()
}

fn segment_back(port: u16) -> Packet {
    tcp("10.200.0.44:7000", format!("10.200.0.64:{port}").as_str()).ack()
}

/// To one of the generated prefixes, spread over them by the number.
fn afar(number: u32) -> Packet {
    let scattered = number.wrapping_mul(0x9e37_79b9) % 50_000;
    let to = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + scattered * 4);
    udp(
        format!("10.200.0.64:{}", number % 60_000 + 1).as_str(),
        format!("{to}:9").as_str(),
    )
}

/// A node of this size, with a flow of UDP and one of TCP.
fn node(row: &Row) -> Node {
    let generated = generate::config(&row.size);
    let tables = generated
        .split_once("\n\n")
        .map_or("", |(_, tables)| tables);
    let conntrack = format!("\n[conntrack]\nsize = {}\n", row.connections.max(131_072));
    let node = Node::new(&format!("{CONFIG}{conntrack}\n{tables}"));
    for _ in 0..2 {
        for (interface, packet) in [
            (CLIENT, request(9)),
            (SERVER, reply(9)),
            (CLIENT, segment(9)),
            (SERVER, segment_back(9)),
        ] {
            time(&node, interface, vec![packet.build()]);
        }
    }
    node.multiply(row.connections);
    node
}

fn time(node: &Node, interface: &str, frames: Vec<Vec<u8>>) -> u128 {
    let mut times = node.time(Hook::FromContainer, interface, frames);
    times.sort_unstable();
    times[times.len() / 2].as_nanos()
}

/// Medians of the rounds: established UDP, established TCP, a new connection of UDP to the service, and one to an address
/// without other connections.
#[derive(Default)]
struct Figures([Vec<u128>; KINDS]);

const KINDS: usize = 4;

impl Figures {
    fn median(&self, kind: usize) -> f64 {
        let mut rounds = self.0[kind].clone();
        rounds.sort_unstable();
        rounds[rounds.len() / 2] as f64
    }
}

fn main() {
    println!(
        "nanoseconds a packet by test runs, medians of {ROUNDS} rounds in turn, and the ratio to nothing else\n{:34} {:>14} {:>14} {:>14} {:>14}",
        "beside", "UDP", "TCP", "new UDP", "new, afar"
    );
    let nodes: Vec<Node> = ROWS.iter().map(node).collect();
    let mut figures: Vec<Figures> = ROWS.iter().map(|_| Figures::default()).collect();
    for round in 0..ROUNDS as u16 {
        for (node, figures) in nodes.iter().zip(&mut figures) {
            let repeated = |packet: Packet| vec![packet.build(); PACKETS.into()];
            let first = 10_000 + round * PACKETS;
            let fresh = (first..first + PACKETS).map(|port| request(port).build());
            figures.0[0].push(time(node, CLIENT, repeated(request(9))));
            figures.0[1].push(time(node, CLIENT, repeated(segment(9))));
            figures.0[2].push(time(node, CLIENT, fresh.collect()));
            let numbers = u32::from(first)..u32::from(first + PACKETS);
            let afar = numbers.map(|number| afar(number).build());
            figures.0[3].push(time(node, CLIENT, afar.collect()));
        }
    }
    for (row, of_row) in ROWS.iter().zip(&figures) {
        print!("{:34}", row.what);
        for kind in 0..KINDS {
            let (median, base) = (of_row.median(kind), figures[0].median(kind));
            print!(" {median:8.0} {:5.2}", median / base);
        }
        println!();
    }
    println!("\none sweep of all connections");
    for (row, node) in ROWS.iter().zip(&nodes).filter(|(row, _)| row.size == NONE) {
        let mut walks: Vec<_> = (0..ROUNDS).map(|_| node.sweep()).collect();
        walks.sort_unstable();
        println!("{:34} {:8.1?}", row.what, walks[ROUNDS / 2]);
    }
}
