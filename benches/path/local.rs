//! Workloads to each other, to services, and what the network sends to them and to the host.

use super::{CLIENT, ROUTER, Row, SERVER, UPLINK};
use crate::common::packet::{Packet, tcp, udp};
use crate::common::runner::{Verdict, host_mac};
use dpd::bpf::attach::hook::Hook;

pub const CONFIG: &str = r#"
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
addresses = ["10.200.0.44", "fd00:200::44", "10.200.4.0/24"]
identity = "server"

[identities]
client = { id = 20001 }
server = { id = 20002 }

[services.echo]
frontends = ["10.32.0.10:7/udp", "10.32.0.10:7/tcp", "[fd00:32::10]:7/udp"]
backends = ["10.200.0.44:7000", "[fd00:200::44]:7000"]

[services.random-of-ten]
frontends = ["10.32.0.11:7/udp"]
backends = [
    "10.200.4.1:7000", "10.200.4.2:7000", "10.200.4.3:7000", "10.200.4.4:7000", "10.200.4.5:7000",
    "10.200.4.6:7000", "10.200.4.7:7000", "10.200.4.8:7000", "10.200.4.9:7000", "10.200.4.10:7000",
]

[services.maglev-of-ten]
frontends = ["10.32.0.12:7/udp"]
backends = [
    "10.200.4.1:7000", "10.200.4.2:7000", "10.200.4.3:7000", "10.200.4.4:7000", "10.200.4.5:7000",
    "10.200.4.6:7000", "10.200.4.7:7000", "10.200.4.8:7000", "10.200.4.9:7000", "10.200.4.10:7000",
]
algorithm = "maglev"

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

pub fn foreign(port: u16) -> Packet {
    udp(format!("203.0.113.9:{port}").as_str(), "192.0.2.1:53")
        .payload(&[0; 36])
        .macs(ROUTER, host_mac(UPLINK))
}

/// A segment of a connection to a server of the host, as SSH.
pub fn foreign_tcp(port: u16) -> Packet {
    tcp(format!("203.0.113.9:{port}").as_str(), "192.0.2.1:22")
        .ack()
        .payload(&[0; 36])
        .macs(ROUTER, host_mac(UPLINK))
}

pub fn rows() -> Vec<Row> {
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
    let row = |what: &str, interface, before, packet: fn(u16) -> Packet| Row {
        what: what.to_owned(),
        hook: FromContainer,
        interface,
        before,
        verdict: Verdict::Redirect,
        packet: Box::new(packet),
    };
    let dropped = |what, packet| Row {
        verdict: Verdict::Drop,
        ..row(what, CLIENT, vec![], packet)
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
        row("UDP, new, one of ten at random", CLIENT, vec![], |port| {
            request(port).dst("10.32.0.11:7")
        }),
        row("UDP, new, one of ten by Maglev", CLIENT, vec![], |port| {
            request(port).dst("10.32.0.12:7")
        }),
        dropped("UDP that no rule allows", |port| {
            udp(client(port).as_str(), "10.200.0.44:53").payload(&[0; 36])
        }),
        dropped("a spoofed source", |_| direct(9).src("10.200.0.99:9")),
        Row {
            what: "from the network, established".to_owned(),
            hook: FromNetdev,
            interface: UPLINK,
            before: vec![
                (FromNetdev, UPLINK, from_world(9)),
                (FromContainer, SERVER, to_world(9)),
                (FromNetdev, UPLINK, from_world(9)),
            ],
            verdict: Verdict::Redirect,
            packet: Box::new(|_| from_world(9)),
        },
        Row {
            what: "from the network, the host's own".to_owned(),
            hook: FromNetdev,
            interface: UPLINK,
            before: vec![],
            verdict: Verdict::Pass,
            packet: Box::new(foreign),
        },
        Row {
            what: "the same, TCP".to_owned(),
            hook: FromNetdev,
            interface: UPLINK,
            before: vec![],
            verdict: Verdict::Pass,
            packet: Box::new(foreign_tcp),
        },
    ]
}
