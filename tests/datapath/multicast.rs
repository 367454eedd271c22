//! Multicast and broadcast: dropped, unless the file gives them to the workload; then as policy says.

use crate::common::packet::{self, Packet, echo_request, router_advertisement};
use crate::common::runner::{host_mac, workload_mac};
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

const INVALID_SOURCE: u8 = 132;
const DENIED: u8 = 133;
const ENCAPSULATION: u8 = 170;
const MULTICAST: u8 = 226;
const UNRELATED: u8 = 231;

/// The client and the web server have multicast.
fn config(more: &str) -> String {
    let mut text = CONFIG.to_owned();
    for identity in ["client", "web"] {
        let line = format!("identity = \"{identity}\"\n");
        text = changed(&text, &line, &format!("{line}multicast = true\n"));
    }
    format!("{text}\n{more}")
}

fn group(family: &Family) -> &'static str {
    if family.is_v4() {
        "224.0.0.251"
    } else {
        "ff02::fb"
    }
}

fn mdns(family: &Family, from: std::net::IpAddr, port: u16) -> Packet {
    packet::udp(at(from, 5353), at(ip(group(family)), port)).payload(b"who is printer.local?")
}

#[test]
fn it_passes_where_the_file_says_so() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config(""));
        let from_client = mdns(&family, family.client, 5353);
        walk.from("of its own", CLIENT, &from_client, Passed);
        let of_dns = mdns(&family, family.dns, 5353);
        walk.from("the file does not say so", DNS, &of_dns, Dropped(MULTICAST));
        let forged = mdns(&family, family.dns, 5353);
        walk.from("forged", CLIENT, &forged, Dropped(INVALID_SOURCE));
        let vxlan = mdns(&family, family.client, 8472);
        walk.from("VXLAN", CLIENT, &vxlan, Dropped(ENCAPSULATION));
        let ping = echo_request(family.client, ip(group(&family)), 1, 1);
        walk.from("a ping", CLIENT, &ping, Passed);
        let rows = [
            ("of the host", "", family.host, CLIENT, vec![]),
            ("of the host, anyway", "", family.host, DNS, vec![]),
            ("of a workload", WEB, family.web, CLIENT, vec![]),
            ("of a neighbour", INTRUDER, family.world, CLIENT, vec![]),
            ("not to this one", WEB, family.web, DNS, vec![MULTICAST]),
            ("forged", INTRUDER, family.web, CLIENT, vec![INVALID_SOURCE]),
        ];
        for (says, arrived_at, from, to, drops) in rows {
            let packet = mdns(&family, from, 5353);
            let frame = packet.macs(host_mac(to), workload_mac(to)).build();
            let answer = walk.node().to_container_from(arrived_at, to, &frame, 0);
            walk.check(says, answer.drops == drops, &answer.drops);
        }
        let connections = walk.node().connections();
        walk.check(
            "it makes no connection",
            connections.is_empty(),
            &connections,
        );
        let answer = mdns(&family, family.web, 5353);
        walk.from("again", WEB, &answer, Passed);
        walk.end();
    }
}

#[test]
fn broadcast_is_the_same() {
    let [family, _] = families();
    let mut walk = Walk::new("broadcast", &config(""));
    let to_all = |from| packet::udp(at(from, 9), "255.255.255.255:9");
    walk.from("of its own", CLIENT, &to_all(family.client), Passed);
    walk.from("not its own", DNS, &to_all(family.dns), Dropped(MULTICAST));
    let rogue = router_advertisement("fe80::64");
    walk.from("no router", CLIENT, &rogue, Dropped(INVALID_SOURCE));
    let rogue = router_advertisement("fd00:200::64");
    walk.from("no router", CLIENT, &rogue, Dropped(UNRELATED));
    walk.node()
        .namespace()
        .ip("address add 10.200.0.1/24 dev lxc-client");
    walk.reload(&config(""));
    let subnet = packet::udp(at(family.web, 9), "10.200.0.255:9");
    let frame = |packet: &Packet, to| packet.clone().macs(host_mac(to), [0xff; 6]).build();
    for (says, to, drops) in [
        ("of the subnet", CLIENT, vec![]),
        ("not to this one", DNS, vec![169]),
    ] {
        let answer = walk
            .node()
            .to_container_from(WEB, to, &frame(&subnet, to), 0);
        walk.check(says, answer.drops == drops, &answer.drops);
    }
    let own = packet::udp(at(family.client, 9), "10.200.0.255:9");
    let own = own.macs(workload_mac(CLIENT), [0xff; 6]).build();
    walk.from_frame("its own, of the subnet", CLIENT, &own, Passed);
    let connections = walk.node().connections();
    walk.check("no connection", connections.is_empty(), &connections);
    walk.end();
}

#[test]
fn policy_is_asked_on_each_side() {
    for family in families() {
        let all = if family.is_v4() {
            "224.0.0.0/4"
        } else {
            "ff00::/8"
        };
        let more = format!(
            "[policies.out]\nsubject = \"client\"\negress = [{{ to = [\"cidr:{all}\"], ports = [\"5353/udp\"] }}]\n\
             [policies.in]\nsubject = \"web\"\ningress = [{{ from = [\"client\"], ports = [\"5353/udp\"] }}]\n"
        );
        let text = config(&more);
        let mut walk = Walk::new(family.name, &text);
        let own = |port| mdns(&family, family.client, port);
        walk.from("the port of the rule", CLIENT, &own(5353), Passed);
        walk.from("another", CLIENT, &own(5355), Dropped(DENIED));
        let rows = [
            ("the rule's peer", CLIENT, family.client, 5353, vec![]),
            ("another port", CLIENT, family.client, 5355, vec![DENIED]),
            (
                "another peer",
                INTRUDER,
                family.intruder,
                5353,
                vec![DENIED],
            ),
            (
                "the host's address, forwarded",
                INTRUDER,
                family.world,
                5353,
                vec![DENIED],
            ),
        ];
        for (says, arrived_at, from, port, drops) in rows {
            let frame = mdns(&family, from, port)
                .macs(host_mac(WEB), workload_mac(WEB))
                .build();
            let answer = walk.node().to_container_from(arrived_at, WEB, &frame, 0);
            walk.check(says, answer.drops == drops, &answer.drops);
        }
        let hits = walk.node().rule_hits();
        let counted: Vec<u64> = hits.values().copied().filter(|hits| *hits != 0).collect();
        walk.check("each rule has its hit", counted == [1, 1], &hits);

        walk.reload(&format!("{text}\n[policy]\naudit = true\n"));
        let answer = walk.from("audit", CLIENT, &own(5356), Passed);
        walk.check("is reported", answer.events.len() == 1, &answer.events);
        walk.end();
    }
}

/// A workload that serves leases to its neighbours is their gateway and their name server.
#[test]
fn a_lease_of_another_workload_needs_permission() {
    let [family, _] = families();
    let more = "[policies.leases]\nsubject = \"intruder\"\ningress = [{ from = [\"web\"], ports = [\"68/udp\"] }]\n";
    let walk_of = |more: &str| Walk::new("leases", &config(more));
    for (says, more, to, from, arrived_at, drops) in [
        ("denied", "", DNS, family.web, WEB, vec![DENIED]),
        ("allowed", more, INTRUDER, family.web, WEB, vec![]),
        ("of a neighbour", "", DNS, family.world, INTRUDER, vec![]),
        ("of the host", "", DNS, family.host, "", vec![]),
    ] {
        let mut walk = walk_of(more);
        let lease = packet::udp(at(from, 67), at(ip("255.255.255.255"), 68));
        let frame = lease.macs(host_mac(to), [0xff; 6]).build();
        let answer = walk.node().to_container_from(arrived_at, to, &frame, 0);
        walk.check(says, answer.drops == drops, &answer.drops);
        walk.end();
    }
    let mut walk = walk_of("");
    let lease = packet::udp(at(family.intruder, 67), at(ip("255.255.255.255"), 68));
    walk.from("no multicast", INTRUDER, &lease, Dropped(MULTICAST));
    walk.end();
}
