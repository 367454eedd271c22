//! Link-local addresses: between a workload and its own link only, each link's for itself.

use libbpf_rs::MapCore;

use crate::common::packet::{
    self, Packet, echo_reply, echo_request, neighbour_advertisement, neighbour_solicitation,
};
use crate::common::runner::{Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

const INVALID_SOURCE: u8 = 132;
const DENIED: u8 = 133;
const INVALID_PACKET: u8 = 134;
const NO_ROUTE: u8 = 169;
/// The host's, on each link.
const HOST: &str = "fe80::aa";
const OWN: &str = "fe80::64";

/// A node with the host's address on these links.
fn laid(place: &str, config: &str, links: &[&str]) -> Walk {
    let walk = Walk::new(place, config);
    for link in links {
        let words = format!("address add {HOST}/64 dev {link} nodad");
        walk.node().namespace().ip(&words);
    }
    walk.reload(config);
    walk
}

#[test]
fn events_name_the_learnt_address() {
    let config = changed(CONFIG, "\"medium\"", "\"none\"");
    let mut walk = laid("a link", &config, &[CLIENT]);
    announce(&mut walk, CLIENT, OWN);
    let advertised = neighbour_advertisement(HOST, OWN, 96, HOST, host_mac(CLIENT));
    let answer = walk.to("what belongs to no connection", CLIENT, &advertised, Passed);
    for flow in &answer.events {
        let names = (flow.src.identity, flow.dst.identity);
        walk.check("the host, and the workload", names == (1, 20001), names);
    }
    walk.check("it is reported", !answer.events.is_empty(), &answer.events);
    walk.end();
}

/// The workload probes for duplicates of an address.
fn announce(walk: &mut Walk, interface: &str, address: &str) {
    let probe = neighbour_solicitation(workload_mac(interface), "::", address).build();
    walk.from_frame("duplicate detection", interface, &probe, Passed);
}

fn udp(from: &str, from_port: u16, to: &str, to_port: u16) -> Packet {
    packet::udp(at(ip(from), from_port), at(ip(to), to_port))
}

#[test]
fn host_and_workload_reach_each_other() {
    let mut walk = laid("a link", CONFIG, &[CLIENT]);
    let ping = echo_request(OWN, HOST, 1, 1);
    walk.from("not announced", CLIENT, &ping, Dropped(INVALID_SOURCE));
    let back = echo_request(HOST, OWN, 2, 1);
    walk.to("to nobody yet", CLIENT, &back, Dropped(NO_ROUTE));
    announce(&mut walk, CLIENT, OWN);
    walk.from("ping the host", CLIENT, &ping, Passed);
    walk.to("its reply", CLIENT, &echo_reply(HOST, OWN, 1, 1), Passed);
    walk.to("the host's ping", CLIENT, &back, Passed);
    walk.from("its reply", CLIENT, &echo_reply(OWN, HOST, 2, 1), Passed);
    let syn = packet::tcp(at(ip(OWN), 7), at(ip(HOST), 179)).syn().seq(1);
    walk.from("TCP", CLIENT, &syn, Passed);
    let syn_ack = packet::tcp(at(ip(HOST), 179), at(ip(OWN), 7));
    let syn_ack = syn_ack.syn().ack().seq(8).ack_number(2);
    walk.to("TCP, back", CLIENT, &syn_ack, Passed);
    let question = udp(HOST, 5, OWN, 9);
    walk.to("UDP", CLIENT, &question, Passed);
    let error = packet::unreachable(ip(OWN), ip(HOST), 4, &question);
    walk.from("nobody listens there", CLIENT, &quote(error), Passed);
    for n in 0..4u16 {
        let again = udp(OWN, 77, HOST, 547).payload(&[n as u8]);
        walk.from("again and again", CLIENT, &again, Passed);
        let answer = udp(HOST, 547, OWN, 77).payload(&[n as u8]);
        walk.to("and back", CLIENT, &answer, Passed);
    }
    let connections = walk.node().connections();
    let identities = |c: &dpd::model::conntrack::Connection| (c.src_identity, c.dst_identity);
    let of_client = connections.iter().filter(|c| c.src.ip() == ip(OWN));
    let of_client: Vec<_> = of_client.map(|c| (c.dst.ip(), identities(c))).collect();
    walk.check(
        "the true addresses, and the host",
        of_client == [(ip(HOST), (20001, 1)); 3],
        &connections,
    );
    let of_host = connections.iter().filter(|c| c.src.ip() == ip(HOST));
    let of_host: Vec<_> = of_host.map(identities).collect();
    walk.check("of the host", of_host == [(1, 20001); 2], &connections);
    walk.end();
}

#[test]
fn a_link_local_source_stays_on_its_link_and_is_not_forged() {
    let [_, family] = families();
    let mut walk = laid("a link", CONFIG, &[CLIENT]);
    announce(&mut walk, CLIENT, OWN);
    let to = |to| packet::udp(at(ip(OWN), 7), to);
    let wire = |from, to| udp(from, 7, to, 9);
    let rows = [
        ("the host's", to(at(ip(HOST), 9)), Passed),
        ("the host's global one", to(at(family.host, 9)), Passed),
        (
            "its own global one as source",
            wire("fd00:200::64", HOST),
            Passed,
        ),
        (
            "another workload",
            to(at(family.web, 9)),
            Dropped(INVALID_SOURCE),
        ),
        (
            "the world",
            to(at(family.world, 9)),
            Dropped(INVALID_SOURCE),
        ),
        (
            "a service",
            to(at(family.dns_service, 53)),
            Dropped(INVALID_SOURCE),
        ),
        (
            "no port of a service",
            to(at(family.dns_service, 54)),
            Dropped(INVALID_SOURCE),
        ),
        ("forged", wire("fe80::65", HOST), Dropped(INVALID_SOURCE)),
        ("as the host", wire(HOST, HOST), Dropped(INVALID_SOURCE)),
        (
            "with a link in it",
            wire("fe80:0:0:2::64", HOST),
            Dropped(INVALID_PACKET),
        ),
        (
            "to one with a link in it",
            wire(OWN, "fe80:0:0:2::aa"),
            Dropped(INVALID_PACKET),
        ),
    ];
    for (says, packet, expect) in rows {
        walk.from(says, CLIENT, &packet, expect);
    }
    let packet = wire("fe80::65", OWN);
    let frame = packet.macs(host_mac(CLIENT), workload_mac(CLIENT)).build();
    let known = walk.node().from_netdev(CLIENT, &frame);
    walk.check(
        "from an uplink it is nobody's",
        known.drops.is_empty(),
        known.drops,
    );
    walk.end();
}

#[test]
fn one_address_is_learnt_unless_the_file_names_some() {
    let mut walk = laid("learnt", CONFIG, &[CLIENT]);
    announce(&mut walk, CLIENT, "fe80::1:1");
    announce(&mut walk, CLIENT, OWN);
    walk.from(
        "the first was not used",
        CLIENT,
        &udp(OWN, 1, HOST, 9),
        Passed,
    );
    announce(&mut walk, CLIENT, "fe80::65");
    let solicitation = neighbour_solicitation(workload_mac(CLIENT), "fe80::66", HOST);
    walk.node().from_container(CLIENT, &solicitation.build());
    for second in ["fe80::65", "fe80::66", "fe80::1:1"] {
        let packet = udp(second, 1, HOST, 9);
        walk.from(second, CLIENT, &packet, Dropped(INVALID_SOURCE));
    }
    walk.from("it stays", CLIENT, &udp(OWN, 1, HOST, 9), Passed);
    walk.end();

    let named = CONFIG.replace("\"fd00:200::64\"", "\"fd00:200::64\", \"fe80::7\"");
    let mut walk = laid("named", &named, &[CLIENT]);
    walk.from("named", CLIENT, &udp("fe80::7", 1, HOST, 9), Passed);
    walk.to("to it", CLIENT, &udp(HOST, 3, "fe80::7", 9), Passed);
    announce(&mut walk, CLIENT, OWN);
    let other = udp(OWN, 1, HOST, 9);
    walk.from("another", CLIENT, &other, Dropped(INVALID_SOURCE));
    let mac = workload_mac(CLIENT);
    for (from, expect) in [("fe80::7", Passed), (OWN, Dropped(INVALID_SOURCE))] {
        let asks = neighbour_solicitation(mac, from, from).build();
        walk.from_frame(&format!("asks as {from}"), CLIENT, &asks, expect.clone());
        let says = neighbour_advertisement(from, HOST, 0x60, from, mac);
        walk.from(&format!("advertises {from}"), CLIENT, &says, expect);
    }
    walk.end();
}

/// Else a workload could displace the addresses of others, which are as many as the table has rows.
#[test]
fn a_workload_has_one_row_however_many_addresses_it_announces() {
    let mut walk = laid("learnt", CONFIG, &[CLIENT, DNS]);
    announce(&mut walk, DNS, OWN);
    for n in 1..=9 {
        announce(&mut walk, CLIENT, &format!("fe80::{n}:1"));
    }
    for table in ["dpd_link_local_owners", "dpd_link_locals"] {
        let rows = walk.node().map(table).keys().count();
        walk.check(&format!("a row for each in {table}"), rows == 2, rows);
    }
    let last = udp("fe80::9:1", 1, HOST, 9);
    walk.from("the last one is learnt", CLIENT, &last, Passed);
    walk.from(
        "the other's is untouched",
        DNS,
        &udp(OWN, 1, HOST, 9),
        Passed,
    );
    walk.end();
}

/// The same addresses and ports on two links are two connections, each with its own verdict.
#[test]
fn each_link_has_addresses_of_its_own() {
    let closed = format!("{CONFIG}\n[policy]\nallow_host = false\n");
    let mut walk = laid("two links", &closed, &[CLIENT, DNS, WEB]);
    for interface in [CLIENT, DNS, WEB] {
        announce(&mut walk, interface, OWN);
    }
    let question = udp(HOST, 5, OWN, 9);
    walk.to("of one that is free", CLIENT, &question, Passed);
    walk.to("of one with a policy", DNS, &question, Dropped(DENIED));
    walk.to("of another that is free", WEB, &question, Passed);
    walk.from("its reply", CLIENT, &udp(OWN, 9, HOST, 5), Passed);
    let connections = walk.node().connections();
    let found: Vec<_> = connections
        .iter()
        .map(|c| (c.src.ip(), c.dst.ip(), c.dst_identity, c.reply_packets))
        .collect();
    let (host, own) = (ip(HOST), ip(OWN));
    let mut sorted = found.clone();
    sorted.sort();
    walk.check(
        "two connections, one with a reply",
        sorted == [(host, own, 20001, 1), (host, own, 20003, 0)],
        found,
    );
    walk.end();
}

/// CLIENT, DNS and INTRUDER are ports of a bridge, on which the host has an address.
fn bridged() -> Walk {
    let walk = Walk::new("a bridge", CONFIG);
    let namespace = walk.node().namespace();
    namespace.ip("link add br0 up type bridge");
    for port in [CLIENT, DNS, INTRUDER] {
        namespace.ip(&format!("link set {port} master br0"));
    }
    namespace.ip(&format!("address add {HOST}/64 dev br0 nodad"));
    walk.reload(CONFIG);
    let mut walk = walk;
    for (port, address) in [(CLIENT, OWN), (DNS, "fe80::44"), (INTRUDER, "fe80::65")] {
        announce(&mut walk, port, address);
    }
    walk
}

#[test]
fn neighbours_on_a_bridge_are_judged_by_their_identity() {
    let mut walk = bridged();
    let question = udp(OWN, 5, "fe80::44", 53);
    let forged = udp("fe80::44", 5, OWN, 53);
    walk.from("what policy allows", CLIENT, &question, Linked);
    for mac in [workload_mac(DNS), workload_mac(INTRUDER), [0xff; 6]] {
        let frame = question.clone().macs(workload_mac(CLIENT), mac).build();
        walk.from_frame("again, wherever its MAC leads", CLIENT, &frame, Linked);
    }
    walk.from("its reply", DNS, &udp("fe80::44", 53, OWN, 5), Linked);
    let error = packet::unreachable(ip("fe80::44"), ip(OWN), 4, &question);
    walk.from("its error", DNS, &quote(error), Linked);
    let denied = udp("fe80::65", 5, "fe80::44", 53);
    walk.from("what policy denies", INTRUDER, &denied, Dropped(DENIED));
    walk.from("forged", INTRUDER, &forged, Dropped(INVALID_SOURCE));
    walk.from("the host", CLIENT, &udp(OWN, 5, HOST, 53), Passed);
    walk.from("a stranger", CLIENT, &udp(OWN, 6, "fe80::99", 53), Passed);
    let identities: Vec<_> = walk.node().connections();
    let identities: Vec<_> = identities
        .iter()
        .map(|c| (c.dst.ip(), c.dst_identity))
        .collect();
    let expected = [(ip("fe80::44"), 18203), (ip("fe80::99"), 2), (ip(HOST), 1)];
    let mut sorted = identities.clone();
    sorted.sort();
    walk.check("who they are", sorted == expected, identities);

    let node = walk.node();
    let frame = |packet: Packet| packet.macs(workload_mac(CLIENT), workload_mac(DNS)).build();
    let rows = [
        (
            "judged at the sender's hook",
            CLIENT,
            frame(question.clone()),
            node.mark(),
            vec![],
        ),
        (
            "its mark is lost",
            CLIENT,
            frame(question.clone()),
            0,
            vec![],
        ),
        (
            "forged by another port",
            WEB,
            frame(question),
            0,
            vec![INVALID_SOURCE],
        ),
        (
            "a stranger",
            WEB,
            frame(udp("fe80::99", 5, "fe80::44", 53)),
            0,
            vec![DENIED],
        ),
        (
            "the host's address, forged",
            WEB,
            frame(udp(HOST, 5, "fe80::44", 53)),
            0,
            vec![DENIED],
        ),
        (
            "the host",
            "",
            frame(udp(HOST, 5, "fe80::44", 9)),
            0,
            vec![],
        ),
    ];
    for (says, arrived_at, frame, mark, drops) in rows {
        let answer = walk.node().to_container_from(arrived_at, DNS, &frame, mark);
        walk.check(says, answer.drops == drops, &answer.drops);
    }
    walk.end();
}

/// The bridge would drop it without a word.
#[test]
fn a_packet_too_long_for_a_neighbours_link_is_answered() {
    const TOO_BIG: u8 = 136;
    let mut walk = bridged();
    let [_, family] = families();
    walk.node().namespace().ip("link set lxc-coredns mtu 1400");
    walk.reload(CONFIG);
    let of_length = |length: usize| udp(OWN, 5, "fe80::44", 53).payload(&vec![7; length - 48]);
    walk.from("it fits", CLIENT, &of_length(1400), Linked);
    let long = of_length(1401);
    let error = packet::fragmentation_needed(family.host, ip(OWN), 1400, &long);
    let error = Refused(TOO_BIG, quote(error));
    walk.from("one byte more", CLIENT, &long, error);
    walk.end();
}

#[test]
fn neighbour_discovery_on_a_bridge_claims_nobody_elses_address() {
    let mut walk = bridged();
    let asks = |from: &str, target: &str| {
        neighbour_solicitation(workload_mac(INTRUDER), from, target).build()
    };
    walk.from_frame("of a neighbour", INTRUDER, &asks("fe80::65", OWN), Passed);
    let response = advertisement(INTRUDER, ip(HOST), ip("fe80::65"));
    let response = response
        .macs(host_mac(INTRUDER), workload_mac(INTRUDER))
        .build();
    let of_host = asks("fe80::65", HOST);
    walk.from_frame("of the host", INTRUDER, &of_host, AnsweredFrame(response));
    let forged = asks(OWN, HOST);
    walk.from_frame("as another", INTRUDER, &forged, Dropped(INVALID_SOURCE));
    let forged = asks(HOST, OWN);
    walk.from_frame("as the host", INTRUDER, &forged, Dropped(INVALID_SOURCE));
    for (target, passes) in [("fe80::65", true), (OWN, false), (HOST, false)] {
        let says = neighbour_advertisement("fe80::65", OWN, 0x60, target, workload_mac(INTRUDER));
        let frame = says
            .macs(workload_mac(INTRUDER), workload_mac(CLIENT))
            .build();
        let answer = walk.node().from_container(INTRUDER, &frame);
        let right = (answer.verdict == Verdict::Pass) == passes;
        walk.check(&format!("advertises {target}"), right, answer);
    }
    walk.end();
}
