//! What comes from the network in pieces or in bulk, to workloads behind every kind of interface.

use crate::common::packet::{self, Packet};
use crate::common::runner::{Merged, host_mac, workload_mac};
use crate::lab::*;
use crate::uplink::{UPLINK, config, far};
use crate::walk::{Expect::*, Walk};

#[test]
fn fragments_follow_their_first() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let whole = packet::udp(at(family.world, 4000), at(family.web, 9))
            .id(1)
            .payload(&[0x5a; 200]);
        let piece = |id: u16, first: usize, end: usize| whole.clone().id(id).fragment(first, end);
        walk.net(
            "a later one, alone",
            UPLINK,
            &piece(1, 64, 128),
            Dropped(175),
        );
        for time in ["once", "again"] {
            for (says, first, end) in [
                ("the first", 0, 64),
                ("the last, early", 128, 208),
                ("the second", 64, 128),
            ] {
                let sent = piece(1, first, end);
                let says = format!("{says}, {time}");
                walk.net(&says, UPLINK, &sent, Delivered(WEB, sent.clone()));
            }
        }
        let rows = [
            ("another datagram's", piece(2, 64, 128)),
            ("another sender's", piece(1, 64, 128).src(far(&family).node)),
            ("to another workload", piece(1, 64, 128).dst(family.web_2)),
        ];
        for (says, packet) in rows {
            walk.net(says, UPLINK, &packet, Dropped(175));
        }
        let to_host = piece(3, 64, 128).dst(family.host);
        walk.net("to the host", UPLINK, &to_host, Passed);
        let connections = walk.node().connections();
        walk.check("one connection", connections.len() == 1, &connections);
        walk.end();
    }
}

#[test]
fn fragments_of_a_reply_are_translated_back() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let far = far(&family);
        let (service, backend) = (at(far.service, 80), at(far.backend, 8080));
        let asked = packet::udp(at(family.client, 4000), service).payload(b"?");
        walk.from(
            "a question",
            CLIENT,
            &asked,
            Routed(asked.clone().dst(backend)),
        );
        let whole = packet::udp(backend, at(family.client, 4000))
            .id(7)
            .payload(&[0xa5; 300]);
        let heard = whole.clone().src(service);
        for (says, first, end) in [
            ("the first", 0, 104),
            ("a later one", 104, 208),
            ("the last", 208, 308),
        ] {
            let sent = whole.clone().fragment(first, end);
            let heard = Delivered(CLIENT, heard.clone().fragment(first, end));
            walk.net(says, UPLINK, &sent, heard);
        }
        walk.end();
    }
}

#[test]
fn policy_holds_for_every_fragment() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let whole = packet::udp(at(family.world, 1), at(family.dns, 53))
            .id(9)
            .payload(&[0; 100]);
        for (says, first, end) in [("the first", 0, 64), ("a later one", 64, 108)] {
            let sent = whole.clone().fragment(first, end);
            walk.net(says, UPLINK, &sent, Dropped(133));
        }
        walk.end();
    }
}

/// A merged packet's own length may be left out of its header: more than 65535 bytes don't fit there.
#[test]
fn merged_packets_are_as_long_as_they_are() {
    let merged = Merged {
        count: 3,
        size: 900,
    };
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let (client, web) = (at(family.world, 5), at(family.web, 80));
        let syn = packet::tcp(client, web).syn();
        walk.net("SYN", UPLINK, &syn, Delivered(WEB, syn.clone()));
        let answer = packet::tcp(web, client).syn().ack();
        walk.from("SYN ACK", WEB, &answer, Routed(answer.clone()));
        let data = packet::tcp(client, web).ack().payload(&[7; 2500]);
        for time in ["once", "again"] {
            let there = Delivered(WEB, data.clone());
            walk.net_merged(&format!("merged, {time}"), UPLINK, &data, merged, there);
            let unsaid = data.clone().ip_length(0);
            let there = Delivered(WEB, unsaid.clone());
            walk.net_merged(
                &format!("of no length, {time}"),
                UPLINK,
                &unsaid,
                merged,
                there,
            );
        }
        let unsaid = data.clone().ip_length(0);
        walk.net(
            "of no length, and not merged",
            UPLINK,
            &unsaid,
            Dropped(134),
        );
        let long = data.clone().ip_length(4000);
        walk.net_merged("longer than it is", UPLINK, &long, merged, Dropped(134));
        walk.end();
    }
}

/// A route's MTU is asked for what the segments will be, on the long way and on the established one.
#[test]
fn a_merged_packet_is_measured_by_its_segments() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let far = far(&family);
        let route = format!("route add {} dev {UPLINK} mtu lock 1400", far.backend);
        walk.node().namespace().ip(&route);
        let (service, backend) = (at(far.service, 80), at(far.backend, 8080));
        let headers = if family.is_v4() { 40 } else { 60 };
        let data = packet::tcp(at(family.client, 4400), service)
            .ack()
            .payload(&[7; 2800]);
        let data = if family.is_v4() {
            data.dont_fragment()
        } else {
            data
        };
        let of = |size: u16| Merged { count: 3, size };
        let reply = packet::tcp(backend, at(family.client, 4400)).ack();
        for time in ["begun", "answered", "established"] {
            let there = Routed(data.clone().dst(backend));
            walk.from_merged(
                &format!("fits, {time}"),
                CLIENT,
                &data,
                of(1400 - headers),
                there,
            );
            let response = packet::fragmentation_needed(family.host, family.client, 1400, &data);
            let response = match family.is_v4() {
                true => response.quote_at_most(576 - 28).tos(0xc0),
                false => response.quote_at_most(1280 - 48),
            };
            let refused = Refused(136, response);
            walk.from_merged(
                &format!("one byte more, {time}"),
                CLIENT,
                &data,
                of(1401 - headers),
                refused,
            );
            let heard = Delivered(CLIENT, reply.clone().src(service));
            walk.net(&format!("the reply, {time}"), UPLINK, &reply, heard);
        }
        walk.end();
    }
}

/// The workload's interface with another end than the node's own: `words` make it.
fn with_interface(family: &Family, words: &str) -> Walk {
    let walk = Walk::new(family.name, &config());
    let namespace = walk.node().namespace();
    namespace.ip(&format!("link delete {WEB}"));
    namespace.ip(words);
    namespace.ip(&format!("link set {WEB} up"));
    namespace.ip(&format!("route add {} dev {WEB}", family.web));
    walk.reload(&config());
    walk
}

fn text_of(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// Questions from the network and replies, new and established.
fn talk(mut walk: Walk, family: &Family, expect: impl Fn(Packet) -> crate::walk::Expect) {
    let asked = packet::udp(at(family.world, 4000), at(family.web, 9)).payload(b"?");
    let reply = packet::udp(at(family.web, 9), at(family.world, 4000)).payload(b"!");
    for time in ["the first", "the second", "the established"] {
        walk.net(
            &format!("{time} question"),
            UPLINK,
            &asked,
            expect(asked.clone()),
        );
        walk.from(&format!("{time} reply"), WEB, &reply, Routed(reply.clone()));
    }
    walk.end();
}

#[test]
fn a_workload_whose_other_end_is_here_too_is_sent_to_directly() {
    for family in families() {
        let (host, workload) = (text_of(host_mac(WEB)), text_of(workload_mac(WEB)));
        let words = format!(
            "link add {WEB} address {host} type veth peer name web-inside address {workload}"
        );
        let walk = with_interface(&family, &words);
        talk(walk, &family, |asked| Delivered(WEB, asked));
    }
}

#[test]
fn a_workload_behind_another_kind_of_interface_is_the_neighbour_tables() {
    for family in families() {
        let words = format!(
            "link add {WEB} address {} type bridge",
            text_of(host_mac(WEB))
        );
        let walk = with_interface(&family, &words);
        talk(walk, &family, Routed);
    }
}
