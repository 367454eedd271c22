//! Two uplinks on a host: routes by either, routes that move, replies that come back by the other.

use serde_json::Value;

use crate::lab::{Lab, eventually};
use crate::stream::Streams;

/// Another link between node-a and the router, with networks of its own.
fn lay_second_uplink(a: &Lab) {
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

/// By which uplink node-a sends to the workloads of node-b, and the router to those of node-a.
fn lead(a: &Lab, out: usize, back: usize) {
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
fn packets(lab: &Lab, interface: &str) -> [u64; 2] {
    let said = lab.ok("node-a", &format!("ip -j -s link show dev {interface}"));
    let said: Value = serde_json::from_str(&said).expect("JSON of ip");
    ["tx", "rx"].map(|way| {
        said[0]["stats64"][way]["packets"]
            .as_u64()
            .expect("packets")
    })
}

#[test]
fn packets_leave_and_come_by_either() {
    let (a, b) = Lab::hosts_laid(1500);
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
        (1, 1, "by the other"),
        (1, 0, "replies by the first"),
        (0, 1, "requests by the first, replies by the other"),
        (0, 0, "as at first"),
    ] {
        lead(&a, out, back);
        streams.more_without_loss(sentence, 0);
        let names = ["uplink0", "uplink1"];
        let before = names.map(|name| packets(&a, name));
        streams.more_without_loss(sentence, 0);
        let after = names.map(|name| packets(&a, name));
        let moved = |uplink: usize, way: usize| after[uplink][way] - before[uplink][way];
        // Four streams of 30 round trips and more; the idle link may have a neighbour's question.
        assert!(moved(out, 0) >= 100, "{sentence}: {before:?} {after:?}");
        assert!(moved(back, 1) >= 100, "{sentence}: {before:?} {after:?}");
        assert!(moved(1 - out, 0) < 20, "{sentence}: {before:?} {after:?}");
        assert!(moved(1 - back, 1) < 20, "{sentence}: {before:?} {after:?}");

        for frontend in ["10.32.0.10", "fd00:32::10"] {
            a.ask("client", frontend)
                .unwrap_or_else(|said| panic!("{sentence}: {frontend}: {said}"));
        }
        for to in ["10.200.0.64", "fd00:200::64"] {
            a.ok("client-b", &format!("ping -n -c 1 -W 5 {to}"));
            a.ok("world", &format!("ping -n -c 1 -W 5 {to}"));
        }
    }
    drop(streams);

    // Whom either lets in, the receiver's policy and the prefilter decide alike.
    lead(&a, 0, 1);
    for to in ["10.200.0.44", "fd00:200::44"] {
        let output = a.run("world", &format!("ping -n -c 1 -W 1 {to}"));
        assert!(!output.status.success(), "policy of {to}");
    }
    eventually("the drop is told with its uplink", || {
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

    // An uplink that goes away takes its routes with it; what the other leads to goes on.
    a.apply("prefilter", "# nobody\n");
    lead(&a, 0, 0);
    a.ok("node-a", "ip link delete uplink1");
    eventually("it is waited for", || {
        let rows = a.json("status")["interfaces"].clone();
        let found = rows
            .as_array()
            .expect("an array")
            .iter()
            .any(|row| row["interface"] == "uplink1" && row["state"] == "waiting");
        if found { Ok(()) } else { Err(rows) }
    });
    for frontend in ["10.32.0.10", "fd00:32::10"] {
        a.ask("client", frontend).expect("by the first");
    }
    assert_eq!(b.drops(), Vec::<String>::new(), "nothing was dropped there");
}
