//! What comes to a workload by the host's stack: who its sender is, and that its answer goes back there.

use crate::common::packet::{self, Packet};
use crate::common::runner::{Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::uplink::{UPLINK, config};
use crate::walk::{Expect::*, Walk};

/// Sends a packet to a workload as the host's stack does that has got it at an interface ("": it is its own). The reasons of
/// drops; empty: it passes.
fn send(walk: &Walk, arrived_at: &str, to: &str, packet: &Packet) -> Vec<u8> {
    let frame = packet.clone().macs(host_mac(to), workload_mac(to)).build();
    let answer = walk.node().to_container_from(arrived_at, to, &frame, 0);
    assert_eq!(answer.verdict == Verdict::Pass, answer.drops.is_empty());
    answer.drops
}

/// A port that the host publishes: netfilter has changed the destination, and must change the answer's source.
#[test]
fn an_answer_goes_back_by_the_hosts_stack() {
    for family in families() {
        let rows = [
            ("the network", UPLINK, family.world),
            ("another workload, by the host", CLIENT, family.client),
            ("the workload itself", WEB, family.web),
        ];
        for (says, arrived_at, from) in rows {
            let mut walk = Walk::new(format!("{}, {says}", family.name), &config());
            let ask = packet::tcp(at(from, 4000), at(family.web, 8080)).syn();
            let answer = packet::tcp(at(family.web, 8080), at(from, 4000))
                .syn()
                .ack();
            let dropped = send(&walk, arrived_at, WEB, &ask);
            walk.check("it passes", dropped.is_empty(), dropped);
            walk.from("its answer goes up the stack", WEB, &answer, Passed);
            walk.reload(&config().replace("size = 4096", "size = 4096\nudp = \"31s\""));
            walk.from("and under a new configuration", WEB, &answer, Passed);
            let dropped = send(&walk, arrived_at, WEB, &ask.clone().ack());
            walk.check("so does the next", dropped.is_empty(), dropped);
            walk.from("and its answer", WEB, &answer, Passed);
            walk.end();
        }
    }
}

#[test]
fn a_workloads_address_is_forwarded_from_its_own_interface_alone() {
    for family in families() {
        let packet = packet::udp(at(family.client, 1), at(family.web, 9));
        for (arrived_at, expected) in [(INTRUDER, vec![132]), ("", vec![132]), (CLIENT, vec![])] {
            let walk = Walk::new(family.name, &config());
            assert_eq!(
                send(&walk, arrived_at, WEB, &packet),
                expected,
                "{arrived_at}"
            );
        }
    }
}

/// One key would stand for both directions.
#[test]
fn a_workload_does_not_reach_its_own_port_from_that_port() {
    for family in families() {
        let walk = Walk::new(family.name, &config());
        for (says, from, expected) in [("the same", 8080, vec![132]), ("another", 80, vec![])] {
            let packet = packet::tcp(at(family.web, from), at(family.web, 8080)).syn();
            assert_eq!(send(&walk, WEB, WEB, &packet), expected, "from {says}");
        }
    }
}

/// `allow_host` is for what the host itself says, not for what it translates for others.
#[test]
fn the_host_is_who_began_it_and_not_an_address() {
    for family in families() {
        let packet = packet::udp(at(family.host, 1), at(family.dns, 9));
        for (says, arrived_at, expected) in [
            ("the host", "", vec![]),
            ("somebody behind its masquerade", UPLINK, vec![133]),
            ("a workload behind it", INTRUDER, vec![133]),
        ] {
            let walk = Walk::new(family.name, &config());
            assert_eq!(send(&walk, arrived_at, DNS, &packet), expected, "{says}");
        }
    }
    let [_, family] = families();
    let walk = Walk::new("a fragment", &config());
    let long = packet::udp(at(family.host, 1), at(family.dns, 9)).payload(&[7; 128]);
    let dropped = send(&walk, "", DNS, &long.fragment(0, 64));
    assert_eq!(
        dropped,
        [133],
        "the host re-cuts what it forwards, as its own"
    );
}

/// An uplink whose way is the stack's: netfilter sees both directions of what workloads begin, and of what the network begins.
#[test]
fn by_an_uplink_whose_way_is_the_stacks_everything_goes_up() {
    let stack = config().replace(
        "role = \"uplink\"",
        "role = \"uplink\"\nforwarding = \"stack\"",
    );
    for family in families() {
        let mut walk = Walk::new(family.name, &stack);
        let out = packet::tcp(at(family.client, 4000), at(family.world, 80));
        let back = packet::tcp(at(family.world, 80), at(family.client, 4000));
        walk.from("a question goes up", CLIENT, &out.clone().syn(), Passed);
        walk.net("its answer too", UPLINK, &back.clone().syn().ack(), Passed);
        let dropped = send(&walk, UPLINK, CLIENT, &back.clone().syn().ack());
        walk.check("and comes from there", dropped.is_empty(), dropped);
        let known = walk.node().connections().len();
        walk.check("as the same connection", known == 1, known);
        let ask = packet::udp(at(family.world, 1), at(family.web, 9));
        walk.net("what the network begins goes up", UPLINK, &ask, Passed);
        let dropped = send(&walk, UPLINK, WEB, &ask);
        walk.check("and comes from there too", dropped.is_empty(), dropped);
        walk.reload(&config());
        let more = out.clone().ack().seq(1).ack_number(1);
        walk.from("what has begun keeps its way", CLIENT, &more, Passed);
        walk.net("both ways", UPLINK, &back.clone().ack(), Passed);
        let other = packet::udp(at(family.client, 7), at(family.world, 9));
        walk.from(
            "what begins now is direct",
            CLIENT,
            &other,
            Routed(other.clone()),
        );
        walk.end();
    }
}
