//! The errors that the host makes itself: by the kinds of the kernel, from an address of the link that the sender reached.

use crate::common::packet::{self, fragmentation_needed};
use crate::lab::*;
use crate::uplink::{UPLINK, config};
use crate::walk::{Expect::*, Walk};

const NO_ROUTE: u8 = 169;
const TTL_EXCEEDED: u8 = 196;

#[test]
fn what_a_route_refuses_is_answered_as_the_kernel_would() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let prefix = if family.is_v4() {
            "198.51.100.7/32"
        } else {
            "2001:db8:ffff::7/128"
        };
        let asked = packet::udp(at(family.client, 1), at(family.world, 9));
        // The codes of ip_error() and ip6_pkt_drop(); a black hole is silent.
        let rows = [
            ("unreachable", Some(if family.is_v4() { 1 } else { 0 })),
            ("prohibit", Some(if family.is_v4() { 13 } else { 1 })),
            ("blackhole", None),
        ];
        for (kind, code) in rows {
            walk.node()
                .namespace()
                .ip(&format!("route add {kind} {prefix}"));
            let expect = match code {
                Some(code) => {
                    let error = packet::unreachable(family.host, family.client, code, &asked);
                    Refused(NO_ROUTE, quote(error))
                }
                None => Dropped(NO_ROUTE),
            };
            walk.from(kind, CLIENT, &asked, expect);
            walk.node()
                .namespace()
                .ip(&format!("route del {kind} {prefix}"));
        }
        walk.from(
            "no such route any more",
            CLIENT,
            &asked,
            Routed(asked.clone()),
        );
        walk.end();
    }
}

#[test]
fn an_error_has_an_address_of_the_link_that_its_receiver_reached() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let (workloads, networks) = match family.is_v4() {
            true => ("10.200.255.1", "192.0.2.77"),
            false => ("fd00:200:ffff::1", "2001:db8::77"),
        };
        let inside = packet::udp(at(family.client, 1), at(family.web, 9)).ttl(1);
        let outside = packet::udp(at(family.world, 1), at(family.web, 9)).ttl(1);
        let of_node = time_exceeded_here(&family, &inside);
        walk.from(
            "a link without an address",
            CLIENT,
            &inside,
            Refused(TTL_EXCEEDED, of_node),
        );
        for (interface, address) in [(CLIENT, workloads), (UPLINK, networks)] {
            let nodad = if family.is_v4() { "" } else { "nodad" };
            let line = format!("address add {address} dev {interface} {nodad}");
            walk.node().namespace().ip(&line);
        }
        walk.reload(&config());
        let mut sees = family;
        sees.host = ip(workloads);
        let error = time_exceeded_here(&sees, &inside);
        walk.from(
            "the workload's",
            CLIENT,
            &inside,
            Refused(TTL_EXCEEDED, error),
        );
        sees.host = ip(networks);
        let error = time_exceeded_here(&sees, &outside);
        walk.net(
            "the uplink's",
            UPLINK,
            &outside,
            Refused(TTL_EXCEEDED, error),
        );
        walk.end();
    }
}

/// As a router would: a workload whose link takes less than its sender's.
#[test]
fn a_packet_too_long_for_its_receivers_link_is_answered() {
    const TOO_BIG: u8 = 136;
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        walk.node().namespace().ip("link set lxc-web mtu 1400");
        walk.reload(&config());
        let to = at(family.web, 9);
        let header = if family.is_v4() { 20 } else { 40 };
        let of_length = |length: usize| {
            let payload = vec![7; length - header - 8];
            packet::udp(at(family.client, 1), to)
                .payload(&payload)
                .dont_fragment()
        };
        let fits = of_length(1400);
        let long = of_length(1401);
        let error = fragmentation_needed(family.host, family.client, 1400, &long);
        walk.from(
            "the first that fits",
            CLIENT,
            &fits,
            Delivered(WEB, fits.clone()),
        );
        walk.from(
            "one byte more",
            CLIENT,
            &long,
            Refused(TOO_BIG, quote(error)),
        );
        let answer = packet::udp(to, at(family.client, 1));
        walk.from("an answer", WEB, &answer, Delivered(CLIENT, answer.clone()));
        walk.from("established", CLIENT, &fits, Delivered(WEB, fits.clone()));
        let error = fragmentation_needed(family.host, family.client, 1400, &long);
        walk.from(
            "and too long",
            CLIENT,
            &long,
            Refused(TOO_BIG, quote(error)),
        );
        let outside = |packet: packet::Packet| packet.src(at(family.world, 1));
        let error = fragmentation_needed(family.host, family.world, 1400, &outside(long.clone()));
        walk.net(
            "from the network",
            UPLINK,
            &outside(long),
            Refused(TOO_BIG, quote(error)),
        );
        walk.end();
    }
    let [family, _] = families();
    let mut walk = Walk::new("IPv4 that may be cut", &config());
    walk.node().namespace().ip("link set lxc-web mtu 1400");
    walk.reload(&config());
    let may_cut = packet::udp(at(family.client, 1), at(family.web, 9)).payload(&[7; 1400]);
    let answer = walk.from("the host's stack cuts it", CLIENT, &may_cut, Passed);
    walk.reported("it, where it leaves", &answer, &[]);
    let sent = walk.node().endpoint_counts(CLIENT).packets_out;
    let received = walk.node().endpoint_counts(WEB).packets_in;
    walk.check(
        "nor is it counted",
        (sent, received) == (0, 0),
        (sent, received),
    );
    let asked = packet::udp(at(family.client, 1), at(family.web_service, 80)).payload(&[7; 1400]);
    let there = PassedAs(asked.clone().dst(at(family.web, 8080)));
    walk.from("through a service", CLIENT, &asked, there);
    walk.end();
}
