//! Packets of a workload that name the way they take: they are dropped, whatever their receiver would do with them.

use super::seat::{END, Seat, at, families, wait_for_drops};
use crate::common::frames::FrameSocket;
use crate::common::packet::{Extension, Ip, Packet, udp};
use crate::lab::{NetnsLab, eventually};

/// Options of IPv4 with a route by the server's address: loose, and strict behind padding.
const LOOSE: [u8; 8] = [131, 7, 4, 10, 200, 0, 44, 0];
const STRICT: [u8; 12] = [1, 1, 137, 7, 4, 10, 200, 0, 44, 0, 0, 0];

fn routed(plain: &Packet) -> Vec<Packet> {
    let extended = |extensions: &[Extension]| {
        let extensions = extensions.iter().cloned();
        extensions.fold(plain.clone(), Packet::extension)
    };
    if plain.ip().is_some_and(Ip::is_v4) {
        return vec![
            plain.clone().ip_options(&LOOSE),
            plain.clone().ip_options(&STRICT),
        ];
    }
    vec![
        extended(&[Extension::SourceRoute(0)]),
        extended(&[Extension::SourceRoute(4)]),
        extended(&[
            Extension::HopByHop,
            Extension::Destination(2),
            Extension::SourceRoute(3),
        ]),
    ]
}

fn contains(frame: &[u8], text: &[u8]) -> bool {
    frame.windows(text.len()).any(|part| part == text)
}

#[test]
fn a_workloads_source_routes_drop() {
    const ROUTED: &[u8] = b"by a source route";
    let lab = NetnsLab::started();
    let intruder = Seat::workload(&lab, "intruder");
    let mut sent = 0;
    for family in families() {
        for (place, receiver) in [("client", family.client), ("node", family.node)] {
            let interface = if place == "node" {
                "lxc-intruder"
            } else {
                "eth0"
            };
            let capture = lab.within(place, || FrameSocket::capture(interface));
            let plain = udp(at(family.intruder, 4444), at(receiver, 5555));
            for packet in routed(&plain) {
                intruder.send(&packet.payload(ROUTED));
                sent += 1;
            }
            intruder.send(&plain.payload(END));
            let says = format!("{}: to {place}", family.name);
            let mut frames = Vec::new();
            eventually(&format!("{says}: the end is received"), || {
                frames.extend(std::iter::from_fn(|| capture.receive()));
                let is_end = frames.iter().any(|frame| contains(frame, END));
                if is_end { Ok(()) } else { Err(frames.len()) }
            });
            // The host's own interface has them before they are dropped.
            let passed = frames.iter().any(|frame| contains(frame, ROUTED));
            assert!(place == "node" || !passed, "{says}: one has passed");
        }
    }
    wait_for_drops(&lab, "source route", sent);
}
