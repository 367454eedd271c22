//! Delivery other than from workload to workload: backends that are no workload, and workloads that are gone.

use crate::common::packet;
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

/// The web service with its backends elsewhere.
fn with_backends(backends: &str) -> String {
    changed(
        CONFIG,
        "backends = [\"10.200.0.45:8080\", \"[fd00:200::45]:8080\"]\n\n[services.diameter]",
        &format!("backends = [{backends}]\n\n[services.diameter]"),
    )
}

#[test]
fn a_backend_may_be_the_host_or_the_world() {
    for family in families() {
        let service = at(family.web_service, 80);
        let rows = [
            (
                "the host",
                family.host,
                r#""192.0.2.1:8080", "[2001:db8::1]:8080""#,
            ),
            (
                "the world",
                family.world,
                r#""198.51.100.7:8080", "[2001:db8:ffff::7]:8080""#,
            ),
        ];
        for (says, address, backends) in rows {
            let mut walk = Walk::new(format!("{}, {says}", family.name), &with_backends(backends));
            let backend = at(address, 8080);
            let asked = packet::udp(at(family.client, 1), service).payload(b"?");
            let reply = packet::udp(backend, at(family.client, 1)).payload(b"!");
            for time in ["the first", "the second"] {
                let there = PassedAs(asked.clone().dst(backend));
                walk.from(&format!("{time} question"), CLIENT, &asked, there);
                let back = PassedAs(reply.clone().src(service));
                walk.to(&format!("{time} reply"), CLIENT, &reply, back);
            }
            walk.end();
        }
    }
}

#[test]
fn a_workload_whose_interface_is_gone_can_not_be_reached() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = packet::udp(at(family.client, 1), at(family.web, 2));
        walk.from("before", CLIENT, &asked, Delivered(WEB, asked.clone()));
        walk.node().namespace().ip("link delete lxc-web");
        walk.reload(CONFIG);
        walk.from("the connection", CLIENT, &asked, Dropped(169));
        let fresh = packet::udp(at(family.client, 2), at(family.web, 2));
        walk.from("a new one", CLIENT, &fresh, Dropped(169));
        let through = packet::udp(at(family.client, 2), at(family.web_service, 80));
        walk.from("through the service", CLIENT, &through, Dropped(169));
        let elsewhere = packet::udp(at(family.client, 2), at(family.web_2, 2));
        walk.from(
            "nothing else stops for it",
            CLIENT,
            &elsewhere,
            Delivered(WEB_2, elsewhere.clone()),
        );
        walk.end();
    }
}

/// The last hop's TTL is one that the next may still take away.
#[test]
fn each_delivery_is_a_hop() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        for ttl in [2, 64, 128, 255] {
            let packet = packet::udp(at(family.client, 1), at(family.web, 2)).ttl(ttl);
            walk.from(
                &format!("from {ttl}"),
                CLIENT,
                &packet,
                Delivered(WEB, packet.clone()),
            );
        }
        walk.end();
    }
}

/// What the host's stack sends out of an interface is for the workload behind it, or a route leads the wrong way.
#[test]
fn the_host_reaches_a_workload_on_its_own_interface_alone() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = packet::udp(at(family.host, 1), at(family.web, 2));
        let reply = packet::udp(at(family.web, 2), at(family.host, 1));
        walk.to("a new connection", WEB_2, &asked, Dropped(169));
        walk.to("the right way", WEB, &asked, Passed);
        walk.from("the reply", WEB, &reply, Passed);
        walk.to("the connection goes on", WEB, &asked, Passed);
        walk.to("by a wrong way", WEB_2, &asked, Dropped(169));
        walk.to("and by the right one again", WEB, &asked, Passed);
        walk.end();
    }
}
