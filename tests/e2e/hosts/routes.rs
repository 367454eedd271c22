//! Routes, neighbours and links that change under the traffic; hosts that fail and come back.

use crate::lab::{Lab, eventually, text};
use crate::stream::Streams;

const ANSWERS: [(&str, &str); 2] = [
    ("10.200.1.44", "10.32.0.10"),
    ("fd00:201::44", "fd00:32::10"),
];

fn asked(lab: &Lab, when: &str) {
    for (_, frontend) in ANSWERS {
        lab.ask("client", frontend)
            .unwrap_or_else(|said| panic!("{when}: {frontend}: {said}"));
    }
}

fn recovers(lab: &Lab, when: &str) {
    for (_, frontend) in ANSWERS {
        eventually(&format!("{when}: {frontend} answers"), || {
            lab.ask("client", frontend)
        });
    }
}

#[test]
fn the_ways_to_the_other_host_change() {
    let (a, b) = Lab::hosts(1500);
    asked(&a, "at first");

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
    asked(&a, "another next hop");

    a.ok("router", "ip link set to-node-a address 02:00:00:00:99:01");
    a.ok("node-a", "ip neigh flush dev uplink0");
    asked(&a, "the next hop has another MAC");
    assert_eq!(a.drops(), Vec::<String>::new(), "nothing was dropped");
    let port = connection.local_addr().expect("its address").port();
    let rows = a.json("ct list");
    let found = rows
        .as_array()
        .expect("an array")
        .iter()
        .any(|row| row["src_port"] == port);
    assert!(found, "the old connection is there: {rows}");

    a.ok(
        "node-a",
        "ip route replace blackhole 10.200.1.0/24 && ip route del fd00:201::/64 && ip route add blackhole fd00:201::/64",
    );
    for (_, frontend) in ANSWERS {
        a.ask("client", frontend).expect_err("nobody is reached");
    }
    eventually("the drop is told", || {
        let told = a.dpd("observe --last 20 --verdict dropped");
        let both =
            told.contains("(UDP)") && told.contains("no route") && told.contains("fd00:201::44");
        if both { Ok(()) } else { Err(told) }
    });
    a.ok(
        "node-a",
        "ip route replace 10.200.1.0/24 via 192.0.2.254 && ip -6 route del blackhole fd00:201::/64 && ip route add fd00:201::/64 via 2001:db8:1::254",
    );
    asked(&a, "the routes are back");
    assert_eq!(
        b.drops(),
        Vec::<String>::new(),
        "and on the other host nothing was dropped"
    );
}

#[test]
fn without_a_route_the_stack_says_so() {
    let (a, _b) = Lab::hosts(1500);
    a.ok(
        "node-a",
        "ip route del 10.200.1.0/24 && ip route del fd00:201::/64 && ip route del default && ip -6 route del default",
    );
    for (backend, _) in ANSWERS {
        let output = a.run("client", &format!("ping -n -c 1 -W 2 {backend}"));
        let said = text(&output);
        assert!(
            said.to_lowercase().contains("unreachable") || said.contains("No route"),
            "{backend}: {said}"
        );
    }
}

#[test]
fn a_host_fails_and_comes_back() {
    let (a, b) = Lab::hosts(1500);
    asked(&a, "at first");
    let routes = b.ok(
        "node-b",
        "ip route show default && ip -6 route show default",
    );
    b.ok("node-b", "ip link set uplink0 down");
    for (_, frontend) in ANSWERS {
        a.ask("client", frontend).expect_err("the link is down");
    }
    // The kernel takes the routes and the IPv6 addresses of a link that goes down.
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
    asked(&a, "the other host's daemon was killed");
    a.kill();
    asked(&a, "this one's too");
    b.start();
    a.start();
    asked(&a, "both are back");
    assert_eq!(b.attached(), attached, "attached once, not twice");
}

#[test]
fn streams_outlive_what_happens_on_their_way() {
    let (a, b) = Lab::hosts(1500);
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
    // More exact routes lead elsewhere than the prefix's.
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

    // Whoever sends to the old MAC meanwhile is not heard.
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
    eventually("the stack tells the senders", || {
        let lost = streams.lost() - lost;
        if lost >= 4 { Ok(()) } else { Err(lost) }
    });
    assert_eq!(a.drops(), before, "the stack's affair is no drop of ours");
    a.ok(
        "node-a",
        "ip route replace default via 192.0.2.254
        ip -6 route replace default via 2001:db8:1::254
        ip route replace 10.200.1.0/24 via 192.0.2.254
        ip route replace fd00:201::/64 via 2001:db8:1::254",
    );
    streams.more("there are routes once more");

    let lost = streams.lost();
    for lab in [&a, &b] {
        lab.kill();
        streams.more_without_loss("a daemon was killed", lost);
    }
    for lab in [&a, &b] {
        lab.start();
        streams.more_without_loss("it is back", lost);
    }

    // The kernel takes the routes and the IPv6 addresses of a link that goes down.
    b.ok("node-b", "ip link set uplink0 down");
    eventually("nobody answers", || {
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
    assert_eq!(
        of_streams, 4,
        "the connections that there were at first: {rows}"
    );
}
