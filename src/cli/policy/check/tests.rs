//! The reports of `dpd policy check` on one configuration.

use std::fs;

use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::model::catalog::Catalog;
use crate::model::host::{HostState, Link};
use crate::plan::Inputs;

const CONFIG: &str = r#"
[node]
addresses = ["192.0.2.1"]

[interfaces.lxc-client]
role = "endpoint"
addresses = ["10.200.0.64", "fd00:200::64"]
identity = "client"

[interfaces.lxc-coredns]
role = "endpoint"
addresses = ["10.200.0.44"]
identity = "kube-dns"

[interfaces.web]
role = "endpoint"
addresses = ["10.200.0.45", "10.200.8.0/24"]
identity = "web"

[interfaces.lxc-late]
role = "endpoint"
addresses = ["10.200.0.99"]
identity = "late"

[interfaces.client]
role = "endpoint"
addresses = ["10.200.0.77"]
identity = "web"

[identities]
client = { id = 20001, labels = ["tier=front"] }
kube-dns = { id = 18203 }
web = { id = 20003, labels = ["tier=front"] }
late = { id = 20004 }
office = { id = 20005, cidrs = ["198.51.100.0/24"] }
idle = { id = 20006 }

[services.kube-dns]
frontends = ["10.32.0.10:53/udp", "10.32.0.10:54/udp"]
backends = ["10.200.0.44:5353"]

[services.asleep]
frontends = ["10.32.0.30:80/tcp"]
backends = []

[policies.dns-clients]
subject = "kube-dns"
ingress = [
    { from = ["identity-of-client"], ports = ["53/udp", "5353/udp"] },
    { from = ["cidr:198.51.100.128/25"], ports = ["53/udp"] },
    { from = ["cidr:198.51.100.192/26"], action = "deny" },
]

[policies.lock-down]
subject = "kube-dns"
ingress = []

[policies.no-office]
subject = "web"
egress = [{ to = ["office"], action = "deny" }]

[services.web]
frontends = ["203.0.113.10:443/tcp", "node:8443/tcp"]
backends = ["10.200.0.45:8443", "10.201.0.1:8443"]
external = true
sources = ["198.51.100.128/26", "198.51.100.4"]

[services.host]
frontends = ["203.0.113.20:80/tcp"]
backends = ["192.0.2.1:8080"]
external = true
"#;

/// The tables of the configuration on a host that has all interfaces but `lxc-late`.
fn state(audit: bool) -> State {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let text = CONFIG.replace("identity-of-client", "client");
    fs::write(&path, format!("{text}\n[policy]\naudit = {audit}\n")).unwrap();
    let config = crate::config::load(&path).unwrap().config;
    let names = ["lxc-client", "lxc-coredns", "web", "client"];
    let links = names.into_iter().zip(10..).map(|(name, ifindex)| {
        let link = Link {
            ifindex,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            up: true,
            ..Link::default()
        };
        (name.to_owned(), link)
    });
    let host = HostState {
        links: links.collect(),
        addresses: ["192.0.2.1".parse().unwrap()].into(),
        netns_cookie: 1,
        ..HostState::default()
    };
    let state = crate::plan::compile(Inputs {
        config: &config,
        host: &host,
        previous: &Catalog::default(),
        previous_maglev: &Default::default(),
        now_ns: 0,
    });
    state.unwrap()
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn report(state: &State, from: &str, to: &str, traffic: &str) -> Result<Report> {
    let words = ["check", "--from", from, "--to", to, traffic];
    check(state, 7, &Line::parse_from(words).arguments)
}

fn report_text(state: &State, from: &str, to: &str, traffic: &str) -> String {
    let report = report(state, from, to, traffic).unwrap();
    let text = report.to_string();
    // The folder of the file is another one each time.
    let lines = text.lines().map(|line| match line.split_once(" (/") {
        Some((before, place)) => format!("{before} at {}", place.rsplit(':').next().unwrap()),
        None => line.to_owned(),
    });
    lines
        .map(|line| line.trim_end_matches(')').to_owned() + "|")
        .collect()
}

#[test]
fn reports() {
    let rows = [
        (
            "an identity to another",
            ("identity:client", "kube-dns", "53/udp"),
            "allowed: 10.200.0.64 (client) -> 10.200.0.44 (kube-dns) 53/udp|\
             \x20 egress of client: not enforced|\
             \x20 ingress of kube-dns: allow by rule dns-clients/ingress/0 at 49|",
        ),
        (
            "no rule: the policies that enforce",
            ("identity:client", "kube-dns", "53/tcp"),
            "denied: 10.200.0.64 (client) -> 10.200.0.44 (kube-dns) 53/tcp|\
             \x20 egress of client: not enforced|\
             \x20 ingress of kube-dns: no rule; enforced by dns-clients, lock-down|",
        ),
        (
            "through a service: its backend's port counts",
            ("lxc-client", "10.32.0.10", "53/udp"),
            "allowed: 10.200.0.64 (client) -> kube-dns 10.200.0.44 (kube-dns) 5353/udp|\
             \x20 egress of client: not enforced|\
             \x20 ingress of kube-dns: allow by rule dns-clients/ingress/0 at 49|",
        ),
        (
            "an address of a prefix within a prefix",
            ("198.51.100.200", "kube-dns", "53/udp"),
            "denied: 198.51.100.200 (office) -> 10.200.0.44 (kube-dns) 53/udp|\
             \x20 ingress of kube-dns: deny by rule dns-clients/ingress/2 at 51|",
        ),
        (
            "an identity with several verdicts: denied cases come first",
            ("office", "kube-dns", "53/udp"),
            "denied: 198.51.100.0 (office) -> 10.200.0.44 (kube-dns) 53/udp|\
             \x20 ingress of kube-dns: no rule; enforced by dns-clients, lock-down|\
             denied: 198.51.100.192 (office) -> 10.200.0.44 (kube-dns) 53/udp|\
             \x20 ingress of kube-dns: deny by rule dns-clients/ingress/2 at 51|\
             allowed: 198.51.100.128 (office) -> 10.200.0.44 (kube-dns) 53/udp|\
             \x20 ingress of kube-dns: allow by rule dns-clients/ingress/1 at 50|",
        ),
        (
            "a part of it",
            ("cidr:198.51.100.224/28", "18203", "53/udp"),
            "denied: 198.51.100.224 (office) -> 10.200.0.44 (kube-dns) 53/udp|\
             \x20 ingress of kube-dns: deny by rule dns-clients/ingress/2 at 51|",
        ),
        (
            "the sender's policy",
            ("10.200.8.9", "198.51.100.1", "443/tcp"),
            "denied: 10.200.8.9 (web) -> 198.51.100.1 (office) 443/tcp|\
             \x20 egress of web: deny by rule no-office/egress/0 at 60|",
        ),
        (
            "a list of denies lets the rest pass",
            ("10.200.8.9", "world", "443/tcp"),
            "allowed: 10.200.8.9 (web) -> 0.0.0.0 (world) 443/tcp|\
             \x20 egress of web: no rule denies it|",
        ),
        (
            "the network through a service: a backend of each kind",
            ("198.51.100.130", "203.0.113.10", "443/tcp"),
            "allowed: 198.51.100.130 (office) -> web 10.200.0.45 (web) 8443/tcp|\
             \x20 ingress of web: not enforced|\
             allowed: 198.51.100.130 (office) -> web 10.201.0.1 (world) 8443/tcp|\
             \x20 no policy applies on this host|\
             \x20 by SNAT: the other host sees an address of this one|",
        ),
        (
            "its sources, by a node port",
            ("198.51.100.1", "192.0.2.1", "8443/tcp"),
            "denied: 198.51.100.1 (office) -> web 192.0.2.1 (host) 8443/tcp|\
             \x20 sources of web: none has the sender|",
        ),
        (
            "a prefix that the sources divide",
            ("cidr:198.51.100.0/29", "203.0.113.10", "443/tcp"),
            "denied: 198.51.100.0 (office) -> web 203.0.113.10 (world) 443/tcp|\
             \x20 sources of web: none has the sender|\
             allowed: 198.51.100.4 (office) -> web 10.200.0.45 (web) 8443/tcp|\
             \x20 ingress of web: not enforced|\
             allowed: 198.51.100.4 (office) -> web 10.201.0.1 (world) 8443/tcp|\
             \x20 no policy applies on this host|\
             \x20 by SNAT: the other host sees an address of this one|",
        ),
        (
            "workloads reach it by both, whatever the sources",
            ("lxc-client", "192.0.2.1", "8443/tcp"),
            "allowed: 10.200.0.64 (client) -> web 10.200.0.45 (web) 8443/tcp|\
             \x20 egress of client: not enforced|\
             \x20 ingress of web: not enforced|\
             allowed: 10.200.0.64 (client) -> web 10.201.0.1 (world) 8443/tcp|\
             \x20 egress of client: not enforced|",
        ),
        (
            "the network to a backend that is the host itself",
            ("198.51.100.130", "203.0.113.20", "80/tcp"),
            "denied: 198.51.100.130 (office) -> host 192.0.2.1 (host) 8080/tcp|\
             \x20 no route: the network reaches no backend at an address of the host|",
        ),
        (
            "a workload reaches it",
            ("lxc-client", "203.0.113.20", "80/tcp"),
            "allowed: 10.200.0.64 (client) -> host 192.0.2.1 (host) 8080/tcp|\
             \x20 egress of client: not enforced|",
        ),
        (
            "another port of the host",
            ("lxc-client", "192.0.2.1", "22/tcp"),
            "allowed: 10.200.0.64 (client) -> 192.0.2.1 (host) 22/tcp|\
             \x20 egress of client: not enforced|",
        ),
        (
            "a service for workloads alone",
            ("198.51.100.130", "10.32.0.10", "53/udp"),
            "allowed: 198.51.100.130 (office) -> 10.32.0.10 (world) 53/udp|\
             \x20 no policy applies on this host|",
        ),
        (
            "the host",
            ("host", "kube-dns", "icmp"),
            "allowed: 192.0.2.1 (host) -> 10.200.0.44 (kube-dns) icmp|\
             \x20 ingress of kube-dns: policy.allow_host allows the host|",
        ),
        (
            "the host through a service",
            ("host", "10.32.0.10", "53/udp"),
            "allowed: 192.0.2.1 (host) -> kube-dns 10.200.0.44 (kube-dns) 5353/udp|\
             \x20 ingress of kube-dns: policy.allow_host allows the host|",
        ),
        (
            "the host through its own node port, whatever the sources",
            ("host", "192.0.2.1", "8443/tcp"),
            "allowed: 192.0.2.1 (host) -> web 10.200.0.45 (web) 8443/tcp|\
             \x20 ingress of web: not enforced|\
             allowed: 192.0.2.1 (host) -> web 10.201.0.1 (world) 8443/tcp|\
             \x20 no policy applies on this host|",
        ),
        (
            "another port of its own",
            ("host", "192.0.2.1", "22/tcp"),
            "allowed: 192.0.2.1 (host) -> 192.0.2.1 (host) 22/tcp|\
             \x20 no policy applies on this host|",
        ),
        (
            "no socket of this protocol is served",
            ("host", "10.32.0.10", "icmp"),
            "allowed: 192.0.2.1 (host) -> 10.32.0.10 (world) icmp|\
             \x20 no policy applies on this host|",
        ),
        (
            "a workload and itself",
            ("lxc-coredns", "kube-dns", "1/tcp"),
            "allowed: 10.200.0.44 (kube-dns) -> 10.200.0.44 (kube-dns) 1/tcp|\
             \x20 no policy applies on this host|",
        ),
        (
            "two peers on other hosts",
            ("office", "remote-node", "1/tcp"),
            "",
        ),
    ];
    let state = state(false);
    for (sentence, (from, to, traffic), expected) in rows {
        if expected.is_empty() {
            let error = report(&state, from, to, traffic).unwrap_err().to_string();
            assert_eq!(
                error, "\"remote-node\" has no address on this host",
                "{sentence}"
            );
            continue;
        }
        assert_eq!(
            report_text(&state, from, to, traffic),
            expected,
            "{sentence}"
        );
    }
}

#[test]
fn peers() {
    let state = state(false);
    let of = |text: &str| -> Vec<String> {
        let peers = peer::find(&state, text, &BTreeSet::new()).unwrap();
        peers.iter().map(|peer| peer.address.to_string()).collect()
    };
    let rows: [(&str, &[&str]); 8] = [
        ("10.200.0.64", &["10.200.0.64"]),
        ("::ffff:10.200.0.64", &["10.200.0.64"]),
        ("lxc-client", &["10.200.0.64", "fd00:200::64"]),
        ("interface:client", &["10.200.0.77"]),
        ("identity:client", &["10.200.0.64", "fd00:200::64"]),
        ("web", &["10.200.0.45"]),
        (
            "label:tier=front",
            &["10.200.0.64", "fd00:200::64", "10.200.0.45", "10.200.0.77"],
        ),
        (
            "10.200.0.40/29",
            &["10.200.0.44", "10.200.0.45", "10.200.0.40"],
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(of(text), expected, "{text}");
    }
    assert!(of("any").len() > 8, "every kind: {:?}", of("any"));
    let errors = [
        (
            "client",
            "is an identity and an interface: give identity:client or interface:client",
        ),
        ("lxc-late", "the interface of \"lxc-late\" is pending"),
        ("late", "the interface of \"late\" is pending"),
        ("idle", "\"idle\" has no address on this host"),
        (
            "clent",
            "\"clent\" is no address, identity or endpoint's interface",
        ),
        ("label:tier=back", "no identity has the label \"tier=back\""),
        ("cidr:here", "\"cidr:here\" is not a prefix"),
        ("interface:clent", "no endpoint has the interface \"clent\""),
        ("identity:clent", "no identity is called \"clent\""),
    ];
    for (text, expected) in errors {
        let error = peer::find(&state, text, &BTreeSet::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_never_reaches_policy_is_an_error() {
    let state = state(false);
    let rows = [
        (
            ("lxc-client", "10.32.0.10", "53/tcp"),
            "the service at 10.32.0.10 has no frontend 53/tcp",
        ),
        (
            ("host", "10.32.0.10", "53/tcp"),
            "the service at 10.32.0.10 has no frontend 53/tcp",
        ),
        (
            ("host", "10.32.0.30", "80/tcp"),
            "the service at 10.32.0.30 has no backend",
        ),
        (
            ("198.51.100.130", "203.0.113.10", "80/tcp"),
            "the service at 203.0.113.10 has no frontend 80/tcp",
        ),
        (
            ("lxc-client", "10.32.0.30", "80/tcp"),
            "the service at 10.32.0.30 has no backend",
        ),
        (
            ("kube-dns", "fd00:200::64", "53/tcp"),
            "have no addresses of one family for 53/tcp",
        ),
        (
            ("lxc-client", "kube-dns", "icmpv6"),
            "have no addresses of one family for icmpv6",
        ),
    ];
    for ((from, to, traffic), expected) in rows {
        let error = report(&state, from, to, traffic).unwrap_err().to_string();
        assert!(error.contains(expected), "{from} {to} {traffic}: {error}");
    }
}

#[test]
fn a_host_whose_sockets_are_not_served_reaches_no_service() {
    let mut state = state(false);
    state.settings.netns_cookie = 0;
    for port in ["53/udp", "53/tcp"] {
        let expected = format!(
            "allowed: 192.0.2.1 (host) -> 10.32.0.10 (world) {port}|\
             \x20 no policy applies on this host|"
        );
        let text = report_text(&state, "host", "10.32.0.10", port);
        assert_eq!(text, expected);
    }
}

#[test]
fn json() {
    let denied = report(&state(false), "web", "10.32.0.10", "54/udp").unwrap();
    super::super::super::documented::check("policy check", &denied);
    let value: Value = serde_json::to_value(&denied).unwrap();
    let case = &value["cases"][0];
    let keys = |value: &Value, keys: &[&str]| -> Vec<Value> {
        keys.iter().map(|key| value[key].clone()).collect()
    };
    assert_eq!(
        keys(
            &value,
            &[
                "verdict",
                "rule",
                "denied_by",
                "enforced_by",
                "config_revision"
            ]
        ),
        [
            json!("denied"),
            Value::Null,
            json!("ingress kube-dns"),
            json!(["dns-clients", "lock-down"]),
            json!(7)
        ]
    );
    assert_eq!(
        keys(
            case,
            &[
                "dst_ip",
                "dst_port",
                "orig_dst_ip",
                "orig_dst_port",
                "service"
            ]
        ),
        [
            json!("10.200.0.44"),
            json!(5353),
            json!("10.32.0.10"),
            json!(54),
            json!("kube-dns")
        ]
    );
    assert_eq!(
        keys(
            &case["egress"],
            &["subject", "enforcement", "action", "rule"]
        ),
        [
            json!("web"),
            json!("deny-only"),
            json!("allow"),
            Value::Null
        ]
    );

    let audit = report(&state(true), "office", "kube-dns", "53/udp").unwrap();
    let verdicts: Vec<&str> = audit.cases.iter().map(|case| case.verdict).collect();
    assert_eq!(verdicts, ["audit", "audit", "allowed"]);
    assert_eq!(audit.verdict, "audit");
}
