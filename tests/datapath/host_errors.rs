//! The errors that the host makes itself: by the kinds of the kernel, from an address of the link that the sender reached.

use crate::common::packet;
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
