//! Packets dropped by XDP, before the network stack.

use std::fmt::Write;

use crate::lab::{NetnsLab, eventually, text};
use crate::stream::Streams;

/// The hooks of the uplink.
fn hooks(lab: &NetnsLab) -> Vec<String> {
    let mut rows = lab.attached();
    rows.retain(|row| row.starts_with("uplink0 "));
    rows
}

#[test]
fn only_denied_prefixes_are_dropped() {
    let (a, _b) = NetnsLab::hosts(1500);
    let without = [
        "uplink0 egress dpd_to_netdev",
        "uplink0 ingress dpd_from_netdev",
    ];
    assert_eq!(hooks(&a), without, "no prefilter, no XDP");
    a.apply(
        "prefilter",
        "[prefilter.abusers]\ndeny = [\"203.0.113.0/24\", \"2001:db8:3::9\"]\n",
    );
    let with = [without[0], without[1], "uplink0 xdp dpd_xdp_entry"];
    assert_eq!(hooks(&a), with);
    for (number, to) in ["10.200.0.64", "fd00:200::64", "192.0.2.1", "2001:db8:1::1"]
        .into_iter()
        .enumerate()
    {
        let output = a.run("world", &format!("ping -n -c 1 -W 1 {to}"));
        assert!(
            !output.status.success(),
            "{to} is unreachable from a denied prefix"
        );
        assert_eq!(
            a.dropped("prefilter"),
            number as u64 + 1,
            "each packet is counted"
        );
    }
    eventually("the drop is observed", || {
        let flows = a.flows();
        let found = flows.iter().any(|flow| {
            flow["point"] == "xdp"
                && flow["src_ip"] == "203.0.113.9"
                && flow["drop_reason"] == "prefilter"
        });
        if found { Ok(()) } else { Err(flows) }
    });
    for to in ["10.32.0.10", "fd00:32::10"] {
        a.dig("client", to).expect("other packets pass");
    }
    a.ok("node-b", "ping -n -c 1 -W 5 192.0.2.1");
    a.ok("node-b", "ping -n -c 1 -W 5 -s 6000 2001:db8:1::1");

    a.apply("prefilter", "# empty\n");
    assert_eq!(hooks(&a), without, "XDP is detached with the last prefix");
    for to in ["10.200.0.64", "fd00:200::64", "192.0.2.1", "2001:db8:1::1"] {
        a.ok("world", &format!("ping -n -c 1 -W 5 {to}"));
    }
}

/// Both families, half each: addresses, and prefixes of several lengths.
fn many(count: u32) -> String {
    let mut list = String::from("[prefilter.many]\ndeny = [\n");
    for number in 0..count / 2 {
        let [_, _, high, low] = number.to_be_bytes();
        let length = 29 + number % 4;
        // Writing into a string can't fail.
        let _ = writeln!(
            list,
            "\"100.{}.{low}.{}/{length}\", \"2001:db9:{high:x}:{low:x}::/{}\",",
            64 + high,
            if length == 32 { 7 } else { 0 },
            64 + length
        );
    }
    list + "]\n"
}

/// Sends echo requests from the world's addresses, which are denied or not.
fn echo(lab: &NetnsLab, source: &str, is_denied: bool) {
    let to = if source.contains(':') {
        "fd00:200::64"
    } else {
        "10.200.0.64"
    };
    let wait = if is_denied { "0.3" } else { "5" };
    let output = lab.run(
        "world",
        &format!("ping -n -c 2 -i 0.2 -W {wait} -I {source} {to}"),
    );
    assert_eq!(
        output.status.success(),
        !is_denied,
        "{source}: {}",
        text(&output)
    );
}

#[test]
fn tens_of_thousands_of_prefixes_are_added_and_removed_under_traffic() {
    let (a, _b) = NetnsLab::hosts(1500);
    let denied = ["100.65.8.7", "2001:db9:1:8::9"];
    a.ok(
        "world",
        "ip address add 100.65.8.7/32 dev lo && ip address add 2001:db9:1:8::9/128 dev lo nodad",
    );
    a.ok(
        "router",
        "ip route add 100.64.0.0/10 via 203.0.113.9 && ip route add 2001:db9::/32 via 2001:db8:3::9",
    );
    let streams = Streams::start(
        &a,
        "client",
        &["10.32.0.52:52", "[fd00:32::52]:52"],
        "coredns",
        &["10.200.1.44:5201", "[fd00:201::44]:5201"],
    );
    for source in denied {
        echo(&a, source, false);
    }
    let all = many(30_000);
    // The two prefixes that contain them.
    let held = ["100.65.8.", "2001:db9:1:8::"];
    let without = {
        let is_other = |line: &&str| !line.contains(held[0]) && !line.contains(held[1]);
        let lines: Vec<&str> = all.lines().filter(is_other).collect();
        lines.join("\n") + "\n"
    };
    let packets = |prefixes: u64| {
        let status = a.json("status");
        assert_eq!(status["prefilter"]["prefixes"], prefixes);
        let hits = status["prefilter"]["hits"]
            .as_array()
            .expect("an array")
            .clone();
        let mut hits: Vec<_> = hits
            .iter()
            .map(|row| {
                (
                    row["prefix"].to_string(),
                    row["packets"].as_u64().expect("packets"),
                )
            })
            .collect();
        hits.sort();
        hits
    };
    let lines = |screen: &str| screen.lines().count();
    let screen_before = lines(&a.dpd("status"));
    let is_held = |when: &str| {
        for source in denied {
            echo(&a, source, true);
        }
        let hits = packets(30_000);
        let counted = hits.iter().map(|(_, packets)| *packets).collect::<Vec<_>>();
        assert_eq!(counted, [2, 2], "{when}: {hits:?}");
        let is_named = std::iter::zip(&hits, held).all(|((prefix, _), held)| prefix.contains(held));
        assert!(is_named, "{when}: {hits:?}");
    };
    a.apply("prefilter", &all);
    streams.more_without_loss("with them all", 0);
    is_held("with them all");
    let screen = a.dpd("status");
    // A line for the hook, five for prefixes with drops, one for the reason.
    assert!(lines(&screen) <= screen_before + 7, "{screen}");

    a.apply("prefilter", &without);
    streams.more_without_loss("without the two", 0);
    for source in denied {
        echo(&a, source, false);
    }
    assert_eq!(packets(29_998), [], "nothing else was dropped");
    a.apply("prefilter", &all);
    streams.more_without_loss("with them all again", 0);
    is_held("with them all again");
}

/// An XDP program of another tool on the uplink.
#[test]
fn another_tools_xdp_program_is_kept_and_reported() {
    let (a, _b) = NetnsLab::hosts(1500);
    // Any XDP program will do.
    let pinned = a.ok(
        "node-a",
        &format!("find {} -name dpd_xdp_entry", a.bpf_root().display()),
    );
    let theirs = format!(
        "bpftool net attach xdpgeneric pinned {} dev uplink0",
        pinned.trim()
    );
    a.ok("node-a", &theirs);
    a.apply(
        "prefilter",
        "[prefilter.abusers]\ndeny = [\"203.0.113.0/24\"]\n",
    );
    let words = "another tool's XDP program dpd_xdp_entry is attached";
    let warnings = a.json("status")["warnings"].to_string();
    assert!(warnings.contains(words), "{warnings}");
    let logged = || a.log().lines().filter(|line| line.contains(words)).count();
    assert_eq!(logged(), 1);
    a.apply("identity", "[identities.other]\nid = 4711\n");
    assert_eq!(logged(), 1, "logged once");
    assert_eq!(hooks(&a).len(), 2, "the tc hooks");
    for to in ["10.32.0.10", "fd00:32::10"] {
        a.dig("client", to).expect("everything else is applied");
    }
    a.ok("node-a", "bpftool net detach xdpgeneric dev uplink0");
    eventually("dpd's program is attached", || {
        let hooks = hooks(&a);
        if hooks.len() == 3 { Ok(()) } else { Err(hooks) }
    });
    let output = a.run("world", "ping -n -c 1 -W 1 192.0.2.1");
    assert!(!output.status.success(), "and drops");
    let warnings = a.json("status")["warnings"].to_string();
    assert!(!warnings.contains(words), "{warnings}");
}
