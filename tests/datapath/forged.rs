//! Packets that somebody else forged, and real ones that look like them: what they may do to connections and services.

use dpd::model::conntrack::ConntrackState;

use crate::common::packet::{self, Packet};
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
