//! An interface that has the programs and is no endpoint: before the switch that makes it one, and after the one that ends
//! it. What it sends and gets passes then, as without them, and never otherwise.

use crate::common::packet::{self, arp_request};
use crate::common::runner::{Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

const UNKNOWN_SOURCE: u8 = 132;

/// The lab without its intruder.
fn without() -> String {
    let mut tables = CONFIG.split("\n[");
    let its = tables.find(|table| table.starts_with("interfaces.lxc-intruder]"));
    changed(CONFIG, &format!("\n[{}", its.expect("its table")), "")
}

/// What the interface without a row sends and gets: all of it passes, or none.
fn all(walk: &mut Walk, says: &str, family: &Family, expected: Verdict) {
    let ends = (workload_mac(INTRUDER), host_mac(INTRUDER));
    let asked = packet::udp(at(family.intruder, 5), at(family.web, 7));
    let service = packet::tcp(at(family.intruder, 5), at(family.dns_service, 53)).syn();
    let reply = packet::udp(at(family.host, 7), at(family.intruder, 5));
    let arp = arp_request(workload_mac(INTRUDER), ip("10.200.0.65"), "169.254.1.1").build();
    let sent = [asked, service].map(|packet| packet.macs(ends.0, ends.1).build());
    let got = reply.macs(ends.1, ends.0).build();
    let mut verdicts: Vec<Verdict> = [&sent[0], &sent[1], &arp]
        .map(|frame| walk.node().from_container(INTRUDER, frame).verdict)
        .into();
    verdicts.push(walk.node().to_container(INTRUDER, &got).verdict);
    walk.check(says, verdicts == vec![expected; 4], &verdicts);
}

#[test]
fn who_joins_or_leaves_is_let_alone_until_and_after() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        walk.node().reload(&without());
        all(&mut walk, "nobody knows it", &family, Verdict::Drop);

        walk.node().announce(INTRUDER, 1);
        all(&mut walk, "it joins with the next", &family, Verdict::Pass);
        let asked = packet::udp(at(family.client, 5), at(family.web, 7));
        walk.from(
            "others are served",
            CLIENT,
            &asked,
            Delivered(WEB, asked.clone()),
        );
        walk.node().reload(CONFIG);
        let asked = packet::udp(at(family.intruder, 5), at(family.web, 7));
        walk.from(
            "it has joined",
            INTRUDER,
            &asked,
            Delivered(WEB, asked.clone()),
        );
        let forged = asked.clone().src(family.web_2);
        walk.from("and is watched", INTRUDER, &forged, Dropped(UNKNOWN_SOURCE));

        walk.node().announce(INTRUDER, u64::MAX);
        walk.from("it is to leave", INTRUDER, &forged, Dropped(UNKNOWN_SOURCE));
        walk.node().reload(&without());
        all(&mut walk, "it has left", &family, Verdict::Pass);

        walk.node().announce(INTRUDER, 0);
        all(&mut walk, "it should have joined", &family, Verdict::Drop);
        let connections = walk.node().connections();
        walk.check("connections", connections.len() == 2, &connections);
        walk.end();
    }
}
