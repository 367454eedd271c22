//! XFRM policies, by which IPsec decides what is encrypted, passed or blocked.

use super::way_becomes;
use crate::lab::NetnsLab;

#[test]
fn an_xfrm_policy_decides_about_what_leaves_by_an_uplink() {
    let (a, _b) = NetnsLab::hosts_laid(1500);
    a.start();
    let ping = |to: &str| {
        let output = a.run("client", &format!("ping -n -c 1 -W 2 {to}"));
        output.status.success()
    };
    assert!(ping("203.0.113.9"), "without a policy");
    a.ok(
        "node-a",
        "ip xfrm policy add src 10.200.0.64/32 dst 203.0.113.9/32 dir fwd action block",
    );
    let reason = "XFRM policy fwd 10.200.0.64/32 to 203.0.113.9/32 exists";
    way_becomes(&a, "stack", reason);
    assert!(!ping("203.0.113.9"), "the policy blocks it");
    let counted = a.ok(
        "node-a",
        "awk '$1 == \"XfrmInPolBlock\" { print $2 }' /proc/thread-self/net/xfrm_stat",
    );
    assert_eq!(counted.trim(), "1", "the policy has dropped it");
    assert!(ping("198.51.100.2"), "what no policy concerns");
    // The direct way knows no policy.
    a.drop_in("way", "[interfaces.uplink0]\nforwarding = \"direct\"\n");
    way_becomes(&a, "direct", "forwarding = \"direct\"");
    assert!(ping("203.0.113.9"), "past the policy");
}
