//! Changes of routes, neighbours and links under traffic; hosts that fail and recover.

use crate::lab::{NetnsLab, eventually, text};
use crate::stream::Streams;

const TARGETS: [(&str, &str); 2] = [
    ("10.200.1.44", "10.32.0.10"),
    ("fd00:201::44", "fd00:32::10"),
];

fn assert_reachable(lab: &NetnsLab, when: &str) {
    for (_, frontend) in TARGETS {
        lab.dig("client", frontend)
            .unwrap_or_else(|printed| panic!("{when}: {frontend}: {printed}"));
    }
}

fn recovers(lab: &NetnsLab, when: &str) {
    for (_, frontend) in TARGETS {
        eventually(&format!("{when}: {frontend} replies"), || {
            lab.dig("client", frontend)
        });
    }
}

#[test]
fn changed_routes_to_the_other_host_are_used() {
    let (a, b) = NetnsLab::hosts(1500);
    assert_reachable(&a, "at first");

    // A second address of the router is another next hop.
    a.ok(
        "router",
        "ip address add 192.0.2.253/32 dev to-node-a && ip address add 2001:db8:1::253/128 dev to-node-a nodad",
    );
    let connection = a.connect("client", "10.32.0.10:53").expect("a connection");
    a.ok(
        "node-a",
        "ip route replace 10.200.1.0/24 via 192.0.2.253 && ip route replace fd00:201::/64 via 2001:db8:1::253",
    );
    assert_reachable(&a, "another next hop");

    a.ok("router", "ip link set to-node-a address 02:00:00:00:99:01");
    a.ok("node-a", "ip neigh flush dev uplink0");
    assert_reachable(&a, "the next hop has another MAC");
    assert_eq!(a.drops(), Vec::<String>::new(), "nothing was dropped");
    let port = connection.local_addr().expect("its address").port();
    let rows = a.json("ct list");
    let found = rows
        .as_array()
        .expect("an array")
        .iter()
        .any(|row| row["src_port"] == port);
    assert!(found, "the first connection still exists: {rows}");

    a.ok(
        "node-a",
        "ip route replace blackhole 10.200.1.0/24 && ip route del fd00:201::/64 && ip route add blackhole fd00:201::/64",
    );
    for (_, frontend) in TARGETS {
        a.dig("client", frontend)
            .expect_err("the backend is unreachable");
    }
    eventually("the drop is observed", || {
        let observed = a.dpd("observe --last 20 --verdict dropped");
        let both = observed.contains("(UDP)")
            && observed.contains("no route")
            && observed.contains("fd00:201::44");
        if both { Ok(()) } else { Err(observed) }
    });
    a.ok(
        "node-a",
        "ip route replace 10.200.1.0/24 via 192.0.2.254 && ip -6 route del blackhole fd00:201::/64 && ip route add fd00:201::/64 via 2001:db8:1::254",
    );
    assert_reachable(&a, "the routes are back");
    assert_eq!(
        b.drops(),
        Vec::<String>::new(),
        "nothing was dropped on the other host"
    );
}

#[test]
fn without_a_route_the_stack_sends_unreachable() {
    let (a, _b) = NetnsLab::hosts(1500);
    a.ok(
        "node-a",
        "ip route del 10.200.1.0/24 && ip route del fd00:201::/64 && ip route del default && ip -6 route del default",
    );
    for (backend, _) in TARGETS {
        let output = a.run("client", &format!("ping -n -c 1 -W 2 {backend}"));
        let printed = text(&output);
        assert!(
            printed.to_lowercase().contains("unreachable") || printed.contains("No route"),
            "{backend}: {printed}"
        );
    }
}

#[test]
fn a_host_fails_and_recovers() {
    let (a, b) = NetnsLab::hosts(1500);
    assert_reachable(&a, "at first");
    let routes = b.ok(
        "node-b",
        "ip route show default && ip -6 route show default",
    );
    b.ok("node-b", "ip link set uplink0 down");
    for (_, frontend) in TARGETS {
        a.dig("client", frontend).expect_err("the link is down");
    }
    // The kernel removes the routes and the IPv6 addresses of a link that goes down.
    b.ok(
        "node-b",
        "ip link set uplink0 up
        ip address replace 2001:db8:2::2/64 dev uplink0 nodad
        ip route replace default via 198.51.100.254
        ip -6 route replace default via 2001:db8:2::254
        ip route replace 10.200.0.0/24 via 198.51.100.254
        ip route replace fd00:200::/64 via 2001:db8:2::254",
    );
    recovers(&a, &format!("the link is up again, with {routes}"));

    let attached = b.attached();
    b.kill();
    assert_reachable(&a, "the other host's daemon was killed");
    a.kill();
    assert_reachable(&a, "this one's too");
    b.start();
    a.start();
    assert_reachable(&a, "both run again");
    assert_eq!(b.attached(), attached, "attached once, not twice");
}

#[test]
fn streams_survive_changes_of_their_path() {
    let (a, b) = NetnsLab::hosts(1500);
    let streams = Streams::start(
        &a,
        "client",
        &["10.32.0.52:52", "[fd00:32::52]:52"],
        "coredns",
        &["10.200.1.44:5201", "[fd00:201::44]:5201"],
    );
    a.ok(
        "router",
        "ip address add 192.0.2.253/32 dev to-node-a && ip address add 2001:db8:1::253/128 dev to-node-a nodad",
    );
    a.ok(
        "node-a",
        "ip route replace 10.200.1.0/24 via 192.0.2.253 && ip route replace fd00:201::/64 via 2001:db8:1::253",
    );
    streams.more_without_loss("another next hop", 0);
    // More specific routes with another next hop than the prefix's.
    a.ok(
        "node-a",
        "ip route add 10.200.1.44 via 192.0.2.254 && ip route add fd00:201::44 via 2001:db8:1::254",
    );
    streams.more_without_loss("a route for the backend alone", 0);
    a.ok(
        "node-a",
        "ip route delete 10.200.1.44 && ip route delete fd00:201::44",
    );
    streams.more_without_loss("the prefix's again", 0);

    // Packets to the old MAC are lost meanwhile.
    a.ok("router", "ip link set to-node-a address 02:00:00:00:99:01");
    a.ok("node-a", "ip neigh flush dev uplink0");
    streams.more("the next hop has another MAC");

    for lab in [&a, &b] {
        assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
    }
    a.ok(
        "node-a",
        "ip route replace blackhole 10.200.1.0/24 && ip route delete fd00:201::/64 && ip route add blackhole fd00:201::/64",
    );
    eventually("the drops are counted", || {
        let drops = a.drops();
        let is_counted = drops.iter().any(|row| row.contains("no route"));
        if is_counted { Ok(()) } else { Err(drops) }
    });
    let back = "ip route replace 10.200.1.0/24 via 192.0.2.254
        ip -6 route delete blackhole fd00:201::/64
        ip route replace fd00:201::/64 via 2001:db8:1::254";
    a.ok("node-a", back);
    streams.more("the routes are back");

    let before = a.drops();
    a.ok(
        "node-a",
        "ip route delete 10.200.1.0/24 && ip route delete fd00:201::/64 && ip route delete default && ip -6 route delete default",
    );
    let lost = streams.lost();
    eventually("the senders get ICMP errors of the stack", || {
        let lost = streams.lost() - lost;
        if lost >= 4 { Ok(()) } else { Err(lost) }
    });
    assert_eq!(
        a.drops(),
        before,
        "what the stack rejects is not counted as a drop"
    );
    a.ok(
        "node-a",
        "ip route replace default via 192.0.2.254
        ip -6 route replace default via 2001:db8:1::254
        ip route replace 10.200.1.0/24 via 192.0.2.254
        ip route replace fd00:201::/64 via 2001:db8:1::254",
    );
    streams.more("the routes are back again");

    let lost = streams.lost();
    for lab in [&a, &b] {
        lab.kill();
        streams.more_without_loss("a daemon was killed", lost);
    }
    for lab in [&a, &b] {
        lab.start();
        streams.more_without_loss("it runs again", lost);
    }

    // The kernel removes the routes and the IPv6 addresses of a link that goes down.
    b.ok("node-b", "ip link set uplink0 down");
    eventually("there is no reply", || {
        let lost = streams.lost() - lost;
        if lost >= 2 { Ok(()) } else { Err(lost) }
    });
    b.ok(
        "node-b",
        "ip link set uplink0 up
        ip address replace 2001:db8:2::2/64 dev uplink0 nodad
        ip route replace default via 198.51.100.254
        ip -6 route replace default via 2001:db8:2::254
        ip route replace 10.200.0.0/24 via 198.51.100.254
        ip route replace fd00:200::/64 via 2001:db8:2::254",
    );
    streams.more("the link is up again");
    let rows = a.json("ct list");
    let of_streams = rows.as_array().expect("an array").iter();
    let of_streams = of_streams.filter(|row| row["dst_port"] == 52).count();
    assert_eq!(of_streams, 4, "the initial connections: {rows}");
}
