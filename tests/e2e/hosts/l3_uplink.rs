//! Two hosts joined by a tun device: uplinks without Ethernet headers.

use std::net::{Ipv6Addr, UdpSocket};

use serde_json::Value;

use crate::common::packet::udp;
use crate::common::tun::{self, Cable};
use crate::lab::{DEADLINE, NetnsLab, eventually, text};
use crate::web;

/// Bytes of the header that built packets have and those of a tun do not.
const ETHERNET: usize = 14;

/// The hosts' addresses on the tunnel, and which workloads are behind the other one.
const ENDS: [(&str, &str, &str, &str); 2] = [
    (
        "198.18.0.1",
        "2001:db8:18::1",
        "10.200.1.0/24",
        "fd00:201::/64",
    ),
    (
        "198.18.0.2",
        "2001:db8:18::2",
        "10.200.0.0/24",
        "fd00:200::/64",
    ),
];

/// A tunnel between the hosts, with the routes to each other's workloads.
fn lay(a: &NetnsLab, b: &NetnsLab) -> Cable {
    let devices = [a, b].map(|lab| lab.within(lab.node(), || tun::open("tun0")));
    for (lab, (ipv4, ipv6, behind4, behind6)) in [a, b].into_iter().zip(ENDS) {
        lab.ok(
            lab.node(),
            &format!(
                "ip address add {ipv4}/24 dev tun0 && ip address add {ipv6}/64 dev tun0 nodad &&
                ip link set tun0 mtu 1400 up &&
                ip route replace {behind4} dev tun0 && ip route replace {behind6} dev tun0"
            ),
        );
    }
    let [one, other] = devices;
    Cable::join(one, other)
}

/// Both hosts with dpd, and the tunnel as an uplink with these keys.
fn hosts(keys: &str) -> (NetnsLab, NetnsLab, Cable) {
    let (a, b) = NetnsLab::hosts_laid(1500);
    let cable = lay(&a, &b);
    for lab in [&a, &b] {
        lab.drop_in(
            "tun0",
            &format!(
                "[events]\naggregation = \"none\"\n[interfaces.tun0]\nrole = \"uplink\"\n{keys}\n
                [policies.table]\nsubject = \"kube-dns\"\ningress = [{{ from = [\"client\"] }}]\n"
            ),
        );
        lab.start();
    }
    (a, b, cable)
}

/// Whether a flow was seen at this point with this interface.
fn has_flow(lab: &NetnsLab, point: &str, interface: &str) -> bool {
    let flows = lab.flows();
    flows
        .iter()
        .any(|flow| flow["point"] == point && flow["interface"] == interface)
}

#[test]
fn workloads_and_services_are_reached_over_a_tun() {
    for (keys, (out, out_at), (arrival, arrival_at)) in [
        (
            "forwarding = \"direct\"",
            ("to-network", "tun0"),
            ("from-network", "tun0"),
        ),
        (
            "forwarding = \"stack\"",
            ("to-stack", "lxc-client"),
            ("to-endpoint", "lxc-coredns"),
        ),
    ] {
        let (a, b, _cable) = hosts(keys);
        let hooks: Vec<String> = a.attached();
        for hook in ["tun0 ingress dpd_from_l3dev", "tun0 egress dpd_to_netdev"] {
            assert!(hooks.iter().any(|row| row == hook), "{hook}: {hooks:?}");
        }
        for service in ["10.32.0.10", "fd00:32::10"] {
            a.dig("client", service)
                .expect("the backend on the other host answers");
        }
        for to in ["10.200.1.44", "fd00:201::44"] {
            a.ok("client", &format!("ping -n -c 2 -i 0.2 -W 5 {to}"));
        }
        // An IPv6 sender learns the tunnel's MTU by its first loss.
        for place in ["client", "coredns"] {
            a.ok(place, "ip link set eth0 mtu 1400");
        }
        for to in ["10.200.1.44", "fd00:201::44"] {
            a.ok("client", &format!("ping -n -c 1 -W 5 -s 4000 {to}"));
        }
        for to in ["10.200.0.44", "fd00:200::44"] {
            b.ok("client-b", &format!("ping -n -c 1 -W 5 {to}"));
        }
        for to in [ENDS[1].0, ENDS[1].1] {
            a.ok("node-a", &format!("ping -n -c 1 -W 5 {to}"));
        }
        eventually("packets take the way of the file", || {
            let seen = has_flow(&a, out, out_at) && has_flow(&b, arrival, arrival_at);
            if seen {
                Ok(())
            } else {
                Err((a.flows(), b.flows()))
            }
        });
        for lab in [&a, &b] {
            assert_eq!(
                lab.drops(),
                Vec::<String>::new(),
                "{keys}: nothing was dropped"
            );
        }
    }
}

#[test]
fn bulk_data_and_fragments_pass_a_tun_whole() {
    let (a, b, _cable) = hosts("");
    web::serve_in(&a, "coredns", "10.200.1.44", "fd00:201::44", "web-b");
    a.serve("coredns", "iperf3 -s -p 5201", 5201);
    let sent: Vec<u8> = (0..4 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let folder = a.folder();
    std::fs::write(folder.join("sent"), &sent).expect("write a large file");
    let place = folder.display();
    for (number, host) in ["10.32.0.80", "[fd00:32::80]"].into_iter().enumerate() {
        let url = format!("http://{host}/up-{number}");
        a.ok(
            "client",
            &format!("curl -fsS -m 30 -T {place}/sent '{url}'"),
        );
        let arrived = std::fs::read(folder.join("web-b").join(format!("up-{number}")));
        assert!(
            arrived.expect("what was uploaded") == sent,
            "{host}: the upload is complete"
        );
        a.ok("client", &format!("curl -fsS -m 30 -o {place}/got '{url}'"));
        let back = std::fs::read(folder.join("got")).expect("what was downloaded");
        assert!(back == sent, "{host}: the download is complete");
    }
    let link = b.ok("node-b", "ip -j -s link show dev tun0");
    let link: Value = serde_json::from_str(&link).expect("JSON of ip");
    let received = &link[0]["stats64"]["rx"];
    let average = received["bytes"].as_u64() > received["packets"].as_u64().map(|n| n * 1400);
    assert!(
        average,
        "large packets pass the tunnel before they are segmented: {received}"
    );
    // An IPv6 sender learns the tunnel's MTU by its first loss.
    for place in ["client", "coredns"] {
        a.ok(place, "ip link set eth0 mtu 1400");
    }
    for words in [
        "10.32.0.52",
        "10.32.0.52 -R",
        "fd00:32::52",
        "fd00:32::52 -R",
    ] {
        let line = format!("timeout 60 iperf3 -J -p 52 -u -b 10M -n 500K -l 4000 -c {words}");
        let printed = a.ok("client", &line);
        let report: Value = serde_json::from_str(&printed).expect("iperf3's report");
        let sum = &report["end"]["sum"];
        assert_eq!(sum["lost_packets"], 0, "{words}: {printed}");
    }
    for lab in [&a, &b] {
        let mut drops = lab.drops();
        drops.retain(|row| !row.contains("fragmentation needed"));
        assert_eq!(drops, Vec::<String>::new(), "nothing else was dropped");
    }
}

#[test]
fn errors_reach_their_receiver_over_a_tun() {
    let (a, b, _cable) = hosts("");
    for (to, hops) in [
        ("10.200.1.44", ["198.18.0.1", "198.18.0.2"]),
        ("fd00:201::44", ["2001:db8:18::1", "2001:db8:18::2"]),
    ] {
        let printed = a.ok("client", &format!("traceroute -n -q 1 -w 3 -m 4 -I {to}"));
        let other = hops[1];
        assert!(
            printed.contains(other),
            "{other} answers for the hop: {printed}"
        );
        assert!(
            printed.contains(&format!("  {to}  ")) || printed.contains(to),
            "{printed}"
        );
        let output = a.run("client", &format!("dig +tries=1 +time=10 -p 5201 @{to} x."));
        let printed = text(&output);
        assert!(
            printed.contains("connection refused"),
            "port unreachable comes back: {printed}"
        );
    }
    // A link of a workload that is narrower than the tunnel.
    b.ok("node-b", "ip link set lxc-coredns mtu 1290");
    a.ok("coredns", "ip link set eth0 mtu 1290");
    for to in ["10.200.1.44", "fd00:201::44"] {
        eventually("the path's MTU is found", || {
            a.run("client", &format!("ping -n -M do -c 1 -W 1 -s 1300 {to}"));
            let route = a.ok("client", &format!("ip route get {to}"));
            if route.contains("mtu 1290") {
                Ok(())
            } else {
                Err(route)
            }
        });
    }
}

#[test]
fn forged_packets_from_a_tun_are_dropped() {
    let (a, _b, cable) = hosts("");
    let spoofed = "invalid source";
    for (source, destination) in [
        ("10.200.0.44:53", "10.200.0.64:4000"),
        ("[fd00:200::44]:53", "[fd00:200::64]:4000"),
    ] {
        let before = a.dropped(spoofed);
        cable.send_to_first(&udp(source, destination).build()[ETHERNET..]);
        eventually(
            "a workload's address does not come from the network",
            || {
                let now = a.dropped(spoofed);
                if now == before + 1 {
                    Ok(())
                } else {
                    Err(a.drops())
                }
            },
        );
    }
}

#[test]
fn what_the_host_gets_by_a_tun_is_read_from_its_start() {
    let (a, _b, cable) = hosts("");
    a.ok(
        "node-a",
        "ip address add 2001:db8:18::fd00/64 dev tun0 nodad",
    );
    // Behind an Ethernet header each of them would be a packet to a workload: bytes 30 to 33, and 38 to 53.
    let four = udp("198.18.69.5:9", "198.18.0.1:9000").payload(&[0, 0, 10, 200, 0, 64, 0, 0]);
    let six = udp("[2001:db8:18:60::2]:512", "[2001:db8:18::fd00]:9000").payload(&[7; 16]);
    let [four, six] = [four, six].map(|packet| packet.build()[ETHERNET..].to_vec());
    let read_too_far: [u8; 16] = six[38..54].try_into().expect("sixteen bytes");
    let workload = Ipv6Addr::from(read_too_far);
    let revision = a.revision();
    a.edit(
        "\"fd00:200::64\"]",
        &format!("\"fd00:200::64\", \"{workload}\"]"),
    );
    eventually("the workload has that address", || {
        if a.revision() > revision {
            Ok(())
        } else {
            Err(a.log())
        }
    });
    for (address, packet) in [("198.18.0.1:9000", four), ("[2001:db8:18::fd00]:9000", six)] {
        let socket = a.within("node-a", || UdpSocket::bind(address).expect("bind"));
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        cable.send_to_first(&packet);
        let received = socket.recv_from(&mut [0; 64]);
        assert!(received.is_ok(), "{address}: {received:?}, {:?}", a.drops());
    }
    assert_eq!(a.drops(), Vec::<String>::new(), "nothing was dropped");
}

#[test]
fn the_prefilter_drops_at_a_tun() {
    let (a, b, _cable) = hosts("");
    let denied = "[prefilter.abusers]\ndeny = [\"198.18.0.2\", \"2001:db8:18::/64\"]\n";
    for mode in ["auto", "generic"] {
        a.apply(
            "prefilter",
            &format!("{denied}[interfaces.tun0]\nxdp = \"{mode}\"\n"),
        );
        let before = a.dropped("prefilter");
        for (number, to) in [
            "10.200.0.64",
            "fd00:200::64",
            "198.18.0.1",
            "2001:db8:18::1",
        ]
        .into_iter()
        .enumerate()
        {
            let output = b.run("node-b", &format!("ping -n -c 1 -W 1 {to}"));
            assert!(!output.status.success(), "{mode}: {to}: {}", text(&output));
            assert!(
                a.dropped("prefilter") > before + number as u64,
                "each packet is counted"
            );
        }
        eventually("the drop is observed", || {
            let flows = a.flows();
            let found = flows.iter().any(|flow| {
                flow["point"] == "from-network"
                    && flow["interface"] == "tun0"
                    && flow["src_ip"] == "198.18.0.2"
                    && flow["drop_reason"] == "prefilter"
            });
            if found { Ok(()) } else { Err(flows) }
        });
        let status = a.json("status");
        let hits = status["prefilter"]["hits"].as_array().expect("hits");
        assert_eq!(hits.len(), 2, "each prefix has its count: {hits:?}");
        for service in ["10.32.0.10", "fd00:32::10"] {
            a.dig("client", service).expect("others pass");
        }
    }
    a.apply(
        "prefilter",
        &format!("{denied}[interfaces.tun0]\nxdp = \"off\"\n"),
    );
    b.ok("node-b", "ping -n -c 1 -W 5 198.18.0.1");
}
