//! A router between the hosts with a smaller MTU than the links: path MTU discovery and traceroute.

use std::fs;

use crate::lab::NetnsLab;
use crate::web;

#[test]
fn large_transfers_discover_the_path_mtu() {
    let (a, b) = NetnsLab::hosts(1300);
    web::serve_in(&a, "coredns", "10.200.1.44", "fd00:201::44", "web-b");
    web::serve_in(&a, "coredns-a", "10.200.0.44", "fd00:200::44", "web-a");
    let sent: Vec<u8> = (0..4 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let folder = a.folder();
    fs::write(folder.join("sent"), &sent).expect("write a large file");
    let place = folder.display();
    for (client, address, server, frontend, web) in [
        ("client", "10.200.0.64", "coredns", "10.32.0.80", "web-b"),
        ("client", "fd00:200::64", "coredns", "fd00:32::80", "web-b"),
        (
            "client-b",
            "10.200.1.64",
            "coredns-a",
            "10.32.0.81",
            "web-a",
        ),
        (
            "client-b",
            "fd00:201::64",
            "coredns-a",
            "fd00:32::81",
            "web-a",
        ),
    ] {
        let host = match frontend.contains(':') {
            true => format!("[{frontend}]"),
            false => frontend.to_owned(),
        };
        let name = frontend.replace(':', "-");
        a.ok(
            client,
            &format!("curl -fsS -m 30 -T {place}/sent 'http://{host}/{name}'"),
        );
        let arrived = fs::read(folder.join(web).join(&name)).expect("what was uploaded");
        assert!(arrived == sent, "{client}, {host}: the upload is complete");
        let route = a.ok(client, &format!("ip route get {frontend}"));
        assert!(
            route.contains("mtu 1300"),
            "{client} has the PMTU of the service: {route}"
        );

        // A client that knows the path MTU sends it in its SYN: the server would discover nothing.
        a.ok(client, "ip route flush cache; ip -6 route flush cache");
        a.ok(
            client,
            &format!("curl -fsS -m 30 -o {place}/got 'http://{host}/{name}'"),
        );
        let back = fs::read(folder.join("got")).expect("what was downloaded");
        assert!(back == sent, "{client}, {host}: the download is complete");
        let route = a.ok(server, &format!("ip route get {address}"));
        assert!(
            route.contains("mtu 1300"),
            "{server} has the PMTU of the client: {route}"
        );
    }
    for lab in [&a, &b] {
        assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
    }
}

#[test]
fn traceroute_shows_the_nodes_and_the_router() {
    let (a, b) = NetnsLab::hosts(1500);
    b.apply(
        "table",
        "[policies.table]\nsubject = \"kube-dns\"\ningress = [{ from = [\"client\"] }]\n",
    );
    for place in ["router", "coredns"] {
        a.ok(
            place,
            "sysctl -w net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0",
        );
    }
    let four = ["192.0.2.1", "192.0.2.254", "198.51.100.2"];
    let six = ["2001:db8:1::1", "2001:db8:1::254", "2001:db8:2::2"];
    let rows = [
        ("TCP", "-T -p 53", "10.200.1.44", "fd00:201::44", true),
        (
            "TCP, a service",
            "-T -p 53",
            "10.32.0.10",
            "fd00:32::10",
            true,
        ),
        ("UDP", "-U -p 33434", "10.200.1.44", "fd00:201::44", true),
        (
            "UDP, consecutive ports",
            "",
            "10.200.1.44",
            "fd00:201::44",
            true,
        ),
        // Nothing listens there: the backend's ICMP error has the service's address.
        (
            "UDP, a service",
            "-U -p 52",
            "10.32.0.52",
            "fd00:32::52",
            true,
        ),
        ("ICMP", "-I", "10.200.1.44", "fd00:201::44", true),
        (
            "ICMP, a service: dpd replies",
            "-I",
            "10.32.0.10",
            "fd00:32::10",
            false,
        ),
        (
            "UDP, no frontend's port: dpd replies",
            "",
            "10.32.0.10",
            "fd00:32::10",
            false,
        ),
    ];
    for (sentence, options, v4, v6, is_far) in rows {
        for (to, between) in [(v4, four), (v6, six)] {
            let line = format!("traceroute -n -q 1 -w 5 -m 6 {options} {to}");
            let printed = a.ok("client", &line);
            let hops: Vec<&str> = printed
                .lines()
                .skip(1)
                .map(|line| line.split_whitespace().nth(1).unwrap_or("?"))
                .collect();
            let mut way = if is_far { between.to_vec() } else { Vec::new() };
            way.push(to);
            assert_eq!(hops, way, "{sentence}: {printed}");
        }
    }
}
