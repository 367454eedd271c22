//! Fragments: the first leaves its ports for those that follow.

use crate::common::packet::{self, Packet, protocol};
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

/// A question too long for one packet, as the client sends it.
fn long_question(family: &Family, port: u16, id: u16) -> Packet {
    packet::udp(at(family.client, port), at(family.web_service, 80))
        .id(id)
        .payload(&[0x5a; 200])
}

#[test]
fn later_fragments_follow_the_first() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let backend = at(family.web, 8080);
        let whole = long_question(&family, 4000, 1);
        let translated = whole.clone().dst(backend);
        // Ports and checksum are of the first; of the others only the addresses change.
        for (says, first, end) in [
            ("the first", 0, 64),
            ("the second", 64, 128),
            ("the last", 128, 208),
        ] {
            let sent = whole.clone().fragment(first, end);
            walk.from(
                says,
                CLIENT,
                &sent,
                Delivered(WEB, translated.clone().fragment(first, end)),
            );
        }

        let whole = packet::udp(backend, at(family.client, 4000))
            .id(2)
            .payload(&[0xa5; 200]);
        let translated = whole.clone().src(at(family.web_service, 80));
        for (says, first, end) in [("a reply's first", 0, 104), ("its last", 104, 208)] {
            let sent = whole.clone().fragment(first, end);
            walk.from(
                says,
                WEB,
                &sent,
                Delivered(CLIENT, translated.clone().fragment(first, end)),
            );
        }

        let connections = walk.node().connections();
        walk.check("one connection", connections.len() == 1, &connections);
        walk.end();
    }
}

#[test]
fn a_fragment_without_its_first_is_dropped() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let first = long_question(&family, 4001, 5).fragment(0, 64);
        let translated = long_question(&family, 4001, 5)
            .dst(at(family.web, 8080))
            .fragment(0, 64);
        walk.from(
            "no first at all",
            CLIENT,
            &long_question(&family, 4001, 4).fragment(64, 208),
            Dropped(175),
        );
        walk.from("a first", CLIENT, &first, Delivered(WEB, translated));
        let other_id = long_question(&family, 4001, 6).fragment(64, 208);
        walk.from("another datagram's", CLIENT, &other_id, Dropped(175));
        let other_way = long_question(&family, 4001, 5)
            .dst(family.dns_service)
            .fragment(64, 208);
        walk.from("to another address", CLIENT, &other_way, Dropped(175));
        let other_sender = long_question(&family, 4001, 5)
            .src(family.intruder)
            .fragment(64, 208);
        walk.from(
            "from another workload",
            INTRUDER,
            &other_sender,
            Dropped(175),
        );
        walk.end();
    }
}

#[test]
fn policy_holds_for_every_fragment() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let whole = packet::udp(at(family.intruder, 1), at(family.dns, 53))
            .id(9)
            .payload(&[0; 100]);
        walk.from(
            "the first",
            INTRUDER,
            &whole.clone().fragment(0, 64),
            Dropped(133),
        );
        walk.from(
            "a later one",
            INTRUDER,
            &whole.clone().fragment(64, 108),
            Dropped(133),
        );
        walk.end();
    }
}

#[test]
fn a_first_fragment_has_its_whole_header() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let tiny = packet::tcp(at(family.client, 1), at(family.web, 2))
            .syn()
            .id(3)
            .fragment(0, 8);
        walk.from("eight bytes of TCP", CLIENT, &tiny, Dropped(134));
        walk.end();
    }
}

#[test]
fn pings_may_be_fragmented() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let whole = packet::echo_request(family.client, family.web, 7, 1)
            .id(4)
            .payload(&[1; 200]);
        for (says, first, end) in [("the first", 0, 104), ("the last", 104, 208)] {
            let sent = whole.clone().fragment(first, end);
            walk.from(says, CLIENT, &sent, Delivered(WEB, sent.clone()));
        }
        walk.end();
    }
}

/// A fragment header's next header is the first fragment's to say: receivers put together what has the same addresses and id
/// (RFC 8200, 4.5). Tracked by more, a later fragment could name what policy allows and be put behind another's first.
#[test]
fn ipv6_fragments_go_by_addresses_and_id() {
    let [_, family] = families();
    let backend = at(family.web, 8080);
    let named = [
        ("TCP", protocol::TCP),
        ("ICMPv6", protocol::ICMPV6),
        ("nothing", protocol::NO_NEXT),
        ("destination options", protocol::DESTINATION),
        ("another fragment header", protocol::FRAGMENT),
        ("an unknown one", 253),
    ];
    let mut walk = Walk::new("IPv6", CONFIG);
    for (id, (says, next)) in (1..).zip(named) {
        let asked = long_question(&family, 4000, id);
        let replied = packet::udp(backend, at(family.client, 4000))
            .id(id)
            .payload(&[0xa5; 200]);
        let service = at(family.web_service, 80);
        let rows = [
            (CLIENT, WEB, asked.clone(), asked.dst(backend)),
            (WEB, CLIENT, replied.clone(), replied.src(service)),
        ];
        for (from, to, sent, heard) in rows {
            let part = |packet: &Packet, first, end| packet.clone().fragment(first, end);
            let expect = Delivered(to, part(&heard, 0, 64));
            walk.from("the first", from, &part(&sent, 0, 64), expect);
            let later = part(&sent, 64, 208).protocol(next);
            let expect = Delivered(to, part(&heard, 64, 208).protocol(next));
            walk.from(&format!("a later one of {says}"), from, &later, expect);
        }
        let connections = walk.node().connections();
        walk.check("one connection", connections.len() == 1, &connections);
    }
    let other = long_question(&family, 4000, 99).fragment(64, 208);
    let other = other.protocol(protocol::TCP);
    walk.from("of another id", CLIENT, &other, Dropped(175));
    walk.end();
}

/// With IPv4 the protocol is part of a datagram's name (RFC 791, 3.2).
#[test]
fn ipv4_fragments_go_by_protocol_too() {
    let [family, _] = families();
    let mut walk = Walk::new("IPv4", CONFIG);
    let whole = long_question(&family, 4000, 1);
    let first = whole.clone().fragment(0, 64);
    let at_backend = first.clone().dst(at(family.web, 8080));
    walk.from("the first", CLIENT, &first, Delivered(WEB, at_backend));
    let later = whole.fragment(64, 208).protocol(protocol::TCP);
    walk.from("a later one of TCP", CLIENT, &later, Dropped(175));
    walk.end();
}

/// What policy refuses is refused to the end, whatever a later fragment calls itself.
#[test]
fn a_later_fragment_is_judged_as_its_first() {
    let [_, family] = families();
    let only_icmp = r#"
[policies.web]
subject = "web"
ingress = [{ from = ["client"], ports = ["icmpv6"] }]
"#;
    let mut walk = Walk::new("IPv6", &format!("{CONFIG}{only_icmp}"));
    let whole = packet::udp(at(family.client, 1), at(family.web, 2))
        .id(9)
        .payload(&[0; 100]);
    let first = whole.clone().fragment(0, 64);
    walk.from("the first", CLIENT, &first, Dropped(133));
    let later = whole.fragment(64, 108).protocol(protocol::ICMPV6);
    walk.from("a later one of ICMPv6", CLIENT, &later, Dropped(133));
    walk.end();
}
