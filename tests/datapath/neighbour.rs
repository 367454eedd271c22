//! ARP and neighbour discovery: any gateway works, and what a workload needs to live goes up to the host.

use crate::common::packet::{
    self, Packet, arp_reply, arp_request, icmp, igmp_report, mld_report, neighbour_advertisement,
    neighbour_solicitation, parse, router_advertisement, router_solicitation,
};
use crate::common::runner::{host_mac, workload_mac};
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

#[test]
fn arp_is_answered_for_any_address_but_ones_own() {
    let [family, _] = families();
    let (host, workload) = (host_mac(CLIENT), workload_mac(CLIENT));
    let asks = |target| arp_request(workload, family.client, target).build();
    let mut walk = Walk::new("ARP", CONFIG);
    for target in [
        "169.254.1.1",
        "10.200.0.44",
        "10.32.0.10",
        "192.0.2.1",
        "8.8.8.8",
    ] {
        let response = arp_reply(host, target, workload, family.client).build();
        walk.from_frame(
            &format!("who has {target}?"),
            CLIENT,
            &asks(ip(target)),
            AnsweredFrame(response),
        );
    }
    let unicast = arp_request(workload, family.client, "169.254.1.1")
        .macs(workload, host)
        .build();
    let response = arp_reply(host, "169.254.1.1", workload, family.client).build();
    walk.from_frame(
        "asked of us alone, to see whether we live",
        CLIENT,
        &unicast,
        AnsweredFrame(response),
    );

    let own = asks(family.client);
    let answer = walk.node().from_container(CLIENT, &own);
    let is_answered = parse(&answer.packet)
        .arp
        .is_some_and(|arp| arp.operation == 2);
    walk.check(
        "one's own address is not answered",
        !is_answered,
        answer.verdict,
    );
    let probe = arp_request(workload, "0.0.0.0", family.client).build();
    let answer = walk.node().from_container(CLIENT, &probe);
    let is_answered = parse(&answer.packet)
        .arp
        .is_some_and(|arp| arp.operation == 2);
    walk.check("nor is duplicate detection", !is_answered, answer.verdict);
    walk.end();
}

#[test]
fn arp_replies_of_ones_own_address_go_up_to_the_host() {
    let [family, _] = families();
    let (host, workload) = (host_mac(CLIENT), workload_mac(CLIENT));
    let mut walk = Walk::new("ARP", CONFIG);
    let own = arp_reply(workload, family.client, host, family.host).build();
    walk.from_frame("its own address", CLIENT, &own, Passed);
    let forged = arp_reply(workload, family.dns, host, family.host).build();
    walk.from_frame("another's", CLIENT, &forged, Dropped(132));
    let forged = arp_request(workload, family.dns, "169.254.1.1").build();
    walk.from_frame("asked in another's name", CLIENT, &forged, Dropped(132));
    walk.end();
}

#[test]
fn malformed_arp_is_dropped() {
    let [family, _] = families();
    let asks = || arp_request(workload_mac(CLIENT), family.client, "169.254.1.1");
    let mut walk = Walk::new("ARP", CONFIG);
    let mut ethernet = asks().build();
    ethernet[15] = 6;
    walk.from_frame("of another link", CLIENT, &ethernet, Dropped(134));
    let mut length = asks().build();
    length[18] = 8;
    walk.from_frame("with long addresses", CLIENT, &length, Dropped(134));
    walk.from_frame(
        "cut short",
        CLIENT,
        &asks().truncate(30).build(),
        Dropped(134),
    );
    walk.end();
}

#[test]
fn neighbour_solicitations_are_answered_for_any_address_but_ones_own() {
    let [_, family] = families();
    let workload = workload_mac(CLIENT);
    let mut walk = Walk::new("ND", CONFIG);
    for target in [
        "fe80::1",
        "fd00:200::44",
        "fd00:32::10",
        "2001:db8::1",
        "2001:db8:ffff::7",
    ] {
        for source in [family.client, ip("fe80::abcd")] {
            let asked = neighbour_solicitation(workload, source, target).build();
            let response = advertisement(CLIENT, ip(target), source)
                .macs(host_mac(CLIENT), workload)
                .build();
            walk.from_frame(
                &format!("who has {target}? from {source}"),
                CLIENT,
                &asked,
                AnsweredFrame(response),
            );
        }
    }
    let unicast = neighbour_solicitation(workload, family.client, "fe80::1").dst("fe80::1");
    let response = advertisement(CLIENT, ip("fe80::1"), family.client);
    walk.from(
        "asked of us alone, to see whether we live",
        CLIENT,
        &unicast,
        Answered(response),
    );

    for source in ["::", "fd00:200::64"] {
        let own = neighbour_solicitation(workload, source, family.client).build();
        let answer = walk.node().from_container(CLIENT, &own);
        let is_answered = parse(&answer.packet)
            .icmp
            .is_some_and(|icmp| icmp.kind == 136);
        walk.check(
            "one's own address is not answered",
            !is_answered,
            answer.verdict,
        );
    }
    walk.end();
}

#[test]
fn neighbour_discovery_comes_from_the_link() {
    let [_, family] = families();
    let workload = workload_mac(CLIENT);
    let mut walk = Walk::new("ND", CONFIG);
    let routed = neighbour_solicitation(workload, family.client, "fe80::1")
        .dst("fe80::1")
        .ttl(254);
    let answer = walk
        .node()
        .from_container(CLIENT, &routed.macs(workload, host_mac(CLIENT)).build());
    let is_answered = parse(&answer.packet)
        .icmp
        .is_some_and(|icmp| icmp.kind == 136);
    walk.check(
        "a hop limit below 255 is not answered",
        !is_answered,
        answer.verdict,
    );
    walk.end();
}

#[test]
fn what_a_workload_needs_to_live_goes_up_to_the_host() {
    let workload = workload_mac(CLIENT);
    let dhcp = || packet::udp("0.0.0.0:68", "255.255.255.255:67").payload(&[1; 240]);
    let advertises =
        |target: &str| neighbour_advertisement("fd00:200::64", "ff02::1", 0x20, target, workload);
    let rows: Vec<(&str, Packet)> = vec![
        ("DHCP", dhcp()),
        (
            "DHCP, renewed by an address that it has",
            packet::udp("10.200.0.64:68", "192.0.2.1:67"),
        ),
        ("DHCPv6", packet::udp("[fe80::abcd]:546", "[ff02::1:2]:547")),
        ("IGMP", igmp_report("10.200.0.64", 4, "239.0.0.1")),
        (
            "IGMP before it has an address",
            igmp_report("0.0.0.0", 4, "239.0.0.1"),
        ),
        ("MLD", mld_report("fe80::abcd", "ff02::1:ff00:64")),
        (
            "MLD before it has an address",
            mld_report("::", "ff02::1:ff00:64"),
        ),
        (
            "a router solicitation",
            router_solicitation(workload, "fe80::abcd"),
        ),
        (
            "a router solicitation from nowhere",
            icmp("::", "ff02::2", 133, 0, [0; 4]).ttl(255),
        ),
        (
            "an advertisement of its own address",
            advertises("fd00:200::64"),
        ),
    ];
    let mut walk = Walk::new("from the client", CONFIG);
    for (says, packet) in rows {
        walk.from(says, CLIENT, &packet, Passed);
    }
    walk.end();
}

#[test]
fn what_only_looks_like_it_does_not() {
    let workload = workload_mac(CLIENT);
    let rows: Vec<(&str, Packet, u8)> = vec![
        (
            "DHCP as a server",
            packet::udp("0.0.0.0:67", "255.255.255.255:68"),
            132,
        ),
        (
            "DHCP in another's name",
            packet::udp("10.200.0.44:68", "255.255.255.255:67"),
            132,
        ),
        (
            "nowhere, another port",
            packet::udp("0.0.0.0:68", "255.255.255.255:69"),
            132,
        ),
        (
            "IGMP in another's name",
            igmp_report("10.200.0.44", 4, "239.0.0.1"),
            132,
        ),
        (
            "a router advertisement",
            router_advertisement("fd00:200::64"),
            226,
        ),
        (
            "a router advertisement from the link",
            router_advertisement("fe80::abcd"),
            132,
        ),
        (
            "an advertisement of another's address",
            neighbour_advertisement("fd00:200::64", "ff02::1", 0x60, "fd00:200::44", workload),
            226,
        ),
        (
            "a router solicitation that has been routed",
            router_solicitation(workload, "fe80::abcd").ttl(254),
            132,
        ),
    ];
    let mut walk = Walk::new("from the client", CONFIG);
    for (says, packet, reason) in rows {
        walk.from(says, CLIENT, &packet, Dropped(reason));
    }
    walk.end();
}

/// What goes up to the host past policy ends there: nothing of it is routed on.
#[test]
fn what_policy_is_not_asked_about_stays_on_the_link() {
    let closed = changed(
        CONFIG,
        "[policies.dns-clients]",
        "[policies.closed]\nsubject = \"client\"\negress = []\n\n[policies.dns-clients]",
    );
    let workload = workload_mac(CLIENT);
    let own = "fd00:200::64";
    let rows = |to: [&str; 2]| {
        let [ipv4, ipv6] = to;
        [
            ("IGMP", igmp_report("10.200.0.64", 4, "239.0.0.1").dst(ipv4)),
            (
                "DHCP",
                packet::udp("10.200.0.64:68", "192.0.2.1:67").dst(ipv4),
            ),
            (
                "a router solicitation",
                router_solicitation(workload, own).dst(ipv6),
            ),
            (
                "an advertisement",
                neighbour_advertisement(own, ipv6, 0x60, own, workload),
            ),
        ]
    };
    // No policy is asked about ICMP that opens no connection.
    let reason = |says: &str| match says {
        "IGMP" | "DHCP" => 133,
        _ => 231,
    };
    let mut walk = Walk::new("to the world", &closed);
    for (says, packet) in rows(["198.51.100.7", "2001:db8:ffff::7"]) {
        walk.from(says, CLIENT, &packet, Dropped(reason(says)));
    }
    let asks = neighbour_solicitation(workload, own, own).dst("2001:db8:ffff::7");
    walk.from("a probe of its own address", CLIENT, &asks, Dropped(134));
    walk.end();
    let mut walk = Walk::new("to another workload", &closed);
    for (says, packet) in rows(["10.200.0.45", "fd00:200::45"]) {
        walk.from(says, CLIENT, &packet, Dropped(reason(says)));
    }
    walk.end();
    let mut walk = Walk::new("to the host", &closed);
    for (says, packet) in rows(["192.0.2.1", "2001:db8::1"]) {
        walk.from(says, CLIENT, &packet, Passed);
    }
    walk.end();
}

#[test]
fn what_the_host_says_on_the_link_reaches_the_workload() {
    let host = host_mac(CLIENT);
    let mut walk = Walk::new("to the client", CONFIG);
    let solicits = neighbour_solicitation(host, "fe80::1", "fd00:200::64");
    walk.to("a neighbour solicitation", CLIENT, &solicits, Passed);
    let asks = arp_request(host, "192.0.2.1", "10.200.0.64");
    walk.to("an ARP request", CLIENT, &asks, Passed);
    walk.to(
        "a router advertisement",
        CLIENT,
        &router_advertisement("fe80::1"),
        Passed,
    );
    walk.end();
}

#[test]
fn other_multicast_and_broadcast_drops_without_a_word() {
    let rows: Vec<(&str, Packet)> = vec![
        ("mDNS", packet::udp("10.200.0.64:5353", "224.0.0.251:5353")),
        (
            "a group beyond the link",
            packet::udp("10.200.0.64:1", "239.1.2.3:1"),
        ),
        (
            "broadcast",
            packet::udp("10.200.0.64:1", "255.255.255.255:1"),
        ),
        (
            "mDNS over IPv6",
            packet::udp("[fd00:200::64]:5353", "[ff02::fb]:5353"),
        ),
        (
            "all nodes",
            packet::echo_request("fd00:200::64", "ff02::1", 1, 1),
        ),
    ];
    let mut walk = Walk::new("from the client", CONFIG);
    for (says, packet) in rows {
        let answer = walk.from(says, CLIENT, &packet, Dropped(226));
        walk.reported(says, &answer, &[]);
    }
    walk.end();
}
