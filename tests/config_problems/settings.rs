//! `[node]`, `[daemon]`, `[policy]`, `[conntrack]` and `[events]`.

use super::check;

#[test]
fn settings() {
    check(&[
        (
            "a node without addresses",
            "
[node]
addresses = []
",
            &["2:13..15 `node.addresses` is empty (omit the key to use all addresses of the host)"],
        ),
        (
            "a node's address twice, once in another spelling",
            r#"
[node]
addresses = ["2001:db8::1", "2001:DB8:0::1"]
"#,
            &["2:29..44 the address 2001:db8::1 is given twice [2:14 first given here]"],
        ),
        (
            "a node's name with a line's end",
            r#"
[node]
name = "a\nb"
"#,
            &[
                r#"2:8..14 the name "a\nb" has '\n' in it (spaces, quotes, backslashes and control characters are not allowed here)"#,
            ],
        ),
        (
            "a relative path",
            r#"
[daemon]
bpf_root = "dpd"
"#,
            &[r#"2:12..17 "dpd" is not a whole path (start it with `/`, and omit `..`)"#],
        ),
        (
            "a path with dots",
            r#"
[daemon]
socket = "/run/../dpd.sock"
"#,
            &[
                r#"2:10..28 "/run/../dpd.sock" is not a whole path (start it with `/`, and omit `..`)"#,
            ],
        ),
        (
            "a socket among the pins",
            r#"
[daemon]
bpf_root = "/sys/fs/bpf/a"
socket = "/sys/fs/bpf/a/s"
"#,
            &[
                "3:10..27 the socket can't be in `daemon.bpf_root`, which is only for pinned maps [2:12 the pins' folder]",
            ],
        ),
        (
            "a socket's path that is too long",
            r#"
[daemon]
socket = "/ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss"
"#,
            &["2:10..121 the path of a socket can't be longer than 107 bytes"],
        ),
        (
            "metrics at a port alone",
            r#"
[daemon]
metrics = "9964"
"#,
            &[
                r#"2:11..17 "9964" is no address with a port (write it as 127.0.0.1:9964 or [::1]:9964)"#,
            ],
        ),
        (
            "metrics at an address alone",
            r#"
[daemon]
metrics = "127.0.0.1"
"#,
            &[r#"2:11..22 "127.0.0.1" lacks its port (write it as 127.0.0.1:9964 or [::1]:9964)"#],
        ),
        (
            "metrics at any port",
            r#"
[daemon]
metrics = "127.0.0.1:0"
"#,
            &[r#"2:11..24 "127.0.0.1:0" has port 0, which is not valid (ports are 1 to 65535)"#],
        ),
        (
            "metrics at an address that no host has",
            r#"
[daemon]
metrics = "224.0.0.1:9964"
"#,
            &["2:11..27 224.0.0.1 is a multicast address, which no host has as its own"],
        ),
        (
            "metrics at an IPv4 address in IPv6's clothes",
            r#"
[daemon]
metrics = "[::ffff:127.0.0.1]:9964"
"#,
            &["2:11..36 ::ffff:127.0.0.1 is an IPv4 address written as IPv6"],
        ),
        (
            "an unknown word",
            r#"
[daemon]
log = "journal"
"#,
            &[
                r#"2:7..16 "journal" is not one of auto, journald, stderr (did you mean `journald`?)"#,
            ],
        ),
        (
            "a word nothing like any",
            r#"
[policy]
enforcement = "sometimes"
"#,
            &[r#"2:15..26 "sometimes" is not one of default, always, never"#],
        ),
        (
            "a conntrack table that is too small",
            "
[conntrack]
size = 1023
",
            &["2:8..12 `conntrack.size` must be 1024 to 16777216, not 1023"],
        ),
        (
            "a conntrack table that is too large",
            "
[conntrack]
size = 16777217
",
            &["2:8..16 `conntrack.size` must be 1024 to 16777216, not 16777217"],
        ),
        (
            "a negative number",
            "
[conntrack]
size = -1
",
            &["2:8..10 `conntrack.size` must be 1024 to 16777216, not -1"],
        ),
        (
            "a workload's bound above the whole",
            "
[conntrack]
size = 2000
per_endpoint = 2001
",
            &["3:16..20 `conntrack.per_endpoint` must be 0 to 2000, not 2001"],
        ),
        (
            "a lifetime below a second",
            r#"
[conntrack]
tcp = "999ms"
"#,
            &["2:7..14 `conntrack.tcp` must be 1s to 720h"],
        ),
        (
            "a lifetime of years",
            r#"
[conntrack]
udp = "9000h"
"#,
            &["2:7..14 `conntrack.udp` must be 1s to 720h"],
        ),
        (
            "a duration without a unit",
            r#"
[events]
interval = "5"
"#,
            &[
                r#"2:12..15 "5" is no duration (a duration is a whole number with its unit: 250ms, 5s, 10m or 3h)"#,
            ],
        ),
        (
            "a duration in days",
            r#"
[conntrack]
tcp = "1d"
"#,
            &[
                r#"2:7..11 "1d" is no duration (a duration is a whole number with its unit: 250ms, 5s, 10m or 3h)"#,
            ],
        ),
        (
            "a duration of two units",
            r#"
[conntrack]
tcp = "1h30m"
"#,
            &[
                r#"2:7..14 "1h30m" is no duration (a duration is a whole number with its unit: 250ms, 5s, 10m or 3h)"#,
            ],
        ),
        (
            "a duration beyond all bounds",
            r#"
[conntrack]
tcp = "99999999999999999999h"
"#,
            &[
                r#"2:7..30 "99999999999999999999h" is no duration (a duration is a whole number with its unit: 250ms, 5s, 10m or 3h)"#,
            ],
        ),
        (
            "no events at all",
            "
[events]
rate = 0
",
            &["2:8..9 `events.rate` must be 1 to 10000000, not 0"],
        ),
    ]);
}
