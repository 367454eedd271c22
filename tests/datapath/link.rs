//! What passes beside connections: its bounds, dpd's own mark, and that every packet is in one counter.

use dpd::bpf::attach::hook::Hook;
use dpd::model::status::EndpointCounts;

use libbpf_rs::{MapCore, MapFlags};

use crate::common::packet::{
    self, Packet, arp_request, echo_request, neighbour_solicitation, router_solicitation,
};
use crate::common::runner::{Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::walk::Walk;

const RATE_LIMITED: u8 = 198;

fn frame_of(packet: &Packet) -> Vec<u8> {
    packet
        .clone()
        .macs(workload_mac(CLIENT), host_mac(CLIENT))
        .build()
}

/// More than pass in a second, sent in less, also where other tests take most of the machine.
const FLOOD: usize = 1000;

#[test]
fn what_a_link_needs_is_limited() {
    let [ipv4, ipv6] = families();
    let rows = [
        (
            "ARP",
            arp_request(workload_mac(CLIENT), ipv4.client, "169.254.1.1"),
        ),
        (
            "neighbour discovery",
            neighbour_solicitation(workload_mac(CLIENT), ipv6.client, "fe80::1"),
        ),
        ("DHCP", packet::udp("0.0.0.0:68", "255.255.255.255:67")),
        (
            "multicast membership",
            packet::igmp_report(ipv4.client, 4, "239.1.1.1"),
        ),
    ];
    for (name, message) in rows {
        let walk = Walk::new(name, CONFIG);
        let frame = frame_of(&message);
        let first = walk.node().from_container(CLIENT, &frame);
        assert!(first.drops.is_empty(), "{name}: the first: {first:?}");
        let is_limited = |_| {
            let flood = vec![frame.clone(); FLOOD];
            walk.node().time(Hook::FromContainer, CLIENT, flood);
            let answer = walk.node().from_container(CLIENT, &frame);
            answer.drops == [RATE_LIMITED]
        };
        assert!((0..20).any(is_limited), "{name}: all passed");
    }
}

/// Neighbours of all workloads are in one table of the host's.
#[test]
fn a_workload_shows_the_host_so_many_sources_and_no_more() {
    let walk = Walk::new("router solicitations", CONFIG);
    let solicit = |number: usize| {
        let source = ip(&format!("fe80::{:x}", number + 2));
        frame_of(&router_solicitation(workload_mac(CLIENT), source))
    };
    let passed = (0..600)
        .map(|number| walk.node().from_container(CLIENT, &solicit(number)))
        .filter(|answer| answer.verdict == Verdict::Pass)
        .count();
    assert!(
        (1..=512).contains(&passed),
        "{passed} of 600 sources passed"
    );
    let prefix = CONFIG.replace("\"fd00:200::64\"", "\"fd00:200:64::/64\"");
    let walk = Walk::new("a prefix", &prefix);
    let [_, ipv6] = families();
    let ask = |number: usize| {
        let source = ip(&format!("fd00:200:64::{:x}", number + 1));
        frame_of(&echo_request(source, ipv6.host, 1, 1))
    };
    let answers = (0..600).map(|number| walk.node().from_container(CLIENT, &ask(number)));
    let (passed, dropped): (Vec<_>, Vec<_>) =
        answers.partition(|answer| answer.verdict == Verdict::Pass);
    assert!(
        !passed.is_empty() && passed.len() <= 512,
        "{}",
        passed.len()
    );
    assert!(dropped.iter().all(|answer| answer.drops == [RATE_LIMITED]));
    let again = walk.node().from_container(CLIENT, &ask(0));
    assert_eq!(again.verdict, Verdict::Pass, "one that is known goes on");
}

/// Who floods a neighbour that does not answer takes the rows of others' packets that wait: they reach their receiver, and no other.
#[test]
fn a_packet_that_has_lost_its_row_reaches_its_receiver_alone() {
    for family in families() {
        let walk = Walk::new(family.name, CONFIG);
        let node = walk.node();
        let row = 7u32;
        let asked = node.map("dpd_asked");
        let others = vec![0xff; asked.value_size() as usize];
        let taken = asked.update(&row.to_ne_bytes(), &others, MapFlags::ANY);
        taken.expect("take the row");
        for (interface, verdict) in [(DNS, Verdict::Pass), (WEB, Verdict::Drop)] {
            let packet = packet::udp(at(family.client, 1), at(family.dns, 53));
            let ends = (host_mac(interface), workload_mac(interface));
            let frame = packet.macs(ends.0, ends.1).build();
            let mark = node.mark() | row;
            let answer = node.to_container_from(CLIENT, interface, &frame, mark);
            assert_eq!(answer.verdict, verdict, "{interface}: {answer:?}");
        }
    }
}

/// What a hook has judged bears the mark, and passes. Others may set a mark, but what they send has arrived nowhere.
#[test]
fn the_mark_is_random_and_believed_of_what_arrived_here() {
    let [family, _] = families();
    let walk = Walk::new("mark", CONFIG);
    let node = walk.node();
    let mark = node.mark();
    let other = Walk::new("another", CONFIG).node().mark();
    assert!(
        mark != 0 && other != 0 && mark != other,
        "{mark:x} {other:x}"
    );
    let packet = packet::udp(at(family.world, 1), at(family.dns, 9));
    let frame = packet.macs(host_mac(DNS), workload_mac(DNS)).build();
    let rows = [
        ("ours, judged at the client's hook", CLIENT, mark, true),
        ("sent by the host with our mark", "", mark, false),
        ("another mark", CLIENT, mark ^ 1, false),
        ("none", CLIENT, 0, false),
    ];
    for (says, arrived_at, mark, passes) in rows {
        let answer = node.to_container_from(arrived_at, DNS, &frame, mark);
        assert_eq!(
            answer.verdict == Verdict::Pass,
            passes,
            "{says}: {answer:?}"
        );
    }
}

#[test]
fn each_packet_of_a_workload_is_in_one_counter() {
    let [ipv4, ipv6] = families();
    let client = workload_mac(CLIENT);
    let udp = |to| packet::udp(at(ipv4.client, 7), to);
    // (what it is, the packet; forwarded, up the stack, answered, dropped)
    let rows = [
        ("to a workload", udp(at(ipv4.web, 9)), [1, 0, 0, 0]),
        (
            "again, by the fast path",
            udp(at(ipv4.web, 9)),
            [1, 0, 0, 0],
        ),
        ("to the host", udp(at(ipv4.host, 9)), [0, 1, 0, 0]),
        ("again", udp(at(ipv4.host, 9)), [0, 1, 0, 0]),
        (
            "to nobody's port",
            udp(at(ipv4.web_service, 81)),
            [0, 0, 0, 1],
        ),
        ("what policy denies", udp(at(ipv4.dns, 9)), [0, 0, 0, 1]),
        (
            "forged",
            packet::udp(at(ipv4.web, 1), at(ipv4.dns, 9)),
            [0, 0, 0, 1],
        ),
        (
            "ARP",
            arp_request(client, ipv4.client, "169.254.1.1"),
            [0, 0, 1, 0],
        ),
        (
            "ARP of its own",
            arp_request(client, ipv4.client, ipv4.client),
            [0, 1, 0, 0],
        ),
        (
            "ND",
            neighbour_solicitation(client, ipv6.client, "fe80::1"),
            [0, 0, 1, 0],
        ),
        ("RS", router_solicitation(client, "fe80::9"), [0, 1, 0, 0]),
        (
            "DHCP",
            packet::udp("0.0.0.0:68", "255.255.255.255:67"),
            [0, 1, 0, 0],
        ),
        (
            "echo of a service",
            echo_request(ipv4.client, ipv4.web_service, 1, 1),
            [0, 0, 1, 0],
        ),
        (
            "multicast",
            packet::udp(at(ipv4.client, 1), "239.1.1.1:9"),
            [0, 0, 0, 1],
        ),
        (
            "no IP",
            packet::udp(at(ipv4.client, 1), at(ipv4.web, 9)).ethertype(0x88cc),
            [0, 0, 0, 1],
        ),
    ];
    let walk = Walk::new("counters", CONFIG);
    let split = |counts: EndpointCounts| {
        let forwarded = counts.packets_out - counts.to_stack - counts.answered;
        [
            forwarded,
            counts.to_stack,
            counts.answered,
            counts.drops_out,
        ]
    };
    let mut before = split(walk.node().endpoint_counts(CLIENT));
    for (says, packet, expected) in rows {
        walk.node().from_container(CLIENT, &frame_of(&packet));
        let after = split(walk.node().endpoint_counts(CLIENT));
        let found: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
        assert_eq!(found, expected, "{says}");
        before = after;
    }
}

#[test]
fn each_packet_to_a_workload_is_in_one_counter() {
    let [ipv4, ipv6] = families();
    let rows = [
        (
            "of the host",
            packet::udp(at(ipv4.host, 7), at(ipv4.dns, 9)),
            [1, 0],
        ),
        (
            "again",
            packet::udp(at(ipv4.host, 7), at(ipv4.dns, 9)),
            [1, 0],
        ),
        (
            "what policy denies",
            packet::udp(at(ipv4.world, 7), at(ipv4.dns, 9)),
            [0, 1],
        ),
        (
            "ARP",
            arp_request(host_mac(DNS), ipv4.host, ipv4.dns),
            [1, 0],
        ),
        (
            "ND",
            neighbour_solicitation(host_mac(DNS), "fe80::1", ipv6.dns),
            [1, 0],
        ),
    ];
    let walk = Walk::new("counters", CONFIG);
    let split = |counts: EndpointCounts| [counts.packets_in, counts.drops_in];
    let mut before = split(walk.node().endpoint_counts(DNS));
    for (says, packet, expected) in rows {
        let frame = packet.macs(host_mac(DNS), workload_mac(DNS)).build();
        walk.node().to_container(DNS, &frame);
        let after = split(walk.node().endpoint_counts(DNS));
        assert_eq!(
            [after[0] - before[0], after[1] - before[1]],
            expected,
            "{says}"
        );
        before = after;
    }
}

/// With any policy: the workload has asked for it, or has nothing to do with who may reach its services.
#[test]
fn leases_and_broadcast_reach_a_workload_that_policy_protects() {
    const NO_ROUTE: u8 = 169;
    let closed = format!("{CONFIG}\n[policy]\nallow_host = false\n");
    let walk = Walk::new("leases", &closed);
    let namespace = walk.node().namespace();
    namespace.ip("address add 10.200.0.254/24 dev lxc-coredns");
    walk.reload(&closed);
    let udp = |from: &str, to: &str| packet::udp(from, to);
    let rows = [
        (
            "a lease",
            "",
            udp("10.200.0.254:67", "10.200.0.44:68"),
            vec![],
        ),
        (
            "to all",
            "",
            udp("10.200.0.254:67", "255.255.255.255:68"),
            vec![],
        ),
        (
            "of a server behind a bridge",
            CLIENT,
            udp("198.51.100.7:67", "10.200.0.44:68"),
            vec![],
        ),
        (
            "from another port",
            "",
            udp("10.200.0.254:69", "10.200.0.44:68"),
            vec![133],
        ),
        (
            "to another's address",
            "",
            udp("10.200.0.254:67", "10.200.0.45:68"),
            vec![NO_ROUTE],
        ),
        (
            "a lease, IPv6",
            "",
            udp("[fe80::1]:547", "[fe80::44]:546"),
            vec![],
        ),
        (
            "from another port",
            "",
            udp("[fe80::1]:548", "[fe80::44]:546"),
            vec![NO_ROUTE],
        ),
        (
            "to a global address",
            "",
            udp("[2001:db8::1]:547", "[fd00:200::44]:546"),
            vec![133],
        ),
        (
            "broadcast",
            "",
            udp("10.200.0.254:9", "10.200.0.255:9"),
            vec![],
        ),
        (
            "broadcast of another",
            CLIENT,
            udp("198.51.100.7:9", "10.200.0.255:9"),
            vec![NO_ROUTE],
        ),
    ];
    for (says, arrived_at, packet, expected) in rows {
        let frame = packet.macs(host_mac(DNS), workload_mac(DNS)).build();
        let answer = walk.node().to_container_from(arrived_at, DNS, &frame, 0);
        assert_eq!(answer.drops, expected, "{says}");
    }
}
