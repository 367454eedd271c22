//! What the headers may say: packets that are cut, contradict themselves, come from elsewhere or are of no known kind.
//!
//! A test run takes no frame that is too short for the network header that it announces; those are for the wire.

use crate::common::packet::{self, Extension, Packet, ethertype, raw};
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

#[test]
fn only_ip_and_arp_come_from_a_workload() {
    let [v4, v6] = families();
    let rows: Vec<(&str, Packet, u8)> = vec![
        ("a VLAN tag", v4.question(1).vlan(5), 182),
        ("a VLAN tag over IPv6", v6.question(1).vlan(5), 182),
        ("LLDP", v4.question(1).ethertype(ethertype::LLDP), 139),
        ("MPLS", v4.question(1).ethertype(0x8847), 139),
        (
            "a length instead of a type",
            v4.question(1).ethertype(100),
            166,
        ),
        (
            "VXLAN",
            packet::udp(at(v4.client, 1), at(v4.web, 8472)).payload(&[8, 0, 0, 0]),
            170,
        ),
        (
            "VXLAN over IPv6",
            packet::udp(at(v6.client, 1), at(v6.web, 8472)),
            170,
        ),
    ];
    let mut walk = Walk::new("from the client", CONFIG);
    for (says, packet, reason) in rows {
        walk.from(says, CLIENT, &packet, Dropped(reason));
    }
    for (says, question) in [("IPv4", v4.question(1)), ("IPv6", v6.question(1))] {
        let to_dns = question.clone().dst(match says {
            "IPv4" => v4.dns,
            _ => v6.dns,
        });
        let says = format!("a priority tag over {says} is none");
        walk.from(&says, CLIENT, &question.vlan(0), Delivered(DNS, to_dns));
    }
    let tcp = packet::tcp(at(v4.client, 1), at(v4.web, 8472)).syn();
    walk.from(
        "8472 is nothing special by TCP",
        CLIENT,
        &tcp,
        Delivered(WEB, tcp.clone()),
    );
    walk.end();
}

/// A bridge neighbour, or a packet socket of the host, may tag what the workload takes for untagged.
#[test]
fn a_priority_tag_hides_nothing_from_the_policy_of_a_receiver() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let question = packet::udp(at(family.world, 5), at(family.dns, 53));
        walk.to("denied", DNS, &question.vlan(0), Dropped(133));
        let forged = packet::udp(at(family.client, 5), at(family.dns, 53));
        walk.to("forged", DNS, &forged.vlan(0), Dropped(132));
        let allowed = packet::udp(at(family.world, 5), at(family.web, 6));
        let untagged = PassedAs(allowed.clone());
        walk.to("allowed", WEB, &allowed.clone().vlan(0), untagged);
        walk.to("of a VLAN", WEB, &allowed.vlan(100), Passed);
        walk.end();
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    for family in families() {
        let udp = || packet::udp(at(family.client, 1), at(family.web, 2)).payload(&[0; 32]);
        let tcp = || packet::tcp(at(family.client, 1), at(family.web, 2)).syn();
        let sctp = || packet::sctp(at(family.client, 1), at(family.web, 2));
        let ping = || packet::echo_request(family.client, family.web, 1, 1);
        let header = if family.is_v4() { 14 + 20 } else { 14 + 40 };
        // The IP length says what is there, so that only the transport header is short.
        let cut = |packet: Packet, bytes: usize| {
            let length = if family.is_v4() { 20 + bytes } else { bytes };
            packet.ip_length(length as u16).truncate(header + bytes)
        };
        let other_icmp = if family.is_v4() { 58 } else { 1 };
        let rows: Vec<(&str, Packet)> = vec![
            ("a length past the frame", udp().ip_length(2000)),
            (
                "a frame shorter than its length",
                udp().truncate(header + 20),
            ),
            (
                "the other version",
                udp().version(if family.is_v4() { 6 } else { 4 }),
            ),
            ("a TCP header of four words", tcp().data_offset(4)),
            ("a TCP header past the end", tcp().data_offset(15)),
            ("half a TCP header", cut(tcp(), 10)),
            ("half a UDP header", cut(udp(), 4)),
            ("half an SCTP header", cut(sctp(), 8)),
            ("half an ICMP header", cut(ping(), 4)),
            ("no transport header", cut(udp(), 0)),
            (
                "the other family's ICMP",
                raw(family.client, family.web, other_icmp).payload(&[0; 8]),
            ),
        ];
        let mut walk = Walk::new(family.name, CONFIG);
        for (says, packet) in rows {
            walk.from(says, CLIENT, &packet, Dropped(134));
        }
        walk.end();
    }
}

#[test]
fn ipv4_headers_that_contradict_themselves_are_refused() {
    let [family, _] = families();
    let udp = || packet::udp(at(family.client, 1), at(family.web, 2)).payload(&[0; 32]);
    let rows = [
        ("a header of four words", udp().ihl(4)),
        ("a header of no words", udp().ihl(0)),
        ("a header past its own length", udp().ihl(15).ip_length(24)),
        ("a length below its header", udp().ip_length(19)),
        ("a length of nothing", udp().ip_length(0)),
        ("to nowhere", udp().dst("0.0.0.0")),
    ];
    let mut walk = Walk::new(family.name, CONFIG);
    for (says, packet) in rows {
        walk.from(says, CLIENT, &packet, Dropped(134));
    }
    walk.end();
}

/// Our tables hold IPv4 addresses as v4-mapped: the real thing must not be taken for them.
#[test]
fn mapped_addresses_are_refused() {
    let mapped = |src: &str, dst: &str| packet::udp(src, dst);
    let rows = [
        (
            "as the destination",
            mapped("[fd00:200::64]:1", "[::ffff:10.200.0.44]:53"),
        ),
        (
            "a service's",
            mapped("[fd00:200::64]:1", "[::ffff:10.32.0.10]:53"),
        ),
        (
            "as the source",
            mapped("[::ffff:10.200.0.64]:1", "[fd00:200::44]:53"),
        ),
        (
            "both",
            mapped("[::ffff:10.200.0.64]:1", "[::ffff:10.200.0.44]:53"),
        ),
    ];
    let mut walk = Walk::new("IPv6", CONFIG);
    // An IPv4 connection that runs must not carry it.
    let [v4, _] = families();
    let asked = v4.question(1);
    walk.from(
        "a question over IPv4",
        CLIENT,
        &asked,
        Delivered(DNS, asked.clone().dst(v4.dns)),
    );
    let reply = v4.reply(1);
    walk.from(
        "its reply",
        DNS,
        &reply,
        Delivered(CLIENT, reply.clone().src(v4.dns_service)),
    );
    for (says, packet) in rows {
        walk.from(says, CLIENT, &packet, Dropped(134));
    }
    walk.end();
}

#[test]
fn the_source_is_the_senders_own() {
    for family in families() {
        let to = at(family.web, 80);
        let loopback = if family.is_v4() {
            ip("127.0.0.1")
        } else {
            ip("::1")
        };
        let rows = [
            ("another workload's", family.dns),
            ("the host's", family.host),
            ("the world's", family.world),
            ("a service's", family.dns_service),
            ("loopback", loopback),
        ];
        let mut walk = Walk::new(family.name, CONFIG);
        for (says, source) in rows {
            let udp = packet::udp(at(source, 1), to);
            walk.from(says, CLIENT, &udp, Dropped(132));
            let syn = packet::tcp(at(source, 1), to).syn();
            walk.from(&format!("{says}, by TCP"), CLIENT, &syn, Dropped(132));
        }
        let forged = packet::udp(at(family.client, 1), to);
        walk.to(
            "a workload's, from the host's side",
            WEB,
            &forged,
            Dropped(132),
        );
        walk.end();
    }
}

/// An endpoint may have a prefix: all of it is its own.
#[test]
fn a_routed_prefix_is_the_senders_own() {
    let routed = changed(
        CONFIG,
        r#"addresses = ["10.200.0.64", "fd00:200::64"]"#,
        r#"addresses = ["10.200.0.64", "fd00:200::64", "10.201.0.0/24", "fd00:201::/64"]"#,
    );
    let rows = [
        ("within, IPv4", "10.201.0.77:1", "10.200.0.45:80", true),
        ("next to it, IPv4", "10.201.1.77:1", "10.200.0.45:80", false),
        (
            "within, IPv6",
            "[fd00:201::77]:1",
            "[fd00:200::45]:80",
            true,
        ),
        (
            "next to it, IPv6",
            "[fd00:201:0:1::77]:1",
            "[fd00:200::45]:80",
            false,
        ),
    ];
    let mut walk = Walk::new("a prefix", &routed);
    for (says, src, dst, is_own) in rows {
        let packet = packet::udp(src, dst);
        let expect = if is_own {
            Delivered(WEB, packet.clone())
        } else {
            Dropped(132)
        };
        walk.from(says, CLIENT, &packet, expect);
    }
    let into = packet::udp("10.200.0.45:1", "10.201.0.9:80");
    walk.from("into it", WEB, &into, Delivered(CLIENT, into.clone()));
    walk.end();
}

#[test]
fn extension_headers_are_walked_over() {
    let [_, family] = families();
    let rows: Vec<(&str, Vec<Extension>)> = vec![
        ("hop-by-hop options", vec![Extension::HopByHop]),
        ("destination options", vec![Extension::Destination(1)]),
        ("long destination options", vec![Extension::Destination(16)]),
        (
            "a routing header that has run out",
            vec![Extension::Routing(4)],
        ),
        (
            "three of them",
            vec![
                Extension::HopByHop,
                Extension::Routing(4),
                Extension::Destination(2),
            ],
        ),
        (
            "an atomic fragment",
            vec![Extension::Fragment {
                offset: 0,
                more: false,
                id: 9,
            }],
        ),
    ];
    let mut walk = Walk::new("IPv6", CONFIG);
    for (number, (says, extensions)) in rows.into_iter().enumerate() {
        let port = 1000 + number as u16;
        let with = |packet: Packet| extensions.iter().cloned().fold(packet, Packet::extension);
        let asked = with(family.question(port));
        let at_backend = asked.clone().dst(family.dns);
        walk.from(
            &format!("{says}: the question"),
            CLIENT,
            &asked,
            Delivered(DNS, at_backend.clone()),
        );
        let reply = with(family.reply(port));
        let from_service = reply.clone().src(family.dns_service);
        walk.from(
            &format!("{says}: the reply"),
            DNS,
            &reply,
            Delivered(CLIENT, from_service),
        );
        walk.from(
            &format!("{says}: once more"),
            CLIENT,
            &asked,
            Delivered(DNS, at_backend),
        );
    }
    walk.end();
}

#[test]
fn extension_headers_without_end_are_refused() {
    let [_, family] = families();
    let question = || family.question(2000);
    let endless = (0..20).fold(question(), |packet, _| {
        packet.extension(Extension::Destination(1))
    });
    let rows = [
        ("twenty of them", endless, 156),
        (
            "one that ends past the packet",
            question()
                .extension(Extension::Destination(200))
                .ip_length(64),
            134,
        ),
    ];
    let mut walk = Walk::new("IPv6", CONFIG);
    for (says, packet, reason) in rows {
        walk.from(says, CLIENT, &packet, Dropped(reason));
    }
    walk.end();
}

/// The established path reads less; it must not let pass what the chain refuses.
#[test]
fn a_connection_does_not_excuse_a_header_that_contradicts_itself() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let (here, there) = (at(family.client, 80), at(family.web, 80));
        let udp = packet::udp(here, there).payload(&[1; 30]);
        let tcp = packet::tcp(here, there).ack().payload(&[1; 30]);
        let ping = packet::echo_request(family.client, family.web, 80, 1).payload(&[1; 30]);
        let pong = packet::echo_reply(family.web, family.client, 80, 1);
        let replies = [udp.clone(), tcp.clone()].map(|packet| packet.src(there).dst(here));
        for (asked, reply) in [&udp, &tcp, &ping]
            .into_iter()
            .zip([&replies[0], &replies[1], &pong])
        {
            walk.from("there", CLIENT, asked, Delivered(WEB, asked.clone()));
            walk.from("back", WEB, reply, Delivered(CLIENT, reply.clone()));
        }
        let header = if family.is_v4() { 20 } else { 0 };
        for (says, packet) in [
            (
                "UDP that ends in its header",
                udp.clone().ip_length(header + 7),
            ),
            (
                "TCP that ends in its header",
                tcp.clone().ip_length(header + 19),
            ),
            ("TCP that ends in its options", tcp.clone().data_offset(15)),
            (
                "a ping that ends in its header",
                ping.clone().ip_length(header + 7),
            ),
        ] {
            walk.from(says, CLIENT, &packet, Dropped(134));
        }
        for packet in [udp, tcp, ping] {
            walk.from(
                "it goes on",
                CLIENT,
                &packet,
                Delivered(WEB, packet.clone()),
            );
        }
        walk.end();
    }
}
