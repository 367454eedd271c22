//! Resets and SYNs in others' names: who knows a connection's addresses and ports alone can't end it.

use serde_json::Value;

use super::seat::{Seat, at, families};
use super::talk::{Talk, listen, reset};
use crate::common::packet::{Packet, tcp};
use crate::lab::{NetnsLab, eventually};

/// What each attacker forges between two addresses.
fn forged(from: std::net::SocketAddr, to: std::net::SocketAddr) -> Vec<Packet> {
    let segment = || tcp(from, to);
    let mut packets = Vec::new();
    for number in [0, 1, 12_345, 0x7fff_ffff, 0xffff_ffff] {
        packets.push(segment().rst().seq(number));
        packets.push(segment().rst().ack().seq(number).ack_number(number));
        // A SYN opens a new connection in place of one that is closing.
        packets.push(segment().syn().seq(number));
        packets.push(segment().syn().ack().seq(number).ack_number(number));
    }
    packets
}

/// The states of the connections that the client has opened from this port.
fn states(lab: &NetnsLab, port: u16) -> Vec<Value> {
    let connections = lab.connections();
    let of_port = connections.iter().filter(|row| row["src_port"] == port);
    of_port.map(|row| row["state"].clone()).collect()
}

#[test]
fn forged_resets_and_syns_end_no_connection() {
    let (a, b) = NetnsLab::hosts(1500);
    let (network, network_of_b) = (Seat::network(&a), Seat::network(&b));
    let intruder = Seat::workload(&a, "intruder");
    for family in families() {
        let far = (family.frontend("52", 52), at(family.far, 5201), "coredns");
        let near = (
            family.frontend("81", 80),
            at(family.server, 8080),
            "coredns-a",
        );
        for (frontend, backend, place) in [far, near] {
            let says = format!("{}, {place}", family.name);
            let lab = if place == "coredns" { &b } else { &a };
            let listener = listen(lab, place, backend);
            let mut talk = Talk::open(&a, "client", frontend, &listener);
            talk.round_trip().expect("a round trip");
            let client = at(family.client, talk.port());
            let established = |lab: &NetnsLab, when: &str| {
                assert_eq!(states(lab, talk.port()), ["established"], "{says}: {when}");
            };
            let hosts = if place == "coredns" {
                vec![&a, &b]
            } else {
                vec![&a]
            };
            hosts.iter().for_each(|lab| established(lab, "before"));

            let before = a.dropped("invalid source");
            let mut seats = vec![
                ("network, as the backend", &network, backend, client),
                ("network, as the service", &network, frontend, client),
                ("intruder, as the backend", &intruder, backend, client),
                ("intruder, as the service", &intruder, frontend, client),
                ("intruder, as the client", &intruder, client, backend),
            ];
            if place == "coredns" {
                seats.push(("network, as the client", &network_of_b, client, backend));
            }
            for (seat, sender, from, to) in seats {
                forged(from, to)
                    .iter()
                    .for_each(|packet| sender.send(packet));
                hosts.iter().for_each(|lab| established(lab, seat));
            }
            assert!(
                a.dropped("invalid source") > before,
                "{says}: they were sent"
            );
            talk.round_trip()
                .unwrap_or_else(|error| panic!("{says}: it goes on: {error}"));

            let port = talk.port();
            reset(talk.client);
            for lab in hosts {
                eventually(&format!("{says}: the client's own reset ends it"), || {
                    let states = states(lab, port);
                    if states == ["closing"] {
                        Ok(())
                    } else {
                        Err(states)
                    }
                });
            }
        }
    }
}
