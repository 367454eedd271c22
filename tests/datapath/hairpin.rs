//! A workload that reaches itself through a service.

use crate::common::packet::{self, fragmentation_needed};
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

#[test]
fn a_workload_reaches_itself_and_hears_the_service() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let service = at(family.web_service, 80);
        let (me, listens) = (at(family.web, 7000), at(family.web, 8080));
        let other = at(family.hairpin, 7000);
        for time in ["first", "second"] {
            let asked = packet::udp(me, service).payload(b"who am I?");
            let turned = asked.clone().src(other).dst(listens);
            walk.from(
                &format!("the {time} question"),
                WEB,
                &asked,
                Delivered(WEB, turned),
            );
            let reply = packet::udp(listens, other).payload(b"you");
            let restored = reply.clone().src(service).dst(me);
            walk.from(
                &format!("the {time} reply"),
                WEB,
                &reply,
                Delivered(WEB, restored),
            );
        }
        let syn = packet::tcp(me, service).syn();
        walk.from(
            "TCP too",
            WEB,
            &syn,
            Delivered(WEB, syn.clone().src(other).dst(listens)),
        );
        let syn_ack = packet::tcp(listens, other).syn().ack();
        walk.from(
            "and back",
            WEB,
            &syn_ack,
            Delivered(WEB, syn_ack.clone().src(service).dst(me)),
        );
        walk.end();
    }
}

#[test]
fn policy_does_not_stand_between_a_workload_and_itself() {
    let closed = changed(
        CONFIG,
        "[policies.dns-clients]",
        "[policies.closed]\nsubject = \"web\"\ningress = []\negress = []\n\n[policies.dns-clients]",
    );
    for family in families() {
        let mut walk = Walk::new(family.name, &closed);
        let asked = packet::udp(at(family.web, 7000), at(family.web_service, 80));
        let turned = asked.clone().src(family.hairpin).dst(at(family.web, 8080));
        walk.from("to itself", WEB, &asked, Delivered(WEB, turned));
        let asked = packet::udp(at(family.web_2, 7000), at(family.web_service, 80));
        walk.from(
            "another of its identity is not itself",
            WEB_2,
            &asked,
            Dropped(133),
        );
        walk.end();
    }
}

#[test]
fn an_error_about_the_turned_packet_is_turned_back() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let service = at(family.web_service, 80);
        let (me, listens) = (at(family.web, 7001), at(family.web, 8080));
        let other = at(family.hairpin, 7001);
        let asked = packet::udp(me, service).payload(&[7; 64]);
        let turned = asked.clone().src(other).dst(listens);
        walk.from("the question", WEB, &asked, Delivered(WEB, turned.clone()));
        let error = fragmentation_needed(family.web, family.hairpin, 1280, &turned.ttl(63));
        let restored = fragmentation_needed(family.web_service, family.web, 1280, &asked.ttl(63));
        walk.from("an error about it", WEB, &error, Delivered(WEB, restored));
        walk.end();
    }
}

#[test]
fn nobody_else_may_use_the_address() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let forged = packet::udp(at(family.hairpin, 7000), at(family.web, 8080));
        walk.from("as a source", CLIENT, &forged, Dropped(132));
        walk.end();
    }
}
