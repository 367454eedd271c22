//! Events: which packets are reported, and where.

use crate::common::packet;
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

#[test]
fn aggregation_decides_which_packets_are_told() {
    const FROM: &str = "from-endpoint forwarded client -> web";
    const TO: &str = "to-endpoint forwarded client -> web";
    let rows: [(&str, &[&str], &[&str]); 3] = [
        ("none", &[FROM, TO], &[FROM, TO]),
        ("low", &[TO], &[TO]),
        ("medium", &[TO], &[]),
    ];
    for family in families() {
        for (level, first, later) in rows {
            let config = changed(CONFIG, "\"medium\"", &format!("\"{level}\""));
            let mut walk = Walk::new(format!("{}, {level}", family.name), &config);
            let asked = packet::udp(at(family.client, 1), at(family.web, 2));
            let told = packet::udp(at(family.web, 2), at(family.client, 1));
            let answer = walk.from(
                "the first packet",
                CLIENT,
                &asked,
                Delivered(WEB, asked.clone()),
            );
            walk.reported("the first packet", &answer, first);
            walk.from("its reply", WEB, &told, Delivered(CLIENT, told.clone()));
            for _ in 0..3 {
                let answer = walk.from(
                    "a later packet",
                    CLIENT,
                    &asked,
                    Delivered(WEB, asked.clone()),
                );
                walk.reported("a later packet", &answer, later);
            }
            walk.end();
        }
    }
}

#[test]
fn an_event_tells_the_addresses_before_and_after() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = family.question(54764);
        let answer = walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        for flow in &answer.events {
            let src = (flow.src.ip, flow.src.port, flow.src.identity);
            walk.check("its source", src == (family.client, 54764, 20001), src);
            let dst = (flow.dst.ip, flow.dst.port, flow.dst.identity);
            walk.check("its destination", dst == (family.dns, 53, 18203), dst);
            let before = flow.orig_dst;
            walk.check(
                "what was asked",
                before == Some((family.dns_service, 53)),
                before,
            );
            let bytes = usize::try_from(flow.bytes).ok();
            walk.check(
                "its length",
                bytes == Some(asked.ip_bytes().len()),
                flow.bytes,
            );
            walk.check("its interface", flow.interface == DNS, &flow.interface);
        }
        walk.check(
            "there is one",
            answer.events.len() == 1,
            answer.events.len(),
        );
        walk.end();
    }
}

#[test]
fn a_drop_is_told_once_for_each_tuple() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = |port| packet::udp(at(family.intruder, port), at(family.dns, 53));
        let line = "dropped 133 intruder -> kube-dns no rule of ingress kube-dns";
        for port in [1, 2] {
            let answer = walk.from("the first", INTRUDER, &asked(port), Dropped(133));
            walk.reported(&format!("from port {port}"), &answer, &[line]);
        }
        let answer = walk.from("again", INTRUDER, &asked(1), Dropped(133));
        walk.reported("the same again", &answer, &[]);
        walk.end();
    }
}
