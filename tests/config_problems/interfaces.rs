//! `[interfaces.*]`

use super::check;

#[test]
fn interfaces() {
    check(&[
        (
            "a role that is nearly right",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoints"
"#,
            &[r#"5:8..19 "endpoints" is not one of endpoint, uplink (did you mean `endpoint`?)"#],
        ),
        (
            "an endpoint without what it needs",
            r#"
[interfaces.e0]
role = "endpoint"
"#,
            &[
                r#"1:1..16 `interfaces.e0` is an endpoint, and lacks the key `addresses` (add `addresses = ["192.0.2.10"]`)"#,
                r#"1:1..16 `interfaces.e0` is an endpoint, and lacks the key `identity` (add `identity = "NAME"`)"#,
            ],
        ),
        (
            "an endpoint that masquerades",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
masquerade = "ipv4"
"#,
            &[
                "8:1..11 `interfaces.e0` is an endpoint, and can't have the key `masquerade` (remove it, or give the interface the other role)",
            ],
        ),
        (
            "an endpoint that announces, and an uplink that announces by a word",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
l2_announce = true
[interfaces.e1]
role = "uplink"
l2_announce = "yes"
"#,
            &[
                "8:1..12 `interfaces.e0` is an endpoint, and can't have the key `l2_announce` (remove it, or give the interface the other role)",
                "11:15..20 `interfaces.e1.l2_announce` is a string here, but takes true or false",
            ],
        ),
        (
            "masquerade by the host's stack",
            r#"
[interfaces.e0]
role = "uplink"
forwarding = "stack"
masquerade = "both"
"#,
            &[
                "4:1..11 masquerade goes past the host's stack, and can't be with `forwarding = \"stack\"` [3:1 the way of all packets by this uplink] (remove `forwarding`, or let a netfilter rule masquerade)",
            ],
        ),
        (
            "a family that there is not",
            r#"
[interfaces.e0]
role = "uplink"
masquerade = "ipv5"
"#,
            &[r#"3:14..20 "ipv5" is not one of none, ipv4, ipv6, both (did you mean `ipv4`?)"#],
        ),
        (
            "exceptions of masquerade that are no prefixes",
            r#"
[masquerade]
except = ["10.0.0.1/8", "everywhere"]
[interfaces.e0]
role = "uplink"
masquerade = "ipv4"
"#,
            &[
                r#"2:11..23 "10.0.0.1/8" has host bits set (the prefix is 10.0.0.0/8)"#,
                r#"2:25..37 "everywhere" is no prefix (write it as 192.0.2.0/24 or 2001:db8::/64)"#,
            ],
        ),
        (
            "an identity that is nearly right",
            r#"
[identities.client]
id = 300
[interfaces.e0]
role = "endpoint"
identity = "cleint"
addresses = ["10.0.0.1"]
"#,
            &[r#"5:12..20 there is no identity "cleint" (did you mean `client`?)"#],
        ),
        (
            "an identity that is not there",
            r#"
[interfaces.e0]
role = "endpoint"
identity = "kube dns"
addresses = ["10.0.0.1"]
"#,
            &[r#"3:12..22 there is no identity "kube dns" (add a table [identities."kube dns"])"#],
        ),
        (
            "a reserved word as identity",
            r#"
[interfaces.e0]
role = "endpoint"
identity = "world"
addresses = ["10.0.0.1"]
"#,
            &[
                "3:12..19 `world` can only be a peer of a rule (name one of the file's own identities here)",
            ],
        ),
        (
            "a name that Linux can't have",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces."sixteen-bytes-xx"]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
"#,
            &[r#"4:13..31 an interface can't be called "sixteen-bytes-xx": Linux allows 15 bytes"#],
        ),
        (
            "a name with a slash",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces."a/b"]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
"#,
            &[r#"4:13..18 an interface can't be called "a/b": Linux allows no `/` and no `:`"#],
        ),
        (
            "a name with a space",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces."a b"]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
"#,
            &[
                r#"4:13..18 the name "a b" has ' ' in it (spaces, quotes, backslashes and control characters are not allowed here)"#,
            ],
        ),
        (
            "no address",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = []
"#,
            &[
                "7:13..15 `interfaces.e0.addresses` is empty (name the addresses that the workload may send from)",
            ],
        ),
        (
            "no address at all, but a word",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["localhost"]
"#,
            &[r#"7:14..25 "localhost" is no IP address (write it as 192.0.2.1 or 2001:db8::1)"#],
        ),
        (
            "host bits",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1/24"]
"#,
            &[r#"7:14..27 "10.0.0.1/24" has host bits set (the prefix is 10.0.0.0/24)"#],
        ),
        (
            "a length that is too long",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.0/33"]
"#,
            &[r#"7:14..27 "10.0.0.0/33" is no prefix (write it as 192.0.2.0/24 or 2001:db8::/64)"#],
        ),
        (
            "everything",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["0.0.0.0/0"]
"#,
            &[
                r#"7:14..25 "0.0.0.0/0" would make every address this endpoint's (name the prefixes that are routed behind it)"#,
            ],
        ),
        (
            "a v4-mapped address",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["::ffff:10.0.0.1"]
"#,
            &["7:14..31 ::ffff:10.0.0.1 is an IPv4 address written as IPv6 (write 10.0.0.1)"],
        ),
        (
            "a multicast address",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["224.0.0.1"]
"#,
            &["7:14..25 224.0.0.1 is a multicast address, which no host has as its own"],
        ),
        (
            "a multicast prefix",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["ff02::/16"]
"#,
            &["7:14..25 ff02:: is a multicast address, which no host has as its own"],
        ),
        (
            "more than the link-local addresses of a link",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["fe80::/10"]
"#,
            &[
                r#"7:14..25 "fe80::/10" is wider than the link-local addresses of a link (name single addresses, or fe80::/64)"#,
            ],
        ),
        (
            "link-local addresses that would be of some links only",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["fe80:0:0:5::1", "fe80:0:0:a::/64"]
[policies.p]
subject = "a"
ingress = [{ from = ["cidr:fe80::/60", "cidr:fe80::/64", "cidr:fe80::/10"] }]
"#,
            &[
                r#"7:14..29 "fe80:0:0:5::1" is no link-local prefix: bits 32 to 63 are zero (RFC 4291, 2.5.6) (name fe80::/10, fe80::/64, or addresses of fe80::/64)"#,
                r#"7:31..48 "fe80:0:0:a::/64" is no link-local prefix: bits 32 to 63 are zero (RFC 4291, 2.5.6) (name fe80::/10, fe80::/64, or addresses of fe80::/64)"#,
                r#"10:22..38 "fe80::/60" is no link-local prefix: bits 32 to 63 are zero (RFC 4291, 2.5.6) (name fe80::/10, fe80::/64, or addresses of fe80::/64)"#,
            ],
        ),
        (
            "a link-local address of two endpoints is no conflict",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1", "fe80::5"]
[interfaces.e1]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.2", "fe80::5"]
[services.s]
frontends = ["[fe80::9]:53/udp"]
backends = ["[fd00::9]:53"]
"#,
            &[
                r#"13:14..32 fe80::9 is a link-local address, which no service has (it means nothing beyond its link)"#,
            ],
        ),
        (
            "multicast of an uplink, and as a word",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
multicast = "yes"
[interfaces.up]
role = "uplink"
multicast = true
"#,
            &[
                r#"8:13..18 `interfaces.e0.multicast` is a string here, but takes true or false"#,
                r#"11:1..10 `interfaces.up` is an uplink, and can't have the key `multicast` (remove it, or give the interface the other role)"#,
            ],
        ),
        (
            "a loopback address",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["127.0.0.1", "::1"]
"#,
            &[
                "7:14..25 127.0.0.1 is a loopback address, which never leaves its host",
                "7:27..32 ::1 is a loopback address, which never leaves its host",
            ],
        ),
        (
            "no address's address",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["0.0.0.0", "::"]
"#,
            &[
                "7:14..23 0.0.0.0 is the unspecified address",
                "7:25..29 :: is the unspecified address",
            ],
        ),
        (
            "broadcast",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["255.255.255.255"]
"#,
            &["7:14..31 255.255.255.255 is the broadcast address"],
        ),
        (
            "dpd's own address",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["169.254.42.1", "fe80::1"]
"#,
            &[
                "7:14..28 169.254.42.1 is the address that dpd uses for hairpin connections of a workload to itself through a service",
                "7:30..39 fe80::1 is the address that dpd uses for hairpin connections of a workload to itself through a service",
            ],
        ),
        (
            "an address twice",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1", "10.0.0.1/32"]
"#,
            &["7:26..39 10.0.0.1 is given twice [7:14 first given here]"],
        ),
        (
            "an address of two endpoints",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
[interfaces.e1]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
"#,
            &["11:14..24 10.0.0.1 already belongs to the endpoint `e0` [7:14 first given here]"],
        ),
        (
            "overlapping prefixes, the narrow one first",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.1.0/24"]
[interfaces.e1]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.0/16"]
"#,
            &[
                "11:14..27 10.0.0.0/16 overlaps 10.0.1.0/24 of the endpoint `e0` [7:14 first given here]",
            ],
        ),
        (
            "an address inside of another's prefix, behind a narrower one",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["fd00::/16", "fd00:0:1::/64"]
[interfaces.e1]
role = "endpoint"
identity = "a"
addresses = ["fd00:0:2::1"]
"#,
            &[
                "11:14..27 fd00:0:2::1 overlaps fd00::/16 of the endpoint `e0` [7:14 first given here]",
            ],
        ),
        (
            "an endpoint's address that is the node's",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.0/24"]
[node]
addresses = ["10.0.0.7"]
"#,
            &[
                "9:14..24 the node's address 10.0.0.7 belongs to the endpoint `e0` [7:14 the endpoint's]",
            ],
        ),
    ]);
}
