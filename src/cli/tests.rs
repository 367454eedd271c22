//! The command line's shape, and every listing of a hand-made node as text.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use clap::CommandFactory;
use serde_json::{Value, json};

use super::*;
use crate::model::catalog::{
    BackendInfo, Catalog, EndpointInfo, IdentityInfo, RuleInfo, ServiceInfo,
};
use crate::model::conntrack::{BackendConnections, Connection, ConntrackState};
use crate::model::policy::{Action, Direction};
use crate::model::protocol::Protocol;
use crate::model::service::{BackendState, Frontend, Locality, NodePort};
use crate::model::state::{
    AddressScope, Backend, Delivery, Endpoint, Enforcement, IpcacheEntry, PolicyEntry, PolicyKey,
    ServiceEntry, State,
};
use crate::model::status::{Attachment, EndpointCounts};
use output::{Format, Row, render};

#[test]
fn the_definitions_agree_with_each_other() {
    Cli::command().debug_assert();
}

#[test]
fn arguments() {
    // (arguments, whether they are valid)
    let rows = [
        ("run", true),
        ("run --config /x.toml", true),
        ("--config /x.toml run", true),
        ("check", true),
        ("check /x.toml", true),
        ("status -o json", true),
        ("service list", true),
        ("service get kube-dns -o json", true),
        ("service get", false),
        ("service wait kube-dns 10.200.0.44:53 --timeout 5m", true),
        ("service wait kube-dns", false),
        ("service", false),
        ("endpoint list", true),
        ("endpoint wait lxc-client", true),
        ("endpoint wait lxc-client --timeout 250ms", true),
        ("endpoint wait lxc-client --timeout 5", false),
        ("endpoint wait lxc-client --timeout", false),
        ("endpoint wait", false),
        ("endpoint wait lxc-client lxc-late", false),
        ("endpoint wait lxc-client -o json", false),
        ("identity list", true),
        ("identity get 18203", true),
        ("policy list --identity kube-dns", true),
        ("policy check", false),
        ("ct list", true),
        ("ct flush", true),
        ("ct flush -o json", false),
        ("observe", true),
        ("observe --last 5 -o json", true),
        ("observe -o table", false),
        ("observe --last -5", false),
        (
            "observe --from client --from 10.0.0.0/8 --not-to host",
            true,
        ),
        ("observe --from 10.0.0.0/99", false),
        ("observe --ip kube-dns", false),
        ("observe --port 70000", false),
        (
            "observe --protocol tcp --protocol 47 --not-protocol UDP",
            true,
        ),
        ("observe --protocol ftp", false),
        ("observe --verdict dropped --not-verdict audit", true),
        ("observe --verdict lost", false),
        ("status -o yaml", false),
        ("observe --color always", true),
        ("observe --color sometimes", false),
        ("policy list --unused --identity kube-dns", true),
        ("policy check --from client --to kube-dns 53/udp", true),
        ("policy check --from client --to any icmp -o json", true),
        ("policy check --from client --to kube-dns", false),
        ("policy check --from client 53/udp", false),
        ("policy check --from client --to kube-dns 53", false),
        ("policy check --from client --to kube-dns udp", false),
        ("policy check --from client --to kube-dns 53-54/udp", false),
        ("policy check --from client --to kube-dns 8/icmp", false),
        ("policy check --from client --to kube-dns 53/ftp", false),
        ("cleanup", true),
        ("cleanup now", false),
        ("reload", true),
        ("reload now", false),
        ("plan", true),
        ("plan new.toml -o json", true),
        ("plan one.toml two.toml", false),
        ("", false),
    ];
    for (words, expected) in rows {
        let words = std::iter::once("dpd").chain(words.split_whitespace());
        let words: Vec<&str> = words.collect();
        assert_eq!(Cli::try_parse_from(&words).is_ok(), expected, "{words:?}");
    }
}

fn set<T: Ord + std::str::FromStr>(texts: &[&str]) -> BTreeSet<T>
where
    T::Err: std::fmt::Debug,
{
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn catalog() -> Catalog {
    let identity = |name: &str, labels: &[&str], addresses: &[&str]| IdentityInfo {
        name: name.to_owned(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        addresses: set(addresses),
        ..IdentityInfo::default()
    };
    let dns_labels = [
        "k8s-app=kube-dns",
        "io.kubernetes.pod.namespace=kube-system",
    ];
    let rule = |policy: &str, action, peers: &[&str], ports: &[&str], line| RuleInfo {
        policy: policy.to_owned(),
        direction: Direction::Ingress,
        index: 0,
        subject: 18203,
        action,
        peers: peers.iter().map(|peer| (*peer).to_owned()).collect(),
        ports: ports.iter().map(|port| (*port).to_owned()).collect(),
        file: "/etc/dpd/config.toml".to_owned(),
        line,
    };
    let endpoint = |ifindex, identity, addresses: &[&str]| EndpointInfo {
        ifindex,
        identity,
        addresses: set(addresses),
        row: ifindex.unwrap_or(1),
    };
    Catalog {
        config: "/etc/dpd/config.toml".to_owned(),
        node: "node-a".to_owned(),
        identities: BTreeMap::from([
            (1, identity("host", &[], &["192.0.2.1/32"])),
            (
                18203,
                identity("kube-dns", &dns_labels, &["10.200.0.44/32"]),
            ),
            (
                20001,
                identity(
                    "client",
                    &["app=client"],
                    &["10.200.0.64/32", "10.201.0.0/24"],
                ),
            ),
        ]),
        endpoints: BTreeMap::from([
            (
                "lxc-client".to_owned(),
                endpoint(Some(11), 20001, &["10.200.0.64/32", "10.201.0.0/24"]),
            ),
            (
                "lxc-coredns".to_owned(),
                endpoint(Some(12), 18203, &["10.200.0.44/32"]),
            ),
            (
                "lxc-late".to_owned(),
                endpoint(None, 777, &["10.200.0.99/32"]),
            ),
        ]),
        services: BTreeMap::from([(
            1,
            ServiceInfo {
                name: "kube-dns".to_owned(),
                ..ServiceInfo::default()
            },
        )]),
        backends: BTreeMap::from([(
            6,
            BackendInfo {
                drains_since_ns: None,
                identity: None,
                service: 1,
                address: socket("10.200.0.44:53"),
            },
        )]),
        rules: BTreeMap::from([
            (
                3,
                rule(
                    "dns-clients",
                    Action::Allow,
                    &["client"],
                    &["53/udp", "53/tcp"],
                    40,
                ),
            ),
            (
                4,
                rule(
                    "no-office",
                    Action::Deny,
                    &["cidr:198.51.100.0/24"],
                    &[],
                    44,
                ),
            ),
        ]),
        ..Catalog::default()
    }
}

fn state() -> State {
    let frontend = |address: &str, protocol| Frontend {
        address: address.parse().unwrap(),
        port: 53,
        protocol,
    };
    let entry = |lut_count| ServiceEntry {
        service: 1,
        lut_first: 0,
        lut_count,
        is_external: false,
        has_sources: false,
        maglev_first: 0,
        maglev_size: 0,
        affinity_ns: 0,
    };
    let backend = |address, state, weight| Backend {
        service: 1,
        address: socket(address),
        state,
        weight,
        is_picked: true,
    };
    let endpoint = |identity, ingress| Endpoint {
        identity,
        delivery: Delivery::Peer,
        src_mac: [0; 6],
        dst_mac: [0; 6],
        ingress,
        egress: Enforcement::Off,
        counters_index: 1,
        link_ifindex: 1,
        mtu: 1500,
        host: Default::default(),
        multicast: false,
        names_link_local: false,
        link_local: IpcacheEntry {
            identity,
            class: 1,
            is_world: false,
            snat: Default::default(),
            external_frontend: Default::default(),
            scope: AddressScope::Remote,
        },
    };
    let policy = |port| PolicyKey {
        subject: 18203,
        class: 1,
        direction: Direction::Ingress,
        protocol: Some(17),
        port,
        port_bits: 16,
    };
    let allowed = PolicyEntry {
        action: Action::Allow,
        rule: 3,
    };
    State {
        services: BTreeMap::from([
            (frontend("10.32.0.10", Protocol::Udp), entry(2)),
            (frontend("fd00:32::10", Protocol::Tcp), entry(0)),
        ]),
        backends: BTreeMap::from([
            (6, backend("10.200.0.44:53", BackendState::Active, 1)),
            (7, backend("10.200.1.44:5353", BackendState::Draining, 10)),
        ]),
        endpoints: BTreeMap::from([
            (11, endpoint(20001, Enforcement::Off)),
            (12, endpoint(18203, Enforcement::On)),
        ]),
        policy: BTreeMap::from([(policy(53), allowed), (policy(54), allowed)]),
        catalog: Arc::new(catalog()),
        ..State::default()
    }
}

fn endpoint_counts() -> BTreeMap<u32, EndpointCounts> {
    let client = EndpointCounts {
        packets_in: 4,
        bytes_in: 400,
        packets_out: 5,
        bytes_out: 500,
        to_stack: 2,
        answered: 1,
        drops_in: 0,
        drops_out: 0,
    };
    let coredns = EndpointCounts {
        packets_in: 5,
        bytes_in: 500,
        drops_in: 2,
        drops_out: 1,
        ..EndpointCounts::default()
    };
    BTreeMap::from([(11, client), (12, coredns)])
}

fn attachments() -> Vec<Attachment> {
    let attachment = |hook: &str, program: &str, first: &[&str]| Attachment {
        interface: "lxc-client".to_owned(),
        ifindex: 11,
        hook: hook.to_owned(),
        mechanism: "tcx".to_owned(),
        program: program.to_owned(),
        other_programs_first: first.iter().map(|name| (*name).to_owned()).collect(),
    };
    vec![
        attachment("ingress", "dpd_from_container", &["probe"]),
        attachment("egress", "dpd_to_container", &[]),
    ]
}

fn connections() -> Vec<Connection> {
    let request = Connection {
        is_tracked: true,
        protocol: 17,
        state: ConntrackState::Replied,
        src: socket("10.200.0.64:54764"),
        dst: socket("10.32.0.10:53"),
        backend: Some(socket("10.200.0.44:53")),
        source_translation: None,
        src_identity: 20001,
        dst_identity: 18203,
        service: 1,
        backend_id: 6,
        egress_rule: 0,
        ingress_rule: 3,
        packets: 1,
        bytes: 72,
        reply_packets: 1,
        reply_bytes: 88,
        remaining_ns: 4_500_000_000,
        age_ns: 500_000_000,
    };
    let ping = Connection {
        is_tracked: true,
        protocol: 1,
        state: ConntrackState::Unreplied,
        src: socket("10.200.0.64:77"),
        dst: socket("10.200.0.99:0"),
        backend: None,
        dst_identity: 4711,
        service: 0,
        backend_id: 0,
        ingress_rule: 99,
        remaining_ns: 30_000_000_000,
        age_ns: 0,
        ..request.clone()
    };
    vec![request, ping]
}

fn as_table<R: Row>(rows: &[R]) -> String {
    render(Format::Table, rows).unwrap()
}

fn as_json<R: Row>(rows: &[R]) -> Value {
    serde_json::from_str(&render(Format::Json, rows).unwrap()).unwrap()
}

/// With three connections to the backend 6, an hour after the host's start.
fn service_rows(state: &State) -> Vec<service::ServiceRow> {
    let open = BackendConnections { tcp: 1, other: 2 };
    service::Services::new(state, &[((1, 6), open)].into(), 3_600_000_000_000).rows()
}

#[test]
fn services() {
    let rows = service_rows(&state());
    assert_eq!(
        as_table(&rows),
        "\
SERVICE   ID  FRONTEND → BACKEND                    BACKEND-ID  STATE     WEIGHT  CONNECTIONS  LOCATION  ANSWERS    LOCALITY  ALGORITHM  BACKENDS
kube-dns  1   10.32.0.10:53/udp → 10.200.0.44:53    6           active    1       3            remote    workloads  any       random     2
kube-dns  1   10.32.0.10:53/udp → 10.200.1.44:5353  7           draining  10      0            remote    workloads  any       random     2
kube-dns  1   [fd00:32::10]:53/tcp → none           -           -         -       -            -         workloads  any       random     0
"
    );
    assert_eq!(
        as_json(&rows)[0],
        json!({
            "service": "kube-dns", "id": 1, "frontend": "10.32.0.10:53/udp",
            "node_port": null, "external": false, "host": false, "sources": [], "locality": "any",
            "algorithm": "random", "table_size": null, "affinity_seconds": null, "drain_timeout_seconds": null,
            "backends": [
                {"id": 6, "address": "10.200.0.44:53", "identity": null, "state": "active", "drain_seconds_left": null, "weight": 1,
                 "connections": 3,
                 "location": "remote", "network_path": null},
                {"id": 7, "address": "10.200.1.44:5353", "identity": null, "state": "draining", "drain_seconds_left": null, "weight": 10,
                 "connections": 0,
                 "location": "remote", "network_path": null},
            ],
        })
    );
}

#[test]
fn services_for_the_network() {
    let mut state = state();
    let scoped = |scope| IpcacheEntry {
        scope,
        ..state.endpoints[&11].link_local.clone()
    };
    let rows = [
        ("10.200.0.44/32", AddressScope::Endpoint { ifindex: 11 }),
        ("10.200.1.44/32", AddressScope::Remote),
    ];
    state.ipcache = rows
        .map(|(prefix, scope)| (prefix.parse().unwrap(), scoped(scope)))
        .into();
    let node_port = NodePort {
        port: 53,
        protocol: Protocol::Udp,
    };
    let info = state.catalog_mut().services.get_mut(&1).unwrap();
    info.node_ports = [node_port].into();
    info.locality = Locality::Prefer;
    for entry in state.services.values_mut() {
        (entry.is_external, entry.has_sources) = (true, true);
        entry.maglev_size = 1021;
    }
    let sources = ["192.0.2.7/32", "198.51.100.0/24"];
    state.service_sources = sources.map(|source| (1, source.parse().unwrap())).into();
    let rows = service_rows(&state);
    assert_eq!(
        as_table(&rows),
        "\
SERVICE   ID  FRONTEND → BACKEND                    BACKEND-ID  STATE     WEIGHT  CONNECTIONS  LOCATION       ANSWERS                                         LOCALITY  ALGORITHM    BACKENDS
kube-dns  1   10.32.0.10:53/udp → 10.200.0.44:53    6           active    1       3            here           network (192.0.2.7 198.51.100.0/24), workloads  prefer    maglev 1021  2
kube-dns  1   10.32.0.10:53/udp → 10.200.1.44:5353  7           draining  10      0            remote (snat)  network (192.0.2.7 198.51.100.0/24), workloads  prefer    maglev 1021  2
kube-dns  1   [fd00:32::10]:53/tcp → none           -           -         -       -            -              network (192.0.2.7 198.51.100.0/24), workloads  prefer    maglev 1021  0
"
    );
    assert_eq!(
        as_json(&rows)[0],
        json!({
            "service": "kube-dns", "id": 1, "frontend": "10.32.0.10:53/udp",
            "node_port": "node:53/udp", "external": true, "host": false, "sources": ["192.0.2.7", "198.51.100.0/24"], "locality": "prefer",
            "algorithm": "maglev", "table_size": 1021, "affinity_seconds": null, "drain_timeout_seconds": null,
            "backends": [
                {"id": 6, "address": "10.200.0.44:53", "identity": null, "state": "active", "drain_seconds_left": null, "weight": 1,
                 "connections": 3,
                 "location": "here", "network_path": "direct"},
                {"id": 7, "address": "10.200.1.44:5353", "identity": null, "state": "draining", "drain_seconds_left": null, "weight": 10,
                 "connections": 0,
                 "location": "remote", "network_path": "snat"},
            ],
        })
    );
    state.settings.netns_cookie = 1;
    for entry in state.services.values_mut() {
        entry.affinity_ns = 600_000_000_000;
    }
    let kept = service_rows(&state);
    assert!(as_table(&kept).contains("workloads, host  prefer    maglev 1021, affinity 10m"));
    assert_eq!(as_json(&kept)[0]["affinity_seconds"], json!(600.0));
    state.settings.netns_cookie = 0;
    let info = state.catalog_mut().backends.get_mut(&6).unwrap();
    info.identity = Some("kube-dns".to_owned());
    let rows = service_rows(&state);
    let table = as_table(&rows);
    assert!(
        table.contains("10.32.0.10:53/udp → 10.200.0.44:53 (identity kube-dns)  6  "),
        "{table}"
    );
    let backend = &as_json(&rows)[0]["backends"][0];
    assert_eq!(backend["identity"], json!("kube-dns"));
    state.service_sources.clear();
    let open = as_table(&service_rows(&state));
    assert!(open.contains("  network, workloads  "), "{open}");
}

#[test]
fn backends_that_lose_their_connections() {
    let mut state = state();
    let hour = 3_600_000_000_000;
    let catalog = state.catalog_mut();
    catalog.services.get_mut(&1).unwrap().drain_timeout_ns = 300_000_000_000;
    let info = catalog.backends.get_mut(&6).unwrap();
    info.drains_since_ns = Some(hour - 48_500_000_000);
    let rows = [
        (BackendState::Draining, "draining (4m12s)", Some(251.5), 3),
        (BackendState::Removed, "removed (4m12s)", Some(251.5), 3),
        (BackendState::Drained, "drained", None, 0),
        (BackendState::Active, "active", None, 3),
        (BackendState::Maintenance, "maintenance", None, 1),
    ];
    for (backend_state, text, left, connections) in rows {
        state.backends.get_mut(&6).unwrap().state = backend_state;
        let rows = service_rows(&state);
        let table = as_table(&rows);
        assert!(table.contains(&format!("  {text}  ")), "{table}");
        let row = &as_json(&rows)[0];
        assert_eq!(row["drain_timeout_seconds"], json!(300.0));
        let backend = &row["backends"][0];
        assert_eq!(backend["state"], json!(backend_state.to_string()));
        assert_eq!(backend["drain_seconds_left"], json!(left), "{text}");
        assert_eq!(backend["connections"], json!(connections), "{text}");
    }
}

#[test]
fn one_service() {
    for (name, found) in [("kube-dns", 2), ("1", 2), ("kube", 0), ("", 0)] {
        let state = state();
        match service::Services::new(&state, &Default::default(), 0).get(name) {
            Ok(rows) => assert_eq!(rows.len(), found, "{name}"),
            Err(error) => {
                assert_eq!(found, 0, "{name}");
                assert!(error.to_string().contains("has no service"), "{error}");
            }
        }
    }
}

#[test]
fn identities() {
    let rows = identity::rows(&catalog());
    assert_eq!(
        as_table(&rows),
        "\
ID     NAME      LABELS                                                     ADDRESSES
1      host      -                                                          192.0.2.1
18203  kube-dns  k8s-app=kube-dns, io.kubernetes.pod.namespace=kube-system  10.200.0.44
20001  client    app=client                                                 10.200.0.64, 10.201.0.0/24
"
    );
    assert_eq!(
        as_json(&rows)[2],
        json!({
            "id": 20001, "name": "client", "labels": ["app=client"],
            "addresses": ["10.200.0.64", "10.201.0.0/24"],
        })
    );
    let names = ["kube-dns", "18203", "host", "nobody", "18204"];
    let found = names.map(|name| identity::find(&catalog(), name).ok());
    assert_eq!(found, [Some(18203), Some(18203), Some(1), None, None]);
}

#[test]
fn endpoints() {
    let rows = endpoint::rows(&state(), &endpoint_counts(), &attachments());
    assert_eq!(
        as_table(&rows),
        "\
INTERFACE    IFINDEX  STATE     ADDRESSES                   IDENTITY          INGRESS  EGRESS  PACKETS-IN  BYTES-IN  PACKETS-OUT  BYTES-OUT  TO-STACK  DROPS
lxc-client   11       attached  10.200.0.64, 10.201.0.0/24  20001 (client)    off      off     4           400       5            500        2         0
lxc-coredns  12       detached  10.200.0.44                 18203 (kube-dns)  on       off     5           500       0            0          0         3
lxc-late     -        pending   10.200.0.99                 777 (777)         -        -       0           0         0            0          0         0
"
    );
    assert_eq!(
        as_json(&rows)[1],
        json!({
            "interface": "lxc-coredns", "ifindex": 12, "state": "detached", "addresses": ["10.200.0.44"],
            "identity": 18203, "identity_name": "kube-dns",
            "ingress_enforcement": "on", "egress_enforcement": "off",
            "packets_in": 5, "bytes_in": 500, "packets_out": 0, "bytes_out": 0, "to_stack": 0, "answered": 0,
            "drops_in": 2, "drops_out": 1, "drops": 3,
        })
    );
}

#[test]
fn rules() {
    let rows = policy::rows(&state(), &BTreeMap::from([(3, 12)]));
    assert_eq!(
        as_table(&rows),
        "\
ID  RULE                   SUBJECT           DIRECTION  ACTION  PEERS                 PORTS           ENTRIES  HITS  LOCATION
3   dns-clients/ingress/0  18203 (kube-dns)  ingress    allow   client                53/udp, 53/tcp  2        12    /etc/dpd/config.toml:40
4   no-office/ingress/0    18203 (kube-dns)  ingress    deny    cidr:198.51.100.0/24  all             0        0     /etc/dpd/config.toml:44
"
    );
    assert_eq!(
        as_json(&rows)[0],
        json!({
            "id": 3, "rule": "dns-clients/ingress/0", "policy": "dns-clients", "direction": "ingress", "index": 0,
            "subject": "kube-dns", "subject_identity": 18203, "action": "allow", "peers": ["client"],
            "ports": ["53/udp", "53/tcp"], "entries": 2, "hits": 12,
            "file": "/etc/dpd/config.toml", "line": 40,
        })
    );
}

#[test]
fn tracked_connections() {
    let rows = conntrack::rows(&catalog(), connections());
    assert_eq!(
        as_table(&rows),
        "\
PROTOCOL    SOURCE                      DESTINATION               NAT                             SERVICE   STATE      PACKETS  BYTES  REPLIES  REPLY-BYTES  REMAINING  AGE
icmp id 77  10.200.0.64 (client)        10.200.0.99 (4711)        -                               -         unreplied  1        72     1        88           30s        0s
udp         10.200.0.64:54764 (client)  10.32.0.10:53 (kube-dns)  10.32.0.10:53 → 10.200.0.44:53  kube-dns  replied    1        72     1        88           4s         500ms
"
    );
    assert_eq!(
        as_json(&rows)[1],
        json!({
            "protocol": "udp",
            "src_ip": "10.200.0.64", "src_port": 54764, "src_identity": 20001, "src_name": "client",
            "dst_ip": "10.32.0.10", "dst_port": 53, "dst_identity": 18203, "dst_name": "kube-dns",
            "icmp_id": null, "state": "replied", "service": "kube-dns", "service_id": 1,
            "backend_id": 6, "dnat_ip": "10.200.0.44", "dnat_port": 53,
            "snat_ip": null, "snat_port": null,
            "packets": 1, "bytes": 72, "reply_packets": 1, "reply_bytes": 88,
            "remaining_seconds": 4.5, "age_seconds": 0.5,
            "egress_rule": null, "ingress_rule": "dns-clients/ingress/0",
        })
    );
    let ping = &as_json(&rows)[0];
    assert_eq!(
        (&ping["src_port"], &ping["icmp_id"]),
        (&Value::Null, &json!(77))
    );
    assert_eq!(
        ping["ingress_rule"],
        json!("99"),
        "a rule that is not in the catalog"
    );
}

#[test]
fn an_empty_listing() {
    let none: [service::ServiceRow; 0] = [];
    assert_eq!(render(Format::Json, &none).unwrap(), "[]\n");
    assert_eq!(as_table(&none).lines().count(), 1);
}

#[test]
fn every_key_is_documented() {
    let state = state();
    let first = |rows: Value| rows[0].clone();
    documented::check("service list", &first(as_json(&service_rows(&state))));
    let endpoints = endpoint::rows(&state, &endpoint_counts(), &attachments());
    documented::check("endpoint list", &first(as_json(&endpoints)));
    let identities = identity::rows(&state.catalog);
    documented::check("identity list", &first(as_json(&identities)));
    let rules = policy::rows(&state, &BTreeMap::new());
    documented::check("policy list", &first(as_json(&rules)));
    let connections = conntrack::rows(&state.catalog, connections());
    documented::check("ct list", &first(as_json(&connections)));
}
