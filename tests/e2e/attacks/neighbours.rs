//! Floods that would fill the host's neighbour table, which is one for all workloads.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::seat::{Family, Seat, at, families, ip, mac_of};
use crate::common::frames::FrameSocket;
use crate::common::packet::{
    Packet, arp_reply, arp_request, neighbour_advertisement, neighbour_solicitation,
    router_solicitation, udp,
};
use crate::lab::{NetnsLab, eventually};

/// Twice the limit of a minute, as a minute may end during the test.
const MOST: usize = 2 * 256;
const SOURCES: u16 = 1200;

/// The kernel's limit of neighbours (`gc_thresh3`, 1024) counts those of all network namespaces: one flood at a time.
static TABLE: Mutex<()> = Mutex::new(());

/// A lab in which a workload has prefixes of its own.
fn with_prefixes(name: &str) -> NetnsLab {
    let lab = NetnsLab::laid();
    let own = families().map(|family| match name {
        "client" => family.client,
        _ => family.intruder,
    });
    lab.edit(
        &format!("[\"{}\", \"{}\"]", own[0], own[1]),
        &format!(
            "[\"{}\", \"10.201.0.0/16\", \"{}\", \"fd00:210::/64\"]",
            own[0], own[1]
        ),
    );
    lab.ok(
        "node",
        &format!(
            "ip route add 10.201.0.0/16 dev lxc-{name} && ip route add fd00:210::/64 dev lxc-{name}"
        ),
    );
    lab.start();
    lab
}

/// One of the prefix's addresses.
fn source(family: &Family, number: u16) -> IpAddr {
    match family.client {
        IpAddr::V4(_) => ip(&format!("10.201.{}.{}", 1 + (number >> 8), number & 0xff)),
        IpAddr::V6(_) => ip(&format!("fd00:210::{:x}", 1 + number)),
    }
}

/// The host's neighbour entries at the workload's interface.
fn entries(lab: &NetnsLab, name: &str) -> [usize; 2] {
    ["-4", "-6"].map(|family| {
        let line = format!("ip {family} neigh show dev lxc-{name} nud all");
        lab.ok("node", &line).lines().count()
    })
}

/// The kernel removes old entries early once it has 128 of all namespaces: some are left.
fn are_bounded(lab: &NetnsLab, name: &str) {
    let [ipv4, ipv6] = entries(lab, name);
    assert!(
        ipv4 + ipv6 <= MOST && ipv4.min(ipv6) > 0,
        "{ipv4} IPv4 and {ipv6} IPv6 neighbours of {SOURCES} sources"
    );
    // Other workloads' neighbours still have room.
    for family in families() {
        lab.ok("node", "ip neigh flush dev lxc-coredns");
        lab.ok("node", &format!("ping -n -c 1 -W 5 {}", family.server));
    }
}

/// The host replies to each.
#[test]
fn packets_to_the_host_from_many_own_addresses() {
    let _alone = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = with_prefixes("intruder");
    let intruder = Seat::workload(&lab, "intruder");
    for number in 0..SOURCES / 2 {
        for family in families() {
            let source = at(source(&family, number), 4444);
            intruder.send(&udp(source, at(family.node, 4444)));
        }
    }
    assert!(lab.dropped("rate limited") > 0, "{:?}", lab.drops());
    are_bounded(&lab, "intruder");
}

/// One of the link's own messages, from an address that the host has not heard of.
fn announcement(seat: &Seat, number: u16) -> Packet {
    let [ipv4, ipv6] = families();
    let (four, six) = (source(&ipv4, number), source(&ipv6, number));
    let link_local = ip(&format!("fe80::{:x}", 0x1000 + number));
    match number % 5 {
        0 => arp_request(seat.own, four, four),
        1 => arp_reply(seat.own, four, seat.other, ipv4.gateway),
        2 => router_solicitation(seat.own, link_local),
        3 => neighbour_solicitation(seat.own, six, six),
        _ => neighbour_advertisement(link_local, ipv6.gateway, 32, link_local, seat.own)
            .macs(seat.own, seat.other),
    }
}

#[test]
fn announcements_of_many_addresses() {
    let _alone = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = with_prefixes("client");
    // A host that learns from announcements, too.
    lab.ok(
        "node",
        "sysctl -qw net.ipv4.conf.lxc-client.arp_accept=1 net.ipv6.conf.lxc-client.accept_untracked_na=1",
    );
    let client = Seat::workload(&lab, "client");
    assert_eq!(client.other, mac_of(&lab, "node", "lxc-client"));
    let capture = lab.within("client", || FrameSocket::capture("eth0"));
    let [ipv4, _] = families();
    let ask = arp_request(client.own, ipv4.client, ipv4.gateway);
    for number in 0..SOURCES {
        client.send_as_built(&announcement(&client, number));
        if number % 128 != 0 {
            continue;
        }
        // The rate of messages leaves room for more once a request is answered.
        eventually("the gateway's address is known", || {
            client.send_as_built(&ask);
            let mut frames = std::iter::from_fn(|| capture.receive());
            let is_answer = |frame: Vec<u8>| frame[..6] == client.own && frame[20..22] == [0, 2];
            if frames.any(is_answer) {
                Ok(())
            } else {
                Err(())
            }
        });
    }
    are_bounded(&lab, "client");
}
