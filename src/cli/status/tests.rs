//! The screen and the JSON, in good and bad states.

use std::path::Path;

use anyhow::{Context, anyhow};

use super::prefilter::Prefilter;
use super::report::Conntrack;
use super::*;
use crate::bpf::reader::Reader;
use crate::model::announce::{Announcement, AnnouncementState};
use crate::model::catalog::Catalog;
use crate::model::conntrack::{ConntrackState, SnatPeer, Tally};
use crate::model::forwarding::Forwarding;
use crate::model::status::{
    Amount, Attachment, ConntrackCounts, DaemonStatus, DriftCounts, DropInStatus, EventLoss,
    MapStatus, Metric, ProgramStatus, RecentDrops, SocketAttachment,
};

fn node() -> Node {
    Node {
        runtime_config: None,
        config: "/etc/dpd/config.toml".into(),
        bpf_root: "/sys/fs/bpf/dpd".into(),
        socket: "/run/dpd/dpd.sock".into(),
        log: crate::config::LogTarget::Auto,
        expedite_rcu: false,
        is_certain: true,
    }
}

/// An endpoint, two uplinks, and three prefixes of the prefilter.
fn catalog() -> Catalog {
    use crate::model::catalog::{EndpointInfo, PrefilterInfo, UplinkInfo};
    use crate::model::xdp::XdpMode;
    let endpoint = EndpointInfo {
        ifindex: Some(11),
        identity: 20001,
        addresses: Default::default(),
        row: 1,
    };
    let uplink = |ifindex| UplinkInfo {
        ifindex,
        is_ethernet: true,
        xdp: XdpMode::Auto,
        forwarding: Forwarding::Stack,
        forwarding_reason: "nftables inet filter/forward has rules".to_owned(),
        masquerade: Default::default(),
        announced: Some(["203.0.113.11".parse().unwrap()].into()),
    };
    let denied = |table: &str, prefix: &str| PrefilterInfo {
        table: table.to_owned(),
        prefix: prefix.parse().unwrap(),
    };
    Catalog {
        endpoints: [("lxc-client".to_owned(), endpoint)].into(),
        uplinks: [("ens5", Some(2)), ("ens6", None)]
            .map(|(name, ifindex)| (name.to_owned(), uplink(ifindex)))
            .into(),
        prefilter: [
            (1, denied("abusers", "198.51.100.66/32")),
            (2, denied("bogons", "203.0.113.0/24")),
            (3, denied("bogons", "2001:db8:bad::/48")),
        ]
        .into(),
        ..Catalog::default()
    }
}

#[test]
fn prefilter_lines() {
    let prefilter = |catalog, hits: &[(u32, u64)], malformed| {
        let mut status = Status::new(&node(), no_daemon(), no_datapath());
        let hits = hits.iter().copied().collect();
        status.prefilter = Prefilter::new(&catalog, &hits, malformed);
        let mut out = String::new();
        screen::write_prefilter(&status, &mut out);
        out
    };
    let rows = [
        ("no prefilter", Catalog::default(), &[][..], 0, ""),
        (
            "hits of a removed prefix",
            Catalog::default(),
            &[(7, 1)],
            1,
            "",
        ),
        (
            "nothing dropped yet, a counter of zero included",
            catalog(),
            &[(1, 0)],
            0,
            "\nprefilter: 3 prefixes, nothing dropped\n",
        ),
        (
            "malformed frames only",
            catalog(),
            &[],
            2,
            "\nprefilter: 3 prefixes, nothing dropped\nprefilter: 2 malformed frames passed on\n",
        ),
        (
            "both",
            catalog(),
            &[(1, 4)],
            1,
            "\nPREFILTER         TABLE       PACKETS\n198.51.100.66/32  abusers     4\n\
             total             3 prefixes  4\nprefilter: 1 malformed frame passed on\n",
        ),
    ];
    for (sentence, catalog, hits, malformed, text) in rows {
        assert_eq!(prefilter(catalog, hits, malformed), text, "{sentence}");
    }
}

fn no_daemon() -> Result<DaemonStatus> {
    let error = std::io::Error::from(std::io::ErrorKind::NotFound);
    Err(error).context("no daemon listens at /run/dpd/dpd.sock")
}

fn no_datapath() -> Result<Reader> {
    Err(anyhow!(
        "no datapath of dpd at {}",
        Path::new("/sys/fs/bpf/dpd").display()
    ))
}

fn announcement(address: &str, state: AnnouncementState) -> Announcement {
    let has_it = state == AnnouncementState::Conflict;
    Announcement {
        interface: "ens5".to_owned(),
        address: address.parse().unwrap(),
        state,
        defender: has_it.then(|| "02:00:00:00:00:0b".to_owned()),
    }
}

pub(in crate::cli) fn daemon() -> DaemonStatus {
    DaemonStatus {
        drop_ins: vec![
            DropInStatus {
                path: "/run/dpd/config.d/a.toml".to_owned(),
                reason: None,
            },
            DropInStatus {
                path: "/run/dpd/config.d/b.toml".to_owned(),
                reason: Some("error: there is no identity \"b\"\n --> b.toml:3:1".to_owned()),
            },
        ],
        announcements: vec![
            announcement("203.0.113.10", AnnouncementState::Conflict),
            announcement("203.0.113.11", AnnouncementState::Announced),
        ],
        pid: 4711,
        version: "0.1.0".to_owned(),
        uptime_seconds: 3700,
        config: "/etc/dpd/config.toml".to_owned(),
        last_error: Some("config.toml:3: unknown key\n  colour = 1\n  ^^^^^^".to_owned()),
        reloads: 7,
        is_reloading: false,
        reload_error: None,
        applied_seconds_ago: 61,
        pending: vec!["lxc-late".to_owned()],
        warnings: vec![
            "no route to 10.200.0.64: ip route add 10.200.0.64/32 dev lxc-client".to_owned(),
        ],
        hints: vec!["lxc-client has only private addresses".to_owned()],
        observers_lost: 3,
        journal_lost: 5,
        drift: DriftCounts {
            attachments: 1,
            epoch: 0,
            pins: 2,
            tables: 0,
        },
        recent_drops: Some(RecentDrops {
            seconds: 58,
            by_reason: [(
                133,
                Amount {
                    packets: 2,
                    bytes: 120,
                },
            )]
            .into(),
        }),
    }
}

/// A destination of many masqueraded connections.
fn world() -> SnatPeer {
    SnatPeer {
        protocol: 6,
        source: [192, 0, 2, 1].into(),
        destination: ([203, 0, 113, 9], 443).into(),
    }
}

/// A datapath as the reader would return it.
fn with_datapath(daemon: Result<DaemonStatus>) -> Status {
    let recent = daemon
        .as_ref()
        .ok()
        .and_then(|status| status.recent_drops.clone());
    let known = daemon.as_ref().ok();
    let known = known.map(|status| status.announcements.clone());
    let mut status = Status::new(&node(), daemon, no_datapath());
    status.warnings.pop();
    status.config.revision = Some(12);
    let attachment =
        |interface: &str, ifindex, hook: &str, mechanism: &str, program: &str| Attachment {
            interface: interface.to_owned(),
            ifindex,
            hook: hook.to_owned(),
            mechanism: mechanism.to_owned(),
            program: program.to_owned(),
            other_programs_first: Vec::new(),
        };
    let catalog = catalog();
    let client = attachment("lxc-client", 11, "ingress", "tcx", "dpd_from_container");
    status.interfaces = interfaces::all(
        &catalog,
        vec![
            attachment("ens5", 2, "xdp", "native", "dpd_xdp_entry"),
            attachment("ens5", 2, "ingress", "tcx", "dpd_from_netdev"),
            Attachment {
                other_programs_first: vec!["probe".to_owned()],
                ..client
            },
        ],
    );
    interfaces::add_announcements(&mut status.interfaces, &known.unwrap_or_default());
    status.sockets = vec![SocketAttachment {
        hook: "connect4".to_owned(),
        program: "dpd_sock_connect4".to_owned(),
        cgroup_id: 1,
        cgroup: Some("/sys/fs/cgroup".to_owned()),
    }];
    status.prefilter = Prefilter::new(&catalog, &[(1, 2), (2, 40), (9, 7)].into(), 0);
    status.programs = vec![ProgramStatus {
        name: "dpd_from_container".to_owned(),
        id: 31,
        verified_instructions: 4321,
        jited_bytes: 2000,
    }];
    let map = |name: &str, entries, max_entries| MapStatus {
        name: name.to_owned(),
        kind: "lru_hash".to_owned(),
        entries,
        max_entries,
        memory_bytes: 4096,
    };
    status.maps = vec![
        map("dpd_ct_tcp", Some(1), 131_072),
        map("dpd_events", None, 0),
    ];
    let counts = ConntrackCounts {
        inserted: 9,
        deleted: 5,
        present: 3,
        evicted: 1,
    };
    let tally = Tally {
        by_state: [
            ((6, ConntrackState::Established), 120),
            ((6, ConntrackState::Closing), 3),
            ((17, ConntrackState::Replied), 4),
        ]
        .into(),
        source_ports: 100,
        by_snat: [(world(), 75)].into(),
        ..Tally::default()
    };
    status.conntrack = Some(Conntrack::new((tally, counts)));
    let metric = |ifindex, reason, packets| Metric {
        ifindex,
        direction: "ingress".to_owned(),
        reason,
        reason_text: "policy denied: no rule".to_owned(),
        packets,
        bytes: 60 * packets,
    };
    let metrics = [metric(11, 133, 2), metric(12, 133, 1), metric(12, 0, 9)];
    status.drops = drops::by_reason(&metrics, recent.as_ref());
    status.event_loss.kernel = EventLoss {
        ring_full: 1,
        rate_limited: 2,
        throttle_full: 3,
        no_settings: 5,
        suppressed: 4,
    };
    status.problems = health::problems(&status);
    status
}

/// A daemon and a datapath without a problem.
fn healthy() -> Status {
    let mut status = with_datapath(Ok(DaemonStatus {
        last_error: None,
        warnings: Vec::new(),
        hints: Vec::new(),
        drift: DriftCounts::default(),
        journal_lost: 0,
        drop_ins: Vec::new(),
        ..daemon()
    }));
    status.config.is_unreadable = false;
    if let Some(conntrack) = &mut status.conntrack {
        conntrack.source_ports = None;
    }
    status.event_loss.kernel = EventLoss {
        suppressed: 4,
        ..EventLoss::default()
    };
    for interface in &mut status.interfaces {
        interface.state = "attached";
        for attachment in &mut interface.attachments {
            attachment.other_programs_first.clear();
        }
    }
    status
}

#[test]
fn what_counts_as_a_problem() {
    type Change = fn(&mut Status);
    let rows: [(&str, Change, &[&str]); 22] = [
        (
            "drops, suppressed drops and a slow observer are none",
            |_| {},
            &[],
        ),
        (
            "a pending endpoint is none",
            |status| status.interfaces[2].state = "pending",
            &[],
        ),
        (
            "the daemon is down",
            |status| status.daemon.state = "down",
            &["the daemon is down"],
        ),
        (
            "the daemon hangs",
            |status| status.daemon.state = "unreachable",
            &["the daemon does not reply"],
        ),
        (
            "no datapath",
            |status| status.config.revision = None,
            &["there is no datapath"],
        ),
        (
            "a datapath that can't be read",
            |status| {
                status.config.revision = None;
                status.config.is_unreadable = true;
            },
            &["the datapath can't be read"],
        ),
        (
            "a refused file",
            |status| status.config.last_error = Some("wrong".to_owned()),
            &["the last configuration is not applied, or not all of it"],
        ),
        (
            "an interface without programs",
            |status| status.interfaces[2].state = "detached",
            &["lxc-client is detached"],
        ),
        (
            "an uplink that does not exist",
            |status| status.interfaces[1].state = "pending",
            &["uplink ens6 is pending"],
        ),
        (
            "other programs",
            |status| {
                let probe = vec!["probe".to_owned()];
                status.interfaces[0].attachments[0].other_programs_first = probe;
            },
            &["other programs come first at ens5"],
        ),
        (
            "several interfaces are one entry",
            |status| {
                for interface in &mut status.interfaces {
                    interface.state = "detached";
                }
            },
            &["ens5 is detached, and 2 more interfaces"],
        ),
        (
            "a map that is nearly full",
            |status| status.maps[0].entries = Some(131_072 / 5 * 4),
            &["dpd_ct_tcp is 80% full"],
        ),
        (
            "a map that keeps what is not used any more",
            |status| {
                status.maps[0].name = "dpd_socket_flows".to_owned();
                status.maps[0].entries = Some(131_072);
            },
            &[],
        ),
        (
            "a map with room",
            |status| status.maps[0].entries = Some(131_072 / 4 * 3),
            &[],
        ),
        (
            "an event that is lost in the kernel",
            |status| status.event_loss.kernel.ring_full = 1,
            &["1 lost event"],
        ),
        (
            "flows that are not in the journal",
            |status| status.event_loss.journal = 7,
            &["7 lost events"],
        ),
        (
            "drift",
            |status| {
                status.drift = Some(DriftCounts {
                    attachments: 1,
                    epoch: 0,
                    pins: 2,
                    tables: 0,
                });
            },
            &["3 repairs of drift"],
        ),
        (
            "skipped drop-ins",
            |status| {
                let drop_in = |path: &str| DropInStatus {
                    path: path.to_owned(),
                    reason: Some("wrong".to_owned()),
                };
                let drop_ins = ["a", "b"].map(drop_in);
                status.drop_ins = drop_ins.iter().map(super::daemon::DropIn::new).collect();
            },
            &["2 drop-ins are skipped"],
        ),
        (
            "source ports are scarce",
            |status| {
                let tally = |used| Tally {
                    source_ports: 100,
                    by_snat: [(world(), used)].into(),
                    ..Tally::default()
                };
                let of = |used| Conntrack::new((tally(used), ConntrackCounts::default()));
                status.conntrack = Some(of(74));
                assert_eq!(health::problems(status), [""; 0]);
                let unused = Tally {
                    source_ports: 0,
                    ..tally(75)
                };
                let unused = Conntrack::new((unused, ConntrackCounts::default()));
                status.conntrack = Some(unused);
                assert_eq!(health::problems(status), [""; 0], "no connection gets one");
                status.conntrack = Some(of(101));
            },
            &["0 of 100 source ports are free to 203.0.113.9:443/tcp"],
        ),
        (
            "a hint is none",
            |status| status.hints.push("private addresses".to_owned()),
            &[],
        ),
        (
            "a warning",
            |status| status.warnings.push("no route".to_owned()),
            &["1 warning"],
        ),
        (
            "the worst comes first",
            |status| {
                status.warnings = vec!["no route".to_owned(); 2];
                status.daemon.state = "down";
            },
            &["the daemon is down", "2 warnings"],
        ),
    ];
    for (sentence, change, problems) in rows {
        let mut status = healthy();
        change(&mut status);
        status.problems = health::problems(&status);
        assert_eq!(status.problems, problems, "{sentence}");
        let line = match problems {
            [] => "health:     ok".to_owned(),
            problems => format!("health:     {}", problems.join("; ")),
        };
        let text = screen::screen(&status);
        assert_eq!(text.lines().next(), Some(line.as_str()), "{sentence}");
    }
}

#[test]
fn a_screen() {
    assert_eq!(
        screen::screen(&with_datapath(Ok(daemon()))),
        "\
health:     the last configuration is not applied, or not all of it; 1 drop-in is skipped; uplink ens6 is pending, and 1 more interface; 25 of 100 source ports are free to 203.0.113.9:443/tcp; 16 lost events; 3 repairs of drift; 1 warning
daemon:     up, pid 4711, version 0.1.0, for 1h01m
config:     /etc/dpd/config.toml, revision 12, applied 1m01s ago
last error: config.toml:3: unknown key
              colour = 1
              ^^^^^^
drop-ins:   1 in effect, 1 skipped
            /run/dpd/config.d/b.toml: error: there is no identity \"b\" --> b.toml:3:1
sockets:    services answer the host's own, by 1 program at /sys/fs/cgroup
conntrack:  3 present, 9 inserted, 5 deleted, 1 evicted before they expired
            tcp 120 established, 3 closing; udp 4 replied
            SNAT: 75 of 100 source ports are in use from 192.0.2.1 to 203.0.113.9:443/tcp: 25 free
event loss: 1 ring full, 2 over the rate, 3 throttle full, 5 no settings, 3 observers too slow, 5 not logged; 4 drops suppressed
drift:      repaired: 1 attachments, 0 tables, 2 pins, 0 times the revision

INTERFACE   IFINDEX  ROLE      STATE     BY                       OTHER PROGRAMS FIRST
ens6        -        uplink    pending   -                        -
lxc-client  11       endpoint  attached  tcx ingress              ingress: probe
ens5        2        uplink    attached  tcx ingress; native xdp  -
ens6: forwarding stack: nftables inet filter/forward has rules
ens5: forwarding stack: nftables inet filter/forward has rules
ens6: l2_announce: 1 announced
ens5: l2_announce: 1 announced, 1 in conflict (203.0.113.10 is at 02:00:00:00:00:0b)

PROGRAM             VERIFIED
dpd_from_container  4321

MAP         KIND      ENTRIES  MAX     FULL  MEMORY
dpd_ct_tcp  lru_hash  1        131072  1%    4.0 KiB
dpd_events  lru_hash  -        0       -     4.0 KiB

PREFILTER         TABLE       PACKETS
203.0.113.0/24    bogons      40
198.51.100.66/32  abusers     2
total             3 prefixes  42

DROP REASON                   LAST 58s  PACKETS  BYTES
policy denied: no rule (133)  2         3        180

warning: no route to 10.200.0.64: ip route add 10.200.0.64/32 dev lxc-client
note: lxc-client has only private addresses
"
    );
}

#[test]
fn lines_on_the_daemon_in_bad_states() {
    let hung = || Err(anyhow!("the daemon at /run/dpd/dpd.sock does not reply"));
    let rows = [
        (
            "the daemon is down, its datapath works",
            with_datapath(no_daemon()),
            "daemon:     down (no daemon listens at /run/dpd/dpd.sock: entity not found); the datapath still works",
        ),
        (
            "neither daemon nor datapath",
            Status::new(&node(), no_daemon(), no_datapath()),
            "daemon:     down (no daemon listens at /run/dpd/dpd.sock: entity not found); there is no datapath either",
        ),
        (
            "the datapath of another version",
            {
                let mut status = Status::new(&node(), no_daemon(), no_datapath());
                status.config.other_version = Some("abi-3".to_owned());
                status
            },
            "daemon:     down (no daemon listens at /run/dpd/dpd.sock: entity not found); the datapath of another version of dpd (abi-3) still works, which this one can't read",
        ),
        (
            "the daemon hangs",
            with_datapath(hung()),
            "daemon:     unreachable (the daemon at /run/dpd/dpd.sock does not reply)",
        ),
    ];
    for (sentence, status, line) in rows {
        assert_eq!(
            screen::screen(&status).lines().nth(1),
            Some(line),
            "{sentence}"
        );
    }
}

#[test]
fn json_has_every_key_always() {
    for status in [
        with_datapath(Ok(daemon())),
        Status::new(&node(), no_daemon(), no_datapath()),
    ] {
        let value = serde_json::to_value(&status).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        let expected = [
            "config",
            "conntrack",
            "daemon",
            "datapath",
            "drift",
            "drop_ins",
            "drops",
            "drops_recent_seconds",
            "event_loss",
            "hints",
            "interfaces",
            "maps",
            "prefilter",
            "problems",
            "programs",
            "responses_limited",
            "sockets",
            "warnings",
        ];
        assert_eq!(keys, expected);
    }
    let status = serde_json::to_value(with_datapath(Ok(daemon()))).unwrap();
    assert_eq!(status["config"]["revision"], 12);
    assert_eq!(status["event_loss"]["ring_full"], 1);
    assert_eq!(status["event_loss"]["suppressed"], 4);
    assert_eq!(status["event_loss"]["journal"], 5);
    assert_eq!(status["interfaces"][0]["role"], "uplink");
    assert_eq!(status["interfaces"][0]["xdp"], "auto");
    assert_eq!(status["interfaces"][0]["forwarding"], "stack");
    let reason = &status["interfaces"][0]["forwarding_reason"];
    assert_eq!(reason, "nftables inet filter/forward has rules");
    assert_eq!(
        status["interfaces"][2]["forwarding_reason"],
        serde_json::Value::Null
    );
    assert_eq!(status["prefilter"]["packets"], 42);
    let first = &status["prefilter"]["hits"][0];
    assert_eq!(
        *first,
        serde_json::json!({"prefix": "203.0.113.0/24", "table": "bogons", "packets": 40})
    );
    assert_eq!(status["event_loss"]["observers"], 3);
}

#[test]
fn every_key_is_documented() {
    crate::cli::documented::check("status", &with_datapath(Ok(daemon())));
}

/// A host with many of everything, some in a bad state.
fn crowded() -> Status {
    let mut status = with_datapath(Ok(daemon()));
    let interface = |number: u32| interfaces::InterfaceStatus {
        interface: format!("lxc-{number:04}"),
        ifindex: Some(number),
        role: Some("endpoint"),
        xdp: None,
        prefilter: None,
        forwarding: None,
        forwarding_reason: None,
        announcements: Vec::new(),
        state: if number < 998 { "attached" } else { "pending" },
        attachments: Vec::new(),
    };
    status.interfaces.extend((1..1000).map(interface));
    let map = status.maps[0].clone();
    status.maps.extend((0..30).map(|number| MapStatus {
        name: format!("table-{number}"),
        memory_bytes: 1 << 20,
        ..map.clone()
    }));
    status.maps[0].entries = Some(131_000);
    let program = status.programs[0].clone();
    status.programs.extend((0..13).map(|number| ProgramStatus {
        name: format!("tail_{number}"),
        ..program.clone()
    }));
    let denied = |number: u32| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
        let info = crate::model::catalog::PrefilterInfo {
            table: "abusers".to_owned(),
            prefix: std::net::IpAddr::from(address).into(),
        };
        (number, info)
    };
    let catalog = Catalog {
        prefilter: (1..=50_000).map(denied).collect(),
        ..Catalog::default()
    };
    let hits = (1..=50_000).map(|number| (number, u64::from(number)));
    status.prefilter = Prefilter::new(&catalog, &hits.collect(), 0);
    let reason = |reason: u8| drops::Drops {
        reason,
        reason_text: "some reason".to_owned(),
        packets: u64::from(reason),
        bytes: 1,
        recent_packets: Some(u64::from(reason == 140)),
        recent_bytes: Some(0),
    };
    status.drops = (132..160).map(reason).collect();
    let warning = status.warnings[0].clone();
    status.warnings = vec![warning; 1000];
    status
}

#[test]
fn a_large_host_is_one_screen_too() {
    let text = screen::screen(&crowded());
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() <= 71, "{} lines:\n{text}", lines.len());
    let rows = [
        (
            "interfaces that are not attached come first",
            "lxc-0999    999      endpoint  pending   -                        -",
        ),
        (
            "the other interfaces are summed up in one line",
            "and 994 more: 994 attached (`dpd endpoint list`)",
        ),
        (
            "a nearly full map comes before larger ones",
            "dpd_ct_tcp  lru_hash  131000   131072  100%  4.0 KiB",
        ),
        ("the other maps", "and 24 more, 23.0 MiB; 30.0 MiB in total"),
        (
            "the other prefixes",
            "49996 more      -               1249825006",
        ),
        (
            "reasons of recent drops come before those of most drops",
            "some reason (140)  1         140      1",
        ),
        ("the other reasons", "and 22 more (`dpd status -o json`)"),
        (
            "the other warnings",
            "and 996 more warnings (`dpd status -o json`)",
        ),
    ];
    for (sentence, line) in rows {
        assert!(lines.contains(&line), "{sentence}: {line}\n{text}");
    }
}

#[test]
fn without_a_daemon_drops_are_totals() {
    let status = with_datapath(no_daemon());
    let text = screen::screen(&status);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines.contains(&"policy denied: no rule (133)  -            3        180"),
        "{text}"
    );
    assert!(text.contains("these are totals"), "{text}");
    let json = serde_json::to_value(status).unwrap();
    assert!(json["drops_recent_seconds"].is_null());
    assert!(json["drops"][0]["recent_packets"].is_null());
    assert_eq!(json["drops"][0]["packets"], 3);
}
