//! Faults of dpd's own: a hole in the chain, a table that is gone. A workload's packets drop; the host's pass.

use crate::common::packet::{self, Packet};
use crate::common::runner::{Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::uplink::{UPLINK, config};
use crate::walk::{Expect::*, Walk};

const MISSED_TAIL_CALL: u8 = 140;
const NO_CONFIGURATION: u8 = 165;
/// Places in the chain (`enum call`).
const NEIGHBOUR: u32 = 2;
const ICMP_ERROR: u32 = 7;
const ANSWER: u32 = 8;
/// What most packets go through, from its end.
const STEPS: [u32; 4] = [6, 5, 4, 3];

/// What of the host's own passes the uplink.
fn of_the_host(family: &Family) -> [(&'static str, Packet); 3] {
    [
        (
            "to the host",
            packet::tcp(at(family.world, 5), at(family.host, 22)).syn(),
        ),
        (
            "to a service",
            packet::udp(at(family.world, 5), at(family.web_service, 80)),
        ),
        (
            "through the host",
            packet::udp(at(family.world, 5), at(ip_beyond(family), 53)),
        ),
    ]
}

fn ip_beyond(family: &Family) -> std::net::IpAddr {
    ip(if family.is_v4() {
        "203.0.113.1"
    } else {
        "2001:db8:eeee::1"
    })
}

/// One step after the other is taken away, the last first: each time the packet comes to another hole.
#[test]
fn a_hole_in_the_chain_drops_what_is_for_or_of_a_workload() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let of_world = packet::udp(at(family.world, 1), at(family.web, 2));
        let to_world = packet::udp(at(family.web, 2), at(family.world, 1));
        for _ in 0..2 {
            let there = Delivered(WEB, of_world.clone());
            walk.net("before", UPLINK, &of_world, there);
            walk.from("the reply", WEB, &to_world, Routed(to_world.clone()));
        }
        let parse = u32::from(!family.is_v4());
        for step in STEPS.into_iter().chain([parse]) {
            walk.node().break_chain(step);
            let says = |what: &str| format!("{what}, without {step}");
            let fresh = packet::udp(at(family.client, 3), at(family.web, 2));
            walk.from(
                &says("from a workload"),
                CLIENT,
                &fresh,
                Dropped(MISSED_TAIL_CALL),
            );
            let fresh = packet::udp(at(family.world, 3), at(family.web, 2));
            walk.net(
                &says("from the network"),
                UPLINK,
                &fresh,
                Dropped(MISSED_TAIL_CALL),
            );
            let fresh = packet::udp(at(family.host, 3), at(family.web, 2));
            walk.to(
                &says("from the host"),
                WEB,
                &fresh,
                Dropped(MISSED_TAIL_CALL),
            );
            for (what, packet) in of_the_host(&family) {
                walk.net(&says(what), UPLINK, &packet, Passed);
                walk.out(&says(what), UPLINK, &packet, Passed);
            }
            let there = Delivered(WEB, of_world.clone());
            walk.net(&says("the established"), UPLINK, &of_world, there);
            let back = Routed(to_world.clone());
            walk.from(&says("and its reply"), WEB, &to_world, back);
        }
        walk.end();
    }
}

/// Replies leave by the uplink that the connection came by, as the routes have it here.
#[test]
fn the_first_reply_to_the_network_needs_no_chain() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let of_world = packet::udp(at(family.world, 1), at(family.web, 2));
        let to_world = packet::udp(at(family.web, 2), at(family.world, 1));
        let there = Delivered(WEB, of_world.clone());
        walk.net("a question", UPLINK, &of_world, there);
        walk.node().break_chain(u32::from(!family.is_v4()));
        walk.from("the reply", WEB, &to_world, Routed(to_world.clone()));
        for (table, expected) in [("dpd_ct_other", 2), ("dpd_ct_unreplied", 0)] {
            let rows = walk.node().conntrack_rows(table);
            walk.check(&format!("rows of {table}"), rows == expected, rows);
        }
        walk.end();
    }
}

#[test]
fn a_hole_beside_the_common_way_drops_what_goes_there() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        for step in [NEIGHBOUR, ICMP_ERROR] {
            walk.node().break_chain(step);
        }
        let quoted = packet::udp(at(family.web, 2), at(family.world, 1));
        let net = if family.is_v4() { 1 } else { 0 };
        let error = packet::unreachable(family.world, family.web, net, &quoted);
        walk.net("an error", UPLINK, &error, Dropped(MISSED_TAIL_CALL));
        let to_host = packet::unreachable(family.world, family.host, net, &quoted);
        walk.net("the host's", UPLINK, &to_host, Passed);
        let arp = packet::arp_request(workload_mac(CLIENT), "10.200.0.64", "10.200.0.1").build();
        walk.from_frame("ARP", CLIENT, &arp, Dropped(MISSED_TAIL_CALL));
        walk.net_frame("ARP from the network", UPLINK, &arp, Passed);
        let packet = packet::udp(at(family.client, 3), at(family.web, 2));
        walk.from("the rest", CLIENT, &packet, Delivered(WEB, packet.clone()));
        walk.end();
    }
}

#[test]
fn without_the_step_that_answers_the_sender_is_not_told() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let asked = packet::udp(at(family.client, 1), at(family.web_service, 81));
        let response = port_unreachable(&family, &asked);
        walk.from("with it", CLIENT, &asked, Refused(220, response));
        walk.node().break_chain(ANSWER);
        let frame = asked.macs(workload_mac(CLIENT), host_mac(CLIENT)).build();
        let answer = walk.node().from_container(CLIENT, &frame);
        walk.check(
            "it is dropped",
            answer.verdict == Verdict::Drop,
            answer.verdict,
        );
        let counted = answer.drops == [220];
        walk.check("a packet is one drop", counted, &answer.drops);
        walk.end();
    }
}

/// The kernel's tables of connections make room themselves: what remains is that nothing can be asked at all.
#[test]
fn without_settings_no_connection_begins() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let packet = packet::udp(at(family.client, 1), at(family.web, 2));
        walk.from("before", CLIENT, &packet, Delivered(WEB, packet.clone()));
        walk.node().lose_settings();
        let fresh = packet::udp(at(family.client, 3), at(family.web, 2));
        walk.from("from a workload", CLIENT, &fresh, Dropped(NO_CONFIGURATION));
        let of_world = packet::udp(at(family.world, 3), at(family.web, 2));
        walk.net(
            "from the network",
            UPLINK,
            &of_world,
            Dropped(NO_CONFIGURATION),
        );
        let of_host = packet::udp(at(family.host, 3), at(family.web, 2));
        walk.to("from the host", WEB, &of_host, Dropped(NO_CONFIGURATION));
        for (says, packet) in of_the_host(&family) {
            walk.net(says, UPLINK, &packet, Passed);
        }
        walk.end();
    }
}
