//! The kernel's check of the route back, which packets that pass the stack by must not escape.

use crate::common::packet::{self, Packet};
use crate::lab::*;
use crate::uplink::{UPLINK, config};
use crate::walk::{Expect, Expect::*, Walk};

/// The lab with a second uplink, to which routes of the test's own lead.
fn two_uplinks() -> String {
    let second = "\n[interfaces.ens6]\nrole = \"uplink\"\n\n[conntrack]";
    changed(&config(), "\n[conntrack]", second)
}

fn ask(family: &Family, from: &str, port: u16) -> Packet {
    packet::udp(at(ip(from), port), at(family.web, 9))
}

#[test]
fn a_source_whose_route_back_is_not_confirmed_is_for_the_kernel_to_judge() {
    let [family, _] = families();
    let mut walk = Walk::new("IPv4", &two_uplinks());
    let namespace = walk.node().namespace();
    namespace.ip("route add 203.0.113.0/25 via 198.18.0.1 dev ens6 onlink");
    namespace.ip("route add blackhole 203.0.113.128/25");
    // (rp_filter, of whom the route leads back by the uplink, by the other one, nowhere)
    let rows = [
        (0, [true, true, true]),
        (1, [true, false, false]),
        (2, [true, true, false]),
    ];
    let mut port = 0;
    for (rp_filter, passes) in rows {
        walk.node()
            .namespace()
            .sysctl(&format!("net.ipv4.conf.ens5.rp_filter={rp_filter}"));
        walk.reload(&two_uplinks());
        let sources = ["198.51.100.7", "203.0.113.7", "203.0.113.200"];
        for (source, passes) in sources.into_iter().zip(passes) {
            port += 1;
            let asked = ask(&family, source, port);
            let expect = |packet: &Packet| -> Expect {
                if passes {
                    Delivered(WEB, packet.clone())
                } else {
                    Passed
                }
            };
            let says = format!("{source} with {rp_filter}");
            walk.net(&says, UPLINK, &asked, expect(&asked));
        }
    }
    walk.node()
        .namespace()
        .sysctl("net.ipv4.conf.ens5.rp_filter=0");
    walk.node()
        .namespace()
        .sysctl("net.ipv4.conf.all.rp_filter=1");
    walk.reload(&two_uplinks());
    walk.net(
        "the greater number counts",
        UPLINK,
        &ask(&family, "203.0.113.7", 99),
        Passed,
    );
    walk.end();
}

/// What went up the stack comes from there, and its answer goes back there.
#[test]
fn what_the_kernel_has_let_pass_is_answered_by_its_stack() {
    let [family, _] = families();
    let mut walk = Walk::new("IPv4", &two_uplinks());
    walk.node()
        .namespace()
        .ip("route add default via 198.18.0.1 dev ens6 onlink metric 1");
    walk.node()
        .namespace()
        .sysctl("net.ipv4.conf.ens5.rp_filter=1");
    walk.reload(&two_uplinks());
    let asked = ask(&family, "198.51.100.7", 5);
    walk.net("it goes up", UPLINK, &asked, Passed);
    let frame = asked
        .clone()
        .macs(
            crate::common::runner::host_mac(WEB),
            crate::common::runner::workload_mac(WEB),
        )
        .build();
    let answer = walk.node().to_container_from(UPLINK, WEB, &frame, 0);
    walk.check("and comes down", answer.drops.is_empty(), answer.drops);
    let reply = packet::udp(at(family.web, 9), at(ip("198.51.100.7"), 5));
    walk.from("the answer goes up", WEB, &reply, Passed);
    walk.end();
}
