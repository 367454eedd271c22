//! The cost of each path through the programs: test runs of single new packets, the median of many.
//!
//! A test run has warm caches and no other program; the kernel's work before and after is not included.

#[path = "../tests/common/mod.rs"]
mod common;

use common::packet::{Mac, Packet, tcp, udp};
use common::runner::{Node, host_mac};
use dpd::bpf::attach::hook::Hook;

const CONFIG: &str = r#"
[node]
name = "node-a"
addresses = ["192.0.2.1"]

[interfaces.ens5]
role = "uplink"

[interfaces.lxc-client]
role = "endpoint"
addresses = ["10.200.0.64", "fd00:200::64"]
identity = "client"

[interfaces.lxc-server]
role = "endpoint"
addresses = ["10.200.0.44", "fd00:200::44"]
identity = "server"

[identities]
client = { id = 20001 }
server = { id = 20002 }

[services.echo]
frontends = ["10.32.0.10:7/udp", "10.32.0.10:7/tcp", "[fd00:32::10]:7/udp"]
backends = ["10.200.0.44:7000", "[fd00:200::44]:7000"]

[policies.clients]
subject = "server"
ingress = [
    { from = ["client"], ports = ["7000/udp", "7000/tcp"] },
    { from = ["world"], ports = ["7000/udp"] },
]

[prefilter.abusers]
deny = ["198.51.100.66"]

[conntrack]
size = 131072

[events]
aggregation = "medium"
"#;

const CLIENT: &str = "lxc-client";
const SERVER: &str = "lxc-server";
const UPLINK: &str = "ens5";
const ROUTER: Mac = [0x02, 0, 0, 0, 0, 1];
/// Packets of each path that are measured.
const PACKETS: usize = 4000;

struct Row {
    what: &'static str,
    hook: Hook,
    interface: &'static str,
    /// Sent before, to make the connection.
    before: Vec<(Hook, &'static str, Packet)>,
    packet: fn(u16) -> Packet,
}

fn client(port: u16) -> String {
    format!("10.200.0.64:{port}")
}

fn request(port: u16) -> Packet {
    udp(client(port).as_str(), "10.32.0.10:7").payload(&[0; 36])
}

fn reply(port: u16) -> Packet {
    udp("10.200.0.44:7000", client(port).as_str()).payload(&[0; 36])
}

fn request_6(port: u16) -> Packet {
    udp(format!("[fd00:200::64]:{port}").as_str(), "[fd00:32::10]:7").payload(&[0; 36])
}

fn reply_6(port: u16) -> Packet {
    udp(
        "[fd00:200::44]:7000",
        format!("[fd00:200::64]:{port}").as_str(),
    )
    .payload(&[0; 36])
}

fn direct(port: u16) -> Packet {
    udp(client(port).as_str(), "10.200.0.44:7000").payload(&[0; 36])
}

fn segment(port: u16) -> Packet {
    tcp(client(port).as_str(), "10.32.0.10:7")
        .ack()
        .payload(&[0; 36])
}

fn segment_back(port: u16) -> Packet {
    tcp("10.200.0.44:7000", client(port).as_str())
        .ack()
        .payload(&[0; 36])
}

fn syn(port: u16) -> Packet {
    tcp(client(port).as_str(), "10.32.0.10:7").syn()
}

fn syn_ack(port: u16) -> Packet {
    tcp("10.200.0.44:7000", client(port).as_str()).syn().ack()
}

fn from_world(port: u16) -> Packet {
    udp(format!("203.0.113.9:{port}").as_str(), "10.200.0.44:7000")
        .payload(&[0; 36])
        .macs(ROUTER, host_mac(UPLINK))
}

fn to_world(port: u16) -> Packet {
    udp("10.200.0.44:7000", format!("203.0.113.9:{port}").as_str()).payload(&[0; 36])
}

fn foreign(port: u16) -> Packet {
    udp(format!("203.0.113.9:{port}").as_str(), "192.0.2.1:53")
        .payload(&[0; 36])
        .macs(ROUTER, host_mac(UPLINK))
}

fn rows() -> Vec<Row> {
    use Hook::{FromContainer, FromNetdev};
    // Two requests and two replies make an established UDP flow.
    let flow = |request: fn(u16) -> Packet, reply: fn(u16) -> Packet| {
        vec![
            (FromContainer, CLIENT, request(9)),
            (FromContainer, SERVER, reply(9)),
            (FromContainer, CLIENT, request(9)),
            (FromContainer, SERVER, reply(9)),
        ]
    };
    let row = |what, interface, before, packet| Row {
        what,
        hook: FromContainer,
        interface,
        before,
        packet,
    };
    let tcp = || {
        vec![
            (FromContainer, CLIENT, syn(9)),
            (FromContainer, SERVER, syn_ack(9)),
            (FromContainer, CLIENT, segment(9)),
            (FromContainer, SERVER, segment_back(9)),
        ]
    };
    vec![
        row(
            "UDP to a service, established",
            CLIENT,
            flow(request, reply),
            |_| request(9),
        ),
        row(
            "UDP reply of a service, established",
            SERVER,
            flow(request, reply),
            |_| reply(9),
        ),
        row(
            "the same over IPv6: request",
            CLIENT,
            flow(request_6, reply_6),
            |_| request_6(9),
        ),
        row(
            "the same over IPv6: reply",
            SERVER,
            flow(request_6, reply_6),
            |_| reply_6(9),
        ),
        row(
            "UDP without a service, established",
            CLIENT,
            flow(direct, reply),
            |_| direct(9),
        ),
        row("TCP to a service, established", CLIENT, tcp(), |_| {
            segment(9)
        }),
        row("TCP of a service, established", SERVER, tcp(), |_| {
            segment_back(9)
        }),
        row(
            "UDP without replies",
            CLIENT,
            vec![(FromContainer, CLIENT, request(9))],
            |_| request(9),
        ),
        row("UDP, a new connection", CLIENT, vec![], request),
        row("TCP, a new connection", CLIENT, vec![], syn),
        row("UDP that no rule allows", CLIENT, vec![], |port| {
            udp(client(port).as_str(), "10.200.0.44:53").payload(&[0; 36])
        }),
        row("a spoofed source", CLIENT, vec![], |_| {
            direct(9).src("10.200.0.99:9")
        }),
        Row {
            what: "from the network, established",
            hook: FromNetdev,
            interface: UPLINK,
            before: vec![
                (FromNetdev, UPLINK, from_world(9)),
                (FromContainer, SERVER, to_world(9)),
                (FromNetdev, UPLINK, from_world(9)),
            ],
            packet: |_| from_world(9),
        },
        Row {
            what: "from the network, the host's own",
            hook: FromNetdev,
            interface: UPLINK,
            before: vec![],
            packet: foreign,
        },
    ]
}

fn main() {
    println!("nanoseconds a packet: median (lowest tenth) of {PACKETS} test runs");
    for row in rows() {
        let node = Node::new(CONFIG);
        for (hook, interface, packet) in &row.before {
            node.time(*hook, interface, vec![packet.build()]);
        }
        let frames: Vec<Vec<u8>> = (0..PACKETS)
            .map(|number| (row.packet)(10_000 + number as u16).build())
            .collect();
        let mut times = node.time(row.hook, row.interface, frames);
        times.sort_unstable();
        let at = |share: f64| times[(times.len() as f64 * share) as usize].as_nanos();
        println!("{:44} {:6} ({})", row.what, at(0.5), at(0.1));
    }
}
