//! The world behind the router: connections from and to it, and spoofed source addresses.

use crate::lab::{NetnsLab, eventually, text};

#[test]
fn endpoints_reach_the_world_with_their_own_address() {
    let (a, b) = NetnsLab::hosts(1500);
    let log = a.folder().join("world");
    std::fs::create_dir_all(&log).expect("make a folder");
    crate::web::serve_in(&a, "world", "203.0.113.9", "2001:db8:3::9", "world");
    for (client, host, seen) in [
        ("client", "203.0.113.9", "10.200.0.64"),
        ("client", "[2001:db8:3::9]", "fd00:200::64"),
        ("client-b", "203.0.113.9", "10.200.1.64"),
        ("client-b", "[2001:db8:3::9]", "fd00:201::64"),
    ] {
        let printed = a.ok(
            client,
            &format!("curl -sS -m 10 'http://{host}:8080/hello'"),
        );
        assert_eq!(printed, format!("hello {seen}\n"), "{client}: {host}");
        let bare = host.trim_matches(['[', ']']);
        a.ok(client, &format!("ping -n -c 1 -W 5 {bare}"));
    }
    for (to, replies) in [
        ("10.200.0.64", true),
        ("fd00:200::64", true),
        ("10.200.0.44", false),
        ("fd00:200::44", false),
        ("10.200.1.44", false),
        ("fd00:201::44", false),
    ] {
        let wait = if replies { 5 } else { 1 };
        let output = a.run("world", &format!("ping -n -c 1 -W {wait} {to}"));
        assert_eq!(
            output.status.success(),
            replies,
            "ingress policy applies to {to}: {}",
            text(&output)
        );
    }
    for lab in [&a, &b] {
        let observed = lab.dpd("observe --last 20 --verdict dropped");
        assert!(observed.contains("(world) ->"), "{observed}");
    }
}

#[test]
fn a_spoofed_source_is_dropped() {
    let (a, _b) = NetnsLab::hosts(1500);
    for (sentence, source, to) in [
        ("a local endpoint's", "10.200.0.64", "10.200.0.65"),
        (
            "a local endpoint's, over IPv6",
            "fd00:200::64",
            "fd00:200::65",
        ),
        ("the host's own", "192.0.2.1", "10.200.0.65"),
        ("the host's own, over IPv6", "2001:db8:1::1", "fd00:200::65"),
    ] {
        a.ok("world", &format!("ip address add {source} dev lo nodad"));
        let before = a.dropped("invalid source");
        a.run("world", &format!("ping -n -c 1 -W 1 -I {source} {to}"));
        eventually(&format!("{sentence} address is dropped"), || {
            let now = a.dropped("invalid source");
            if now == before + 1 { Ok(()) } else { Err(now) }
        });
        eventually(&format!("{sentence}: the drop is observed"), || {
            let flows = a.flows();
            let found = flows.iter().any(|flow| {
                flow["src_ip"] == source
                    && flow["drop_reason"] == "invalid source"
                    && flow["interface"] == "uplink0"
            });
            if found { Ok(()) } else { Err(flows) }
        });
    }
}

#[test]
fn packets_from_the_network_to_a_service_address_go_to_the_stack() {
    let (a, _b) = NetnsLab::hosts_laid(1500);
    for (frontend, via) in [
        ("10.32.0.10", "192.0.2.1"),
        ("fd00:32::10", "2001:db8:1::1"),
    ] {
        a.ok("router", &format!("ip route add {frontend} via {via}"));
        a.ok("node-a", &format!("ip address add {frontend} dev lo nodad"));
    }
    let reach = |when: &str| {
        for frontend in ["10.32.0.10", "fd00:32::10"] {
            a.ok("world", &format!("ping -n -c 1 -W 5 {frontend}"));
            // Nothing on the host listens at this port: its stack rejects it.
            let output = a.run(
                "world",
                &format!("dig +tries=1 +time=5 @{frontend} id.server CH TXT"),
            );
            assert!(
                text(&output).contains("refused"),
                "{when}: {frontend}: {}",
                text(&output)
            );
        }
    };
    reach("without dpd");
    a.start();
    reach("with dpd");
    assert_eq!(a.drops(), Vec::<String>::new(), "nothing was dropped");
}
