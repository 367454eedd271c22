//! The way out of a host follows what its stack does with forwarded packets, while other tools rewrite their rules.

use std::time::Duration;

use serde_json::Value;

use crate::lab::{NetnsLab, eventually_within};

/// For what dpd does after 30 seconds, on a busy machine: it looks, and then waits whether that stays.
const PATIENCE: Duration = Duration::from_secs(90);

/// Way and reason of node-a's uplink.
fn way(a: &NetnsLab) -> (Value, Value) {
    let status = a.json("status");
    let interfaces = status["interfaces"].as_array().expect("an array");
    let uplink = interfaces.iter().find(|row| row["role"] == "uplink");
    let uplink = uplink.unwrap_or_else(|| panic!("no uplink: {status}"));
    (
        uplink["forwarding"].clone(),
        uplink["forwarding_reason"].clone(),
    )
}

fn becomes(a: &NetnsLab, expected: &str) {
    eventually_within(PATIENCE, &format!("the way becomes {expected}"), || {
        let (way, _) = way(a);
        if way == expected { Ok(()) } else { Err(way) }
    });
}

#[test]
fn the_way_follows_the_chains_of_a_tool_that_rewrites_them() {
    let (a, _b) = NetnsLab::hosts_laid(1500);
    a.start();
    assert_eq!(way(&a), (Value::from("direct"), Value::Null));
    let before = a.revision();

    // A hundred times all rules are removed and added.
    a.ok(
        "node-a",
        "for n in $(seq 100); do
            printf '%s\n' 'table inet filter {' 'chain forward {' 'type filter hook forward priority 0;' \
                'counter accept' '}' '}' | nft -f - && nft delete table inet filter || exit 1
        done
        printf '%s\n' 'table inet filter {' 'chain forward {' 'type filter hook forward priority 0;' \
            'counter accept' '}' '}' | nft -f -",
    );
    becomes(&a, "stack");
    let reason = "nftables inet filter/forward has rules";
    assert_eq!(way(&a).1, reason);
    assert_eq!(a.revision(), before + 1, "one generation: {}", a.log());
    let change = format!("forwarding direct → stack ({reason})");
    assert_eq!(a.log().matches(&change).count(), 1, "{}", a.log());

    let bypass = "packets between workloads bypass nftables inet filter/forward";
    assert_eq!(a.log().matches(bypass).count(), 1, "{}", a.log());
    let status = a.dpd("status");
    assert!(
        status.contains(&format!(": forwarding stack: {reason}")),
        "{status}"
    );
    assert!(status.contains(bypass), "{status}");

    // What the file says takes effect on the stack as it is.
    a.drop_in("way", "[interfaces.uplink0]\nforwarding = \"direct\"\n");
    becomes(&a, "direct");
    let status = a.dpd("status");
    assert!(
        status.contains("forwarding = \"direct\" bypasses nftables inet filter/forward"),
        "{status}"
    );
    a.drop_in("way", "[interfaces.uplink0]\nforwarding = \"auto\"\n");
    becomes(&a, "stack");

    // Nothing of it is left: the direct way is taken after a while.
    let before = a.revision();
    a.ok("node-a", "nft delete table inet filter");
    becomes(&a, "direct");
    assert_eq!(a.revision(), before + 1, "{}", a.log());
    let change = format!("forwarding stack ({reason}) → direct\n");
    assert_eq!(a.log().matches(&change).count(), 1, "{}", a.log());
}

#[test]
fn an_xfrm_policy_and_iptables_legacy_are_followed() {
    let (a, _b) = NetnsLab::hosts_laid(1500);
    a.start();
    a.ok(
        "node-a",
        "ip xfrm policy add src 10.200.0.0/24 dst 198.51.100.0/24 dir out",
    );
    becomes(&a, "stack");
    assert_eq!(
        way(&a).1,
        "XFRM policy out 10.200.0.0/24 to 198.51.100.0/24 exists"
    );
    // It sends no message: the host is looked at every 30 seconds.
    a.ok(
        "node-a",
        "ip xfrm policy flush && iptables-legacy -P FORWARD DROP",
    );
    eventually_within(PATIENCE, "the reason is the new one", || {
        let (_, reason) = way(&a);
        match reason == "iptables-legacy filter/FORWARD drops by policy" {
            true => Ok(()),
            false => Err(reason),
        }
    });
}
