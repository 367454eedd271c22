//! Uplinks, `[nodes.*]`, `[prefilter.*]` and the `cidrs` of identities.

use super::{Row, brief, problems_of};

#[test]
fn uplinks_nodes_prefilter_and_remote_prefixes() {
    /// An uplink, after all else.
    const UPLINK: &str = "[interfaces.up]\nrole = \"uplink\"\n";
    /// An endpoint, a service and this node's address, on lines 1 to 11.
    const HERE: &str = r#"
[node]
addresses = ["192.0.2.1"]
[identities.a]
id = 300
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.7", "10.1.0.0/16", "fd00::7"]
[services.s]
frontends = ["10.32.0.10:53/udp"]
backends = ["10.0.0.7:53"]
"#;
    let rows: &[Row] = &[
        (
            "an uplink with the keys of an endpoint",
            r#"
[interfaces.ens5]
role = "uplink"
addresses = ["192.0.2.9"]
identity = "a"
"#,
            &[
                "14:1..10 `interfaces.ens5` is an uplink, and can't have the key `addresses` (remove it, or give the interface the other role)",
                "15:1..9 `interfaces.ens5` is an uplink, and can't have the key `identity` (remove it, or give the interface the other role)",
            ],
        ),
        (
            "an endpoint with XDP",
            r#"
[interfaces.e1]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.8"]
xdp = "auto"
"#,
            &[
                "16:1..4 `interfaces.e1` is an endpoint, and can't have the key `xdp` (remove it, or give the interface the other role)",
            ],
        ),
        (
            "a mode of XDP that is none",
            r#"
[interfaces.ens5]
role = "uplink"
xdp = "nativ"
"#,
            &[
                r#"14:7..14 "nativ" is not one of auto, native, generic, off (did you mean `native`?)"#,
            ],
        ),
        (
            "an uplink that is an endpoint too",
            r#"
[interfaces.e0]
role = "uplink"
"#,
            &[
                "12:13..15 `e0` is given twice [5:1 first given here] (keep one of the two, or give one of them another name)",
                "13:1..5 `role` is given twice [6:1 first given here] (keep one of the two, or give one of them another name)",
            ],
        ),
        (
            "a node without an address",
            r#"
[nodes.b]
addresses = []
[nodes.c]
cidrs = ["10.2.0.0/16"]
"#,
            &[
                "13:13..15 `nodes.b.addresses` is empty (name the host's own addresses)",
                "14:1..10 `nodes.c` lacks the key `addresses` (add `addresses = [ … ]`)",
            ],
        ),
        (
            "an invalid address of a node",
            r#"
[nodes.b]
addresses = ["127.0.0.1", "node-b", "::ffff:192.0.2.2"]
"#,
            &[
                "13:14..25 127.0.0.1 is a loopback address, which never leaves its host",
                r#"13:27..35 "node-b" is no IP address (write it as 192.0.2.1 or 2001:db8::1)"#,
                "13:37..55 ::ffff:192.0.2.2 is an IPv4 address written as IPv6 (write 192.0.2.2)",
            ],
        ),
        (
            "a node's address twice",
            r#"
[nodes.b]
addresses = ["192.0.2.2", "192.0.2.2"]
"#,
            &["13:27..38 192.0.2.2 is given twice [13:14 first given here]"],
        ),
        (
            "two nodes of one address",
            r#"
[nodes.b]
addresses = ["192.0.2.2"]
[nodes.c]
addresses = ["192.0.2.2"]
"#,
            &["15:14..25 192.0.2.2 already belongs to the node `b` [13:14 first given here]"],
        ),
        (
            "a node with an endpoint's address",
            r#"
[nodes.b]
addresses = ["10.1.9.9"]
"#,
            &[
                "13:14..24 10.1.9.9 of the node `b` belongs to the endpoint `e0` [8:26 the endpoint's] (name addresses that the other host alone has)",
            ],
        ),
        (
            "a node with a service's address",
            r#"
[nodes.b]
addresses = ["10.32.0.10"]
"#,
            &[
                "13:14..26 10.32.0.10 of the node `b` belongs to the service `s` [10:14 the service's] (name addresses that the other host alone has)",
            ],
        ),
        (
            "a node with this node's address",
            r#"
[nodes.b]
addresses = ["192.0.2.1"]
"#,
            &[
                "13:14..25 192.0.2.1 of the node `b` belongs to this node [2:14 this node's] (name addresses that the other host alone has)",
            ],
        ),
        (
            "two nodes with one prefix",
            r#"
[nodes.b]
addresses = ["192.0.2.2"]
cidrs = ["10.2.0.0/16"]
[nodes.c]
addresses = ["192.0.2.3"]
cidrs = ["10.2.0.0/16"]
"#,
            &["17:10..23 10.2.0.0/16 already belongs to the node `b` [14:10 first given here]"],
        ),
        (
            "two nodes with overlapping prefixes, the narrow one first",
            r#"
[nodes.b]
addresses = ["192.0.2.2"]
cidrs = ["fd00:1:2::/64"]
[nodes.c]
addresses = ["192.0.2.3"]
cidrs = ["fd00:1::/32"]
"#,
            &[
                "17:10..23 fd00:1::/32 overlaps fd00:1:2::/64 of the node `b` [14:10 first given here]",
            ],
        ),
        (
            "a node's prefix twice, and one with host bits",
            r#"
[nodes.b]
addresses = ["192.0.2.2"]
cidrs = ["10.2.0.0/16", "10.2.0.0/16", "10.3.0.1/16"]
"#,
            &[
                "14:25..38 10.2.0.0/16 is given twice [14:10 first given here]",
                r#"14:40..53 "10.3.0.1/16" has host bits set (the prefix is 10.3.0.0/16)"#,
            ],
        ),
        (
            "a name of a node that breaks listings",
            r#"
[nodes."node b"]
addresses = ["192.0.2.2"]
"#,
            &[
                r#"12:8..16 the name "node b" has ' ' in it (spaces, quotes, backslashes and control characters are not allowed here)"#,
            ],
        ),
        (
            "an identity's prefix with host bits",
            r#"
[identities.b]
id = 301
cidrs = ["10.2.0.1/16"]
"#,
            &[r#"14:10..23 "10.2.0.1/16" has host bits set (the prefix is 10.2.0.0/16)"#],
        ),
        (
            "lengths that no prefix has, and an IPv4 prefix written as IPv6",
            r#"
[identities.b]
id = 301
cidrs = ["10.2.0.0/33", "fd00::/129", "::ffff:10.2.0.0/112", "10.2/16"]
"#,
            &[
                r#"14:10..23 "10.2.0.0/33" is no prefix (write it as 192.0.2.0/24 or 2001:db8::/64)"#,
                r#"14:25..37 "fd00::/129" is no prefix (write it as 192.0.2.0/24 or 2001:db8::/64)"#,
                r#"14:39..60 "::ffff:10.2.0.0/112" is an IPv4 prefix written as IPv6 (write 10.2.0.0/16)"#,
                r#"14:62..71 "10.2/16" is no prefix (write it as 192.0.2.0/24 or 2001:db8::/64)"#,
            ],
        ),
        (
            "an identity's prefix that no host can have",
            r#"
[identities.b]
id = 301
cidrs = ["224.0.0.0/4", "127.0.0.0/8"]
"#,
            &[
                "14:10..23 224.0.0.0 is a multicast address, which no host has as its own",
                "14:25..38 127.0.0.0 is a loopback address, which never leaves its host",
            ],
        ),
        (
            "an identity's prefix round an endpoint",
            r#"
[identities.b]
id = 301
cidrs = ["10.0.0.0/24"]
"#,
            &[
                "14:10..23 10.0.0.0/24 of the identity `b` contains 10.0.0.7 of the endpoint `e0` [8:14 the endpoint's] (name prefixes that contain no local endpoint)",
            ],
        ),
        (
            "an identity's prefix inside of an endpoint's",
            r#"
[identities.b]
id = 301
cidrs = ["10.1.2.0/24"]
"#,
            &[
                "14:10..23 10.1.2.0/24 of the identity `b` belongs to the endpoint `e0` [8:26 the endpoint's] (an endpoint has the identity of its interface: remove it)",
            ],
        ),
        (
            "an endpoint's own identity, named again",
            r#"
[identities.b]
id = 301
cidrs = ["fd00::7"]
"#,
            &[
                "14:10..19 fd00::7 of the identity `b` belongs to the endpoint `e0` [8:41 the endpoint's] (an endpoint has the identity of its interface: remove it)",
            ],
        ),
        (
            "an identity's prefix round a service address",
            r#"
[identities.b]
id = 301
cidrs = ["10.32.0.0/24"]
"#,
            &[
                "14:10..24 10.32.0.0/24 of the identity `b` contains 10.32.0.10 of the service `s` [10:14 the service's] (rules see the backend, not the service: name prefixes without it)",
            ],
        ),
        (
            "an identity's prefix that is this node's address",
            r#"
[identities.b]
id = 301
cidrs = ["192.0.2.1"]
"#,
            &[
                "14:10..21 192.0.2.1 of the identity `b` belongs to this node [2:14 this node's] (the identity of this node is `host`: remove it)",
            ],
        ),
        (
            "an identity's prefix that is a node's address",
            r#"
[nodes.b]
addresses = ["192.0.2.2"]
[identities.b]
id = 301
cidrs = ["192.0.2.2/32"]
"#,
            &[
                "16:10..24 192.0.2.2 of the identity `b` belongs to the node `b` [13:14 the node's] (the identity of other nodes is `remote-node`: remove it)",
            ],
        ),
        (
            "two identities with one prefix",
            r#"
[identities.b]
id = 301
cidrs = ["10.2.0.0/16"]
[identities.c]
id = 302
cidrs = ["10.2.0.0/16"]
"#,
            &[
                "17:10..23 10.2.0.0/16 already belongs to the identity `b` [14:10 first given here] (an address has one identity: remove one of the two)",
            ],
        ),
        (
            "an identity with a prefix twice",
            r#"
[identities.b]
id = 301
cidrs = ["10.2.0.4", "10.2.0.4/32"]
"#,
            &[
                "14:22..35 10.2.0.4 already belongs to the identity `b` [14:10 first given here] (an address has one identity: remove one of the two)",
            ],
        ),
        (
            "a node's endpoints that are no addresses of workloads",
            r#"
[nodes.b]
addresses = ["192.0.2.2"]
[nodes.b.endpoints]
"web" = "a"
"10.2.0.0/24" = "a"
"fe80::2" = "a"
"::ffff:10.2.0.1" = "a"
"10.2.0.1" = 300
10.2.0.2 = "a"
"#,
            &[
                r#"15:1..6 "web" is no IP address (write it as 192.0.2.1 or 2001:db8::1)"#,
                r#"16:1..14 "10.2.0.0/24" is a prefix, and a workload here is one address (a prefix has an identity by `cidrs` of the identity)"#,
                "17:1..10 fe80::2 is a link-local address (it means nothing beyond its link)",
                "18:1..18 ::ffff:10.2.0.1 is an IPv4 address written as IPv6 (write 10.2.0.1)",
                "19:14..17 `nodes.b.endpoints.10.2.0.1` is a whole number here, but takes a string",
                r#"20:1..3 `nodes.b.endpoints` has no table inside of it: the dot separates two names (quote a key that has a dot: "10.2.0.2" = "…")"#,
            ],
        ),
        (
            "a node's endpoints of identities that do not exist",
            r#"
[nodes.b]
addresses = ["192.0.2.2"]
endpoints = { "10.2.0.1" = "aa", "10.2.0.2" = "host" }
"#,
            &[
                r#"14:28..32 there is no identity "aa" (did you mean `a`?)"#,
                "14:47..53 `host` can only be a peer of a rule (name one of the file's own identities here)",
            ],
        ),
        (
            "an address twice, in two spellings and at two nodes",
            r#"
[nodes.b]
addresses = ["192.0.2.2"]
endpoints = { "10.2.0.1" = "a", "fd00:2::1" = "a", "fd00:2:0::1" = "a" }
[nodes.c]
addresses = ["192.0.2.3"]
endpoints = { "10.2.0.1" = "a" }
"#,
            &[
                "14:33..44 fd00:2::1 is given twice [14:52 first given here]",
                "17:15..25 10.2.0.1 already belongs to the node `b` [14:15 first given here]",
            ],
        ),
        (
            "an address with two identities",
            r#"
[identities.b]
id = 301
cidrs = ["10.2.0.1", "10.2.0.0/24", "10.2.0.2"]
[nodes.b]
addresses = ["192.0.2.2"]
endpoints = { "10.2.0.1" = "a", "10.2.0.2" = "b", "10.2.0.3" = "a" }
"#,
            &[
                "17:15..25 10.2.0.1 has the identity `a` here, and `b` by its `cidrs` [14:10 the identity's] (an address has one identity: remove one of the two)",
            ],
        ),
        (
            "endpoints outside of the node's prefixes, and inside of another's",
            r#"
[nodes.b]
addresses = ["192.0.2.2"]
cidrs = ["10.2.0.0/24"]
endpoints = { "10.2.0.1" = "a", "10.2.1.1" = "a", "10.3.0.1" = "a" }
[nodes.c]
addresses = ["192.0.2.3"]
cidrs = ["10.3.0.0/24"]
[nodes.d]
addresses = ["192.0.2.4"]
endpoints = { "10.3.0.2" = "a", "10.4.0.1" = "a" }
"#,
            &[
                "15:33..43 10.2.1.1 is outside of the `cidrs` of the node `b` [14:1 the node's] (add a prefix that contains it there, or remove it)",
                "15:51..61 10.3.0.1 of the node `b` is inside of the `cidrs` of the node `c` [18:10 the other node's] (a workload is behind one node: give it to that one, or remove the prefix there)",
                "21:15..25 10.3.0.2 of the node `d` is inside of the `cidrs` of the node `c` [18:10 the other node's] (a workload is behind one node: give it to that one, or remove the prefix there)",
            ],
        ),
        (
            "endpoints of others that are here, a service's, or a host's",
            r#"
[nodes.b]
addresses = ["192.0.2.2"]
endpoints = { "10.0.0.7" = "a", "10.1.0.1" = "a", "10.32.0.10" = "a", "192.0.2.1" = "a", "192.0.2.2" = "a" }
"#,
            &[
                "14:15..25 10.0.0.7 of the node `b` belongs to the endpoint `e0` [8:14 the endpoint's] (an endpoint has the identity of its interface: remove it)",
                "14:33..43 10.1.0.1 of the node `b` belongs to the endpoint `e0` [8:26 the endpoint's] (an endpoint has the identity of its interface: remove it)",
                "14:51..63 10.32.0.10 of the node `b` belongs to the service `s` [10:14 the service's] (rules see the backend, not the service: remove it)",
                "14:71..82 192.0.2.1 of the node `b` belongs to this node [2:14 this node's] (the identity of this node is `host`: remove it)",
                "14:90..101 192.0.2.2 of the node `b` belongs to the node `b` [13:14 the node's] (the identity of other nodes is `remote-node`: remove it)",
            ],
        ),
        (
            "the prefilter's prefixes in a wrong form",
            r#"
[prefilter.abusers]
deny = ["198.51.100.66/24", "nobody", "::ffff:198.51.100.66"]
"#,
            &[
                r#"13:9..27 "198.51.100.66/24" has host bits set (the prefix is 198.51.100.0/24)"#,
                r#"13:29..37 "nobody" is no prefix (write it as 192.0.2.0/24 or 2001:db8::/64)"#,
                r#"13:39..61 "::ffff:198.51.100.66" is an IPv4 prefix written as IPv6 (write 198.51.100.66)"#,
            ],
        ),
        (
            "a table of the prefilter without its list",
            r#"
[prefilter.abusers]
"#,
            &["12:1..20 `prefilter.abusers` lacks the key `deny` (add `deny = [ … ]`)"],
        ),
        (
            "a list without its table",
            r#"
[prefilter]
deny = ["198.51.100.66"]
"#,
            &[
                "13:1..5 `prefilter.deny` is a list here, but takes a table (begin it with `[prefilter.deny]`)",
            ],
        ),
    ];
    for (name, file, expected) in rows {
        let text = format!("{HERE}{}{UPLINK}", file.strip_prefix('\n').unwrap_or(file));
        let problems = problems_of(&text);
        let found: Vec<_> = problems.0.iter().map(brief).collect();
        assert_eq!(found, *expected, "{name}:\n{text}\n{problems}");
    }
}
