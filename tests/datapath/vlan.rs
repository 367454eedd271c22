//! VLAN tags: one with the id 0 carries a priority alone and is none, as for the kernel. Others are not a workload's to send,
//! and on an uplink they are of the VLAN's own interface.
//!
//! The kernel moves the tag behind one that was removed into the packet's metadata: so the second of two is met there.

use crate::common::packet::{self, Packet};
use crate::lab::*;
use crate::uplink::{UPLINK, config};
use crate::walk::{Expect::*, Walk};

const INVALID_SOURCE: u8 = 132;
const NO_RULE: u8 = 133;
const VLAN: u8 = 182;

type Tags = fn(Packet) -> Packet;

const PRIORITY: [(&str, Tags); 5] = [
    ("a priority tag", |packet| packet.vlan(0x6000)),
    ("of 802.1ad", |packet| packet.service_vlan(0)),
    ("two", |packet| packet.vlan(0).vlan(0x2000)),
    ("one of each", |packet| packet.service_vlan(0x6000).vlan(0)),
    ("two of 802.1ad", |packet| {
        packet.service_vlan(0).service_vlan(0)
    }),
];

const TAGGED: [(&str, Tags); 6] = [
    ("a VLAN", |packet| packet.vlan(5)),
    ("with a priority", |packet| packet.vlan(0x6005)),
    ("the last", |packet| packet.vlan(0x0fff)),
    ("of 802.1ad", |packet| packet.service_vlan(5)),
    ("before a priority tag", |packet| packet.vlan(5).vlan(0)),
    ("in another", |packet| packet.service_vlan(5).vlan(6)),
];

#[test]
fn a_workloads_priority_tag_hides_nothing() {
    for family in families() {
        for (says, tags) in PRIORITY {
            let mut walk = Walk::new(format!("{}, {says}", family.name), CONFIG);
            let question = family.question(1);
            let to_dns = question.clone().dst(family.dns);
            for time in ["a question", "of the connection"] {
                let expect = Delivered(DNS, to_dns.clone());
                walk.from(time, CLIENT, &tags(question.clone()), expect);
            }
            let reply = family.reply(1);
            let heard = Delivered(CLIENT, reply.clone().src(family.dns_service));
            walk.from("its reply", DNS, &tags(reply), heard);
            let in_anothers_name = tags(question.src(family.web));
            let expect = Dropped(INVALID_SOURCE);
            walk.from("another's source", CLIENT, &in_anothers_name, expect);
            let denied = packet::udp(at(family.intruder, 1), at(family.dns, 53));
            walk.from("no rule", INTRUDER, &tags(denied), Dropped(NO_RULE));
            walk.end();
        }
    }
}

#[test]
fn a_priority_tag_from_the_network_hides_nothing() {
    for family in families() {
        for (says, tags) in PRIORITY {
            let mut walk = Walk::new(format!("{}, {says}", family.name), &config());
            let from = |source, to| packet::udp(at(source, 5), at(to, 53)).payload(b"?");
            let asked = from(family.world, family.web);
            for time in ["a question", "of the connection"] {
                let expect = Delivered(WEB, asked.clone());
                walk.net(time, UPLINK, &tags(asked.clone()), expect);
            }
            let denied = tags(from(family.world, family.dns));
            walk.net("no rule", UPLINK, &denied, Dropped(NO_RULE));
            for (whose, source) in [
                ("the host's own source", family.host),
                ("a workload's", family.client),
                ("the receiver's", family.web),
                ("a frontend's", family.web_service),
            ] {
                let forged = tags(from(source, family.web));
                walk.net(whose, UPLINK, &forged, Dropped(INVALID_SOURCE));
            }
            let to_host = from(family.world, family.host);
            let expect = PassedAs(to_host.clone());
            walk.net("the host's", UPLINK, &tags(to_host), expect);
            walk.end();
        }
    }
}

#[test]
fn a_vlan_is_not_a_workloads_and_not_an_uplinks() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let asked = packet::udp(at(family.world, 5), at(family.dns, 6));
        for (says, tags) in TAGGED {
            walk.from(says, CLIENT, &tags(family.question(1)), Dropped(VLAN));
            walk.net(says, UPLINK, &tags(asked.clone()), Passed);
        }
        let hidden: [(&str, Tags); 2] = [
            ("behind a priority tag", |packet| packet.vlan(0).vlan(5)),
            ("behind two", |packet| packet.vlan(0).vlan(0).vlan(5)),
        ];
        for (says, tags) in hidden {
            walk.from(says, CLIENT, &tags(family.question(1)), Dropped(VLAN));
            // The tag is in the metadata then, from which the VLAN's interface takes it.
            walk.net(says, UPLINK, &tags(asked.clone()), PassedAs(asked.clone()));
        }
        walk.end();
    }
}
