//! Masquerade: the router and the world know no way back to the workloads, and real programs work all the same.

use serde_json::Value;

use crate::lab::{NetnsLab, eventually, text};
use crate::stream::Streams;

const ROLE: &str = "role = \"uplink\"";
const MASQUERADE: &str = "role = \"uplink\"\nmasquerade = \"both\"";

/// Two hosts, of which the first masquerades, and a router without a route to its workloads.
fn masqueraded() -> (NetnsLab, NetnsLab) {
    let (a, b) = NetnsLab::hosts_laid(1500);
    a.edit(ROLE, MASQUERADE);
    a.start();
    b.start();
    a.ok("router", "ip route del 10.200.0.0/24");
    a.ok("router", "ip route del fd00:200::/64");
    (a, b)
}

fn serve_world(lab: &NetnsLab) {
    crate::web::serve_in(lab, "world", "203.0.113.9", "2001:db8:3::9", "world");
}

#[test]
fn the_world_is_reached_with_the_hosts_address() {
    let (a, _b) = masqueraded();
    serve_world(&a);
    for (host, seen, bare) in [
        ("203.0.113.9", "192.0.2.1", "203.0.113.9"),
        ("[2001:db8:3::9]", "2001:db8:1::1", "2001:db8:3::9"),
    ] {
        let url = format!("http://{host}:8080/hello");
        let hello = format!("hello {seen}\n");
        assert_eq!(a.ok("client", &format!("curl -sS -m 10 '{url}'")), hello);
        // The host itself, meanwhile and with a port of the pool.
        let own = format!("curl -sS -m 10 --local-port 20000-20100 '{url}'");
        assert_eq!(a.ok("node-a", &own), hello);
        a.ok("client", &format!("ping -n -c 3 -i 0.2 -W 5 {bare}"));
        a.ok("node-a", &format!("ping -n -c 1 -W 5 {bare}"));
        // Errors of the router and of the world's host come back to the workload.
        let hop = a.run("client", &format!("ping -n -c 1 -W 5 -t 2 {bare}"));
        assert!(
            text(&hop).to_lowercase().contains("exceeded"),
            "{}",
            text(&hop)
        );
        let refused = a.run(
            "client",
            &format!("dig +tries=1 +time=5 @{bare} id.server CH TXT"),
        );
        assert!(text(&refused).contains("refused"), "{}", text(&refused));
        // What is longer than the link is cut, and put together.
        a.ok("client", &format!("ping -n -c 1 -W 5 -s 4000 {bare}"));
    }
}

#[test]
fn listings_and_flows_have_both_addresses() {
    let (a, _b) = masqueraded();
    serve_world(&a);
    a.ok("client", "curl -sS -m 10 http://203.0.113.9:8080/hello");
    let rows = a.json("ct list");
    let rows = rows.as_array().expect("connections");
    let row = rows.iter().find(|row| row["dst_ip"] == "203.0.113.9");
    let row = row.expect("the connection is listed");
    assert_eq!(row["src_ip"], "10.200.0.64");
    assert_eq!(row["snat_ip"], "192.0.2.1");
    let port = row["snat_port"].as_u64().expect("its port");
    assert!((1024..32768).contains(&port) || port > 60999, "{port}");
    eventually("both directions are reported", || {
        let flows = a.flows();
        let with = |reply: bool, from: &str, to: &str| {
            flows.iter().any(|flow| {
                flow["reply"] == reply && flow["src_ip"] == from && flow["dst_ip"] == to
            })
        };
        let are_there =
            with(false, "10.200.0.64", "203.0.113.9") && with(true, "203.0.113.9", "10.200.0.64");
        if are_there { Ok(()) } else { Err(flows) }
    });
    assert_eq!(a.drops(), Vec::<String>::new());
}

#[test]
fn bulk_data_is_masqueraded_both_ways() {
    let (a, _b) = masqueraded();
    a.serve("world", "iperf3 -s -p 5201", 5201);
    for words in [
        "-c 203.0.113.9 -n 100M",
        "-c 203.0.113.9 -n 100M -R",
        "-c 2001:db8:3::9 -n 100M",
        "-c 2001:db8:3::9 -n 100M -R",
        "-c 203.0.113.9 -u -b 20M -n 1M -l 4000",
        "-c 203.0.113.9 -u -b 20M -n 1M -l 4000 -R",
        "-c 2001:db8:3::9 -u -b 20M -n 1M -l 4000",
        "-c 2001:db8:3::9 -u -b 20M -n 1M -l 4000 -R",
    ] {
        let printed = a.ok("client", &format!("timeout 60 iperf3 -J -p 5201 {words}"));
        let report: Value = serde_json::from_str(&printed).expect(words);
        let received = match words.contains(" -u ") {
            true => &report["end"]["sum"],
            false => &report["end"]["sum_received"],
        };
        let is_received = received["bytes"].as_u64().is_some_and(|bytes| bytes > 0);
        assert!(is_received, "{words}: {printed}");
    }
}

#[test]
fn connections_survive_reloads_and_restarts() {
    let (a, _b) = masqueraded();
    let world = ["203.0.113.9:7777", "[2001:db8:3::9]:7777"];
    let streams = Streams::start(&a, "client", &world, "world", &world);
    for round in 0..3 {
        let identity = format!("[identities.extra{round}]\nid = {}\n", 40000 + round);
        a.apply("extra.toml", &identity);
        streams.more_without_loss("a change of the file", 0);
    }
    a.kill();
    streams.more_without_loss("without dpd", 0);
    a.start();
    streams.more_without_loss("with the next dpd", 0);
    a.ok(
        "node-a",
        "sysctl -wq net.ipv4.ip_local_port_range='40000 50000'",
    );
    a.dpd("reload");
    streams.more_without_loss("another range of ports", 0);
    // Entries migrate to tables of another size, while replies arrive at the host's address.
    for size in [65536, 98304, 131072] {
        a.stop();
        a.drop_in("size", &format!("[conntrack]\nsize = {size}\n"));
        a.start();
        streams.more_without_loss("tables of another size", 0);
    }
}

#[test]
fn plan_says_what_the_end_of_masquerade_ends() {
    let (a, _b) = masqueraded();
    let world = ["203.0.113.9:7777"];
    let streams = Streams::start(&a, "client", &world, "world", &world);
    let text = std::fs::read_to_string(a.config()).expect("read the file");
    a.save(&text.replace(MASQUERADE, ROLE));
    eventually("the log says what ended", || {
        let log = a.log();
        let line = log
            .lines()
            .find(|line| line.contains("masquerade both → none"));
        match line {
            Some(line) if line.contains("2 connections end") => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
    drop(streams);
}

/// What `dpd check` prints besides its verdict.
fn advice(lab: &NetnsLab) -> Vec<String> {
    let printed = lab.run("node-a", &format!("{} check", env!("CARGO_BIN_EXE_dpd")));
    let lines = text(&printed);
    let is_advice = |line: &&str| line.contains("masquerade") && !line.contains("forwarding");
    let lines = lines.lines().filter(is_advice);
    lines.map(str::to_owned).collect()
}

fn status_has(lab: &NetnsLab, key: &str, parts: &[&str]) {
    eventually("the status says so", || {
        let status = lab.json("status");
        let shown = status[key].as_array().expect("an array").clone();
        let has = |line: &Value| {
            let line = line.as_str().unwrap_or_default();
            parts.iter().all(|part| line.contains(part))
        };
        if shown.iter().any(has) {
            Ok(())
        } else {
            Err(shown)
        }
    });
}

#[test]
fn a_host_where_nothing_or_too_much_translates_is_advised() {
    let (a, _b) = masqueraded();
    assert_eq!(advice(&a), [""; 0]);
    let text = std::fs::read_to_string(a.config()).expect("read the file");
    a.ok(
        "node-a",
        "ip route replace default via 192.0.2.254 dev uplink0",
    );
    a.save(&text.replace(MASQUERADE, ROLE));
    let hint = [
        "private IPv4 addresses",
        "lxc-client",
        "interfaces.uplink0.masquerade = \"ipv4\"",
    ];
    status_has(&a, "hints", &hint);
    let shown = advice(&a);
    assert!(hint.iter().all(|part| shown[0].contains(part)), "{shown:?}");
    a.ok("node-a", "nft add table inet nat");
    let chain = "type nat hook postrouting priority 100;";
    a.ok(
        "node-a",
        &format!("nft 'add chain inet nat post {{ {chain} }}'"),
    );
    a.ok("node-a", "nft add rule inet nat post masquerade");
    assert_eq!(advice(&a), [""; 0], "netfilter translates");
    a.save(&text);
    let both = [
        "uplink uplink0: both masquerade = \"both\"",
        "nftables inet nat/post",
    ];
    status_has(&a, "warnings", &both);
    let shown = advice(&a);
    let is_shown = shown
        .iter()
        .any(|line| both.iter().all(|part| line.contains(part)));
    assert!(is_shown, "{shown:?}");
}
