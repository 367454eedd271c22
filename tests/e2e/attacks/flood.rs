//! Floods that fill the conntrack tables: idle connections of others stay.

use std::net::{IpAddr, SocketAddr};

use super::seat::{Family, Seat, at, families, ip};
use super::talk::{Talk, listen};
use crate::common::frames::FrameSocket;
use crate::common::packet::{parse, tcp};
use crate::lab::{NetnsLab, eventually};

/// Connections that can be tracked, and connections of a flood, more than that.
const SIZE: usize = 4096;
const FLOOD: usize = 6000;
/// Packets that are sent before the replies to them must have come.
const BATCH: usize = 100;
const IDLE: usize = 20;
/// TCP flags of a connection's first segment, and of the reply to it.
const SYN: u8 = 2;
const SYN_ACK: u8 = 18;

/// Two hosts with a small table, and idle connections through a service.
fn with_idle_connections() -> (NetnsLab, Vec<Talk>) {
    let (a, b) = NetnsLab::hosts_laid(1500);
    a.drop_in("attacks", &format!("[conntrack]\nsize = {SIZE}\n"));
    a.start();
    // What goes to forged addresses ends at the router.
    a.ok(
        "router",
        "ip route add blackhole 11.0.0.0/8 && ip route add blackhole 2001:db8:bad::/48",
    );
    drop(b);
    let idle = families().into_iter().flat_map(|family| {
        let listener = listen(&a, "coredns-a", at(family.server, 8080));
        let frontend = family.frontend("81", 80);
        let open = |_| Talk::open(&a, "client", frontend, &listener);
        (0..IDLE).map(open).collect::<Vec<Talk>>()
    });
    let mut idle: Vec<Talk> = idle.collect();
    for talk in &mut idle {
        talk.round_trip().expect("a round trip");
    }
    (a, idle)
}

fn all_go_on(idle: &mut [Talk]) {
    for talk in idle {
        let client = talk.client.local_addr();
        talk.round_trip()
            .unwrap_or_else(|error| panic!("{client:?}: {error}"));
    }
}

/// One of many addresses behind the router.
fn forged(family: &Family, number: usize) -> IpAddr {
    match family.client {
        IpAddr::V4(_) => ip(&format!("11.0.{}.{}", number >> 8, number & 0xff)),
        IpAddr::V6(_) => ip(&format!("2001:db8:bad::{number:x}")),
    }
}

/// Established TCP connections of forged addresses.
fn established(lab: &NetnsLab) -> Vec<serde_json::Value> {
    let is_forged = |row: &&serde_json::Value| {
        let is_forged = |key: &str| {
            let address = row[key].as_str().unwrap_or_default();
            address.starts_with("11.") || address.starts_with("2001:db8:bad:")
        };
        row["state"] == "established" && (is_forged("src_ip") || is_forged("dst_ip"))
    };
    let mut connections = lab.connections();
    connections.retain(|row| is_forged(&row));
    connections
}

/// Somebody on the network who sees what arrives there.
struct Observer {
    network: Seat,
    capture: FrameSocket,
}

impl Observer {
    fn new(lab: &NetnsLab) -> Observer {
        Observer {
            network: Seat::network(lab),
            capture: lab.within("router", || FrameSocket::capture("to-node-a")),
        }
    }

    /// The segments with exactly these flags that a workload has sent: from whom, to whom, and the number.
    fn segments(&self, flags: u8) -> Vec<(SocketAddr, SocketAddr, u32)> {
        let frames = std::iter::from_fn(|| self.capture.receive());
        let segments = frames.filter_map(|frame| {
            let packet = parse(&frame);
            let (ip, segment) = (packet.ip?, packet.tcp?);
            let from = at(ip.src, packet.src_port);
            let is_sent = packet.dst_mac == self.network.own && segment.flags == flags;
            is_sent.then_some((from, at(ip.dst, packet.dst_port), segment.seq))
        });
        segments.collect()
    }
}

#[test]
fn forged_syns_that_are_sent_twice_evict_nobody() {
    let (a, mut idle) = with_idle_connections();
    let sender = Observer::new(&a);
    let mut listeners = Vec::new();
    for family in families() {
        let server = at(family.intruder, 8080);
        listeners.push(listen(&a, "intruder", server));
        for first in (0..FLOOD / 2).step_by(BATCH) {
            for _ in 0..2 {
                for number in first..first + BATCH {
                    let from = at(forged(&family, number), 40_000);
                    sender.network.send(&tcp(from, server).syn().seq(7));
                }
            }
        }
    }
    // Most of these have lost their entry when the workload sends its SYN-ACK once more.
    sender.segments(SYN_ACK);
    let mut again = 0;
    eventually("SYN-ACKs are sent again", || {
        for (server, from, _) in sender.segments(SYN_ACK) {
            sender.network.send(&tcp(from, server).syn().seq(7));
            again += 1;
        }
        if again >= 4 * BATCH {
            Ok(())
        } else {
            Err(again)
        }
    });
    let established = established(&a);
    assert!(
        established.is_empty(),
        "nobody has acknowledged a reply: {established:#?}"
    );
    all_go_on(&mut idle);
}

#[test]
fn a_workload_fills_its_half_and_no_more() {
    let (a, mut idle) = with_idle_connections();
    let intruder = Seat::workload(&a, "intruder");
    let accomplice = Observer::new(&a);
    let mut opened = 0;
    let mut answer = || {
        for (from, to, number) in accomplice.segments(SYN) {
            let reply = tcp(to, from).syn().ack().seq(1);
            let reply = reply.ack_number(number.wrapping_add(1));
            accomplice.network.send(&reply);
            intruder.send(&tcp(from, to).ack().seq(2).ack_number(2));
            opened += 1;
        }
        opened
    };
    for family in families() {
        let from = at(family.intruder, 40_000);
        for number in 0..FLOOD / 2 {
            let to = at(forged(&family, number), 80);
            intruder.send(&tcp(from, to).syn().seq(1));
            answer();
        }
    }
    eventually("every SYN has arrived or was dropped", || {
        let seen = answer() + a.dropped("connection limit") as usize;
        if seen >= FLOOD { Ok(()) } else { Err(seen) }
    });
    all_go_on(&mut idle);
    let most = SIZE / 4..=SIZE / 2;
    let theirs = established(&a).len();
    assert!(most.contains(&theirs), "{theirs} are tracked");
    assert!(a.dropped("connection limit") > 0, "{:?}", a.drops());
}
