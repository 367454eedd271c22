//! Connections: their states, their bounds, and two of them that want the same tuple.

use dpd::model::conntrack::ConntrackState;

use crate::common::packet::{self, Packet, protocol};
use crate::common::runner::{host_mac, workload_mac};
use crate::lab::*;
use crate::service::with_state;
use crate::walk::{Expect, Expect::*, Walk, source_port};

/// A TCP connection of the client to the web workload, without a service.
struct Stream {
    family: Family,
    port: u16,
}

impl Stream {
    fn out(&self) -> Packet {
        packet::tcp(at(self.family.client, self.port), at(self.family.web, 8080))
    }

    fn back(&self) -> Packet {
        packet::tcp(at(self.family.web, 8080), at(self.family.client, self.port))
    }

    fn open(&self, walk: &mut Walk) {
        self.send(walk, "SYN", self.out().syn());
        self.hear(walk, "SYN, ACK", self.back().syn().ack());
        self.send(walk, "ACK", self.out().ack());
    }

    fn send(&self, walk: &mut Walk, says: &str, packet: Packet) {
        walk.from(says, CLIENT, &packet, Delivered(WEB, packet.clone()));
    }

    fn hear(&self, walk: &mut Walk, says: &str, packet: Packet) {
        walk.from(says, WEB, &packet, Delivered(CLIENT, packet.clone()));
    }

    fn state(&self, walk: &mut Walk, says: &str, state: ConntrackState) {
        let src = at(self.family.client, self.port);
        let found = walk
            .node()
            .connections()
            .into_iter()
            .find(|connection| connection.src == src);
        let got = found.map(|connection| connection.state);
        walk.check(&format!("{says}: {state:?}"), got == Some(state), got);
    }
}

fn streams() -> impl Iterator<Item = (Walk, Stream)> {
    families().into_iter().map(|family| {
        (
            Walk::new(family.name, CONFIG),
            Stream { family, port: 4000 },
        )
    })
}

#[test]
fn only_the_first_packet_of_a_connection_needs_the_chain() {
    for (mut walk, stream) in streams() {
        stream.send(&mut walk, "SYN", stream.out().syn());
        for parse in [0, 1] {
            walk.node().break_chain(parse);
        }
        stream.hear(&mut walk, "SYN, ACK", stream.back().syn().ack());
        stream.send(&mut walk, "ACK", stream.out().ack());
        stream.state(&mut walk, "acknowledged", ConntrackState::Established);
        for (table, expected) in [("dpd_ct_tcp", 2), ("dpd_ct_unreplied", 0)] {
            let rows = walk.node().conntrack_rows(table);
            walk.check(&format!("rows of {table}"), rows == expected, rows);
        }
        stream.hear(&mut walk, "data", stream.back().ack().payload(b"hello"));
        stream.send(&mut walk, "FIN", stream.out().fin().ack());
        stream.hear(&mut walk, "FIN", stream.back().fin().ack());
        stream.state(&mut walk, "both have ended", ConntrackState::Closing);
        walk.end();
    }
}

#[test]
fn a_connection_opens_talks_and_closes() {
    for (mut walk, stream) in streams() {
        stream.send(&mut walk, "SYN", stream.out().syn());
        stream.state(&mut walk, "nobody has answered", ConntrackState::Unreplied);
        stream.hear(&mut walk, "SYN, ACK", stream.back().syn().ack());
        stream.state(&mut walk, "replied", ConntrackState::Replied);
        stream.send(
            &mut walk,
            "data",
            stream.out().ack().psh().payload(b"GET /"),
        );
        stream.state(&mut walk, "acknowledged", ConntrackState::Established);
        stream.hear(
            &mut walk,
            "an answer",
            stream.back().ack().psh().payload(b"200"),
        );
        stream.send(&mut walk, "FIN", stream.out().fin().ack());
        stream.state(&mut walk, "one side has ended", ConntrackState::Established);
        stream.hear(&mut walk, "FIN back", stream.back().fin().ack());
        stream.state(&mut walk, "both have", ConntrackState::Closing);
        walk.end();
    }
}

#[test]
fn a_reset_closes_until_somebody_goes_on_talking() {
    for (mut walk, stream) in streams() {
        stream.open(&mut walk);
        stream.hear(&mut walk, "RST", stream.back().rst());
        stream.state(&mut walk, "reset", ConntrackState::Closing);
        stream.send(
            &mut walk,
            "data after a reset that was forged",
            stream.out().ack().payload(b"x"),
        );
        stream.state(&mut walk, "it closed nothing", ConntrackState::Established);
        walk.end();
    }
}

#[test]
fn a_syn_on_a_closing_connection_begins_a_new_one() {
    for (mut walk, stream) in streams() {
        stream.open(&mut walk);
        stream.send(&mut walk, "RST", stream.out().rst());
        stream.send(&mut walk, "SYN from the same port", stream.out().syn());
        stream.state(&mut walk, "a new connection", ConntrackState::Unreplied);
        walk.end();
    }
}

#[test]
fn each_new_flag_is_reported_and_the_rest_is_not() {
    for (mut walk, stream) in streams() {
        let there = "to-endpoint forwarded client -> web";
        let back = "to-endpoint forwarded web -> client reply";
        let rows = [
            ("SYN", true, stream.out().syn(), &[there][..]),
            ("SYN, ACK", false, stream.back().syn().ack(), &[back]),
            ("ACK", true, stream.out().ack(), &[]),
            ("data", true, stream.out().ack().payload(b"data"), &[]),
            ("an ACK back", false, stream.back().ack(), &[]),
            ("FIN", true, stream.out().fin().ack(), &[there]),
            ("the same FIN again", true, stream.out().fin().ack(), &[]),
            ("FIN back", false, stream.back().fin().ack(), &[back]),
        ];
        for (says, out, packet, lines) in rows {
            let (from, to) = if out { (CLIENT, WEB) } else { (WEB, CLIENT) };
            let answer = walk.from(says, from, &packet, Delivered(to, packet.clone()));
            walk.reported(says, &answer, lines);
        }
        walk.end();
    }
}

#[test]
fn a_udp_question_with_one_answer_is_over_soon() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let (asked, reply) = (family.question(4100), family.reply(4100));
        let at_backend = asked.clone().dst(family.dns);
        let from_service = reply.clone().src(family.dns_service);
        let state = |walk: &Walk| {
            walk.node()
                .connections()
                .first()
                .map(|connection| connection.state)
        };

        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, at_backend.clone()),
        );
        let got = state(&walk);
        walk.check("unreplied", got == Some(ConntrackState::Unreplied), got);
        walk.from("the answer", DNS, &reply, Delivered(CLIENT, from_service));
        let got = state(&walk);
        walk.check("replied", got == Some(ConntrackState::Replied), got);
        walk.from(
            "another question",
            CLIENT,
            &asked,
            Delivered(DNS, at_backend),
        );
        let got = state(&walk);
        walk.check(
            "a conversation",
            got == Some(ConntrackState::Established),
            got,
        );
        walk.end();
    }
}

#[test]
fn who_comes_in_midstream_is_let_in_unless_strict() {
    let strict = changed(CONFIG, "[conntrack]\n", "[conntrack]\nstrict = true\n");
    let rows = |stream: &Stream| {
        [
            ("data", stream.out().ack().psh().payload(b"x")),
            ("SYN, ACK", stream.out().syn().ack()),
            ("FIN", stream.out().fin().ack()),
            ("no flag at all", stream.out()),
        ]
    };
    for family in families() {
        for (number, (says, _)) in rows(&Stream { family, port: 0 }).into_iter().enumerate() {
            let stream = Stream {
                family,
                port: 4200 + number as u16,
            };
            let (_, packet) = rows(&stream)[number].clone();
            let mut loose = Walk::new(family.name, CONFIG);
            loose.from(says, CLIENT, &packet, Delivered(WEB, packet.clone()));
            loose.end();
            let mut walk = Walk::new(format!("{}, strict", family.name), &strict);
            walk.from(says, CLIENT, &packet, Dropped(222));
            let syn = stream.out().syn();
            walk.from("a SYN begins", CLIENT, &syn, Delivered(WEB, syn.clone()));
            walk.end();
        }
    }
}

#[test]
fn a_workload_may_have_so_many_connections_and_no_more() {
    let bounded = changed(CONFIG, "[conntrack]\n", "[conntrack]\nper_endpoint = 2\n");
    for family in families() {
        let mut walk = Walk::new(family.name, &bounded);
        let udp = |port| packet::udp(at(family.client, port), at(family.web, 9));
        walk.from("the first", CLIENT, &udp(1), Delivered(WEB, udp(1)));
        walk.from("the second", CLIENT, &udp(2), Delivered(WEB, udp(2)));
        walk.from("the third is one too many", CLIENT, &udp(3), Dropped(225));
        walk.from("the first goes on", CLIENT, &udp(1), Delivered(WEB, udp(1)));
        let other = packet::udp(at(family.intruder, 1), at(family.web, 9));
        walk.from(
            "another has its own bound",
            INTRUDER,
            &other,
            Delivered(WEB, other.clone()),
        );
        let reply = packet::udp(at(family.web, 9), at(family.client, 2));
        walk.from(
            "a reply opens nothing",
            WEB,
            &reply,
            Delivered(CLIENT, reply.clone()),
        );
        walk.end();
    }
}

/// The default: half of each table, of 4096 connections 2048 of TCP, 1024 of others, 512 unreplied.
#[test]
fn a_workload_fills_half_of_a_table_and_no_more() {
    for family in families() {
        let walk = Walk::new(family.name, CONFIG);
        let ask = |port| {
            let packet = packet::udp(at(family.client, port), at(family.web, 9));
            let frame = packet.macs(workload_mac(CLIENT), host_mac(CLIENT)).build();
            walk.node().from_container(CLIENT, &frame).drops
        };
        let dropped: Vec<u16> = (1..=600).filter(|port| ask(*port) == [225]).collect();
        assert_eq!(dropped, (513..=600).collect::<Vec<_>>(), "{}", family.name);
    }
}

/// What others open to one workload evicts nothing of other workloads that works: over the bound it is served, and stays where
/// unreplied flows are.
#[test]
fn what_is_opened_to_a_workload_is_bounded_too() {
    let bounded = changed(CONFIG, "[conntrack]\n", "[conntrack]\nper_endpoint = 2\n");
    for family in families() {
        let mut walk = Walk::new(family.name, &bounded);
        let ask = |port| packet::udp(at(family.host, port), at(family.web, 9));
        let answer = |port| packet::udp(at(family.web, 9), at(family.host, port));
        for port in 1..=4 {
            for says in ["a question", "another"] {
                walk.to(says, WEB, &ask(port), Passed);
                walk.from("its answer", WEB, &answer(port), Passed);
            }
        }
        let replied = walk.node().conntrack_rows("dpd_ct_other");
        walk.check(
            "two moved to the table of what works",
            replied == 4,
            replied,
        );
        let unreplied = walk.node().conntrack_rows("dpd_ct_unreplied");
        walk.check(
            "the others were served where they are",
            unreplied == 4,
            unreplied,
        );
        walk.end();
    }
}

/// Nobody sweeps while the daemon is away: its count must not lock anybody out.
#[test]
fn the_bound_is_held_by_a_daemon_that_lives() {
    let bounded = changed(CONFIG, "[conntrack]\n", "[conntrack]\nper_endpoint = 1\n");
    for family in families() {
        let mut walk = Walk::new(family.name, &bounded);
        let udp = |port| packet::udp(at(family.client, port), at(family.web, 9));
        walk.from("the first", CLIENT, &udp(1), Delivered(WEB, udp(1)));
        walk.from("one too many", CLIENT, &udp(2), Dropped(225));
        walk.node().neglect();
        let says = "nobody knows how many there are";
        walk.from(says, CLIENT, &udp(2), Delivered(WEB, udp(2)));
        walk.end();
    }
}

/// A socket that asks an address and its service, or two names of one backend, makes two connections whose replies would
/// look alike: the second gets another source port, which the reply loses again.
#[test]
fn two_ways_to_one_backend_are_kept_apart() {
    for family in families() {
        let (client, backend) = (at(family.client, 5300), at(family.web, 8080));
        let (service, other_name) = (at(family.web_service, 80), at(family.other_name, 80));
        let rows = [
            ("the service, then its backend", service, backend),
            ("the backend, then its service", backend, service),
            ("two services", service, other_name),
        ];
        for (says, first, second) in rows {
            let mut walk = Walk::new(format!("{}, {says}", family.name), CONFIG);
            let asked = packet::udp(client, first);
            walk.from(
                "the first",
                CLIENT,
                &asked,
                Delivered(WEB, asked.clone().dst(backend)),
            );
            let asked = packet::udp(client, second);
            let port = ask_with_new_port(&mut walk, &asked, backend);

            let reply = packet::udp(backend, client);
            walk.from(
                "the first's reply",
                WEB,
                &reply,
                Delivered(CLIENT, reply.clone().src(first)),
            );
            let reply = packet::udp(backend, at(family.client, port));
            let restored = reply.clone().src(second).dst(client);
            walk.from(
                "the second's reply",
                WEB,
                &reply,
                Delivered(CLIENT, restored),
            );
            let asked_again = asked.clone().src_port(port).dst(backend);
            walk.from(
                "the second goes on",
                CLIENT,
                &asked,
                Delivered(WEB, asked_again),
            );
            walk.end();
        }
    }
}

/// Half of a connection may be pushed out of a full table. It is made again, unless another has taken its place: then what
/// is left of the first opens the connection again, and takes nothing of the other's with it.
#[test]
fn a_half_that_is_left_does_not_touch_who_took_the_others_place() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let (client, backend) = (at(family.client, 5350), at(family.web, 8080));
        let reply = packet::udp(backend, client);
        let through = |service| packet::udp(client, at(service, 80));
        let (first, second) = (through(family.web_service), through(family.other_name));
        let at_backend = packet::udp(client, backend);
        let from = |service| Delivered(CLIENT, reply.clone().src(at(service, 80)));
        walk.from(
            "the first",
            CLIENT,
            &first,
            Delivered(WEB, at_backend.clone()),
        );
        walk.from("its reply", WEB, &reply, from(family.web_service));

        walk.node().evict(protocol::UDP, backend, client);
        walk.from(
            "it goes on",
            CLIENT,
            &first,
            Delivered(WEB, at_backend.clone()),
        );
        walk.from("and is answered", WEB, &reply, from(family.web_service));

        walk.node().evict(protocol::UDP, backend, client);
        walk.from(
            "the second",
            CLIENT,
            &second,
            Delivered(WEB, at_backend.clone()),
        );
        walk.from("its reply", WEB, &reply, from(family.other_name));
        // Each half is looked at once a second, or when the configuration has changed.
        walk.reload(CONFIG);
        ask_with_new_port(&mut walk, &first, backend);
        walk.from("the second's again", WEB, &reply, from(family.other_name));
        walk.from(
            "the second goes on",
            CLIENT,
            &second,
            Delivered(WEB, at_backend.clone()),
        );
        walk.end();
    }
}

/// Where there is another backend, that one is taken before another port.
#[test]
fn a_service_goes_round_a_tuple_that_is_taken() {
    for family in families() {
        let mut walk = Walk::new(family.name, &with_state("active"));
        for port in 5400..5410 {
            let (client, taken) = (at(family.client, port), at(family.web, 8080));
            let direct = packet::udp(client, taken);
            walk.from(
                "to the backend itself",
                CLIENT,
                &direct,
                Delivered(WEB, direct.clone()),
            );
            let asked = packet::udp(client, at(family.web_service, 80));
            let elsewhere = asked.clone().dst(at(family.web_2, 8080));
            walk.from(
                "to its service",
                CLIENT,
                &asked,
                Delivered(WEB_2, elsewhere),
            );
        }
        walk.end();
    }
}

/// Asks, finds the port that was chosen, and holds the packet against it byte for byte.
fn ask_with_new_port(walk: &mut Walk, asked: &Packet, backend: std::net::SocketAddr) -> u16 {
    let frame = asked
        .clone()
        .macs(
            crate::common::runner::workload_mac(CLIENT),
            crate::common::runner::host_mac(CLIENT),
        )
        .build();
    let answer = walk.node().from_container(CLIENT, &frame);
    let port = source_port(&answer.packet);
    let old = source_port(&frame);
    walk.check(
        "the second has another port",
        port != old && port != 0,
        port,
    );
    let expected = Expect::Delivered(WEB, asked.clone().src_port(port).dst(backend));
    walk.from("the second is delivered with it", CLIENT, asked, expected);
    port
}

#[test]
fn a_connection_is_bound_to_the_interface_that_it_began_on() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let (asked, reply) = (family.question(4400), family.reply(4400));
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        walk.from(
            "the reply",
            DNS,
            &reply,
            Delivered(CLIENT, reply.clone().src(family.dns_service)),
        );
        walk.from(
            "another sends as the client",
            INTRUDER,
            &asked,
            Dropped(132),
        );
        walk.from(
            "another answers as the server",
            INTRUDER,
            &reply,
            Dropped(132),
        );
        walk.to(
            "the host sends as the client",
            DNS,
            &asked.clone().dst(family.dns),
            Dropped(132),
        );
        walk.from(
            "the client itself goes on",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        walk.end();
    }
}

/// What is neither TCP, UDP, SCTP nor ICMP is a connection of its two addresses.
#[test]
fn other_protocols_are_matched_by_their_addresses() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let there = packet::gre(family.client, family.web).payload(b"inside");
        let back = packet::gre(family.web, family.client).payload(b"inside");
        walk.from("GRE", CLIENT, &there, Delivered(WEB, there.clone()));
        walk.from("its reply", WEB, &back, Delivered(CLIENT, back.clone()));
        walk.from(
            "GRE to the protected",
            CLIENT,
            &packet::gre(family.client, family.dns),
            Dropped(133),
        );
        walk.end();
    }
}
