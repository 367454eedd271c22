//! Two uplinks on a host: routes through either, changed routes, asymmetric replies.

use serde_json::Value;

use crate::lab::{NetnsLab, eventually};
use crate::stream::Streams;

/// A second link between node-a and the router, with networks of its own.
fn lay_second_uplink(a: &NetnsLab) {
    let router = a.netns_name("router");
    a.ok(
        "node-a",
        &format!(
            "ip link add uplink1 type veth peer name to-node-a1 netns {router}
            ip address add 192.0.3.1/24 dev uplink1
            ip address add 2001:db8:4::1/64 dev uplink1 nodad
            ip link set uplink1 up"
        ),
    );
    a.ok(
        "router",
        "ip address add 192.0.3.254/24 dev to-node-a1
        ip address add 2001:db8:4::254/64 dev to-node-a1 nodad
        ip link set to-node-a1 up",
    );
    a.drop_in("uplink1", "[interfaces.uplink1]\nrole = \"uplink\"\n");
}

/// Routes node-a's packets to node-b's workloads, and the router's to node-a's, through these uplinks.
fn lead(a: &NetnsLab, out: usize, back: usize) {
    let gateways = [
        ["192.0.2.254", "2001:db8:1::254"],
        ["192.0.3.254", "2001:db8:4::254"],
    ];
    let hosts = [
        ["192.0.2.1", "2001:db8:1::1"],
        ["192.0.3.1", "2001:db8:4::1"],
    ];
    let [four, six] = gateways[out];
    a.ok(
        "node-a",
        &format!(
            "ip route replace 10.200.1.0/24 via {four} && ip route replace fd00:201::/64 via {six}"
        ),
    );
    let [four, six] = hosts[back];
    a.ok(
        "router",
        &format!(
            "ip route replace 10.200.0.0/24 via {four} && ip route replace fd00:200::/64 via {six}"
        ),
    );
}

/// Packets that an interface of a node has sent and received.
fn packets(lab: &NetnsLab, interface: &str) -> [u64; 2] {
    let printed = lab.ok("node-a", &format!("ip -j -s link show dev {interface}"));
    let printed: Value = serde_json::from_str(&printed).expect("JSON of ip");
    ["tx", "rx"].map(|way| {
        printed[0]["stats64"][way]["packets"]
            .as_u64()
            .expect("packets")
    })
}

#[test]
fn packets_use_either_uplink() {
    let (a, b) = NetnsLab::hosts_laid(1500);
    lay_second_uplink(&a);
    a.start();
    b.start();
    let streams = Streams::start(
        &a,
        "client",
        &["10.32.0.52:52", "[fd00:32::52]:52"],
        "coredns",
        &["10.200.1.44:5201", "[fd00:201::44]:5201"],
    );
    for (out, back, sentence) in [
        (1, 1, "through the other"),
        (1, 0, "replies through the first"),
        (
            0,
            1,
            "requests through the first, replies through the other",
        ),
        (0, 0, "as at first"),
    ] {
        lead(&a, out, back);
        streams.more_without_loss(sentence, 0);
        let names = ["uplink0", "uplink1"];
        let before = names.map(|name| packets(&a, name));
        streams.more_without_loss(sentence, 0);
        let after = names.map(|name| packets(&a, name));
        let moved = |uplink: usize, way: usize| after[uplink][way] - before[uplink][way];
        // Four streams of at least 30 round trips; the idle link may carry neighbour discovery.
        assert!(moved(out, 0) >= 100, "{sentence}: {before:?} {after:?}");
        assert!(moved(back, 1) >= 100, "{sentence}: {before:?} {after:?}");
        assert!(moved(1 - out, 0) < 20, "{sentence}: {before:?} {after:?}");
        assert!(moved(1 - back, 1) < 20, "{sentence}: {before:?} {after:?}");

        for frontend in ["10.32.0.10", "fd00:32::10"] {
            a.dig("client", frontend)
                .unwrap_or_else(|printed| panic!("{sentence}: {frontend}: {printed}"));
        }
        for to in ["10.200.0.64", "fd00:200::64"] {
            a.ok("client-b", &format!("ping -n -c 1 -W 5 {to}"));
            a.ok("world", &format!("ping -n -c 1 -W 5 {to}"));
        }
    }
    drop(streams);

    // Ingress policy and the prefilter apply on either.
    lead(&a, 0, 1);
    for to in ["10.200.0.44", "fd00:200::44"] {
        let output = a.run("world", &format!("ping -n -c 1 -W 1 {to}"));
        assert!(!output.status.success(), "policy of {to}");
    }
    eventually("the drop is observed with its uplink", || {
        let flows = a.flows();
        let found = flows.iter().any(|flow| {
            flow["interface"] == "uplink1" && flow["drop_reason"] == "policy denied: no rule"
        });
        if found { Ok(()) } else { Err(flows) }
    });
    a.apply(
        "prefilter",
        "[prefilter.abusers]\ndeny = [\"203.0.113.0/24\", \"2001:db8:3::9\"]\n",
    );
    let mut xdp = a.attached();
    xdp.retain(|row| row.ends_with("dpd_xdp_entry"));
    assert_eq!(
        xdp,
        ["uplink0 xdp dpd_xdp_entry", "uplink1 xdp dpd_xdp_entry"]
    );
    for (number, back) in [0, 1].into_iter().enumerate() {
        lead(&a, 0, back);
        for to in ["10.200.0.64", "fd00:200::64"] {
            let output = a.run("world", &format!("ping -n -c 1 -W 1 {to}"));
            assert!(!output.status.success(), "the prefilter of uplink{back}");
        }
        let status = a.json("status");
        assert_eq!(status["prefilter"]["packets"], 2 * (number + 1));
    }

    // A removed uplink has its routes removed; routes through the other still work.
    a.apply("prefilter", "# empty\n");
    lead(&a, 0, 0);
    a.ok("node-a", "ip link delete uplink1");
    eventually("it is pending", || {
        let rows = a.json("status")["interfaces"].clone();
        let found = rows
            .as_array()
            .expect("an array")
            .iter()
            .any(|row| row["interface"] == "uplink1" && row["state"] == "pending");
        if found { Ok(()) } else { Err(rows) }
    });
    for frontend in ["10.32.0.10", "fd00:32::10"] {
        a.dig("client", frontend).expect("through the first");
    }
    assert_eq!(b.drops(), Vec::<String>::new(), "nothing was dropped there");
}
