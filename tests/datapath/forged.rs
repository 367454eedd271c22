//! Packets that somebody else forged, and real ones that look like them: what they may do to connections and services.

use dpd::model::conntrack::ConntrackState;

use crate::common::packet::{self, Extension, Packet};
use crate::common::runner::Merged;
use crate::lab::*;
use crate::uplink::{UPLINK, config};
use crate::walk::{Expect::*, Walk};

const INVALID_SOURCE: u8 = 132;

/// The state of the only connection that there is.
fn state(walk: &Walk) -> Option<ConntrackState> {
    match walk.node().connections().as_slice() {
        [one] => Some(one.state),
        _ => None,
    }
}

/// A connection from the world to the web workload, by the uplink.
struct Stream {
    family: Family,
}

impl Stream {
    fn out(&self) -> Packet {
        packet::tcp(at(self.family.world, 4000), at(self.family.web, 8080))
    }

    fn back(&self) -> Packet {
        packet::tcp(at(self.family.web, 8080), at(self.family.world, 4000))
    }

    fn send(&self, walk: &mut Walk, says: &str, packet: Packet) {
        walk.net(says, UPLINK, &packet, Delivered(WEB, packet.clone()));
    }

    fn hear(&self, walk: &mut Walk, says: &str, packet: Packet) {
        walk.from(says, WEB, &packet, Routed(packet.clone()));
    }

    fn is(&self, walk: &mut Walk, says: &str, state: ConntrackState) {
        let got = self::state(walk);
        walk.check(&format!("{says}: {state:?}"), got == Some(state), got);
    }

    /// SYN 1000, SYN-ACK 5000, and 100 bytes of each side.
    fn open(&self, walk: &mut Walk) {
        self.send(walk, "SYN", self.out().syn().seq(1000));
        let syn_ack = self.back().syn().ack().seq(5000).ack_number(1001);
        self.hear(walk, "SYN-ACK", syn_ack);
        let data = self.out().ack().seq(1001).ack_number(5001);
        self.send(walk, "data", data.payload(&[1; 100]));
        let data = self.back().ack().seq(5001).ack_number(1101);
        self.hear(walk, "data back", data.payload(&[2; 100]));
        let ack = self.out().ack().seq(1101).ack_number(5101);
        self.send(walk, "ACK", ack);
        self.is(walk, "open", ConntrackState::Established);
    }
}

fn streams() -> impl Iterator<Item = (Walk, Stream)> {
    let walk = |family: Family| (Walk::new(family.name, &config()), Stream { family });
    families().into_iter().map(walk)
}

#[test]
fn a_reset_is_believed_by_its_number() {
    // (what it is, from the world, its sequence number, whether it closes)
    let rows = [
        ("at the last acknowledgement", true, 1101, true),
        ("one below it", true, 1100, false),
        ("one above all that was sent", true, 1102, false),
        ("a guess", true, 0x8000_0000, false),
        ("zero", true, 0, false),
        ("the workload's own, at its end", false, 5101, true),
        ("the workload's own, far away", false, 6000, false),
    ];
    for (says, from_world, seq, closes) in rows {
        for (mut walk, stream) in streams() {
            stream.open(&mut walk);
            match from_world {
                true => stream.send(&mut walk, says, stream.out().rst().seq(seq)),
                false => stream.hear(&mut walk, says, stream.back().rst().seq(seq)),
            }
            let state = match closes {
                true => ConntrackState::Closing,
                false => ConntrackState::Established,
            };
            stream.is(&mut walk, says, state);
            walk.end();
        }
    }
}

#[test]
fn a_closed_port_refuses_a_syn() {
    for (mut walk, stream) in streams() {
        stream.send(&mut walk, "SYN", stream.out().syn().seq(1000));
        let forged = stream.back().rst().ack().seq(0).ack_number(77);
        stream.hear(&mut walk, "an acknowledgement of another SYN", forged);
        stream.is(&mut walk, "not believed", ConntrackState::Unreplied);
        let refusal = stream.back().rst().ack().seq(0).ack_number(1001);
        stream.hear(&mut walk, "of this one", refusal);
        stream.is(&mut walk, "refused", ConntrackState::Closing);
        stream.send(&mut walk, "SYN again", stream.out().syn().seq(2000));
        stream.is(&mut walk, "a new one", ConntrackState::Unreplied);
        walk.end();
    }
}

#[test]
fn numbers_wrap() {
    for (mut walk, stream) in streams() {
        let isn = u32::MAX - 10;
        stream.send(&mut walk, "SYN", stream.out().syn().seq(isn));
        let syn_ack = stream.back().syn().ack().seq(u32::MAX);
        let syn_ack = syn_ack.ack_number(isn.wrapping_add(1));
        stream.hear(&mut walk, "SYN-ACK", syn_ack);
        let data = stream.out().ack().seq(isn.wrapping_add(1)).ack_number(0);
        stream.send(&mut walk, "data across zero", data.payload(&[1; 50]));
        stream.is(&mut walk, "open", ConntrackState::Established);
        let reset = stream.out().rst().seq(isn.wrapping_add(51));
        stream.send(&mut walk, "RST", reset);
        stream.is(&mut walk, "reset", ConntrackState::Closing);
        walk.end();
    }
}

/// What one side sends alone never makes a connection that lasts.
#[test]
fn established_means_that_the_opener_acknowledged() {
    type Rows = Vec<(&'static str, bool, Packet, ConntrackState)>;
    let rows = |stream: &Stream| -> Vec<Rows> {
        let (out, back) = (|| stream.out(), || stream.back());
        let (unreplied, replied, established) = (
            ConntrackState::Unreplied,
            ConntrackState::Replied,
            ConntrackState::Established,
        );
        let syn = || out().syn().seq(1000);
        let syn_ack = || back().syn().ack().seq(5000).ack_number(1001);
        vec![
            vec![
                ("SYN", true, syn(), unreplied),
                ("the same again", true, syn(), unreplied),
                (
                    "an ACK of nothing",
                    true,
                    out().ack().seq(1001).ack_number(9),
                    unreplied,
                ),
            ],
            vec![
                ("SYN", true, syn(), unreplied),
                ("SYN-ACK", false, syn_ack(), replied),
                (
                    "an ACK of its number",
                    true,
                    out().ack().seq(1001).ack_number(5000),
                    replied,
                ),
                (
                    "an ACK beyond it",
                    true,
                    out().ack().seq(1001).ack_number(5002),
                    replied,
                ),
                ("SYN-ACK again", false, syn_ack(), replied),
                (
                    "the ACK",
                    true,
                    out().ack().seq(1001).ack_number(5001),
                    established,
                ),
            ],
            vec![
                // Fast open (RFC 7413): data with both SYNs.
                ("SYN with data", true, syn().payload(&[1; 10]), unreplied),
                (
                    "SYN-ACK with data",
                    false,
                    back()
                        .syn()
                        .ack()
                        .seq(5000)
                        .ack_number(1011)
                        .payload(&[2; 20]),
                    replied,
                ),
                (
                    "the ACK",
                    true,
                    out().ack().seq(1011).ack_number(5021),
                    established,
                ),
            ],
            vec![
                ("simultaneous open: SYN", true, syn(), unreplied),
                ("SYN back", false, back().syn().seq(5000), replied),
                (
                    "SYN-ACK of the opener",
                    true,
                    out().syn().ack().seq(1000).ack_number(5001),
                    established,
                ),
            ],
            vec![
                // The SYN's entry was evicted.
                ("SYN-ACK", false, syn_ack(), unreplied),
                ("the SYN again", true, syn(), unreplied),
                ("SYN-ACK again", false, syn_ack(), replied),
                (
                    "an ACK of what is not expected",
                    false,
                    back().ack().seq(5001).ack_number(1001),
                    replied,
                ),
                (
                    "the ACK",
                    true,
                    out().ack().seq(1001).ack_number(5001),
                    established,
                ),
            ],
            vec![
                // Taken up in the middle.
                (
                    "data",
                    true,
                    out().ack().seq(70).ack_number(90).payload(&[1; 10]),
                    unreplied,
                ),
                (
                    "more",
                    true,
                    out().ack().seq(80).ack_number(90).payload(&[1; 10]),
                    unreplied,
                ),
                (
                    "an ACK back",
                    false,
                    back().ack().seq(90).ack_number(90),
                    replied,
                ),
                (
                    "data",
                    true,
                    out().ack().seq(90).ack_number(90).payload(&[1; 10]),
                    established,
                ),
            ],
        ]
    };
    for family in families() {
        for rows in rows(&Stream { family }) {
            let stream = Stream { family };
            let mut walk = Walk::new(family.name, &config());
            for (says, is_out, packet, state) in rows {
                match is_out {
                    true => stream.send(&mut walk, says, packet),
                    false => stream.hear(&mut walk, says, packet),
                }
                stream.is(&mut walk, says, state);
            }
            walk.end();
        }
    }
}

/// What one side sends, what becomes of it, and the connection's state behind it.
type Step = (&'static str, bool, Packet, ConntrackState);

/// Goes through a script for each family, from a connection that is open or from none.
fn play(is_open: bool, says: &str, script: impl Fn(&Stream) -> Vec<Step>) {
    for (mut walk, stream) in streams() {
        if is_open {
            stream.open(&mut walk);
        }
        for (step, is_out, packet, state) in script(&stream) {
            let step = format!("{says}: {step}");
            match is_out {
                true => stream.send(&mut walk, &step, packet),
                false => stream.hear(&mut walk, &step, packet),
            }
            stream.is(&mut walk, &step, state);
        }
        walk.end();
    }
}

/// An open connection is at 1101 and 5101.
#[test]
fn resets_that_stacks_send_are_believed() {
    use ConntrackState::{Closing, Established};
    play(true, "the socket is gone", |stream| {
        let data = stream.out().ack().seq(1101).ack_number(5101);
        vec![
            ("data", true, data.payload(&[1; 10]), Established),
            ("RST", false, stream.back().rst().seq(5101), Closing),
        ]
    });
    let probe = |stream: &Stream| stream.out().ack().seq(1100).ack_number(5101);
    play(true, "keepalives", |stream| {
        let ack = stream.back().ack().seq(5101).ack_number(1101);
        vec![
            ("a probe", true, probe(stream), Established),
            ("its answer", false, ack, Established),
            (
                "with a byte",
                true,
                probe(stream).payload(&[0]),
                Established,
            ),
            (
                "RST of a peer that is new",
                false,
                stream.back().rst().seq(5101),
                Closing,
            ),
        ]
    });
    play(true, "keepalives without an answer", |stream| {
        vec![
            ("a probe", true, probe(stream), Established),
            ("another", true, probe(stream), Established),
            (
                "RST before it",
                true,
                stream.out().rst().seq(1100),
                Established,
            ),
            (
                "RST, ACK",
                true,
                stream.out().rst().ack().seq(1101),
                Closing,
            ),
        ]
    });
    play(true, "sent again, out of order", |stream| {
        let data = |seq| {
            stream
                .out()
                .ack()
                .seq(seq)
                .ack_number(5101)
                .payload(&[1; 100])
        };
        vec![
            ("the second", true, data(1201), Established),
            ("the first", true, data(1101), Established),
            (
                "RST behind both",
                true,
                stream.out().rst().seq(1301),
                Closing,
            ),
        ]
    });
}

/// More than 65,535 bytes are under way: a reset is anywhere in them, and nowhere else.
#[test]
fn a_scaled_window_is_no_limit() {
    const SEGMENTS: u32 = 80;
    const LENGTH: u32 = 1400;
    let end = 1101 + SEGMENTS * LENGTH;
    let rows = [
        ("at its start", 1101, true),
        ("in the middle", 1101 + 70_000, true),
        ("at its end", end, true),
        ("before it", 1100, false),
        ("behind it", end + 1, false),
    ];
    for (says, seq, closes) in rows {
        for (mut walk, stream) in streams() {
            stream.open(&mut walk);
            for nth in 0..SEGMENTS {
                let data = stream.out().ack().seq(1101 + nth * LENGTH).ack_number(5101);
                stream.send(&mut walk, "data", data.payload(&[1; LENGTH as usize]));
            }
            stream.send(&mut walk, says, stream.out().rst().seq(seq));
            stream.is(&mut walk, says, after_reset(closes));
            walk.end();
        }
    }
}

fn after_reset(closes: bool) -> ConntrackState {
    match closes {
        true => ConntrackState::Closing,
        false => ConntrackState::Established,
    }
}

/// A packet that stands for many segments ends where the last of them does.
#[test]
fn merged_segments_count_whole() {
    for (says, seq, closes) in [
        ("at the last's end", 1101 + 3000, true),
        ("one behind it", 1101 + 3001, false),
    ] {
        for (mut walk, stream) in streams() {
            stream.open(&mut walk);
            let data = stream.out().ack().seq(1101).ack_number(5101);
            let data = data.payload(&[1; 3000]);
            let three = Merged {
                count: 3,
                size: 1000,
            };
            let expect = Delivered(WEB, data.clone());
            walk.net_merged("three segments", UPLINK, &data, three, expect);
            stream.send(&mut walk, says, stream.out().rst().seq(seq));
            stream.is(&mut walk, says, after_reset(closes));
            walk.end();
        }
    }
}

#[test]
fn a_window_across_zero_is_a_window() {
    let rows = [
        ("at its start", u32::MAX - 9, true),
        ("across zero", 5, true),
        ("at its end", 90, true),
        ("before it", u32::MAX - 10, false),
        ("behind it", 91, false),
        ("on the other side", 0x8000_0000, false),
    ];
    for (says, seq, closes) in rows {
        for (mut walk, stream) in streams() {
            let isn = u32::MAX - 10;
            stream.send(&mut walk, "SYN", stream.out().syn().seq(isn));
            let reply = stream.back().syn().ack().seq(5000);
            stream.hear(&mut walk, "SYN-ACK", reply.ack_number(u32::MAX - 9));
            let data = stream.out().ack().seq(u32::MAX - 9).ack_number(5001);
            stream.send(&mut walk, "data across zero", data.payload(&[1; 100]));
            stream.is(&mut walk, "open", ConntrackState::Established);
            stream.send(&mut walk, says, stream.out().rst().seq(seq));
            stream.is(&mut walk, says, after_reset(closes));
            walk.end();
        }
    }
}

/// Who has closed may open the same again at once (RFC 9293, 3.10.7.4; RFC 6191).
#[test]
fn a_connection_in_time_wait_is_opened_anew() {
    use ConntrackState::*;
    let close = |stream: &Stream| -> Vec<Step> {
        let fin = stream.out().fin().ack().seq(1101).ack_number(5101);
        let fin_back = stream.back().fin().ack().seq(5101).ack_number(1102);
        let last = stream.out().ack().seq(1102).ack_number(5102);
        vec![
            ("FIN", true, fin, Established),
            ("FIN back", false, fin_back.clone(), Closing),
            ("the last ACK", true, last.clone(), Closing),
            ("FIN back again", false, fin_back, Closing),
            ("the last ACK again", true, last, Closing),
        ]
    };
    play(true, "by the opener", |stream| {
        let syn_ack = stream.back().syn().ack().seq(9000).ack_number(7001);
        let ack = stream.out().ack().seq(7001).ack_number(9001);
        let mut steps = close(stream);
        steps.extend([
            ("SYN", true, stream.out().syn().seq(7000), Unreplied),
            ("SYN-ACK", false, syn_ack, Replied),
            ("ACK", true, ack, Established),
        ]);
        steps
    });
    play(true, "a reset ends what is closed", |stream| {
        let mut steps = close(stream);
        steps.push(("RST", true, stream.out().rst().seq(1102), Closing));
        steps.push(("SYN", true, stream.out().syn().seq(7000), Unreplied));
        steps
    });
}

/// A reset ends a connection that is not established, and establishes none.
#[test]
fn a_reset_establishes_nothing() {
    use ConntrackState::*;
    let syn = |stream: &Stream| ("SYN", true, stream.out().syn().seq(1000), Unreplied);
    let syn_ack = |stream: &Stream| {
        let reply = stream.back().syn().ack().seq(5000);
        ("SYN-ACK", false, reply.ack_number(1001), Replied)
    };
    play(false, "the opener's", |stream| {
        let reset = stream.out().rst().ack().seq(1001).ack_number(5001);
        vec![syn(stream), syn_ack(stream), ("RST", true, reset, Closing)]
    });
    play(false, "a forged one", |stream| {
        let forged = stream.out().rst().ack().seq(77).ack_number(99);
        vec![syn(stream), syn_ack(stream), ("RST", true, forged, Replied)]
    });
    play(false, "a fast open that is not taken up", |stream| {
        let data = stream
            .out()
            .ack()
            .seq(1001)
            .ack_number(5001)
            .payload(&[1; 10]);
        let (says, is_out, packet, state) = syn(stream);
        vec![
            (says, is_out, packet.payload(&[1; 10]), state),
            syn_ack(stream),
            ("the data again", true, data, Established),
        ]
    });
    let taken_up = |stream: &Stream| -> Vec<Step> {
        let data = stream.out().ack().seq(70).ack_number(90);
        let reply = stream.back().ack().seq(90).ack_number(80);
        vec![
            ("data", true, data.payload(&[1; 10]), Unreplied),
            ("back", false, reply.payload(&[2; 20]), Replied),
        ]
    };
    play(false, "taken up in the middle", |stream| {
        let reset = stream.out().rst().ack().seq(80).ack_number(110);
        let mut steps = taken_up(stream);
        steps.push(("RST", true, reset, Closing));
        steps
    });
    play(false, "taken up, with another's numbers", |stream| {
        let ack = |number| stream.out().ack().seq(80).ack_number(number);
        let mut steps = taken_up(stream);
        steps.extend([
            ("an ACK of nothing sent", true, ack(111), Replied),
            ("an ACK from before", true, ack(89), Replied),
            ("a guess", true, ack(0x8000_0000), Replied),
            ("an ACK of the second", true, ack(110), Established),
        ]);
        steps
    });
}

/// Replies to a packet from a frontend's address would be taken for the service's.
#[test]
fn a_frontends_address_is_no_source() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let client = at(family.client, 4000);
        let rows = [
            ("the port of the service", at(family.dns_service, 53)),
            ("another port", at(family.dns_service, 5353)),
            (
                "a service with a backend elsewhere",
                at(family.web_service, 80),
            ),
        ];
        for (says, frontend) in rows {
            let forged = packet::udp(frontend, client);
            walk.net(says, UPLINK, &forged, Dropped(INVALID_SOURCE));
            walk.to(says, CLIENT, &forged, Dropped(INVALID_SOURCE));
            let forged = packet::tcp(frontend, client).ack();
            walk.net(says, UPLINK, &forged, Dropped(INVALID_SOURCE));
        }
        let asked = family.question(4000);
        walk.from(
            "the client's own question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        walk.end();
    }
}

#[test]
fn nobody_sends_to_himself_without_a_service() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let land = packet::tcp(at(family.client, 80), at(family.client, 80)).syn();
        walk.from("to itself", CLIENT, &land, Dropped(INVALID_SOURCE));
        walk.end();
    }
}

/// A source route would lead a packet past what policy has seen of it.
#[test]
fn source_routes_of_workloads_drop() {
    const SOURCE_ROUTE: u8 = 229;
    let [family, _] = families();
    let mut walk = Walk::new(family.name, CONFIG);
    let rows: [(&str, &[u8], bool); 5] = [
        ("loose", &[131, 7, 4, 10, 200, 0, 99, 0], true),
        (
            "strict, behind padding",
            &[1, 1, 137, 7, 4, 10, 200, 0, 99, 0, 0, 0],
            true,
        ),
        ("a timestamp", &[68, 8, 5, 0, 0, 0, 0, 0], false),
        ("behind the end", &[0, 131, 7, 4], false),
        ("an option of no length", &[148, 0, 131, 7], false),
    ];
    for (says, options, is_refused) in rows {
        let question = family.question(1).ip_options(options);
        let expect = match is_refused {
            true => Dropped(SOURCE_ROUTE),
            false => Delivered(DNS, question.clone().dst(family.dns)),
        };
        walk.from(says, CLIENT, &question, expect);
    }
    walk.end();
}

#[test]
fn ipv6_source_routes_of_workloads_drop() {
    const SOURCE_ROUTE: u8 = 229;
    let [_, family] = families();
    let mut walk = Walk::new(family.name, CONFIG);
    let rows: [(&str, &[Extension], bool); 5] = [
        ("type 0", &[Extension::SourceRoute(0)], true),
        ("segment routing", &[Extension::SourceRoute(4)], true),
        (
            "behind others",
            &[
                Extension::HopByHop,
                Extension::Destination(2),
                Extension::SourceRoute(3),
            ],
            true,
        ),
        ("type 0 with none left", &[Extension::Routing(0)], false),
        (
            "segment routing with none left",
            &[Extension::Routing(4)],
            false,
        ),
    ];
    for (says, extensions, is_refused) in rows {
        let extended = extensions.iter().cloned();
        let question = extended.fold(family.question(1), Packet::extension);
        let expect = match is_refused {
            true => Dropped(SOURCE_ROUTE),
            false => Delivered(DNS, question.clone().dst(family.dns)),
        };
        walk.from(says, CLIENT, &question, expect);
    }
    walk.end();
}
