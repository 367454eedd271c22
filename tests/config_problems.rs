//! Every wrong file gets a message of its own, at its place, with what to do; all of them at once.

use std::path::PathBuf;

use dpd::config::{Problem, Problems, Severity, Source, keys, parse};

/// A sentence, a file, and its problems: `line:first..after-last column message [notes] (help)`.
type Row = (&'static str, &'static str, &'static [&'static str]);

fn check(rows: &[Row]) {
    for (says, file, expected) in rows {
        let problems = problems_of(file);
        let found: Vec<_> = problems.0.iter().map(brief).collect();
        assert_eq!(found, *expected, "{says}:\n{file}\n{problems}");
        assert!(problems.error_count() > 0, "{says}: {problems}");
    }
}

fn problems_of(file: &str) -> Problems {
    match parse(vec![source("dpd.toml", file)]) {
        Ok(config) => panic!("this file is taken:\n{file}\nas {config:?}"),
        Err(problems) => problems,
    }
}

/// A row's file begins on the line after its quote.
fn source(path: &str, text: &str) -> Source {
    Source {
        path: PathBuf::from(path),
        text: text.strip_prefix('\n').unwrap_or(text).to_owned(),
    }
}

fn brief(problem: &Problem) -> String {
    let mut text = String::new();
    if let Some(place) = &problem.excerpt {
        let (line, column) = (place.line, place.column);
        text += &format!("{line}:{column}..{} ", column + place.mark.len());
    }
    if problem.severity == Severity::Warning {
        text += "warning: ";
    }
    text += &problem.message;
    for note in &problem.notes {
        let (line, column) = (note.excerpt.line, note.excerpt.column);
        text += &format!(" [{line}:{column} {}]", note.message);
    }
    if let Some(help) = &problem.help {
        text += &format!(" ({help})");
    }
    text
}

#[test]
fn what_is_no_configuration_at_all() {
    check(&[
        (
            "a file of comments alone is empty",
            "
# nothing
",
            &[
                "1:1..2 the file is empty: no table and no key stands in it (to take everything away that dpd has put on this host, run `dpd cleanup`)",
            ],
        ),
        (
            "no byte at all is empty too",
            "",
            &[
                "1:1..2 the file is empty: no table and no key stands in it (to take everything away that dpd has put on this host, run `dpd cleanup`)",
            ],
        ),
        (
            "an unclosed string is not TOML",
            r#"
[node]
name = "a
"#,
            &[r#"2:10..11 this is not TOML: invalid basic string, expected `"`"#],
        ),
        (
            "every line that is not TOML is told",
            r#"
[node
name = "a"
[daemon]
log = auto
[events]
rate = 1 2
"#,
            &[
                "1:6..7 this is not TOML: unclosed table, expected `]`",
                "4:7..11 this is not TOML: string values must be quoted, expected literal string",
                "6:8..11 this is not TOML: string values must be quoted, expected literal string",
            ],
        ),
        (
            "a key twice in one table",
            "
[policy]
audit = true
audit = false
",
            &[
                "3:1..6 `audit` is given twice [2:1 first given here] (keep one of the two, or give one of them another name)",
            ],
        ),
        (
            "a table twice in one file",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
[services.s]
"#,
            &[
                "4:11..12 `s` is given twice [1:1 first given here] (keep one of the two, or give one of them another name)",
            ],
        ),
        (
            "after a double key the rest is checked too",
            r#"
[policy]
audit = true
audit = false
enforcement = "alway"
"#,
            &[
                "3:1..6 `audit` is given twice [2:1 first given here] (keep one of the two, or give one of them another name)",
                r#"4:15..22 "alway" is not one of default, always, never (did you mean `always`?)"#,
            ],
        ),
        (
            "Windows line ends do not move the place",
            "[policy]\r\naudit = 1\r\n",
            &["2:9..10 `policy.audit` is a whole number here, but takes true or false"],
        ),
        (
            "columns are characters, not bytes",
            r#"
events = { journal = "drops", "größe" = 1 }
"#,
            &[
                "1:31..38 `events` has no key `größe` (it can have: aggregation, interval, rate, journal)",
            ],
        ),
    ]);
}

#[test]
fn keys_and_the_kinds_of_their_values() {
    check(&[
        (
            "a top table that is nearly right",
            r#"
[interface.eth0]
role = "endpoint"
"#,
            &["1:2..11 there is no key or table `interface` (did you mean `interfaces`?)"],
        ),
        (
            "a key that is nearly right",
            r#"
[policy]
enforcment = "always"
"#,
            &["2:1..11 `policy` has no key `enforcment` (did you mean `enforcement`?)"],
        ),
        (
            "a key that is nothing like any",
            "
[policy]
xyzzy = 1
",
            &["2:1..6 `policy` has no key `xyzzy` (it can have: enforcement, audit, allow_host)"],
        ),
        (
            "a key at the top that belongs into a table",
            "
size = 5
",
            &[
                "1:1..5 there is no key or table `size` (it can have: node, daemon, interfaces, identities, nodes, services, policies, policy, prefilter, conntrack, events)",
            ],
        ),
        (
            "a missing key",
            "
[identities.a]
labels = []
",
            &["1:1..15 `identities.a` lacks the key `id` (add `id = …`)"],
        ),
        (
            "a name with a dot must be quoted",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.eth0.100]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
"#,
            &[
                r#"4:18..21 `interfaces` has no table inside of a table: the dot parts two names (quote a name that has a dot: [interfaces."eth0.100"])"#,
            ],
        ),
        (
            "a name with two dots too",
            "
[identities.a.b.c]
id = 300
",
            &[
                r#"1:17..18 `identities` has no table inside of a table: the dot parts two names (quote a name that has a dot: [identities."a.b.c"])"#,
            ],
        ),
        (
            "a sub-table of a table that stands itself",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
[interfaces.e0.5]
role = "endpoint"
"#,
            &[
                r#"8:16..17 `interfaces` has no table inside of a table: the dot parts two names (quote a name that has a dot: [interfaces."e0.5"])"#,
            ],
        ),
        (
            "a table that was meant for the top",
            r#"
[identities.a]
id = 300
services.s = { frontends = [], backends = [] }
"#,
            &["3:1..9 `identities.a` has no key `services` (it can have: id, labels, cidrs)"],
        ),
        (
            "a table where a value stands",
            "
identities = 5
",
            &["1:14..15 `identities` is a whole number here, but takes a table"],
        ),
        (
            "a named table that is a value",
            "
[identities]
a = 300
",
            &[
                "2:1..2 `identities.a` is a whole number here, but takes a table (begin it with `[identities.a]`)",
            ],
        ),
        (
            "a string for a list",
            r#"
[node]
addresses = "10.0.0.1"
"#,
            &[
                "2:13..23 `node.addresses` is a string here, but takes a list (write it in brackets: `[ … ]`)",
            ],
        ),
        (
            "a number for a string in a list",
            "
[node]
addresses = [5]
",
            &["2:14..15 `node.addresses[0]` is a whole number here, but takes a string"],
        ),
        (
            "a string for a switch",
            r#"
[policy]
audit = "yes"
"#,
            &["2:9..14 `policy.audit` is a string here, but takes true or false"],
        ),
        (
            "a fraction for a number",
            "
[events]
rate = 1.5
",
            &["2:8..11 `events.rate` is a number with a point here, but takes a whole number"],
        ),
        (
            "a number beyond 64 bits",
            "
[events]
rate = 99999999999999999999
",
            &["2:8..28 the number of `events.rate` is far too large"],
        ),
        (
            "a date for a duration",
            "
[events]
interval = 2020-01-01
",
            &["2:12..22 `events.interval` is a date here, but takes a string"],
        ),
        (
            "an array of tables for a named table",
            "
[[services]]
frontends = []
",
            &[
                "1:1..13 `services` is a list here, but takes a table (begin each with `[services.NAME]`)",
            ],
        ),
    ]);
}

#[test]
fn what_is_not_built_yet() {
    check(&[
        (
            "maglev",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
algorithm = "maglev"
"#,
            &[
                r#"4:13..21 `algorithm = "maglev"` is not built yet in this version of dpd (use "random", or leave the key out)"#,
            ],
        ),
        (
            "affinity",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
affinity = "10m"
"#,
            &[
                r#"4:12..17 `affinity` is not built yet in this version of dpd (use "0s", or leave the key out)"#,
            ],
        ),
    ]);
}

#[test]
fn settings() {
    check(&[
        (
            "a node without addresses",
            "
[node]
addresses = []
",
            &[
                "2:13..15 `node.addresses` is empty (leave the key out to take all that the host has)",
            ],
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
            &[r#"2:12..17 "dpd" is not a whole path (begin it with `/`, and leave out `..`)"#],
        ),
        (
            "a path with dots",
            r#"
[daemon]
socket = "/run/../dpd.sock"
"#,
            &[
                r#"2:10..28 "/run/../dpd.sock" is not a whole path (begin it with `/`, and leave out `..`)"#,
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
                "3:10..27 the socket can't stand in `daemon.bpf_root`, which holds pinned maps alone [2:12 the pins' folder]",
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
            &[
                r#"2:11..24 "127.0.0.1:0" has port 0, which nothing can have (ports are 1 to 65535)"#,
            ],
        ),
        (
            "metrics at an address that no host has",
            r#"
[daemon]
metrics = "224.0.0.1:9964"
"#,
            &["2:11..27 224.0.0.1 is a multicast address, which is nobody's own"],
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

#[test]
fn identities() {
    check(&[
(
"ids below 256 are reserved",
"
[identities.a]
id = 255
",
&["2:6..9 `identities.a.id` must be 256 to 65535, not 255"],
),
(
"ids end at 65535",
"
[identities.a]
id = 65536
",
&["2:6..11 `identities.a.id` must be 256 to 65535, not 65536"],
),
(
"an id twice",
"
[identities.a]
id = 300
[identities.b]
id = 300
",
&["4:6..9 the id 300 is `a`'s already [2:6 first given here] (an id is one identity's: give this one another)"],
),
(
"a reserved word",
"
[identities.world]
id = 300
",
&[r#"1:13..18 an identity can't be called "world": it is a reserved word of policy peers (give it another name)"#],
),
(
"a selector",
r#"
[identities."label:a"]
id = 300
"#,
&[r#"1:13..22 an identity can't be called "label:a": a `:` marks a selector, as in label:KEY=VALUE (give it another name)"#],
),
(
"a number",
"
[identities.1234]
id = 300
",
&[r#"1:13..17 an identity can't be called "1234": it is a number, and numbers are identities' ids (give it another name)"#],
),
(
"an address",
r#"
[identities."10.0.0.1"]
id = 300
"#,
&[r#"1:13..23 an identity can't be called "10.0.0.1": it is an address (give it another name)"#],
),
(
"an empty name",
r#"
[identities.""]
id = 300
"#,
&["1:13..15 the name is empty"],
),
(
"a name with a tab",
r#"
[identities."a\tb"]
id = 300
"#,
&[r#"1:13..19 the name "a\tb" has '\t' in it (spaces, quotes, backslashes and control characters are not allowed here)"#],
),
(
"a name that is too long",
"
[identities.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn]
id = 300
",
&["1:13..121 the name has 129 bytes, but may have 128"],
),
(
"a label without a value",
r#"
[identities.a]
id = 300
labels = ["app"]
"#,
&[r#"3:11..16 "app" is no label (a label is KEY=VALUE, as in app=client)"#],
),
(
"a label without a key",
r#"
[identities.a]
id = 300
labels = ["=app"]
"#,
&[r#"3:11..17 "=app" is no label (a label is KEY=VALUE, as in app=client)"#],
),
(
"a label's key twice",
r#"
[identities.a]
id = 300
labels = ["app=a", "app=b"]
"#,
&["3:20..27 the label `app` is given twice [3:11 first given here]"],
),
(
"a label with a quote",
r#"
[identities.a]
id = 300
labels = ['app="a"']
"#,
&[r#"3:11..20 the label "app=\"a\"" has '"' in it (spaces, quotes, backslashes and control characters are not allowed here)"#],
),
]);
}

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
            &[
                r#"7:14..27 "10.0.0.1/24" has bits set behind its length (the prefix is 10.0.0.0/24)"#,
            ],
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
            &["7:14..25 224.0.0.1 is a multicast address, which is nobody's own"],
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
            &["7:14..25 ff02:: is a multicast address, which is nobody's own"],
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
                "7:14..23 0.0.0.0 stands for no address",
                "7:25..29 :: stands for no address",
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
                "7:14..28 169.254.42.1 is the address that dpd itself uses for a workload that reaches itself through a service",
                "7:30..39 fe80::1 is the address that dpd itself uses for a workload that reaches itself through a service",
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
            &["11:14..24 10.0.0.1 is the endpoint `e0`'s already [7:14 first given here]"],
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
            &["9:14..24 the node's address 10.0.0.7 is the endpoint `e0`'s [7:14 the endpoint's]"],
        ),
    ]);
}

#[test]
fn uplinks_nodes_and_what_is_elsewhere() {
    /// An uplink, behind all else.
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
                "14:1..10 `interfaces.ens5` is an uplink, and can't have the key `addresses` (take it out, or give the interface the other role)",
                "15:1..9 `interfaces.ens5` is an uplink, and can't have the key `identity` (take it out, or give the interface the other role)",
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
                "16:1..4 `interfaces.e1` is an endpoint, and can't have the key `xdp` (take it out, or give the interface the other role)",
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
            "a node's address that nobody can have",
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
            &["15:14..25 192.0.2.2 is the node `b`'s already [13:14 first given here]"],
        ),
        (
            "a node with an endpoint's address",
            r#"
[nodes.b]
addresses = ["10.1.9.9"]
"#,
            &[
                "13:14..24 10.1.9.9 of the node `b` is the endpoint `e0`'s [8:26 the endpoint's] (name addresses that the other host alone has)",
            ],
        ),
        (
            "a node with a service's address",
            r#"
[nodes.b]
addresses = ["10.32.0.10"]
"#,
            &[
                "13:14..26 10.32.0.10 of the node `b` is the service `s`'s [10:14 the service's] (name addresses that the other host alone has)",
            ],
        ),
        (
            "a node with this node's address",
            r#"
[nodes.b]
addresses = ["192.0.2.1"]
"#,
            &[
                "13:14..25 192.0.2.1 of the node `b` is this node's own [2:14 this node's] (name addresses that the other host alone has)",
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
            &["17:10..23 10.2.0.0/16 is the node `b`'s already [14:10 first given here]"],
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
                r#"14:40..53 "10.3.0.1/16" has bits set behind its length (the prefix is 10.3.0.0/16)"#,
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
            &[
                r#"14:10..23 "10.2.0.1/16" has bits set behind its length (the prefix is 10.2.0.0/16)"#,
            ],
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
            "an identity's prefix that is nobody's",
            r#"
[identities.b]
id = 301
cidrs = ["224.0.0.0/4", "127.0.0.0/8"]
"#,
            &[
                "14:10..23 224.0.0.0 is a multicast address, which is nobody's own",
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
                "14:10..23 10.0.0.0/24 of the identity `b` holds 10.0.0.7 of the endpoint `e0` [8:14 the endpoint's] (name prefixes that hold no local endpoint)",
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
                "14:10..23 10.1.2.0/24 of the identity `b` is the endpoint `e0`'s [8:26 the endpoint's] (an endpoint has the identity of its interface: take the prefix out)",
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
                "14:10..19 fd00::7 of the identity `b` is the endpoint `e0`'s [8:41 the endpoint's] (an endpoint has the identity of its interface: take the prefix out)",
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
                "14:10..24 10.32.0.0/24 of the identity `b` holds 10.32.0.10 of the service `s` [10:14 the service's] (rules see the backend, not the service: name prefixes without it)",
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
                "14:10..21 192.0.2.1 of the identity `b` is this node's own [2:14 this node's] (the identity of this node is `host`: take the prefix out)",
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
                "16:10..24 192.0.2.2 of the identity `b` is the node `b`'s [13:14 the node's] (the identity of other nodes is `remote-node`: take the prefix out)",
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
                "17:10..23 10.2.0.0/16 is the identity `b`'s already [14:10 first given here] (an address has one identity: take one of the two out)",
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
                "14:22..35 10.2.0.4 is the identity `b`'s already [14:10 first given here] (an address has one identity: take one of the two out)",
            ],
        ),
        (
            "the prefilter's prefixes in a wrong form",
            r#"
[prefilter.abusers]
deny = ["198.51.100.66/24", "nobody", "::ffff:198.51.100.66"]
"#,
            &[
                r#"13:9..27 "198.51.100.66/24" has bits set behind its length (the prefix is 198.51.100.0/24)"#,
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
    for (says, file, expected) in rows {
        let text = format!("{HERE}{}{UPLINK}", file.strip_prefix('\n').unwrap_or(file));
        let problems = problems_of(&text);
        let found: Vec<_> = problems.0.iter().map(brief).collect();
        assert_eq!(found, *expected, "{says}:\n{text}\n{problems}");
    }
}

#[test]
fn services() {
    check(&[
        (
            "no frontend",
            r#"
[services.s]
frontends = []
backends = ["10.0.0.2:1"]
"#,
            &[
                r#"2:13..15 `services.s.frontends` is empty (name at least one address, as "192.0.2.1:53/udp")"#,
            ],
        ),
        (
            "neither frontends nor backends",
            "
[services.s]
",
            &[
                "1:1..13 `services.s` lacks the key `frontends` (add `frontends = [ … ]`)",
                "1:1..13 `services.s` lacks the key `backends` (add `backends = [ … ]`)",
            ],
        ),
        (
            "a frontend without a protocol",
            r#"
[services.s]
frontends = ["10.0.0.1:53"]
backends = ["10.0.0.2:1"]
"#,
            &[
                r#"2:14..27 the frontend "10.0.0.1:53" lacks its protocol (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "a frontend without a port",
            r#"
[services.s]
frontends = ["10.0.0.1/tcp"]
backends = ["10.0.0.2:1"]
"#,
            &[
                r#"2:14..28 "10.0.0.1" lacks its port (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "a protocol that is nearly right",
            r#"
[services.s]
frontends = ["10.0.0.1:53/upd"]
backends = ["10.0.0.2:1"]
"#,
            &[r#"2:14..31 "upd" is not one of tcp, udp, sctp, icmp, icmpv6 (did you mean `udp`?)"#],
        ),
        (
            "icmp has no ports to translate",
            r#"
[services.s]
frontends = ["10.0.0.1:53/icmp"]
backends = ["10.0.0.2:1"]
"#,
            &[
                "2:14..32 a frontend can't be icmp (a frontend is tcp, udp or sctp; dpd itself answers pings of a service address)",
            ],
        ),
        (
            "port 0",
            r#"
[services.s]
frontends = ["10.0.0.1:0/tcp"]
backends = ["10.0.0.2:0"]
"#,
            &[
                r#"2:14..30 "10.0.0.1:0" has port 0, which nothing can have (ports are 1 to 65535)"#,
                r#"3:13..25 "10.0.0.2:0" has port 0, which nothing can have (ports are 1 to 65535)"#,
            ],
        ),
        (
            "a port that is too large",
            r#"
[services.s]
frontends = ["10.0.0.1:65536/tcp"]
backends = ["10.0.0.2:1"]
"#,
            &[
                r#"2:14..34 "10.0.0.1:65536" is no address with a port (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "IPv6 without brackets",
            r#"
[services.s]
frontends = ["2001:db8::1:53/udp"]
backends = ["[2001:db8::2]:53"]
"#,
            &[
                r#"2:14..34 "2001:db8::1:53" lacks its port (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "a zone",
            r#"
[services.s]
frontends = ["[2001:db8::1%2]:53/udp"]
backends = ["[2001:db8::2]:53"]
"#,
            &[
                r#"2:14..38 "[2001:db8::1%2]:53" is no address with a port (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "a v4-mapped frontend",
            r#"
[services.s]
frontends = ["[::ffff:10.0.0.1]:53/udp"]
backends = ["10.0.0.2:53"]
"#,
            &["2:14..40 ::ffff:10.0.0.1 is an IPv4 address written as IPv6 (write 10.0.0.1)"],
        ),
        (
            "a host's name",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = ["dns.example:53"]
"#,
            &[
                r#"3:13..29 "dns.example:53" is no address with a port (write it as 192.0.2.1:53 or [2001:db8::1]:53)"#,
            ],
        ),
        (
            "a backend with a protocol",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = ["10.0.0.2:53/udp"]
"#,
            &[
                r#"3:13..30 the backend "10.0.0.2:53/udp" can't have a protocol (the frontends say the protocol: take "/udp" out)"#,
            ],
        ),
        (
            "a frontend twice in a service",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp", "10.0.0.1:53/udp"]
backends = ["10.0.0.2:53"]
"#,
            &[
                "2:33..50 the frontend 10.0.0.1:53/udp is `s`'s already [2:14 first given here] (a frontend leads to one service: take one of the two out)",
            ],
        ),
        (
            "a frontend of two services",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = ["10.0.0.2:53"]
[services.t]
frontends = ["10.0.0.1:53/udp"]
backends = ["10.0.0.2:53"]
"#,
            &[
                "5:14..31 the frontend 10.0.0.1:53/udp is `s`'s already [2:14 first given here] (a frontend leads to one service: take one of the two out)",
            ],
        ),
        (
            "a backend twice",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = ["10.0.0.2:53", { address = "10.0.0.2:53", weight = 2 }]
"#,
            &[
                "3:40..53 the backend 10.0.0.2:53 is given twice [3:13 first given here] (to give a backend more connections, raise its `weight`)",
            ],
        ),
        (
            "a backend without its address",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ weight = 2 }]
"#,
            &[r#"3:13..27 `services.s.backends[0]` lacks the key `address` (add `address = "…"`)"#],
        ),
        (
            "a weight that is too large",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ address = "10.0.0.2:53", weight = 65536 }]
"#,
            &["3:49..54 `services.s.backends[0].weight` must be 0 to 65535, not 65536"],
        ),
        (
            "a state that is nearly right",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ address = "10.0.0.2:53", state = "drainig" }]
"#,
            &[
                r#"3:48..57 "drainig" is not one of active, draining, maintenance (did you mean `draining`?)"#,
            ],
        ),
        (
            "an unknown key of a backend",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ address = "10.0.0.2:53", wieght = 1 }]
"#,
            &["3:40..46 `services.s.backends[0]` has no key `wieght` (did you mean `weight`?)"],
        ),
        (
            "a backend that is a number",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [53]
"#,
            &[
                "3:13..15 `services.s.backends[0]` is a whole number here, but takes a string or a table",
            ],
        ),
        (
            "a frontend whose family has no backend",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp", "[2001:db8::1]:53/udp"]
backends = ["10.0.0.2:53"]
"#,
            &[
                "2:33..55 no backend of this service is IPv6, but this frontend is (add an IPv6 backend, or take the frontend out)",
            ],
        ),
        (
            "sctp keeps its ports",
            r#"
[services.s]
frontends = ["10.0.0.1:80/sctp"]
backends = ["10.0.0.2:8080"]
"#,
            &[
                "3:13..28 the backend of an sctp frontend must have the frontend's port, 80 [2:14 the frontend] (dpd does not rewrite ports of sctp)",
            ],
        ),
        (
            "a service at an endpoint's address",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.0/24"]
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.1.0.2:80"]
"#,
            &[
                "9:14..31 the service address 10.0.0.1 is the endpoint `e0`'s [7:14 the endpoint's] (give the service an address that no workload has)",
            ],
        ),
        (
            "a service behind a service",
            r#"
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.9:80"]
[services.t]
frontends = ["10.0.0.9:81/tcp"]
backends = [{ address = "10.0.0.1:80" }]
"#,
            &[
                "3:13..26 the backend's address 10.0.0.9 is a service's [5:14 the service's] (name the workload's own address)",
                "6:25..38 the backend's address 10.0.0.1 is a service's [2:14 the service's] (name the workload's own address)",
            ],
        ),
        (
            "an algorithm nobody knows",
            r#"
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.9:80"]
algorithm = "round-robin"
"#,
            &[r#"4:13..26 "round-robin" is not one of random, maglev"#],
        ),
        (
            "a name with a quote",
            r#"
[services.'a"b']
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.2:80"]
"#,
            &[
                r#"1:11..16 the name "a\"b" has '"' in it (spaces, quotes, backslashes and control characters are not allowed here)"#,
            ],
        ),
    ]);
}

#[test]
fn policies() {
    check(&[
        (
            "a policy that says nothing",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"

"#,
            &[
                "4:1..13 `policies.p` has neither `ingress` nor `egress`, and so says nothing (add rules, or `ingress = []` to let nothing in)",
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
            &[r#"6:21..23 `policies.p.ingress[0].from` is empty (for everybody, write ["any"])"#],
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
            &[
                "6:38..40 `policies.p.ingress[0].ports` is empty (for all traffic, leave `ports` out)",
            ],
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
            "a peer that is nobody",
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
            "a selector nobody knows",
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
            &[r#"6:22..39 "10.0.0.1/8" has bits set behind its length (the prefix is 10.0.0.0/8)"#],
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
            "a label that nobody carries",
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
            "a protocol nobody knows",
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
            "an action nobody knows",
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

#[test]
fn the_text_of_problems() {
    let rows = [
        (
            "an unclosed string is not TOML",
            r#"
[node]
name = "a
"#,
            r#"
error: this is not TOML: invalid basic string, expected `"`
 --> dpd.toml:2:10
  |
2 | name = "a
  |          ^

1 error
"#,
        ),
        (
            "a table twice in one file",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
[services.s]
"#,
            "
error: `s` is given twice
 --> dpd.toml:4:11
  |
4 | [services.s]
  |           ^
 ::: dpd.toml:1:1
  |
1 | [services.s]
  | ----------- first given here
  = help: keep one of the two, or give one of them another name

1 error
",
        ),
        (
            "columns are characters, not bytes",
            r#"
events = { journal = "drops", "größe" = 1 }
"#,
            r#"
error: `events` has no key `größe`
 --> dpd.toml:1:31
  |
1 | events = { journal = "drops", "größe" = 1 }
  |                               ^^^^^^^
  = help: it can have: aggregation, interval, rate, journal

1 error
"#,
        ),
        (
            "a name with a dot must be quoted",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.eth0.100]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
"#,
            r#"
error: `interfaces` has no table inside of a table: the dot parts two names
 --> dpd.toml:4:18
  |
4 | [interfaces.eth0.100]
  |                  ^^^
  = help: quote a name that has a dot: [interfaces."eth0.100"]

1 error
"#,
        ),
        (
            "an uplink that has what an endpoint has",
            r#"
[interfaces.ens5]
role = "uplink"
identity = "client"
"#,
            r#"
error: `interfaces.ens5` is an uplink, and can't have the key `identity`
 --> dpd.toml:3:1
  |
3 | identity = "client"
  | ^^^^^^^^
  = help: take it out, or give the interface the other role

1 error
"#,
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
            r#"
error: there is no identity "cleint"
 --> dpd.toml:5:12
  |
5 | identity = "cleint"
  |            ^^^^^^^^
  = help: did you mean `client`?

1 error
"#,
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
            r#"
error: 10.0.0.1 is the endpoint `e0`'s already
  --> dpd.toml:11:14
   |
11 | addresses = ["10.0.0.1"]
   |              ^^^^^^^^^^
  ::: dpd.toml:7:14
   |
 7 | addresses = ["10.0.0.1"]
   |              ---------- first given here

1 error
"#,
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
            r#"
error: `policies.p.egress[0]` can't have the key `from`
 --> dpd.toml:6:13
  |
6 | egress = [{ from = ["any"] }]
  |             ^^^^
  = help: an egress rule names who receives: write `to`

1 error
"#,
        ),
    ];
    for (says, file, text) in rows {
        let problems = problems_of(file);
        assert_eq!(problems.to_string(), text.trim_matches('\n'), "{says}");
    }
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_places() {
    let main = r#"
[identities.a]
id = 5
[services.s]
frontends = ["10.0.0.1:53/upd"]
backends = ["10.0.0.2"]
[policies.p]
subject = "b"
"#;
    let drop_in = r#"
[events]
rate = "many"
[policy]
audt = true
"#;
    let sources = vec![source("dpd.toml", main), source("dpd.d/10.toml", drop_in)];
    let problems = parse(sources).expect_err("seven mistakes");
    let places: Vec<_> = problems
        .0
        .iter()
        .map(|p| (p.file.to_str().unwrap(), p.excerpt.as_ref().unwrap().line))
        .collect();
    let expected = [
        ("dpd.toml", 2),
        ("dpd.toml", 4),
        ("dpd.toml", 5),
        ("dpd.toml", 6),
        ("dpd.toml", 7),
        ("dpd.d/10.toml", 2),
        ("dpd.d/10.toml", 4),
    ];
    assert_eq!(places, expected, "{problems}");
    assert!(problems.to_string().ends_with("\n\n7 errors"), "{problems}");
}

/// A key that is known but not read would be taken and ignored: then a senseless value would pass.
#[test]
fn every_key_is_read() {
    // Both values of a switch make sense; what they do is asserted where right files are.
    let switches = ["policy.audit", "policy.allow_host", "conntrack.strict"];
    let senseless = [r#""\u0001""#, r#"["\u0001"]"#, "-1"];
    for key in keys()
        .iter()
        .filter(|key| !switches.contains(&key.as_str()))
    {
        let is_read = senseless.iter().any(|value| {
            let problems = problems_of(&file_with(key, value));
            let of_the_rest = ["takes", "lacks the key", "neither"];
            let mut messages = problems.0.iter().map(|problem| &problem.message);
            messages.any(|message| !of_the_rest.iter().any(|words| message.contains(words)))
        });
        assert!(is_read, "no senseless value of `{key}` is refused");
    }
}

/// A file that gives `services.*.backends[].weight` a value.
fn file_with(key: &str, value: &str) -> String {
    let key = key.replace('*', "x");
    match key.split_once("[].") {
        Some((list, field)) => format!("{list} = [{{ {field} = {value} }}]"),
        None if key.starts_with("interfaces.") && !key.ends_with(".role") => {
            format!("interfaces.x.role = \"endpoint\"\n{key} = {value}")
        }
        None => format!("{key} = {value}"),
    }
}

#[test]
fn files_join_their_tables_but_not_their_keys() {
    // (sentence, main file, drop-in, problems)
    let rows: &[(&str, &str, &str, &[&str])] = &[
        (
            "tables with other keys join",
            "[conntrack]\nsize = 2048\n",
            "[conntrack]\nstrict = true\n[events]\nrate = 1\n",
            &[],
        ),
        (
            "a key in both",
            "[conntrack]\nsize = 2048\n",
            "[conntrack]\nsize = 2048\n",
            &[
                "2:1..5 `conntrack.size` is given twice [2:1 first given here] (files join their tables, but a key has one place: take one out)",
            ],
        ),
        (
            "lists do not join",
            "[node]\naddresses = [\"10.0.0.1\"]\n",
            "[node]\n\naddresses = [\"10.0.0.2\"]\n",
            &[
                "3:1..10 `node.addresses` is given twice [2:1 first given here] (files join their tables, but a key has one place: take one out)",
            ],
        ),
        (
            "a table in one and a value in the other",
            "[events]\nrate = 1\n",
            "events = 5\n",
            &[
                "1:1..7 `events` is given twice [1:2 first given here] (files join their tables, but a key has one place: take one out)",
            ],
        ),
        (
            "a reference into another file, dangling",
            "[identities.client]\nid = 300\n",
            "[policies.p]\nsubject = \"clients\"\ningress = []\n",
            &["2:11..20 there is no identity \"clients\" (did you mean `client`?)"],
        ),
        (
            "an empty drop-in is one that is just being written",
            "[events]\nrate = 1\n",
            " \n",
            &["1:1..2 the drop-in is empty (remove it, or put a comment into it)"],
        ),
        (
            "a drop-in may be all comments",
            "[events]\nrate = 1\n",
            "# rate = 2\n",
            &[],
        ),
        (
            "a main file that is empty is not made up for by its drop-ins",
            "# all is in the drop-ins\n",
            "[events]\nrate = 1\n",
            &[
                "1:1..2 the file is empty: no table and no key stands in it (to take everything away that dpd has put on this host, run `dpd cleanup`)",
            ],
        ),
        (
            "one file that is not TOML hides what the others mean, not what is wrong with their form",
            "[events\n",
            "rate = \n",
            &[
                "1:8..9 this is not TOML: unclosed table, expected `]`",
                "1:8..9 this is not TOML: string values must be quoted, expected literal string",
            ],
        ),
    ];
    for (says, main, drop_in, expected) in rows {
        let sources = vec![source("dpd.toml", main), source("dpd.d/10.toml", drop_in)];
        let found: Vec<_> = match parse(sources) {
            Ok(_) => vec![],
            Err(problems) => problems.0.iter().map(brief).collect(),
        };
        assert_eq!(found, *expected, "{says}");
    }
}

#[test]
fn a_problem_names_both_files() {
    let main = source("dpd.toml", "[policy]\naudit = true\n");
    let drop_in = source("dpd.d/10.toml", "\n\n[policy]\naudit = false\n");
    let text = parse(vec![main, drop_in])
        .expect_err("one key twice")
        .to_string();
    let expected = r#"
error: `policy.audit` is given twice
 --> dpd.d/10.toml:3:1
  |
3 | audit = false
  | ^^^^^
 ::: dpd.toml:2:1
  |
2 | audit = true
  | ----- first given here
  = help: files join their tables, but a key has one place: take one out

1 error"#;
    assert_eq!(text, expected.trim_start());
}

#[test]
fn a_long_line_is_shown_round_the_place() {
    let peers = "\"any\", ".repeat(1000);
    let file = format!(
        "[identities.a]\nid = 300\n[policies.p]\nsubject = \"a\"\ningress = [{{ from = [{peers}\"nobody\"] }}]\n"
    );
    let problems = problems_of(&file);
    let place = problems.0.iter().find(|p| p.severity == Severity::Error);
    let place = place.and_then(|p| p.excerpt.as_ref()).expect("a place");
    let marked: String = place
        .text
        .chars()
        .skip(place.mark.start)
        .take(place.mark.len())
        .collect();
    assert_eq!((place.line, place.column), (5, 7022));
    assert_eq!(marked, "\"nobody\"");
    assert!(place.text.chars().count() <= 120, "{place:?}");
}

#[test]
fn no_name_breaks_a_line_or_hides_what_it_is() {
    let tables = [
        ("an identity", "[identities.NAME]\nid = 300\n"),
        (
            "a service",
            "[services.NAME]\nfrontends = [\"10.0.0.1:1/tcp\"]\nbackends = [\"10.0.0.2:1\"]\n",
        ),
        (
            "a policy",
            "[identities.a]\nid = 300\n[policies.NAME]\nsubject = \"a\"\ningress = []\n",
        ),
        (
            "a node",
            "[interfaces.up]\nrole = \"uplink\"\n[nodes.NAME]\naddresses = [\"192.0.2.2\"]\n",
        ),
        ("an interface", "[interfaces.NAME]\nrole = \"uplink\"\n"),
        (
            "a table of the prefilter",
            "[interfaces.up]\nrole = \"uplink\"\n[prefilter.NAME]\ndeny = []\n",
        ),
        ("this node", "[node]\nname = NAME\n"),
        ("a label", "[identities.a]\nid = 300\nlabels = [NAME]\n"),
    ];
    // As TOML writes them.
    let names = [
        r#""a b=""#,
        r#""a\"b=""#,
        r#""a'b=""#,
        r#""a\nb=""#,
        r#""a\tb=""#,
        r#""a\u0000b=""#,
        r#""a\u001b[2Jb=""#,
        r#""a\u007fb=""#,
        r#""a\u0085b=""#,
        r#""a\u00a0b=""#,
        r#""a\u2028b=""#,
        r#""a\u200bb=""#,
        r#""a\u202eb=""#,
        r#""a\ufeffb=""#,
        r#""a\\b=""#,
        "\"a\u{202e}b=\"",
    ];
    for (what, table) in tables {
        for name in names {
            let file = table.replace("NAME", name);
            let text = problems_of(&file).to_string();
            assert!(
                text.contains("are not allowed here"),
                "{what} called {name}: {text}"
            );
            let hides =
                |c: char| c != '\n' && (c.is_control() || c == '\u{202e}' || c == '\u{feff}');
            assert!(!text.contains(hides), "{what} called {name}: {text:?}");
        }
    }
}

#[test]
fn a_thousand_problems_are_told_and_the_rest_is_counted() {
    let slips: String = (0..1500).map(|n| format!("[colour{n}]\n")).collect();
    let problems = problems_of(&slips);
    assert_eq!(problems.0.len(), 1001);
    let last = problems.0.last().map(brief);
    assert_eq!(
        last.as_deref(),
        Some("there are more errors than are told here: 500 more")
    );

    // What is over the bound still counts, though all that is told are warnings.
    let twice = "\"any\", ".repeat(1500);
    let file = format!(
        "[identities.a]\nid = 300\n[policies.p]\nsubject = \"a\"\ningress = [{{ from = [{twice}] }}]\negress = 1\n"
    );
    let problems = problems_of(&file);
    assert_eq!((problems.0.len(), problems.error_count()), (1002, 1));
}

/// Half-written files are met in practice: none of them may stop the daemon.
#[test]
fn a_file_cut_off_anywhere_is_judged_and_not_a_panic() {
    let example = include_str!("../examples/config.toml");
    for cut in 0..example.len() {
        if let Some(text) = example.get(..cut) {
            let _ = parse(vec![source("dpd.toml", text)]).map_err(|problems| problems.to_string());
        }
    }
}

/// Any byte may be hit by a slip of the finger.
#[test]
fn a_file_with_one_wrong_character_is_judged_and_not_a_panic() {
    let example = include_str!("../examples/config.toml");
    for at in (0..example.len())
        .step_by(7)
        .filter(|at| example.is_char_boundary(*at))
    {
        for wrong in ["\"", "[", "]", "{", "=", ".", "\n", "\0", "ß", "'''", "#"] {
            let text = format!("{}{wrong}{}", &example[..at], &example[at..]);
            let _ = parse(vec![source("dpd.toml", &text)]).map_err(|problems| problems.to_string());
        }
    }
}
