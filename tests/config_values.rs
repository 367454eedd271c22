//! Valid files: the checked configuration with its defaults, and its warnings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dpd::config::{
    Backend, Config, Conntrack, Daemon, EnforcementMode, Events, HostSettings, Identity,
    IdentityBackends, Interface, JournalFlows, LogTarget, Node, Policy, PolicySettings, RemoteNode,
    Rule, Service, Source, SourceLocation, XdpMode, load, parse,
};
use dpd::model::policy::{Action, Peer, Ports};
use dpd::model::protocol::Protocol;
use dpd::model::service::{Algorithm, BackendState, Frontend, Locality, NodePort};
use dpd::model::state::Aggregation;
use ipnet::IpNet;

fn config_of(text: &str) -> Config {
    let source = Source {
        path: PathBuf::from("dpd.toml"),
        text: text.to_owned(),
    };
    parse(vec![source]).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// The rule of `ingress = [RULE]`, of a file with the identities a and b.
fn rule(text: &str) -> Rule {
    let file = format!(
        r#"
[identities.a]
id = 300
labels = ["app=a", "empty=", "sum=1+1=2"]
[identities."b.c"]
id = 301
[policies.p]
subject = "a"
ingress = [{text}]
"#
    );
    let mut config = config_of(&file);
    let policy = config.policies.remove("p").expect("the policy");
    policy.ingress.expect("its rules").remove(0)
}

fn backends(text: &str) -> Vec<Backend> {
    let file = format!(
        "[services.s]\nfrontends = [\"10.0.0.1:1/tcp\", \"[fd00::1]:1/tcp\"]\nbackends = [{text}]\n"
    );
    let mut config = config_of(&file);
    config.services.remove("s").expect("the service").backends
}

#[test]
fn the_defaults() {
    let config = config_of("[node]\nname = \"node-a\"\n");
    let seconds = Duration::from_secs;
    let expected = Config {
        masquerade: Default::default(),
        host: HostSettings { services: true },
        drop_ins: Default::default(),
        path: PathBuf::from("dpd.toml"),
        node: Node {
            name: "node-a".to_owned(),
            addresses: None,
        },
        daemon: Daemon {
            bpf_root: PathBuf::from("/sys/fs/bpf/dpd"),
            socket: PathBuf::from("/run/dpd/dpd.sock"),
            log: LogTarget::Auto,
            metrics: None,
            runtime_config: Some("/run/dpd/config.d".into()),
            expedite_rcu: false,
        },
        interfaces: BTreeMap::new(),
        identities: BTreeMap::new(),
        services: BTreeMap::new(),
        policies: BTreeMap::new(),
        nodes: BTreeMap::new(),
        prefilter: BTreeMap::new(),
        policy: PolicySettings {
            enforcement: EnforcementMode::Default,
            audit: false,
            allow_host: true,
        },
        conntrack: Conntrack {
            size: 131_072,
            per_endpoint: None,
            strict: false,
            tcp: seconds(8000),
            tcp_syn: seconds(60),
            tcp_close: seconds(10),
            udp: seconds(30),
            udp_once: seconds(5),
            icmp: seconds(30),
        },
        events: Events {
            aggregation: Aggregation::Medium,
            interval: seconds(5),
            rate: 10_000,
            journal: JournalFlows::Drops,
        },
    };
    assert_eq!(config, expected);
}

#[test]
fn every_setting_is_taken_from_the_file() {
    let config = config_of(
        r#"
[node]
name = "b"
addresses = ["192.0.2.1", "2001:db8::1"]
[daemon]
bpf_root = "/sys/fs/bpf/b"
socket = "/run/b.sock"
log = "journald"
metrics = "[::]:9964"
expedite_rcu = true
[host]
services = false
[policy]
enforcement = "always"
audit = true
allow_host = false
[conntrack]
size = 0x1000
per_endpoint = 4_096
strict = true
tcp = "1h"
tcp_syn = "2s"
tcp_close = "1000ms"
udp = "4m"
udp_once = "5s"
icmp = "6s"
[events]
aggregation = "none"
interval = "250ms"
rate = 7
journal = "off"
"#,
    );
    let seconds = Duration::from_secs;
    let addresses = ["192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap());
    assert_eq!(config.node.name, "b");
    assert_eq!(config.node.addresses, Some(addresses.to_vec()));
    assert_eq!(config.daemon.bpf_root, Path::new("/sys/fs/bpf/b"));
    assert_eq!(config.daemon.socket, Path::new("/run/b.sock"));
    assert_eq!(config.daemon.log, LogTarget::Journald);
    let everywhere = "[::]:9964".parse().expect("an address and port");
    assert_eq!(config.daemon.metrics, Some(everywhere));
    assert!(config.daemon.expedite_rcu);
    assert!(!config.host.services);
    assert_eq!(config.policy.enforcement, EnforcementMode::Always);
    assert!(config.policy.audit && !config.policy.allow_host);
    let conntrack = Conntrack {
        size: 4096,
        per_endpoint: Some(4096),
        strict: true,
        tcp: seconds(3600),
        tcp_syn: seconds(2),
        tcp_close: seconds(1),
        udp: seconds(240),
        udp_once: seconds(5),
        icmp: seconds(6),
    };
    assert_eq!(config.conntrack, conntrack);
    let events = Events {
        aggregation: Aggregation::None,
        interval: Duration::from_millis(250),
        rate: 7,
        journal: JournalFlows::Off,
    };
    assert_eq!(config.events, events);
}

#[test]
fn an_endpoint_has_multicast_where_the_file_says_so() {
    for (line, expected) in [
        ("", false),
        ("multicast = false", false),
        ("multicast = true", true),
    ] {
        let config = config_of(&format!(
            "[identities.a]\nid = 300\n[interfaces.e0]\nrole = \"endpoint\"\nidentity = \"a\"\n\
             addresses = [\"10.0.0.1\"]\n{line}\n"
        ));
        let Interface::Endpoint { multicast, .. } = &config.interfaces["e0"] else {
            panic!("{config:?}");
        };
        assert_eq!(*multicast, expected, "{line}");
    }
}

#[test]
fn the_words_of_settings() {
    let log = |word: &str| config_of(&format!("daemon.log = \"{word}\"")).daemon.log;
    assert_eq!(log("auto"), LogTarget::Auto);
    assert_eq!(log("stderr"), LogTarget::Stderr);
    let mode = |word: &str| {
        config_of(&format!("policy.enforcement = \"{word}\""))
            .policy
            .enforcement
    };
    assert_eq!(mode("default"), EnforcementMode::Default);
    assert_eq!(mode("never"), EnforcementMode::Never);
    let level = |word: &str| {
        config_of(&format!("events.aggregation = \"{word}\""))
            .events
            .aggregation
    };
    assert_eq!(level("low"), Aggregation::Low);
    assert_eq!(level("medium"), Aggregation::Medium);
    let flows = |word: &str| {
        config_of(&format!("events.journal = \"{word}\""))
            .events
            .journal
    };
    assert_eq!(flows("drops"), JournalFlows::Drops);
    assert_eq!(flows("all"), JournalFlows::All);
}

#[test]
fn the_example_is_the_lab() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/config.toml");
    let loaded = load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, [], "the example has no warnings");
    let config = loaded.config;

    let endpoint = |v4: &str, v6: &str, identity: &str| Interface::Endpoint {
        addresses: vec![
            format!("{v4}/32").parse().unwrap(),
            format!("{v6}/128").parse().unwrap(),
        ],
        identity: identity.to_owned(),
        multicast: false,
    };
    let interfaces = [
        (
            "lxc-client",
            endpoint("10.200.0.64", "fd00:200::64", "client"),
        ),
        (
            "lxc-coredns",
            endpoint("10.200.0.44", "fd00:200::44", "kube-dns"),
        ),
        (
            "lxc-intruder",
            endpoint("10.200.0.65", "fd00:200::65", "intruder"),
        ),
    ];
    let interfaces = interfaces.map(|(name, endpoint)| (name.to_owned(), endpoint));
    assert_eq!(config.interfaces, BTreeMap::from(interfaces));

    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let kube_dns = Identity {
        id: 18203,
        labels: vec![
            label("k8s-app", "kube-dns"),
            label("io.kubernetes.pod.namespace", "kube-system"),
        ],
        cidrs: Vec::new(),
    };
    assert_eq!(config.identities["kube-dns"], kube_dns);
    assert_eq!(config.identities["client"].id, 20001);
    assert_eq!(config.identities["intruder"].id, 20002);

    let frontend = |address: &str, protocol| Frontend {
        address: address.parse().unwrap(),
        port: 53,
        protocol,
    };
    let backend = |address: &str| Backend {
        address: address.parse().unwrap(),
        weight: 1,
        state: BackendState::Active,
    };
    let service = Service {
        frontends: vec![
            frontend("10.32.0.10", Protocol::Udp),
            frontend("10.32.0.10", Protocol::Tcp),
            frontend("fd00:32::10", Protocol::Udp),
            frontend("fd00:32::10", Protocol::Tcp),
        ],
        backends: vec![backend("10.200.0.44:53"), backend("[fd00:200::44]:53")],
        ..Service::default()
    };
    assert_eq!(config.services["kube-dns"], service);

    let ports = |protocol| Ports {
        protocol,
        range: Some((53, 53)),
    };
    let policy = &config.policies["dns-clients"];
    let rules = policy.ingress.as_deref().expect("its ingress rules");
    assert_eq!(
        (policy.subject.as_str(), &policy.egress),
        ("kube-dns", &None)
    );
    assert_eq!(rules[0].peers, [Peer::Identity("client".to_owned())]);
    assert_eq!(rules[0].ports, [ports(Protocol::Udp), ports(Protocol::Tcp)]);
    assert_eq!(rules[0].action, Action::Allow);
    let text = std::fs::read_to_string(&path).unwrap();
    let line = text.lines().position(|line| line.starts_with("ingress"));
    let location = SourceLocation {
        file: path,
        line: line.expect("the rule's line") + 1,
    };
    assert_eq!(rules[0].location, location);
}

#[test]
fn backends_of_every_spelling() {
    let backend = |address: &str, weight, state| Backend {
        address: address.parse().unwrap(),
        weight,
        state,
    };
    use BackendState::{Active, Draining, Maintenance};
    let found = backends(
        r#"
        "10.0.0.2:1",
        "[FD00:0::2]:80",
        { address = "10.0.0.3:65535" },
        { address = "10.0.0.4:2", weight = 65535 },
        { address = "10.0.0.5:2", weight = 0, state = "draining" },
        { address = "10.0.0.6:2", state = "maintenance" },
        { address = "10.0.0.7:2", state = "active" },
        "#,
    );
    let expected = [
        backend("10.0.0.2:1", 1, Active),
        backend("[fd00::2]:80", 1, Active),
        backend("10.0.0.3:65535", 1, Active),
        backend("10.0.0.4:2", 65535, Active),
        backend("10.0.0.5:2", 0, Draining),
        backend("10.0.0.6:2", 1, Maintenance),
        backend("10.0.0.7:2", 1, Active),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_service_may_have_no_backend() {
    assert_eq!(backends(""), []);
}

#[test]
fn peers_of_every_spelling() {
    let label = |key: &str, value: &str| Peer::Label {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let cidr = |prefix: &str| Peer::Cidr(prefix.parse().unwrap());
    let rows = [
        ("any", Peer::Any),
        ("host", Peer::Host),
        ("remote-node", Peer::RemoteNode),
        ("world", Peer::World),
        ("a", Peer::Identity("a".to_owned())),
        ("b.c", Peer::Identity("b.c".to_owned())),
        ("label:app=a", label("app", "a")),
        ("label:empty=", label("empty", "")),
        ("label:sum=1+1=2", label("sum", "1+1=2")),
        ("cidr:10.0.0.0/8", cidr("10.0.0.0/8")),
        ("cidr:10.0.0.1", cidr("10.0.0.1/32")),
        ("cidr:0.0.0.0/0", cidr("0.0.0.0/0")),
        ("cidr:::/0", cidr("::/0")),
        ("cidr:2001:db8::/32", cidr("2001:db8::/32")),
        ("cidr:224.0.0.0/4", cidr("224.0.0.0/4")),
        ("cidr:ff02::fb", cidr("ff02::fb/128")),
    ];
    for (text, peer) in rows {
        assert_eq!(
            rule(&format!("{{ from = [{text:?}] }}")).peers,
            [peer],
            "{text}"
        );
    }
}

#[test]
fn ports_of_every_spelling() {
    let rows = [
        ("53/udp", Protocol::Udp, Some((53, 53))),
        ("1-65535/tcp", Protocol::Tcp, Some((1, 65535))),
        ("8000-8000/sctp", Protocol::Sctp, Some((8000, 8000))),
        ("tcp", Protocol::Tcp, None),
        ("icmp", Protocol::Icmp, None),
        ("icmpv6", Protocol::Icmpv6, None),
    ];
    for (text, protocol, range) in rows {
        let rule = rule(&format!("{{ from = [\"any\"], ports = [{text:?}] }}"));
        assert_eq!(rule.ports, [Ports { protocol, range }], "{text}");
    }
}

#[test]
fn rules_allow_unless_they_deny() {
    let action = |text: &str| rule(text).action;
    assert_eq!(action(r#"{ from = ["any"] }"#), Action::Allow);
    assert_eq!(
        action(r#"{ from = ["any"], action = "allow" }"#),
        Action::Allow
    );
    assert_eq!(
        action(r#"{ from = ["any"], action = "deny" }"#),
        Action::Deny
    );
}

#[test]
fn an_absent_direction_is_not_an_empty_one() {
    let file = "[identities.a]\nid = 65535\n[policies.p]\nsubject = \"a\"\negress = []\n";
    let expected = Policy {
        subject: "a".to_owned(),
        ingress: None,
        egress: Some(vec![]),
    };
    assert_eq!(config_of(file).policies["p"], expected);
}

#[test]
fn files_that_look_wrong_but_are_valid() {
    let identity = "[identities.a]\nid = 256\n";
    let rows = [
        (
            "a quoted name with a dot",
            "[interfaces.\"eth0.100\"]\nrole = \"endpoint\"\nidentity = \"a\"\naddresses = [\"10.0.0.1\"]\n",
        ),
        (
            "a name of 15 bytes",
            "[interfaces.fifteen-bytes-x]\nrole = \"endpoint\"\nidentity = \"a\"\naddresses = [\"10.0.0.1\"]\n",
        ),
        (
            "nested prefixes of one endpoint",
            "[interfaces.e]\nrole = \"endpoint\"\nidentity = \"a\"\naddresses = [\"10.0.0.0/8\", \"10.1.0.0/16\"]\n",
        ),
        (
            "inline and dotted tables",
            "services.s = { frontends = [\"10.0.0.1:1/tcp\"], backends = [\"10.0.0.2:1\"] }\n",
        ),
        (
            "one address, two protocols",
            "[services.s]\nfrontends = [\"10.0.0.1:1/tcp\", \"10.0.0.1:1/udp\"]\nbackends = [\"10.0.0.2:9\"]\n",
        ),
        (
            "sctp with the same port",
            "[services.s]\nfrontends = [\"10.0.0.1:1/sctp\"]\nbackends = [\"10.0.0.2:1\"]\n",
        ),
        (
            "what is the default anyway",
            "[services.s]\nfrontends = [\"10.0.0.1:1/tcp\"]\nbackends = [\"10.0.0.2:1\"]\nalgorithm = \"random\"\naffinity = \"0ms\"\ndrain_timeout = \"0s\"\n",
        ),
        (
            "a service and an identity of one name",
            "[services.a]\nfrontends = [\"10.0.0.1:1/tcp\"]\nbackends = [\"10.0.0.2:1\"]\n",
        ),
        ("letters of the world", "[identities.\"größe\"]\nid = 300\n"),
        (
            "a rule in an array of tables",
            "[policies.p]\nsubject = \"a\"\n[[policies.p.ingress]]\nfrom = [\"any\"]\n",
        ),
    ];
    for (name, text) in rows {
        let config = config_of(&format!("{text}{identity}"));
        assert_eq!(config.identities["a"].id, 256, "{name}");
    }
}

#[test]
fn uplinks_nodes_and_remote_prefixes() {
    let config = config_of(
        r#"
[interfaces."eth0.100"]
role = "uplink"
[interfaces.ens5]
role = "uplink"
xdp = "native"
[interfaces.ens6]
role = "uplink"
xdp = "generic"
[interfaces.ens7]
role = "uplink"
xdp = "off"
[identities.resolver]
id = 20007
cidrs = ["10.200.1.44", "10.200.0.0/16", "fd00:200::/48"]
[identities.rest]
id = 20008
cidrs = ["10.200.1.0/24", "0.0.0.0/0"]
[nodes.node-b]
addresses = ["192.0.2.2", "2001:db8::2"]
cidrs = ["10.200.1.0/24", "10.200.1.128/25"]
[nodes.node-c]
addresses = ["192.0.2.3"]
[prefilter.abusers]
deny = ["198.51.100.66", "203.0.113.0/24"]
[prefilter.bogons]
deny = ["203.0.113.0/24", "127.0.0.0/8", "224.0.0.0/4", "0.0.0.0/8", "fe80::/10", "::/64"]
[prefilter.none]
deny = []
"#,
    );
    let net = |text: &str| text.parse().unwrap();
    let nets = |texts: &[&str]| texts.iter().copied().map(net).collect::<Vec<IpNet>>();
    let uplinks: Vec<_> = config.interfaces.values().cloned().collect();
    let modes = [
        XdpMode::Native,
        XdpMode::Generic,
        XdpMode::Off,
        XdpMode::Auto,
    ];
    let forwarding = dpd::config::ForwardingMode::Auto;
    let expected = modes.map(|xdp| Interface::Uplink {
        xdp,
        forwarding,
        masquerade: Default::default(),
        l2_announce: false,
    });
    assert_eq!(uplinks, expected);
    assert_eq!(
        config.identities["resolver"].cidrs,
        nets(&["10.200.1.44/32", "10.200.0.0/16", "fd00:200::/48"])
    );
    let node = |addresses: &[&str], cidrs: &[&str]| RemoteNode {
        endpoints: Default::default(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        cidrs: nets(cidrs),
    };
    assert_eq!(
        config.nodes["node-b"],
        node(
            &["192.0.2.2", "2001:db8::2"],
            &["10.200.1.0/24", "10.200.1.128/25"]
        )
    );
    assert_eq!(config.nodes["node-c"], node(&["192.0.2.3"], &[]));
    assert_eq!(
        config.prefilter["abusers"],
        nets(&["198.51.100.66/32", "203.0.113.0/24"])
    );
    assert_eq!(config.prefilter["bogons"].len(), 6, "also what no host has");
    assert_eq!(config.prefilter["none"], []);
}

#[test]
fn warnings_do_not_invalidate_the_file() {
    let policy = "[identities.a]\nid = 300\n[policies.p]\nsubject = \"a\"\n";
    let service = "[services.s]\nfrontends = [\"10.0.0.1:53/udp\"]\n";
    let web = format!("[identities.web]\nid = 300\n{service}");
    let web6 = web.replace("53/udp\"", "53/udp\", \"[fd00:32::1]:53/udp\"");
    let hosts = "[node]\naddresses = [\"192.0.2.1\"]\n[nodes.node-b]\naddresses = [\"203.0.113.2\"]\n[interfaces.up]\nrole = \"uplink\"\n[prefilter.p]\n";
    let masquerade = |families, except| {
        format!(
            "[interfaces.e]\nrole = \"uplink\"\nmasquerade = \"{families}\"\n[masquerade]\nexcept = [\"{except}\"]\n"
        )
    };
    // (sentence, file, line, message)
    let rows = [
        (
            "a backend that no frontend leads to",
            format!("{service}backends = [\"10.0.0.2:53\", \"[fd00::2]:53\"]\n"),
            "this backend gets no connections: no frontend of the service is IPv6",
        ),
        (
            "a service without backends",
            format!("{service}backends = []\n"),
            "`services.s` has no backend for new connections",
        ),
        (
            "a service whose backends are out of use",
            format!(
                "{service}backends = [{{ address = \"10.0.0.2:53\", weight = 0 }}, {{ address = \"10.0.0.3:53\", state = \"maintenance\" }}]\n"
            ),
            "`services.s` has no backend for new connections",
        ),
        (
            "a backend by an identity of nobody",
            format!("{web}backends = [{{ identity = \"web\", port = 1 }}, \"10.0.0.2:53\"]\n"),
            "no workload has the identity `web` by a single address: it is no backend",
        ),
        (
            "a backend by an identity of prefixes alone",
            format!(
                "{web}backends = [{{ identity = \"web\", port = 1 }}]\n[interfaces.e]\nrole = \"endpoint\"\naddresses = [\"10.1.0.0/24\"]\nidentity = \"web\"\n"
            ),
            "no workload has the identity `web` by a single address: it is no backend",
        ),
        (
            "a frontend whose family no workload has",
            format!(
                "{web6}backends = [{{ identity = \"web\", port = 1 }}]\n[interfaces.e]\nrole = \"endpoint\"\naddresses = [\"10.1.0.1\", \"fe80::7\"]\nidentity = \"web\"\n"
            ),
            "this frontend has no backend: no workload of the service's identities has an IPv6 address",
        ),
        (
            "backends by identity that are out of use",
            format!(
                "{web}backends = [{{ identity = \"web\", port = 1, weight = 0 }}]\n[interfaces.e]\nrole = \"endpoint\"\naddresses = [\"10.1.0.1\"]\nidentity = \"web\"\n"
            ),
            "`services.s` has no backend for new connections",
        ),
        (
            "a peer twice",
            format!("{policy}ingress = [{{ from = [\"any\", \"any\"] }}]\n"),
            "`any` appears twice in this rule",
        ),
        (
            "ports twice, in two spellings",
            format!(
                "{policy}ingress = [{{ from = [\"any\"], ports = [\"53/udp\", \"53-53/udp\"] }}]\n"
            ),
            "`53/udp` appears twice in this rule",
        ),
        (
            "a prefilter of everything",
            format!("{hosts}deny = [\"0.0.0.0/0\"]\n"),
            "0.0.0.0/0 drops all IPv4 traffic from the uplinks",
        ),
        (
            "a prefilter of everything, IPv6",
            format!("{hosts}deny = [\"::/0\"]\n"),
            "::/0 drops all IPv6 traffic from the uplinks",
        ),
        (
            "a prefilter round another node",
            format!("{hosts}deny = [\"198.51.100.0/24\", \"203.0.113.0/24\"]\n"),
            "203.0.113.0/24 contains 203.0.113.2 of the node `node-b`, and cuts it off",
        ),
        (
            "a prefilter of this node",
            format!("{hosts}deny = [\"192.0.2.1\"]\n"),
            "192.0.2.1 contains 192.0.2.1, which belongs to this node",
        ),
        (
            "a prefix twice in one list of the prefilter",
            format!("{hosts}deny = [\"198.51.100.66\", \"198.51.100.66/32\"]\n"),
            "198.51.100.66 appears twice in this list",
        ),
        (
            "other nodes, and no way to them",
            "[nodes.node-b]\naddresses = [\"203.0.113.2\"]\n".to_owned(),
            "no interface is an uplink: no packet comes from another host",
        ),
        (
            "a prefilter on no uplink",
            "[prefilter.p]\ndeny = []\n".to_owned(),
            "no interface is an uplink: nothing is filtered",
        ),
        (
            "a service for the network, and no way from there",
            format!("{service}backends = [\"10.0.0.2:53\"]\nexternal = true\n"),
            "no interface is an uplink: the network reaches no service",
        ),
        (
            "an exception, and nothing is masqueraded",
            masquerade("none", "10.0.0.0/8"),
            "no uplink masquerades IPv4: the exception 10.0.0.0/8 has no effect",
        ),
        (
            "an exception of the other family",
            masquerade("ipv4", "10.0.0.0/8\", \"fd00::/8"),
            "no uplink masquerades IPv6: the exception fd00::/8 has no effect",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    for (name, text, message) in rows {
        std::fs::write(&path, text).unwrap();
        let loaded = load(&path).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        let messages: Vec<_> = loaded.warnings.iter().map(|w| w.message.as_str()).collect();
        assert_eq!(messages, [message], "{name}");
    }
}

#[test]
fn what_the_network_reaches_of_a_service() {
    let text = r#"
[interfaces.ens5]
role = "uplink"
[services.inner]
frontends = ["10.32.0.1:80/tcp"]
backends = ["10.1.0.1:80"]
external = false
[services.web]
frontends = ["203.0.113.10:443/tcp", "node:8443/tcp", "node:8443/udp"]
backends = ["10.1.0.1:8443"]
external = true
sources = ["198.51.100.0/24", "192.0.2.7"]
locality = "prefer"
remote = "snat"
"#;
    let config = config_of(text);
    let (inner, web) = (&config.services["inner"], &config.services["web"]);
    let without = Service {
        frontends: inner.frontends.clone(),
        backends: inner.backends.clone(),
        ..Service::default()
    };
    assert_eq!(inner, &without);
    let texts = |list: &[NodePort]| list.iter().map(NodePort::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&web.node_ports), ["node:8443/tcp", "node:8443/udp"]);
    assert_eq!(web.frontends.len(), 1);
    assert!(web.external);
    let sources = ["198.51.100.0/24", "192.0.2.7/32"].map(|text| text.parse().unwrap());
    assert_eq!(web.sources, sources);
    assert_eq!(web.locality, Locality::Prefer);
}

#[test]
fn how_backends_are_picked() {
    let backends = r#"frontends = ["10.32.0.1:80/tcp"]
backends = ["10.1.0.1:80", "10.1.0.2:80", { address = "10.1.0.3:80", state = "maintenance" }, "[fd00::1]:80"]"#;
    // (keys, algorithm, key of the size, sizes of IPv4 and IPv6)
    let rows = [
        ("", Algorithm::Random, None, [None; 2]),
        (
            "algorithm = \"random\"\ntable_size = 0",
            Algorithm::Random,
            None,
            [None; 2],
        ),
        (
            "algorithm = \"maglev\"",
            Algorithm::Maglev,
            None,
            [Some(509), Some(251)],
        ),
        (
            "algorithm = \"maglev\"\ntable_size = 0",
            Algorithm::Maglev,
            None,
            [Some(509), Some(251)],
        ),
        (
            "algorithm = \"maglev\"\ntable_size = 251",
            Algorithm::Maglev,
            Some(251),
            [Some(251); 2],
        ),
        (
            "algorithm = \"maglev\"\ntable_size = 65521",
            Algorithm::Maglev,
            Some(65521),
            [Some(65521); 2],
        ),
    ];
    for (keys, algorithm, table_size, sizes) in rows {
        let config = config_of(&format!("[services.s]\n{keys}\n{backends}\n"));
        let service = &config.services["s"];
        assert_eq!(service.algorithm, algorithm, "{keys}");
        assert_eq!(service.table_size, table_size, "{keys}");
        let count = |is_ipv4: bool| {
            let backends = service.backends.iter();
            let of_family = backends.filter(|backend| backend.address.is_ipv4() == is_ipv4);
            of_family.count()
        };
        let found = [true, false].map(|is_ipv4| service.maglev_size(count(is_ipv4)));
        assert_eq!(found, sizes, "{keys}");
    }
}

#[test]
fn backends_by_identity_and_the_endpoints_of_nodes() {
    let text = r#"
[identities.web]
id = 300
[interfaces.e]
role = "endpoint"
addresses = ["10.1.0.1"]
identity = "web"
[services.s]
frontends = ["10.32.0.1:80/tcp"]
backends = [
    { identity = "web", port = 8443, weight = 2, state = "draining" },
    "10.1.0.1:8443",
    { identity = "web", port = 65535 },
]
[interfaces.ens5]
role = "uplink"
[nodes.node-b]
addresses = ["192.0.2.2"]
cidrs = ["10.2.0.0/16", "fd00:2::/64"]
[nodes.node-b.endpoints]
"10.2.0.1" = "web"
"fd00:2::1" = "web"
"#;
    let config = config_of(text);
    let by_identity = |port, weight, state| IdentityBackends {
        identity: "web".to_owned(),
        port,
        weight,
        state,
    };
    let service = &config.services["s"];
    assert_eq!(
        service.identity_backends,
        [
            by_identity(8443, 2, BackendState::Draining),
            by_identity(65535, 1, BackendState::Active),
        ]
    );
    assert_eq!(service.backends.len(), 1);
    let endpoints =
        ["10.2.0.1", "fd00:2::1"].map(|address| (address.parse().unwrap(), "web".to_owned()));
    assert_eq!(config.nodes["node-b"].endpoints, endpoints.into());
}
