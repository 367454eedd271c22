//! ICMP echo between workloads and host, gateways, and traceroute.

use crate::lab::NetnsLab;

#[test]
fn ping_between_workloads_and_host() {
    let lab = NetnsLab::started();
    let rows = [
        ("the host reaches a workload", "node", "10.200.0.64", true),
        ("and over IPv6", "node", "fd00:200::64", true),
        (
            "the host reaches one under policy",
            "node",
            "10.200.0.44",
            true,
        ),
        ("and over IPv6", "node", "fd00:200::44", true),
        ("a workload reaches the host", "client", "10.200.0.1", true),
        ("and over IPv6", "client", "fd00:200::1", true),
        ("a workload reaches another", "client", "10.200.0.65", true),
        ("and over IPv6", "client", "fd00:200::65", true),
        (
            "one under policy reaches out",
            "coredns",
            "10.200.0.64",
            true,
        ),
        ("and over IPv6", "coredns", "fd00:200::64", true),
        (
            "no rule of kube-dns allows an echo",
            "client",
            "10.200.0.44",
            false,
        ),
        ("nor over IPv6", "client", "fd00:200::44", false),
        ("a service's address replies", "client", "10.32.0.10", true),
        ("and over IPv6", "client", "fd00:32::10", true),
        ("from another workload", "intruder", "10.32.0.10", true),
        ("the gateway replies", "client", "169.254.1.1", true),
        (
            "and over IPv6",
            "client",
            "-I fd00:200::64 fe80::1:1%eth0",
            true,
        ),
    ];
    for (sentence, place, to, replies) in rows {
        let wait = if replies { 5 } else { 1 };
        let output = lab.run(place, &format!("ping -n -c 1 -W {wait} {to}"));
        let printed = crate::lab::text(&output);
        assert_eq!(
            output.status.success(),
            replies,
            "{sentence}: {place} to {to}: {printed}"
        );
    }
}

#[test]
fn a_large_echo_is_fragmented() {
    let lab = NetnsLab::started();
    for to in ["10.200.0.65", "fd00:200::65", "10.200.0.1", "fd00:200::1"] {
        lab.ok("client", &format!("ping -n -c 1 -W 5 -s 6000 {to}"));
    }
    assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
}

#[test]
fn any_gateway_is_resolved() {
    let lab = NetnsLab::started();
    let link = lab.ok("node", "ip -brief link show lxc-client");
    let mac = link.split_whitespace().nth(2).expect("a MAC address");
    for (gateway, family, to) in [
        ("192.0.2.77", "-4", "10.200.0.65"),
        ("2001:db8::77", "-6", "fd00:200::65"),
    ] {
        let prefix = if family == "-4" { "32" } else { "128" };
        lab.ok(
            "client",
            &format!("ip {family} route add {to}/{prefix} via {gateway} dev eth0 onlink"),
        );
        lab.ok("client", &format!("ping -n -c 1 -W 5 {to}"));
        let neighbour = lab.ok("client", &format!("ip {family} neigh show {gateway}"));
        assert!(
            neighbour.contains(mac),
            "{gateway} has the MAC of the host's side, {mac}: {neighbour}"
        );
    }
}

#[test]
fn traceroute_shows_the_node() {
    let lab = NetnsLab::started();
    for (words, node, to) in [
        ("-T -p 53", "10.200.0.1", "10.200.0.44"),
        ("-6 -T -p 53", "fd00:200::1", "fd00:200::44"),
        ("", "10.200.0.1", "10.200.0.65"),
        ("-6", "fd00:200::1", "fd00:200::65"),
    ] {
        let printed = lab.ok(
            "client",
            &format!("traceroute -n -q 1 -w 5 -m 3 {words} {to}"),
        );
        let hops: Vec<Option<&str>> = printed
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(hops, [Some(node), Some(to)], "{to}: {printed}");
    }
}
