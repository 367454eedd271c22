//! What the host's stack does with forwarded packets, read from a real kernel and followed.

use std::fs;
use std::time::Duration;

use dpd::model::families::Families;
use dpd::model::forwarding::{HostStack, StackFilter};
use dpd::net::{Watcher, host_stack};

use super::{DEADLINE, Netns, drop_capabilities};

/// Runs a command line in a namespace.
fn run(netns: &Netns, line: &str) {
    let (program, words) = line.split_once(' ').unwrap();
    netns.run(program, words);
}

/// Runs a script of nft, to which a line's end belongs behind each block.
fn nft(netns: &Netns, script: &str) {
    let script = script.replace("} }", "}\n}");
    let status = netns.command("nft").arg(&script).status();
    assert!(status.unwrap().success(), "{script}");
}

fn stack(netns: &Netns) -> HostStack {
    netns.enter(|| host_stack().unwrap())
}

/// `Forward: nftables inet filter/forward has rules`, and the families whose sources it may translate.
fn filters(netns: &Netns) -> Vec<String> {
    let stack = stack(netns);
    let filters = stack.filters.iter();
    let line = |filter: &StackFilter| match filter.translates {
        Families::NONE => format!("{:?}: {filter}", filter.hook),
        families => format!("{:?}: {filter}, SNAT {}", filter.hook, families.name()),
    };
    filters.map(line).collect()
}

#[test]
fn nftables_chains_that_forwarded_packets_meet_are_found() {
    let rows: [(&str, &str, &[&str]); 15] = [
        ("nothing", "", &[]),
        (
            "an empty chain",
            "table inet t { chain f { type filter hook forward priority 0; } }",
            &[],
        ),
        (
            "a rule",
            "table inet t { chain f { type filter hook forward priority 0; counter; } }",
            &["Forward: nftables inet t/f has rules"],
        ),
        (
            "a policy",
            "table ip t { chain f { type filter hook forward priority 0; policy drop; } }",
            &["Forward: nftables ip t/f drops by policy"],
        ),
        (
            "a chain without a hook",
            "table inet t { chain f { counter; } }",
            &[],
        ),
        (
            "what the host receives and sends",
            "table inet t { chain i { type filter hook input priority 0; policy drop; counter; }
                            chain o { type filter hook output priority 0; counter; } }",
            &[],
        ),
        (
            "NAT after routing",
            "table ip nat { chain post { type nat hook postrouting priority 100; masquerade; } }",
            &["Routing: nftables ip nat/post has rules, SNAT ipv4"],
        ),
        (
            "a filter before routing",
            "table ip6 raw { chain pre { type filter hook prerouting priority -300; counter; } }",
            &["Routing: nftables ip6 raw/pre has rules"],
        ),
        (
            "the ingress of an interface, in two families",
            "table netdev t { chain in { type filter hook ingress device up0 priority 0; counter; } }
             table inet u { chain in { type filter hook ingress device up0 priority 0; policy drop; } }",
            &[
                "Interface(\"up0\"): nftables inet u/in drops by policy",
                "Interface(\"up0\"): nftables netdev t/in has rules",
            ],
        ),
        (
            "the ingress of two interfaces",
            "table netdev t { chain in { type filter hook ingress devices = { up0, up1 } priority 0; counter; } }",
            &[
                "Interface(\"up0\"): nftables netdev t/in has rules",
                "Interface(\"up1\"): nftables netdev t/in has rules",
            ],
        ),
        (
            "the egress of an interface",
            "table netdev t { chain out { type filter hook egress device up1 priority 0; counter; } }",
            &["Interface(\"up1\"): nftables netdev t/out has rules"],
        ),
        (
            "a bridge's forwarding, and its input",
            "table bridge t { chain f { type filter hook forward priority 0; counter; }
                              chain i { type filter hook input priority 0; counter; } }",
            &["Bridge: nftables bridge t/f has rules"],
        ),
        (
            "ARP",
            "table arp t { chain i { type filter hook input priority 0; counter; } }",
            &[],
        ),
        (
            "a dormant table",
            "table inet t { flags dormant; chain f { type filter hook forward priority 0; counter; } }",
            &[],
        ),
        (
            "two tables of the same name, one dormant",
            "table ip t { flags dormant; chain f { type filter hook forward priority 0; counter; } }
             table ip6 t { chain f { type filter hook forward priority 0; counter; } }",
            &["Forward: nftables ip6 t/f has rules"],
        ),
    ];
    let node = Netns::new();
    node.veth("up0", &node, "up1");
    for (what, script, expected) in rows {
        nft(&node, &format!("flush ruleset\n{script}"));
        assert_eq!(filters(&node), *expected, "{what}");
    }
}

#[test]
fn iptables_legacy_is_read_without_creating_its_tables() {
    let node = Netns::new();
    let existing = || {
        node.enter(|| {
            let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
            read("ip_tables_names") + &read("ip6_tables_names")
        })
    };
    assert_eq!(filters(&node), [""; 0]);
    assert_eq!(existing(), "", "the look has created a table");
    let rows: [(&str, &[&str]); 8] = [
        ("iptables-legacy -t filter -S", &[]),
        ("iptables-legacy -A INPUT -j DROP", &[]),
        ("iptables-legacy -P INPUT DROP", &[]),
        (
            "iptables-legacy -P FORWARD DROP",
            &["Forward: iptables-legacy filter/FORWARD drops by policy"],
        ),
        ("iptables-legacy -P FORWARD ACCEPT", &[]),
        (
            "iptables-legacy -t nat -A POSTROUTING -s 10.0.0.0/8 -j ACCEPT",
            &["Routing: iptables-legacy nat/POSTROUTING has rules, SNAT ipv4"],
        ),
        (
            "ip6tables-legacy -P FORWARD DROP",
            &[
                "Forward: ip6tables-legacy filter/FORWARD drops by policy",
                "Routing: iptables-legacy nat/POSTROUTING has rules, SNAT ipv4",
            ],
        ),
        (
            "ip6tables-legacy -A FORWARD -j ACCEPT",
            &[
                "Forward: ip6tables-legacy filter/FORWARD drops by policy",
                "Routing: iptables-legacy nat/POSTROUTING has rules, SNAT ipv4",
            ],
        ),
    ];
    for (command, expected) in rows {
        run(&node, command);
        assert_eq!(filters(&node), *expected, "{command}");
    }
}

#[test]
fn xfrm_policies_of_forwarded_packets_are_found() {
    let node = Netns::new();
    let template = "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel";
    let rows: [(&str, &[&str]); 4] = [
        ("src 10.1.0.0/16 dst 10.2.0.0/16 dir in", &[]),
        (
            "src 10.1.0.0/16 dst 10.2.0.0/16 dir fwd",
            &["Xfrm: XFRM policy fwd 10.1.0.0/16 to 10.2.0.0/16 exists"],
        ),
        (
            "src 10.2.0.0/16 dst 0.0.0.0/0 dir out",
            &["Xfrm: XFRM policy out 10.2.0.0/16 to 0.0.0.0/0 exists"],
        ),
        (
            "src fd00:1::/64 dst fd00:2::/64 dir out",
            &["Xfrm: XFRM policy out fd00:1::/64 to fd00:2::/64 exists"],
        ),
    ];
    for (policy, expected) in rows {
        node.ip("xfrm policy flush");
        let template = if policy.contains("fd00") {
            template.replace("192.0.2.", "2001:db8::")
        } else {
            template.to_owned()
        };
        node.ip(&format!("xfrm policy add {policy} {template}"));
        assert_eq!(filters(&node), *expected, "{policy}");
    }
}

#[test]
fn the_switch_of_bridges_is_read() {
    let node = Netns::new();
    let set = |value| {
        run(
            &node,
            &format!(
                "sysctl -qw net.bridge.bridge-nf-call-iptables={value} net.bridge.bridge-nf-call-ip6tables=0"
            ),
        );
        stack(&node).filters_bridged
    };
    assert_eq!([set(1), set(0)], [true, false]);
}

#[test]
fn without_privilege_the_stack_is_not_read() {
    let node = Netns::new();
    let error = node.enter(|| {
        drop_capabilities();
        host_stack().unwrap_err()
    });
    let error = format!("{error:#}");
    assert!(error.contains("not permitted"), "{error}");
}

#[test]
fn chains_and_policies_wake_and_sets_do_not() {
    let node = Netns::new();
    let (wake, woken) = crossbeam_channel::bounded(1);
    let _watcher = node.enter(|| Watcher::start_for_stack(&wake).unwrap());
    for script in [
        "add table inet t { set s { type ipv4_addr; } ; chain f { type filter hook forward priority 0; } }",
        "add rule inet t f counter",
        "flush chain inet t f",
    ] {
        nft(&node, script);
        assert!(woken.recv_timeout(DEADLINE).is_ok(), "{script}");
    }
    nft(&node, "add element inet t s { 192.0.2.1 }");
    let silence = woken.recv_timeout(Duration::from_millis(100));
    assert!(silence.is_err(), "an element of a set");
    node.ip("xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir fwd");
    assert!(woken.recv_timeout(DEADLINE).is_ok(), "a policy");
    nft(&node, "delete table inet t");
    assert!(
        woken.recv_timeout(DEADLINE).is_ok(),
        "a table that is deleted"
    );
}
