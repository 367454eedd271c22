//! `[policies.*]`

use super::check;

#[test]
fn policies() {
    check(&[
        (
            "a policy without rules",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"

"#,
            &[
                "4:1..13 `policies.p` has neither `ingress` nor `egress`, and so has no effect (add rules, or `ingress = []` to let nothing in)",
            ],
        ),
        (
            "a policy without a subject",
            "
[policies.p]
ingress = []
",
            &[r#"1:1..13 `policies.p` lacks the key `subject` (add `subject = "…"`)"#],
        ),
        (
            "a subject that is not there",
            r#"
[policies.p]
subject = "a"
ingress = []
"#,
            &[r#"2:11..14 there is no identity "a" (add a table [identities.a])"#],
        ),
        (
            "a subject that can't be protected",
            r#"
[policies.p]
subject = "any"
ingress = []
"#,
            &[
                "2:11..16 `any` can only be a peer of a rule (name one of the file's own identities here)",
            ],
        ),
        (
            "from in egress",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
egress = [{ from = ["any"] }]
"#,
            &[
                "6:13..17 `policies.p.egress[0]` can't have the key `from` (an egress rule names who receives: write `to`)",
            ],
        ),
        (
            "to in ingress",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["any"], to = ["any"] }]
"#,
            &[
                "6:30..32 `policies.p.ingress[0]` can't have the key `to` (an ingress rule names who sends: write `from`)",
            ],
        ),
        (
            "no peers",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ ports = ["53/udp"] }]
"#,
            &["6:12..34 `policies.p.ingress[0]` lacks the key `from` (add `from = [ … ]`)"],
        ),
        (
            "empty peers",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = [] }]
"#,
            &[r#"6:21..23 `policies.p.ingress[0].from` is empty (for all peers, write ["any"])"#],
        ),
        (
            "empty ports",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["any"], ports = [] }]
"#,
            &["6:38..40 `policies.p.ingress[0].ports` is empty (for all traffic, omit `ports`)"],
        ),
        (
            "a rule that is a string",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = ["any"]
"#,
            &["6:12..17 `policies.p.ingress[0]` is a string here, but takes a table"],
        ),
        (
            "a peer that is nearly right",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["wolrd"] }]
"#,
            &[r#"6:22..29 there is no identity "wolrd" (did you mean `world`?)"#],
        ),
        (
            "an unknown peer",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["somebody"] }]
"#,
            &[r#"6:22..32 there is no identity "somebody" (add a table [identities.somebody])"#],
        ),
        (
            "a bare prefix",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["10.0.0.0/8"] }]
"#,
            &[r#"6:22..34 "10.0.0.0/8" is no identity's name (write "cidr:10.0.0.0/8")"#],
        ),
        (
            "a selector that is nearly right",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["cird:10.0.0.0/8"] }]
"#,
            &[r#"6:22..39 "cird:10.0.0.0/8" is no peer (did you mean "cidr:10.0.0.0/8"?)"#],
        ),
        (
            "an unknown selector",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["fqdn:example.org"] }]
"#,
            &[
                r#"6:22..40 "fqdn:example.org" is no peer (a peer is an identity's name, label:KEY=VALUE, cidr:PREFIX, any, host, remote-node or world)"#,
            ],
        ),
        (
            "host bits in a peer",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["cidr:10.0.0.1/8"] }]
"#,
            &[r#"6:22..39 "10.0.0.1/8" has host bits set (the prefix is 10.0.0.0/8)"#],
        ),
        (
            "a prefix that is none",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["cidr:10/8"] }]
"#,
            &[r#"6:22..33 "10/8" is no prefix (write it as 192.0.2.0/24 or 2001:db8::/64)"#],
        ),
        (
            "a label that is none",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["label:app"] }]
"#,
            &[r#"6:22..33 "app" is no label (a label is KEY=VALUE, as in app=client)"#],
        ),
        (
            "a label that no identity has",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["label:app=b"] }]
"#,
            &[r#"6:22..35 no identity carries the label "app=b" (did you mean `app=a`?)"#],
        ),
        (
            "a port without its protocol",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["any"], ports = ["53"] }]
"#,
            &[r#"6:39..43 the port "53" lacks its protocol (write 53/tcp or 53/udp)"#],
        ),
        (
            "an unknown protocol",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["any"], ports = ["53/quic"] }]
"#,
            &[r#"6:39..48 "quic" is not one of tcp, udp, sctp, icmp, icmpv6"#],
        ),
        (
            "ports of icmp",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["any"], ports = ["8/icmp"] }]
"#,
            &[r#"6:39..47 icmp has no ports (write "icmp" alone)"#],
        ),
        (
            "a range that ends before it begins",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["any"], ports = ["90-80/tcp"] }]
"#,
            &[r#"6:39..50 the range "90-80/tcp" ends before it begins (write 80-90/tcp)"#],
        ),
        (
            "port 0 in a rule",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["any"], ports = ["0-80/tcp"] }]
"#,
            &[
                r#"6:39..49 "0" in "0-80/tcp" is no port (ports are 1 to 65535, as in 53/udp or 8000-8080/tcp)"#,
            ],
        ),
        (
            "a port with a sign",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["any"], ports = ["+53/tcp"] }]
"#,
            &[
                r#"6:39..48 "+53" in "+53/tcp" is no port (ports are 1 to 65535, as in 53/udp or 8000-8080/tcp)"#,
            ],
        ),
        (
            "an open range",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["any"], ports = ["80-/tcp"] }]
"#,
            &[
                r#"6:39..48 "" in "80-/tcp" is no port (ports are 1 to 65535, as in 53/udp or 8000-8080/tcp)"#,
            ],
        ),
        (
            "an unknown action",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
ingress = [{ from = ["any"], action = "drop" }]
"#,
            &[r#"6:39..45 "drop" is not one of allow, deny"#],
        ),
    ]);
}
