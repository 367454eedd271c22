//! An interface that has the programs and is no endpoint: before the switch that makes it one, and after the one that ends
//! it. What it sends and gets passes then, as without them. At any other time it is closed: all of that drops.

use crate::common::packet::{self, arp_request};
use dpd::model::flow::Flow;

use crate::common::runner::{Answer, Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

const UNKNOWN_SOURCE: u8 = 132;
const NO_CONFIGURATION: u8 = 165;

/// The lab without its intruder.
fn without() -> String {
    let mut tables = CONFIG.split("\n[");
    let its = tables.find(|table| table.starts_with("interfaces.lxc-intruder]"));
    changed(CONFIG, &format!("\n[{}", its.expect("its table")), "")
}

/// What the interface without a row sends and gets, also what a link needs: all of it passes, or is dropped, counted and
/// reported.
fn all(walk: &mut Walk, says: &str, family: &Family, expected: Verdict) {
    let ends = (workload_mac(INTRUDER), host_mac(INTRUDER));
    let asked = packet::udp(at(family.intruder, 5), at(family.web, 7));
    let service = packet::tcp(at(family.intruder, 5), at(family.dns_service, 53)).syn();
    let dhcp = packet::udp("0.0.0.0:68", "255.255.255.255:67");
    let mdns = match family.is_v4() {
        true => "224.0.0.251",
        false => "ff02::fb",
    };
    let announced = packet::udp(at(family.host, 9), at(ip(mdns), 5353));
    let reply = packet::udp(at(family.host, 7), at(family.intruder, 5));
    let arp = arp_request(ends.0, ip("10.200.0.65"), "169.254.1.1").build();
    let arp_of_host = arp_request(ends.1, ip("169.254.1.1"), "10.200.0.65").build();
    let sent = [asked, service, dhcp].map(|packet| packet.macs(ends.0, ends.1).build());
    let got = [reply, announced].map(|packet| packet.macs(ends.1, ends.0).build());
    let sent = sent.iter().chain([&arp]);
    let got = got.iter().chain([&arp_of_host]);
    let from = sent.map(|frame| walk.node().from_container(INTRUDER, frame));
    let from: Vec<Answer> = from.collect();
    let to = got.map(|frame| walk.node().to_container(INTRUDER, frame));
    let to: Vec<Answer> = to.collect();
    let answers: Vec<&Answer> = from.iter().chain(&to).collect();
    let verdicts: Vec<Verdict> = answers.iter().map(|answer| answer.verdict).collect();
    walk.check(says, verdicts == vec![expected; 7], &verdicts);

    let drops: &[u8] = match expected {
        Verdict::Drop => &[NO_CONFIGURATION],
        _ => &[],
    };
    let counted: Vec<&[u8]> = answers.iter().map(|answer| &answer.drops[..]).collect();
    walk.check(
        says,
        counted.iter().all(|counted| *counted == drops),
        &counted,
    );
    let events = |answer: &&Answer| answer.events.len() as u64 + answer.suppressed;
    let reported: Vec<u64> = answers.iter().map(events).collect();
    let each = drops.len() as u64;
    walk.check(
        says,
        reported.iter().all(|events| *events == each),
        &reported,
    );
    let ip = answers
        .iter()
        .enumerate()
        .filter(|(i, _)| ![3, 6].contains(i)); // no ARP
    let events = ip.flat_map(|(_, answer)| &answer.events);
    let mut receivers = events.map(|flow| flow.dst.ip);
    walk.check(says, !receivers.any(|to| to.is_unspecified()), "no address");
    for (answers, point) in [(&from, "from-endpoint"), (&to, "to-endpoint")] {
        let events = answers.iter().flat_map(|answer| &answer.events);
        let points: Vec<&str> = events.map(|flow: &Flow| flow.point).collect();
        walk.check(says, points.iter().all(|at| *at == point), &points);
    }
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
