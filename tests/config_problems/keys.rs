//! Unknown and missing keys, values of the wrong kind, and keys that are not supported yet.

use dpd::config::keys;

use super::{check, problems_of};

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
                "1:1..5 there is no key or table `size` (it can have: node, daemon, interfaces, identities, nodes, services, policies, masquerade, host, policy, prefilter, conntrack, events)",
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
                r#"4:18..21 `interfaces` has no table inside of a table: the dot separates two names (quote a name that has a dot: [interfaces."eth0.100"])"#,
            ],
        ),
        (
            "a name with two dots too",
            "
[identities.a.b.c]
id = 300
",
            &[
                r#"1:17..18 `identities` has no table inside of a table: the dot separates two names (quote a name that has a dot: [identities."a.b.c"])"#,
            ],
        ),
        (
            "a sub-table of a table that is defined itself",
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
                r#"8:16..17 `interfaces` has no table inside of a table: the dot separates two names (quote a name that has a dot: [interfaces."e0.5"])"#,
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
            "a table instead of a value",
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
fn keys_that_are_not_supported_yet() {
    check(&[(
        "direct server return",
        r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
external = true
remote = "dsr"
[interfaces.e]
role = "uplink"
"#,
        &[
            r#"5:10..15 `remote = "dsr"` is not supported by this version of dpd (use "snat", or omit the key)"#,
        ],
    )]);
}

/// A known key that is not read would be ignored silently: an invalid value would pass.
#[test]
fn every_key_is_read() {
    // Both values of a switch are valid; tests/config_values.rs asserts what they mean.
    let switches = [
        "daemon.expedite_rcu",
        "host.services",
        "interfaces.*.multicast",
        "services.*.external",
        "policy.audit",
        "policy.allow_host",
        "conntrack.strict",
    ];
    let invalid = [r#""\u0001""#, r#"["\u0001"]"#, "-1"];
    for key in keys()
        .iter()
        .filter(|key| !switches.contains(&key.as_str()))
    {
        let is_read = invalid.iter().any(|value| {
            let problems = problems_of(&file_with(key, value));
            let of_the_rest = ["takes", "lacks the key", "neither"];
            let mut messages = problems.0.iter().map(|problem| &problem.message);
            messages.any(|message| !of_the_rest.iter().any(|words| message.contains(words)))
        });
        assert!(is_read, "no invalid value of `{key}` is refused");
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
