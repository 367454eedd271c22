//! ICMP errors that a workload forges about others' connections go nowhere.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::seat::{Inbox, Seat, at, families, wait_for_drops};
use super::talk::{Talk, listen};
use crate::common::frames::FrameSocket;
use crate::common::packet::{
    Packet, fragmentation_needed, parse, tcp, text, time_exceeded, udp, unreachable,
};
use crate::lab::{DEADLINE, NetnsLab, eventually};

/// The errors that end, slow down or divert what they quote.
fn errors(from: IpAddr, to: IpAddr, quoted: &Packet) -> Vec<Packet> {
    let port = if from.is_ipv4() { 3 } else { 4 };
    vec![
        unreachable(from, to, 0, quoted),
        unreachable(from, to, 1, quoted),
        unreachable(from, to, port, quoted),
        time_exceeded(from, to, quoted),
        fragmentation_needed(from, to, 1280, quoted),
    ]
}

/// The number of the next segment from this address and port, by what has been captured.
fn next_number(frames: &[Vec<u8>], from: SocketAddr) -> u32 {
    let of_segment = |frame: &Vec<u8>| {
        let packet = parse(frame);
        let is_from = packet.ip?.src == from.ip() && packet.src_port == from.port();
        let length = packet.payload.len() as u32;
        is_from.then_some(packet.tcp?.seq.wrapping_add(length))
    };
    let numbers = frames.iter().rev().find_map(of_segment);
    numbers.unwrap_or_else(|| panic!("no segment from {from}"))
}

/// What the attacker says of the client's connections, as packets of one of them that only its own two workloads have seen:
/// each with whom it tells.
fn quotes(
    (client, by_tcp, by_udp): (IpAddr, SocketAddr, SocketAddr),
    (frontend, server): (SocketAddr, SocketAddr),
    (sent, replied): (u32, u32),
) -> Vec<(IpAddr, Packet)> {
    let of_peer = |peer| {
        let segment = |from, to, number| tcp(from, to).ack().seq(number).payload(b"data");
        [
            (client, segment(by_tcp, peer, sent)),
            (client, udp(by_udp, peer).payload(b"query")),
            (server.ip(), segment(peer, by_tcp, replied)),
            (server.ip(), udp(peer, by_udp).payload(b"reply")),
        ]
    };
    [frontend, server].into_iter().flat_map(of_peer).collect()
}

fn captured(capture: &FrameSocket) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| capture.receive()).collect()
}

#[test]
fn forged_errors_about_others_connections_go_nowhere() {
    let lab = NetnsLab::started();
    let intruder = Seat::workload(&lab, "intruder");
    let mut sent = 0;
    for family in families() {
        let captures =
            ["client", "coredns"].map(|place| lab.within(place, || FrameSocket::capture("eth0")));
        let frontend = family.frontend("52", 52);
        let server = at(family.server, 5201);
        let inbox = Inbox::open(&lab, "coredns", server);
        let listener = listen(&lab, "coredns", server);
        let mut talk = Talk::open(&lab, "client", frontend, &listener);
        talk.round_trip().expect("a round trip");
        let asking = lab.within("client", || UdpSocket::bind(at(family.client, 0)));
        let asking = asking.expect("a socket");
        asking.connect(frontend).expect("the client's peer");
        asking.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        asking.send(b"query").expect("send a query");
        let (_, asker) = eventually("the query", || inbox.next().ok_or(lab.drops()));

        let by_tcp = at(family.client, talk.port());
        let frames = captured(&captures[0]);
        // Even with the numbers that its sender waits for.
        let numbers = [by_tcp, frontend].map(|from| next_number(&frames, from));
        let client = (family.client, by_tcp, asker);
        for (to, quoted) in quotes(client, (frontend, server), numbers.into()) {
            for error in errors(family.intruder, to, &quoted) {
                intruder.send(&error);
                sent += 1;
            }
        }
        inbox.reply(b"reply", asker);
        let reply = asking.recv(&mut [0; 16]);
        assert_eq!(reply.expect("no error has come"), 5, "{}", family.name);
        talk.round_trip().expect("the connection goes on");
        for frame in captures.iter().flat_map(captured) {
            let is_error = parse(&frame).icmp.is_some_and(|icmp| icmp.quoted.is_some());
            assert!(!is_error, "an error has come: {}", text(&frame));
        }
    }
    wait_for_drops(&lab, "unrelated ICMP", sent);
}
