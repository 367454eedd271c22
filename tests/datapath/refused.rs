//! Connections that a tightened policy ends. The pair stays as refused: its packets drop either way, until a SYN opens a new one
//! or a newer configuration allows it again. Where nobody saw who opened a connection, either orientation will do.

use dpd::model::conntrack::ConntrackState;

use crate::common::packet::{self, Packet};
use crate::common::runner::Answer;
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

const NO_RULE: u8 = 133;

/// The first port and the state of each connection.
fn listed(walk: &Walk) -> Vec<(u16, ConntrackState)> {
    let connections = walk.node().connections();
    connections
        .iter()
        .map(|connection| (connection.src.port(), connection.state))
        .collect()
}

/// A TCP connection of the client through the DNS service, which `closed()` ends.
struct Asked {
    family: Family,
    port: u16,
}

fn closed() -> String {
    let open = r#"ingress = [{ from = ["client"], ports = ["53/udp", "53/tcp"] }]"#;
    changed(CONFIG, open, "ingress = []")
}

impl Asked {
    fn out(&self) -> Packet {
        let service = at(self.family.dns_service, 53);
        packet::tcp(at(self.family.client, self.port), service)
    }

    fn back(&self) -> Packet {
        packet::tcp(at(self.family.dns, 53), at(self.family.client, self.port))
    }

    fn send(&self, walk: &mut Walk, says: &str, packet: Packet) {
        let expect = Delivered(DNS, packet.clone().dst(self.family.dns));
        walk.from(says, CLIENT, &packet, expect);
    }

    fn hear(&self, walk: &mut Walk, says: &str, packet: Packet) {
        let expect = Delivered(CLIENT, packet.clone().src(self.family.dns_service));
        walk.from(says, DNS, &packet, expect);
    }

    fn data(&self) -> Packet {
        self.out().ack().payload(b"?")
    }

    fn data_back(&self) -> Packet {
        self.back().ack().payload(b"!")
    }

    fn open(&self, walk: &mut Walk) {
        self.send(walk, "SYN", self.out().syn());
        self.hear(walk, "SYN-ACK", self.back().syn().ack());
        self.send(walk, "data", self.data());
    }

    fn refused(&self, walk: &mut Walk) -> Answer {
        walk.from("refused", CLIENT, &self.data(), Dropped(NO_RULE))
    }

    fn reply_refused(&self, walk: &mut Walk) -> Answer {
        walk.from("refused back", DNS, &self.data_back(), Dropped(NO_RULE))
    }
}

/// A connection that was open and is refused now, by a packet of the client or of the server.
fn refused_ones() -> impl Iterator<Item = (Walk, Asked)> {
    let rows = [(CLIENT, "the client goes on"), (DNS, "the server goes on")];
    let rows = families()
        .into_iter()
        .flat_map(move |family| rows.map(|row| (family, row)));
    rows.map(|(family, (first, says))| {
        let mut walk = Walk::new(format!("{}, {says}", family.name), CONFIG);
        let asked = Asked { family, port: 3000 };
        asked.open(&mut walk);
        walk.reload(&closed());
        match first {
            CLIENT => asked.refused(&mut walk),
            _ => asked.reply_refused(&mut walk),
        };
        let got = listed(&walk);
        let refused = [(3000, ConntrackState::Refused)];
        walk.check("it is listed as the client's", got == refused, &got);
        (walk, asked)
    })
}

/// Were it to expire while its peers try on, the server's next packet would open a flow that policy allows.
#[test]
fn refused_packets_renew_it() {
    let remaining = |walk: &Walk| {
        walk.node()
            .connections()
            .first()
            .map(|row| row.remaining_ns)
    };
    for (mut walk, asked) in refused_ones() {
        for from in [CLIENT, DNS] {
            std::thread::sleep(std::time::Duration::from_millis(300));
            let before = remaining(&walk);
            match from {
                CLIENT => asked.refused(&mut walk),
                _ => asked.reply_refused(&mut walk),
            };
            let after = remaining(&walk);
            let says = format!("renewed by {from}: more than {before:?}");
            walk.check(&says, before.is_some() && after > before, after);
        }
        walk.end();
    }
}

#[test]
fn its_packets_change_nothing_but_its_age() {
    for (mut walk, asked) in refused_ones() {
        let rows = [
            ("FIN", asked.out().fin().ack()),
            ("RST", asked.out().rst()),
            ("SYN-ACK", asked.out().syn().ack()),
            ("data", asked.data()),
        ];
        for (says, packet) in rows {
            walk.from(says, CLIENT, &packet, Dropped(NO_RULE));
        }
        let rows = [
            ("FIN back", asked.back().fin().ack()),
            ("RST back", asked.back().rst()),
            ("SYN-ACK back", asked.back().syn().ack()),
            ("data back", asked.data_back()),
        ];
        for (says, packet) in rows {
            walk.from(says, DNS, &packet, Dropped(NO_RULE));
        }
        let got = listed(&walk);
        let refused = [(3000, ConntrackState::Refused)];
        walk.check("it is refused still", got == refused, &got);
        walk.end();
    }
}

#[test]
fn a_syn_of_its_client_is_judged_as_new() {
    for (mut walk, asked) in refused_ones() {
        let syn = asked.out().syn().seq(9000);
        walk.from("a SYN", CLIENT, &syn, Dropped(NO_RULE));
        let got = listed(&walk);
        walk.check("it leaves nothing", got.is_empty(), &got);
        walk.reload(CONFIG);
        asked.send(&mut walk, "a SYN that a rule allows", syn);
        let got = listed(&walk);
        let new = [(3000, ConntrackState::Unreplied)];
        walk.check("a new connection", got == new, &got);
        walk.end();
    }
}

/// No rule keeps the server from opening connections of its own.
#[test]
fn a_syn_of_its_server_is_judged_as_new() {
    for (mut walk, asked) in refused_ones() {
        let syn = asked.back().syn().seq(9000);
        walk.from("a SYN", DNS, &syn, Delivered(CLIENT, syn.clone()));
        let got = listed(&walk);
        let new = [(53, ConntrackState::Unreplied)];
        walk.check("a new connection of the server's", got == new, &got);
        walk.end();
    }
}

#[test]
fn a_newer_configuration_may_allow_it_again() {
    let elsewhere = "\n[policies.web]\nsubject = \"web\"\ningress = []\n";
    for server_first in [false, true] {
        for (mut walk, asked) in refused_ones() {
            walk.reload(&format!("{}{elsewhere}", closed()));
            // The server may well open connections to the client; this one is the client's.
            asked.reply_refused(&mut walk);
            asked.refused(&mut walk);
            walk.reload(CONFIG);
            if server_first {
                asked.hear(&mut walk, "allowed again, back", asked.data_back());
            }
            asked.send(&mut walk, "allowed again", asked.data());
            asked.hear(&mut walk, "back", asked.data_back());
            let got = listed(&walk);
            let established = [(3000, ConntrackState::Established)];
            walk.check("it goes on", got == established, &got);
            walk.end();
        }
    }
}

#[test]
fn a_refused_first_packet_makes_no_entry() {
    for family in families() {
        let mut walk = Walk::new(family.name, &closed());
        let asked = Asked { family, port: 1 };
        let rows = [
            ("SYN", asked.out().syn()),
            ("in the middle", asked.data()),
            ("UDP", family.question(2)),
            (
                "ping",
                packet::echo_request(family.client, family.dns, 7, 1),
            ),
            (
                "SCTP",
                packet::sctp(at(family.client, 3), at(family.dns, 53)),
            ),
        ];
        for (says, packet) in rows {
            walk.from(says, CLIENT, &packet, Dropped(NO_RULE));
        }
        let got = listed(&walk);
        walk.check("no entry", got.is_empty(), &got);
        walk.end();
    }
}

/// What is reported of a refused packet is what its connection's opener may not do.
#[test]
fn its_drops_name_its_opener() {
    let there = "dropped 133 client -> kube-dns (service kube-dns) no rule of ingress kube-dns";
    let back =
        "dropped 133 kube-dns -> client reply (service kube-dns) no rule of ingress kube-dns";
    for family in families() {
        for client_first in [true, false] {
            let mut walk = Walk::new(family.name, CONFIG);
            let asked = Asked { family, port: 3000 };
            asked.open(&mut walk);
            walk.reload(&closed());
            let order = match client_first {
                true => [true, false],
                false => [false, true],
            };
            for of_client in order {
                let (line, answer) = match of_client {
                    true => (there, asked.refused(&mut walk)),
                    false => (back, asked.reply_refused(&mut walk)),
                };
                walk.reported("its drop", &answer, &[line]);
            }
            walk.end();
        }
    }
}

/// Refused ones are among the unreplied, whatever table they came from: a peer that keeps many of them alive evicts no
/// connection that works.
#[test]
fn many_of_them_evict_nothing_that_works() {
    const WORKING: u16 = 20;
    const WAVES: u16 = 30;
    const REFUSED: u16 = 40; // in each wave; in all more than each table has room for
    let small = |config: &str| changed(config, "size = 4096", "size = 1024\nper_endpoint = 0");
    for family in families() {
        let mut walk = Walk::new(family.name, &small(CONFIG));
        for port in 1..=WORKING {
            let (client, web) = (at(family.client, port), at(family.web, 8080));
            let (out, back) = (packet::tcp(client, web), packet::tcp(web, client));
            let rows = [
                (CLIENT, WEB, out.clone().syn()),
                (WEB, CLIENT, back.syn().ack()),
                (CLIENT, WEB, out.ack()),
            ];
            for (from, to, packet) in rows {
                walk.from("it works", from, &packet, Delivered(to, packet.clone()));
            }
        }
        for wave in 0..WAVES {
            let ports = (0..REFUSED).map(|nth| 1000 + wave * REFUSED + nth);
            let wave: Vec<Asked> = ports.map(|port| Asked { family, port }).collect();
            wave.iter().for_each(|asked| asked.open(&mut walk));
            walk.reload(&small(&closed()));
            for asked in &wave {
                asked.refused(&mut walk);
            }
            walk.reload(&small(CONFIG));
        }
        let got = listed(&walk);
        let count = |state| got.iter().filter(|(_, of)| *of == state).count();
        let working = count(ConntrackState::Established);
        walk.check(
            "all that worked do",
            working == usize::from(WORKING),
            working,
        );
        let refused = count(ConntrackState::Refused);
        let all = usize::from(WAVES * REFUSED);
        walk.check(
            "their own table was full",
            (1..all).contains(&refused),
            refused,
        );
        walk.end();
    }
}

/// Rules by which the web workload may open connections to the client's port 4000, the client to the web's 8080, or neither.
fn allow(to_client: bool, to_web: bool) -> String {
    let rule = |is_allowed: bool, from: &str, port: u16| match is_allowed {
        true => format!("{{ from = [\"{from}\"], ports = [\"{port}/tcp\"] }}"),
        false => String::new(),
    };
    format!(
        "{CONFIG}\n[policies.client]\nsubject = \"client\"\ningress = [{}]\n\n[policies.web]\nsubject = \"web\"\ningress = [{}]\n",
        rule(to_client, "web", 4000),
        rule(to_web, "client", 8080)
    )
}

/// A connection between the client's port 4000 and the web's 8080.
struct Between {
    family: Family,
}

impl Between {
    fn ends(&self) -> (std::net::SocketAddr, std::net::SocketAddr) {
        (at(self.family.client, 4000), at(self.family.web, 8080))
    }

    fn of(&self, from: &'static str) -> (&'static str, Packet) {
        let (client, web) = self.ends();
        match from {
            CLIENT => (WEB, packet::tcp(client, web).seq(1001)),
            _ => (CLIENT, packet::tcp(web, client).seq(5001)),
        }
    }

    fn passes(&self, walk: &mut Walk, says: &str, from: &'static str) {
        let (to, packet) = self.of(from);
        let packet = match from {
            CLIENT => packet.ack().ack_number(5001),
            _ => packet.ack().ack_number(1001),
        };
        walk.from(
            &format!("{from} {says}"),
            from,
            &packet,
            Delivered(to, packet.clone()),
        );
    }

    fn drops(&self, walk: &mut Walk, says: &str, from: &'static str) {
        let (_, packet) = self.of(from);
        walk.from(
            &format!("{from} {says}"),
            from,
            &packet.ack(),
            Dropped(NO_RULE),
        );
    }

    /// Nobody saw its SYN; the web workload's packet is the first that is seen.
    fn take_up(&self, walk: &mut Walk) {
        for from in [WEB, CLIENT, WEB] {
            self.passes(walk, "is taken up", from);
        }
    }

    fn open_by_client(&self, walk: &mut Walk) {
        let (client, web) = self.ends();
        let syn = packet::tcp(client, web).syn().seq(1000);
        walk.from("SYN", CLIENT, &syn, Delivered(WEB, syn.clone()));
        let reply = packet::tcp(web, client).syn().ack();
        let reply = reply.seq(5000).ack_number(1001);
        walk.from("SYN-ACK", WEB, &reply, Delivered(CLIENT, reply.clone()));
        self.passes(walk, "acknowledges", CLIENT);
    }

    fn is(&self, walk: &mut Walk, says: &str, state: ConntrackState) {
        let got = listed(walk);
        let states: Vec<_> = got.iter().map(|(_, state)| *state).collect();
        walk.check(&format!("{says}: {state:?}"), states == [state], &got);
    }
}

#[test]
fn one_taken_up_in_the_middle_goes_on_in_either_orientation() {
    // (what policy allows: the web workload to the client, the client to the web workload)
    let rows = [
        ("as it was taken up", true, false),
        ("the other way", false, true),
        ("both", true, true),
        ("neither", false, false),
    ];
    for family in families() {
        for first in [WEB, CLIENT] {
            for (says, to_client, to_web) in rows {
                let place = format!("{}, {says}, first {first}", family.name);
                let mut walk = Walk::new(place, CONFIG);
                let between = Between { family };
                between.take_up(&mut walk);
                between.is(&mut walk, "taken up", ConntrackState::Established);
                walk.reload(&allow(to_client, to_web));
                let second = if first == WEB { CLIENT } else { WEB };
                let goes_on = to_client || to_web;
                for from in [first, first, second, first, second] {
                    match goes_on {
                        true => between.passes(&mut walk, "goes on", from),
                        false => between.drops(&mut walk, "is refused", from),
                    }
                    let state = match goes_on {
                        true => ConntrackState::Established,
                        false => ConntrackState::Refused,
                    };
                    between.is(&mut walk, &format!("after {from}"), state);
                }
                walk.end();
            }
        }
    }
}

/// The orientation that policy chose is the connection's from then on; a later configuration may choose the other.
#[test]
fn one_taken_up_in_the_middle_is_judged_at_each_change() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let between = Between { family };
        between.take_up(&mut walk);
        for (to_client, to_web) in [(false, true), (true, false), (false, true)] {
            walk.reload(&allow(to_client, to_web));
            for from in [CLIENT, WEB, CLIENT] {
                between.passes(&mut walk, "goes on", from);
            }
            walk.reload(&allow(false, false));
            for from in [WEB, CLIENT, WEB] {
                between.drops(&mut walk, "is refused", from);
            }
            between.is(&mut walk, "refused", ConntrackState::Refused);
        }
        walk.reload(&allow(true, false));
        between.passes(&mut walk, "is allowed again", CLIENT);
        between.passes(&mut walk, "is allowed again", WEB);
        between.is(&mut walk, "at last", ConntrackState::Established);
        walk.end();
    }
}

/// Whoever's SYN was seen opened it: that he may be called does not let him call.
#[test]
fn one_whose_opener_is_known_is_judged_as_he_opened_it() {
    for family in families() {
        for first in [CLIENT, WEB] {
            let mut walk = Walk::new(format!("{}, first {first}", family.name), CONFIG);
            let between = Between { family };
            between.open_by_client(&mut walk);
            walk.reload(&allow(true, false));
            between.drops(&mut walk, "may not", first);
            for from in [CLIENT, WEB] {
                between.drops(&mut walk, "may not", from);
            }
            between.is(&mut walk, "refused", ConntrackState::Refused);
            walk.reload(&allow(false, true));
            for from in [WEB, CLIENT] {
                between.passes(&mut walk, "may again", from);
            }
            between.is(&mut walk, "allowed", ConntrackState::Established);
            walk.end();
        }
    }
}
