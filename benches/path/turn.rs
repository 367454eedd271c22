//! A short TCP connection, packet by packet: from its SYN to the last acknowledgement of its end.

use std::net::SocketAddr;
use std::time::Duration;

use super::{CLIENT, ROUTER, SERVER, UPLINK};
use crate::common::packet::{Packet, tcp};
use crate::common::programs::Bench;
use crate::common::runner::{Node, Verdict, host_mac};
use dpd::bpf::attach::hook::Hook;

/// Connections between which the ring of events is emptied.
const BATCH: u16 = 100;
const BATCHES: u16 = 20;

/// A packet of the connection: its name, whether the server sends it, and how it is built.
type Step = (&'static str, bool, fn(Packet) -> Packet);

const STEPS: [Step; 10] = [
    ("SYN", false, |segment| segment.syn().seq(1000)),
    ("SYN-ACK", true, |segment| {
        segment.syn().ack().seq(7).ack_number(1001)
    }),
    ("ACK", false, |segment| {
        segment.ack().seq(1001).ack_number(8)
    }),
    ("request", false, |segment| {
        let segment = segment.ack().seq(1001).ack_number(8);
        segment.payload(&[0; 36])
    }),
    ("its ACK", true, |segment| {
        segment.ack().seq(8).ack_number(1037)
    }),
    ("response", true, |segment| {
        let segment = segment.ack().seq(8).ack_number(1037);
        segment.payload(&[0; 36])
    }),
    ("its ACK", false, |segment| {
        segment.ack().seq(1037).ack_number(44)
    }),
    ("FIN", false, |segment| {
        segment.fin().ack().seq(1037).ack_number(44)
    }),
    ("FIN-ACK", true, |segment| {
        segment.fin().ack().seq(44).ack_number(1038)
    }),
    ("ACK", false, |segment| {
        segment.ack().seq(1038).ack_number(45)
    }),
];

/// A way of a connection through the node.
pub struct Way {
    pub what: &'static str,
    client: &'static str,
    opener: (Hook, &'static str),
    frontend: &'static str,
    peer: (Hook, &'static str),
}

pub fn ways() -> [Way; 4] {
    let (network, server) = ((Hook::FromNetdev, UPLINK), (Hook::FromContainer, SERVER));
    let client = (Hook::FromContainer, CLIENT);
    [
        Way {
            what: "to a service, workload to workload",
            client: "10.200.0.64",
            opener: client,
            frontend: "10.32.0.10:7",
            peer: server,
        },
        Way {
            what: "from the network, to a backend here",
            client: "203.0.113.9",
            opener: network,
            frontend: "203.0.113.80:443",
            peer: server,
        },
        Way {
            what: "from the network, to another host (SNAT)",
            client: "203.0.113.9",
            opener: network,
            frontend: "203.0.113.81:443",
            peer: network,
        },
        Way {
            what: "masqueraded",
            client: "10.200.0.64",
            opener: client,
            frontend: "203.0.113.9:443",
            peer: network,
        },
    ]
}

/// Source and destination of a frame over IPv4 without options.
fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let end = |ip: usize, port: usize| {
        let octets: [u8; 4] = frame[ip..ip + 4].try_into().expect("four bytes");
        SocketAddr::from((octets, u16::from_be_bytes([frame[port], frame[port + 1]])))
    };
    (end(26, 34), end(30, 36))
}

/// A packet's time, and the packet as it was sent on.
fn send(bench: &Bench, (hook, interface): (Hook, &str), packet: Packet) -> (Duration, Vec<u8>) {
    let frame = match hook {
        Hook::FromNetdev => packet.macs(ROUTER, host_mac(interface)).build(),
        _ => packet.build(),
    };
    let (verdict, packet, time) = bench.run_timed(hook, interface, &frame);
    assert_eq!(verdict, Verdict::Redirect);
    (time, packet)
}

/// The times of the packets of a client port's connection.
fn connect(bench: &Bench, way: &Way, port: u16) -> [Duration; STEPS.len()] {
    let client = SocketAddr::new(way.client.parse().expect("an address"), port);
    let server: SocketAddr = way.frontend.parse().expect("an address");
    let mut back = (server, client);
    let mut is_first = true;
    STEPS.map(|(_, is_back, build)| {
        let (from, (src, dst)) = match is_back {
            true => (way.peer, back),
            false => (way.opener, (client, server)),
        };
        let (time, frame) = send(bench, from, build(tcp(src, dst)));
        if std::mem::take(&mut is_first) {
            let (source, destination) = ends(&frame);
            back = (destination, source);
        }
        time
    })
}

/// The times of each packet of so many connections.
fn times(node: &Node, way: &Way) -> [Vec<Duration>; STEPS.len()] {
    let bench = node.bench();
    let mut times = [const { Vec::new() }; STEPS.len()];
    for batch in 0..BATCHES {
        let ports = 10_000 + batch * BATCH..10_000 + (batch + 1) * BATCH;
        let connect = |port| connect(&bench, way, port);
        let runs: Vec<_> = node.namespace().run(|| ports.map(connect).collect());
        for run in runs {
            for (times, time) in times.iter_mut().zip(run) {
                times.push(time);
            }
        }
        node.time(Hook::FromContainer, SERVER, vec![]); // empties the ring
    }
    times
}

/// Prints the mean of the middle half and the lowest tenth of each packet, and their sums.
pub fn measure(node: &Node, way: &Way) {
    println!("{}", way.what);
    let (mut sum, mut low_sum) = (Duration::ZERO, Duration::ZERO);
    for ((name, ..), mut times) in STEPS.iter().zip(times(node, way)) {
        times.sort_unstable();
        let middle = &times[times.len() / 4..times.len() * 3 / 4];
        let mean = middle.iter().sum::<Duration>() / middle.len() as u32;
        let low = times[times.len() / 10];
        sum += mean;
        low_sum += low;
        println!("  {name:42} {:6} ({})", mean.as_nanos(), low.as_nanos());
    }
    println!(
        "  {:42} {:6} ({})",
        "together",
        sum.as_nanos(),
        low_sum.as_nanos()
    );
}
