//! The page: its series, that Prometheus accepts it, and what is truncated.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::catalog::{
    BackendInfo, Catalog, EndpointInfo, PrefilterInfo, RuleInfo, ServiceInfo, UplinkInfo,
};
use crate::model::conntrack::{BackendConnections, ConntrackState, Tally};
use crate::model::drop_reason;
use crate::model::forwarding::Forwarding;
use crate::model::policy::{Action, Direction};
use crate::model::process::Usage;
use crate::model::service::BackendState;
use crate::model::status::{
    Attachment, ConntrackCounts, DriftCounts, EventLoss, MapStatus, Metric, ProgramStatus,
};
use crate::model::xdp::XdpMode;

fn catalog(backends: u32) -> Catalog {
    let endpoint = EndpointInfo {
        ifindex: Some(11),
        identity: 20001,
        addresses: BTreeSet::new(),
        row: 1,
    };
    let uplink = |ifindex| UplinkInfo {
        ifindex,
        is_ethernet: true,
        xdp: XdpMode::Auto,
        forwarding: Forwarding::Direct,
        forwarding_reason: String::new(),
        masquerade: Default::default(),
        announced: Default::default(),
    };
    let service = |name: &str| ServiceInfo {
        name: name.to_owned(),
        external: name == "kube-dns",
        ..ServiceInfo::default()
    };
    let backend = |number: u32| BackendInfo {
        drains_since_ns: None,
        identity: None,
        service: 1,
        address: (std::net::Ipv4Addr::from(0x0a00_0000 + number), 53).into(),
    };
    let rule = RuleInfo {
        policy: "dns-clients".to_owned(),
        direction: Direction::Ingress,
        index: 0,
        subject: 18203,
        action: Action::Allow,
        peers: Vec::new(),
        ports: Vec::new(),
        file: String::new(),
        line: 1,
    };
    let denied = PrefilterInfo {
        table: "abusers".to_owned(),
        prefix: "198.51.100.66/32".parse().unwrap(),
    };
    Catalog {
        endpoints: [("lxc-client".to_owned(), endpoint)].into(),
        uplinks: [
            ("ens5".to_owned(), uplink(Some(2))),
            ("ens6".to_owned(), uplink(None)),
        ]
        .into(),
        services: [(1, service("kube-dns")), (2, service("a \"quoted\" name"))].into(),
        backends: (1..=backends).map(|n| (n, backend(n))).collect(),
        rules: [(7, rule)].into(),
        prefilter: [(3, denied)].into(),
        ..Catalog::default()
    }
}

fn counters() -> Vec<Metric> {
    let counter = |ifindex, reason, packets| Metric {
        ifindex,
        direction: "ingress".to_owned(),
        reason,
        reason_text: drop_reason::words(reason).to_owned(),
        packets,
        bytes: 60 * packets,
    };
    vec![
        counter(11, 0, 9),
        counter(11, 133, 2),
        counter(11, 181, 1),
        // An interface that has just left the file.
        counter(12, 133, 1),
    ]
}

fn work() -> Work {
    let tcp = |tcp| BackendConnections { tcp, other: 5 };
    let tally = Tally {
        entries: [("dpd_ct_tcp", 6)].into(),
        by_state: [
            ((6, ConntrackState::Established), 3),
            ((50, ConntrackState::Established), 1),
            ((51, ConntrackState::Established), 1),
        ]
        .into(),
        by_backend: [((1, 1), tcp(2)), ((1, 2), tcp(1)), ((9, 9), tcp(1))].into(),
        by_external_backend: [((1, 1), tcp(2)), ((9, 9), tcp(1))].into(),
        ..Tally::default()
    };
    let mut sweeps = Times::default();
    sweeps.add(Duration::from_millis(250));
    sweeps.add(Duration::from_millis(500));
    Work {
        file_applied_seconds: 1_700_000_000.5,
        reloads_done: 3,
        reloads_failed: 1,
        file_failed: true,
        warnings: 2,
        sweeps,
        sweep: Some(Sweep {
            at_seconds: 1_700_000_003.0,
            tally: Arc::new(tally),
            counts: ConntrackCounts {
                inserted: 20,
                deleted: 13,
                present: 6,
                evicted: 1,
            },
        }),
        backends: [(BackendState::Active, 2)].into(),
        ending: [1, 2, 9]
            .map(|number| (number, BackendState::Maintenance))
            .into(),
        drift: DriftCounts {
            pins: 6,
            ..DriftCounts::default()
        },
        events: 40,
        observers_lost: 5,
        journal_lost: 6,
        ..Work::default()
    }
}

/// Data for every family.
fn facts(backends: u32) -> Facts {
    let map = |name: &str, entries, max_entries| MapStatus {
        name: name.to_owned(),
        kind: "Hash".to_owned(),
        entries,
        max_entries,
        memory_bytes: 4096,
    };
    Facts {
        version: "0.1.0",
        revision: 12,
        catalog: Arc::new(catalog(backends)),
        counters: Some(counters()),
        rule_hits: Some([(7, 70), (8, 80)].into()),
        prefilter_hits: Some([(3, 30), (4, 40)].into()),
        malformed: Some(17),
        responses_limited: Some(18),
        event_loss: Some(EventLoss {
            ring_full: 1,
            rate_limited: 2,
            throttle_full: 3,
            no_settings: 4,
            suppressed: 7,
        }),
        maps: Some(vec![
            map("dpd_ct_tcp", Some(6), 262_144),
            map("dpd_events", None, 4_194_304),
        ]),
        programs: Some(vec![ProgramStatus {
            name: "tail_lb".to_owned(),
            id: 3,
            verified_instructions: 4321,
            jited_bytes: 2000,
        }]),
        xdp: vec![Attachment {
            interface: "ens5".to_owned(),
            mechanism: "native".to_owned(),
            ..Attachment::default()
        }],
        usage: Some(Usage {
            cpu_seconds: 1.25,
            resident_bytes: 12 << 20,
            max_fds: Some(1024),
            ..Usage::default()
        }),
        work: work(),
    }
}

/// The series of a page with their values.
fn series(page: &str) -> BTreeMap<&str, &str> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let mut series = BTreeMap::new();
    for line in lines {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(series.insert(name, value).is_none(), "twice: {name}");
    }
    series
}

/// The families of a page, with their kinds, in its order.
fn written(page: &str) -> Vec<(&str, &str)> {
    let lines = page.lines();
    lines
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect()
}

#[test]
fn facts_are_written_as_series() {
    let page = page(&facts(2)).unwrap();
    let series = series(&page);
    let rows = [
        (
            r#"dpd_forwarded_packets_total{interface="lxc-client",direction="ingress"}"#,
            "9",
        ),
        (
            r#"dpd_forwarded_bytes_total{interface="lxc-client",direction="ingress"}"#,
            "540",
        ),
        (
            r#"dpd_dropped_packets_total{interface="lxc-client",direction="ingress",reason="policy denied: no rule",code="133"}"#,
            "2",
        ),
        (
            r#"dpd_dropped_packets_total{interface="lxc-client",direction="ingress",reason="policy denied: deny rule",code="181"}"#,
            "1",
        ),
        (
            r#"dpd_dropped_bytes_total{interface="12",direction="ingress",reason="policy denied: no rule",code="133"}"#,
            "60",
        ),
        (r#"dpd_interfaces{role="uplink",state="pending"}"#, "1"),
        (r#"dpd_xdp_attached{interface="ens5",mode="native"}"#, "1"),
        (r#"dpd_prefilter_prefixes{table="abusers"}"#, "1"),
        ("dpd_xdp_malformed_frames_total", "17"),
        ("dpd_responses_limited_total", "18"),
        (
            r#"dpd_prefilter_dropped_packets_total{table="abusers",prefix="198.51.100.66/32"}"#,
            "30",
        ),
        (
            r#"dpd_conntrack_connections{protocol="tcp",state="established"}"#,
            "3",
        ),
        (
            r#"dpd_conntrack_connections{protocol="other",state="established"}"#,
            "2",
        ),
        (
            r#"dpd_conntrack_connections{protocol="udp",state="replied"}"#,
            "0",
        ),
        ("dpd_conntrack_evicted_entries_total", "1"),
        ("dpd_conntrack_sweep_duration_seconds_sum", "0.75"),
        ("dpd_conntrack_sweep_duration_seconds_count", "2"),
        (r#"dpd_service_connections{service="kube-dns"}"#, "3"),
        (
            r#"dpd_service_external_connections{service="kube-dns"}"#,
            "2",
        ),
        (
            r#"dpd_service_connections{service="a \"quoted\" name"}"#,
            "0",
        ),
        (
            r#"dpd_backend_connections{service="kube-dns",backend="10.0.0.1:53"}"#,
            "2",
        ),
        (
            r#"dpd_policy_rule_hits_total{rule="dns-clients/ingress/0",action="allow"}"#,
            "70",
        ),
        (r#"dpd_map_entries{map="dpd_ct_tcp"}"#, "6"),
        (r#"dpd_map_memory_bytes{map="dpd_events"}"#, "4096"),
        (
            r#"dpd_program_verified_instructions{program="tail_lb"}"#,
            "4321",
        ),
        ("dpd_config_revision", "12"),
        ("dpd_config_last_reload_successful", "0"),
        (
            "dpd_config_last_reload_success_timestamp_seconds",
            "1700000000.5",
        ),
        (r#"dpd_config_reloads_total{result="failure"}"#, "1"),
        (r#"dpd_events_lost_total{cause="ring_full"}"#, "1"),
        (r#"dpd_events_lost_total{cause="observer"}"#, "5"),
        (r#"dpd_drift_repaired_total{kind="pins"}"#, "6"),
        (r#"dpd_backends{state="active"}"#, "2"),
        ("process_resident_memory_bytes", "12582912"),
        (r#"dpd_collector_success{collector="maps"}"#, "1"),
    ];
    for (name, value) in rows {
        assert_eq!(series.get(name), Some(&value), "{name}\n{page}");
    }
    assert!(
        !series.contains_key(r#"dpd_map_entries{map="dpd_events"}"#),
        "a ring has no entries"
    );
    let external = series.keys();
    let external = external.filter(|name| name.starts_with("dpd_service_external_connections"));
    assert_eq!(external.count(), 1, "of external services alone");
}

#[test]
fn every_family_is_listed_and_written() {
    // One page has all families but the truncated one, the other has that.
    let mut listed: Vec<(&str, &str)> = families()
        .map(|family| (family.name, family.kind.name()))
        .collect();
    let (page, truncated) = (
        page(&facts(2)).unwrap(),
        page(&facts(SERIES_MAX as u32 + 1)).unwrap(),
    );
    let mut found = written(&page);
    let last = written(&truncated);
    found.extend(
        last.iter()
            .filter(|family| family.0 == "dpd_metric_series_truncated"),
    );
    listed.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, listed);
}

#[test]
fn promtool_finds_no_problem() {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run promtool (of the package prometheus)");
    let page = page(&facts(SERIES_MAX as u32 + 1)).unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(page.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.is_empty(), "{text}");
}

#[test]
fn too_many_series_are_truncated_and_counted() {
    let page = page(&facts(SERIES_MAX as u32 + 1)).unwrap();
    let series = series(&page);
    let truncated = r#"dpd_metric_series_truncated{metric="dpd_backend_connections"}"#;
    assert_eq!(series.get(truncated), Some(&"10001"));
    let backends = series.keys();
    let backends = backends.filter(|name| name.starts_with("dpd_backend_connections"));
    assert_eq!(backends.count(), 0);
    let services = r#"dpd_service_connections{service="kube-dns"}"#;
    assert_eq!(series.get(services), Some(&"3"), "services are few enough");
}

#[test]
fn a_part_that_can_not_be_read_hides_no_other() {
    let facts = Facts {
        maps: None,
        counters: None,
        ..facts(2)
    };
    let page = page(&facts).unwrap();
    let series = series(&page);
    let success = |collector: &str| {
        let name = format!("dpd_collector_success{{collector=\"{collector}\"}}");
        series.get(name.as_str()).copied()
    };
    assert_eq!(success("maps"), Some("0"));
    assert_eq!(success("counters"), Some("0"));
    assert_eq!(success("programs"), Some("1"));
    assert!(!page.contains("dpd_map_"), "{page}");
    assert!(page.contains("dpd_program_jited_bytes"), "{page}");
}
