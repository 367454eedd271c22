//! Frontends that no interface of the host has: the uplink answers for them on its link, to whom asks and to whom
//! would take one.

use dpd::bpf::attach::hook::Hook;

use crate::common::packet::{
    Mac, Packet, arp_reply, arp_request, icmp, neighbour_advertisement, neighbour_solicitation,
};
use crate::common::runner::{Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::uplink::{UPLINK, config};
use crate::walk::{Expect::*, Walk};

/// A frontend of each family, and who asks.
const V4: &str = "10.32.0.40";
const V6: &str = "fd00:32::40";
const ASKER: &str = "192.0.2.7";
const ASKER6: &str = "2001:db8::7";
const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// The uplink announces the frontends of a service; another one announces nothing.
fn announcing() -> String {
    let uplink = "[interfaces.ens5]\nrole = \"uplink\"\n";
    let both = format!("{uplink}l2_announce = true\n[interfaces.ens6]\nrole = \"uplink\"\n");
    let external = "[services.far]\nexternal = true\n";
    changed(
        &changed(&config(), uplink, &both),
        "[services.far]\n",
        external,
    )
}

fn macs() -> (Mac, Mac) {
    (host_mac(UPLINK), workload_mac(UPLINK))
}

#[test]
fn arp_requests_are_answered_with_the_uplinks_mac() {
    let (host, asker) = macs();
    let request = || arp_request(asker, ASKER, V4);
    let reply = || AnsweredFrame(arp_reply(host, V4, asker, ASKER).build());
    let mut walk = Walk::new("ARP", &announcing());
    walk.net_frame("asked by broadcast", UPLINK, &request().build(), reply());
    let unicast = request().macs(asker, host).build();
    walk.net_frame("asked of the host alone", UPLINK, &unicast, reply());
    let tagged = request().vlan(0x6000).build();
    walk.net_frame("with a priority tag", UPLINK, &tagged, reply());
    let probe = arp_request(asker, "0.0.0.0", V4).build();
    let defence = AnsweredFrame(arp_reply(host, V4, asker, "0.0.0.0").build());
    walk.net_frame("a probe is answered, too", UPLINK, &probe, defence);
    let padded = [request().build(), vec![0; 18]].concat();
    let answer = [arp_reply(host, V4, asker, ASKER).build(), vec![0; 18]].concat();
    walk.net_frame(
        "as long as Ethernet wants it",
        UPLINK,
        &padded,
        AnsweredFrame(answer),
    );
    walk.end();
}

#[test]
fn other_arp_is_the_hosts() {
    let (host, asker) = macs();
    let other = [2, 0, 0, 0, 0, 9];
    let request = || arp_request(asker, ASKER, V4);
    let mut walk = Walk::new("ARP", &announcing());
    let with = |at: usize, byte: u8| {
        let mut frame = request().build();
        frame[at] = byte;
        frame
    };
    let rows = [
        (
            "the host's own address",
            arp_request(asker, ASKER, "192.0.2.1").build(),
        ),
        (
            "a workload's",
            arp_request(asker, ASKER, "10.200.0.64").build(),
        ),
        ("nobody's", arp_request(asker, ASKER, "10.32.0.41").build()),
        (
            "an announcement of the address",
            arp_request(asker, V4, V4).build(),
        ),
        ("a reply", arp_reply(asker, V4, host, ASKER).build()),
        (
            "a reply that names it as target",
            arp_reply(asker, ASKER, host, V4).build(),
        ),
        ("for another host", request().macs(asker, other).build()),
        ("of a VLAN", request().vlan(5).build()),
        ("of another kind of network", with(15, 6)),
        ("with other lengths", with(18, 8)),
        ("another operation", with(21, 3)),
        ("cut short", request().truncate(27).build()),
    ];
    for (says, frame) in rows {
        walk.net_frame(says, UPLINK, &frame, Passed);
    }
    let (elsewhere, at_other) = (request(), workload_mac("ens6"));
    let frame = elsewhere.macs(at_other, [0xff; 6]).build();
    walk.net_frame("an uplink that does not announce", "ens6", &frame, Passed);
    walk.end();
}

fn solicitation(source: &str) -> Packet {
    neighbour_solicitation(workload_mac(UPLINK), source, V6)
}

/// The response to a solicitation.
fn advertised(to: &str, flags: u8, mac: Mac) -> Vec<u8> {
    let (host, _) = macs();
    neighbour_advertisement(V6, to, flags, V6, host)
        .macs(host, mac)
        .build()
}

#[test]
fn neighbour_solicitations_are_answered_with_the_uplinks_mac() {
    let (host, asker) = macs();
    let mut walk = Walk::new("ND", &announcing());
    for source in [ASKER6, "fe80::7"] {
        let expect = AnsweredFrame(advertised(source, 0x60, asker));
        let frame = solicitation(source).build();
        walk.net_frame("asked of its group", UPLINK, &frame, expect.clone());
        let tagged = solicitation(source).vlan(0).build();
        walk.net_frame("with a priority tag", UPLINK, &tagged, expect.clone());
        let unicast = solicitation(source).dst(V6).macs(asker, host).build();
        walk.net_frame("asked of the host alone", UPLINK, &unicast, expect);
    }
    let defence = AnsweredFrame(advertised("ff02::1", 0x20, ALL_NODES));
    let probe = solicitation("::").build();
    walk.net_frame("a probe is answered to all", UPLINK, &probe, defence);
    walk.end();
}

#[test]
fn other_neighbour_discovery_is_the_hosts() {
    let (host, asker) = macs();
    let other = [2, 0, 0, 0, 0, 9];
    let asks = |target: &str| neighbour_solicitation(asker, ASKER6, target).build();
    let of_code = icmp(ASKER6, "ff02::1:ff00:40", 135, 1, [0; 4])
        .payload(
            &V6.parse::<std::net::Ipv6Addr>()
                .expect("an address")
                .octets(),
        )
        .ttl(255);
    let mut walk = Walk::new("ND", &announcing());
    let rows = [
        ("the host's own address", asks("2001:db8::1")),
        ("a workload's", asks("fd00:200::64")),
        ("nobody's", asks("fd00:32::41")),
        ("from itself", solicitation(V6).build()),
        ("from a group", solicitation("ff02::1").build()),
        ("from a router", solicitation(ASKER6).ttl(254).build()),
        (
            "of another code",
            of_code.macs(asker, [0x33, 0x33, 0xff, 0, 0, 0x40]).build(),
        ),
        (
            "a probe that is no multicast",
            solicitation("::").dst("fd00:32::41").build(),
        ),
        (
            "for another host",
            solicitation(ASKER6).macs(asker, other).build(),
        ),
        ("of a VLAN", solicitation(ASKER6).vlan(5).build()),
        (
            "cut short",
            solicitation(ASKER6).truncate(14 + 40 + 20).build(),
        ),
        (
            "an advertisement of the address",
            neighbour_advertisement(V6, "ff02::1", 0x20, V6, asker)
                .macs(asker, ALL_NODES)
                .build(),
        ),
    ];
    for (says, frame) in rows {
        walk.net_frame(says, UPLINK, &frame, Passed);
    }
    let unicast = neighbour_solicitation(asker, ASKER6, "2001:db8::1").dst("2001:db8::1");
    let unicast = unicast.macs(asker, host).build();
    walk.net_frame("the host's own, of it alone", UPLINK, &unicast, Passed);
    walk.end();
}

/// More than are answered in a second, sent in less.
const FLOOD: usize = 1000;

#[test]
fn answers_are_limited_and_what_is_not_answered_passes() {
    let rows = [
        ("ARP", arp_request(workload_mac(UPLINK), ASKER, V4)),
        ("ND", solicitation(ASKER6)),
    ];
    for (says, request) in rows {
        let walk = Walk::new(says, &announcing());
        let frame = request.build();
        let run = || walk.node().from_netdev(UPLINK, &frame).verdict;
        assert_eq!(run(), Verdict::Redirect, "{says}: the first");
        assert_eq!(walk.node().responses_limited(), 0, "{says}");
        let is_limited = (0..20).any(|_| {
            let flood = vec![frame.clone(); FLOOD];
            walk.node().time(Hook::FromNetdev, UPLINK, flood);
            run() == Verdict::Pass
        });
        assert!(is_limited, "{says}: all were answered");
        assert!(walk.node().responses_limited() > 0, "{says}: it is counted");
    }
}

#[test]
fn a_missing_step_leaves_it_to_the_host() {
    let mut walk = Walk::new("broken", &announcing());
    walk.node()
        .break_chain(dpd::bpf::abi::step::STEP_ANNOUNCE.0);
    let request = arp_request(workload_mac(UPLINK), ASKER, V4).build();
    walk.net_frame("ARP", UPLINK, &request, Passed);
    walk.net_frame("ND", UPLINK, &solicitation(ASKER6).build(), Passed);
    walk.end();
}

#[test]
fn what_has_left_the_file_is_not_answered() {
    let mut walk = Walk::new("reload", &announcing());
    let request = arp_request(workload_mac(UPLINK), ASKER, V4).build();
    let (host, asker) = macs();
    let reply = AnsweredFrame(arp_reply(host, V4, asker, ASKER).build());
    walk.net_frame("before", UPLINK, &request, reply);
    walk.reload(&announcing().replace(V4, "10.32.0.41"));
    walk.net_frame("after", UPLINK, &request, Passed);
    walk.end();
}
