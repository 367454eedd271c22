//! `dpd status`: how the daemon and the datapath are, on one screen.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Error, Result};
use ipnet::IpNet;
use serde::Serialize;

use super::node::Node;
use super::output::{self, Format, span, table};
use crate::bpf::reader::Reader;
use crate::model::catalog::Catalog;
use crate::model::status::{
    Attachment, ConntrackCounts, DaemonStatus, DriftCounts, EventLoss, MapStatus, Metric,
    ProgramStatus,
};
use crate::observe::client;

/// Prefixes of the prefilter that the screen names; it sums up the rest.
const PREFIXES_SHOWN: usize = 10;

pub fn run(node: &Node, format: Format) -> Result<ExitCode> {
    let daemon = client::status(&node.socket);
    let datapath = node.reader();
    let is_there = daemon.is_ok() || datapath.is_ok();
    let status = Status::new(node, daemon, datapath);
    output::print(&match format {
        Format::Table => status.screen(),
        Format::Json => output::json(&status)?,
    })?;
    Ok(if is_there {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Everything that is known; what could not be read is empty, and the reason is among the warnings.
#[derive(Debug, Serialize)]
pub struct Status {
    daemon: Daemon,
    config: ConfigStatus,
    interfaces: Vec<InterfaceStatus>,
    programs: Vec<ProgramStatus>,
    maps: Vec<MapStatus>,
    conntrack: Option<ConntrackCounts>,
    prefilter: Prefilter,
    drops: Vec<Drops>,
    event_loss: Loss,
    /// `None` without a daemon.
    drift: Option<DriftCounts>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Daemon {
    /// `up`, `down` or `unreachable`.
    state: &'static str,
    pid: Option<u32>,
    version: Option<String>,
    uptime_seconds: Option<u64>,
    /// Why it could not be asked.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct ConfigStatus {
    path: String,
    /// The live generation; `None` without a datapath.
    revision: Option<u64>,
    applied_seconds_ago: Option<u64>,
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct InterfaceStatus {
    interface: String,
    ifindex: Option<u32>,
    /// `endpoint` or `uplink`; `None` without a datapath to say so.
    role: Option<&'static str>,
    /// How an uplink is to have XDP, in the file's words.
    xdp: Option<&'static str>,
    /// `attached`, `detached` or `waiting`.
    state: &'static str,
    attachments: Vec<Attachment>,
}

/// What XDP drops on the uplinks.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Prefilter {
    /// How many prefixes are denied.
    prefixes: u64,
    /// Packets dropped for all of them.
    packets: u64,
    /// Frames that it could not read, and left to tc.
    malformed: u64,
    /// The prefixes that have dropped something, those that dropped most first.
    hits: Vec<PrefilterHits>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct PrefilterHits {
    prefix: IpNet,
    /// The table of the file that it is in.
    table: String,
    packets: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Drops {
    reason: u8,
    reason_text: String,
    packets: u64,
    bytes: u64,
}

/// Events that somebody did not get.
#[derive(Debug, Default, Serialize)]
struct Loss {
    #[serde(flatten)]
    kernel: EventLoss,
    observers: u64,
}

impl Status {
    fn new(node: &Node, daemon: Result<DaemonStatus>, datapath: Result<Reader>) -> Status {
        let mut status = Status {
            daemon: Daemon::new(&daemon),
            config: ConfigStatus {
                path: node.config.display().to_string(),
                revision: None,
                applied_seconds_ago: None,
                last_error: None,
            },
            interfaces: Vec::new(),
            programs: Vec::new(),
            maps: Vec::new(),
            conntrack: None,
            prefilter: Prefilter::default(),
            drops: Vec::new(),
            event_loss: Loss::default(),
            drift: None,
            warnings: Vec::new(),
        };
        if let Ok(daemon) = daemon {
            status.take_daemon(daemon);
        }
        match datapath {
            Ok(reader) => status.take_datapath(&reader),
            Err(error) => status.warnings.push(format!("{error:#}")),
        }
        status
    }

    fn take_daemon(&mut self, daemon: DaemonStatus) {
        self.config.path = daemon.config;
        self.config.applied_seconds_ago = Some(daemon.applied_seconds_ago);
        self.config.last_error = daemon.last_error;
        self.event_loss.observers = daemon.observers_lost;
        self.drift = Some(daemon.drift);
        self.interfaces = waiting(daemon.waiting);
        self.warnings = daemon.warnings;
    }

    fn take_datapath(&mut self, reader: &Reader) {
        self.config.revision = self.read("revision", reader.epoch());
        let catalog = self
            .read("tables", reader.state())
            .map(|state| state.catalog);
        let attachments = self.read("attachments", reader.attachments());
        let attachments = attachments.unwrap_or_default();
        if let Some(catalog) = catalog {
            if self.daemon.pid.is_none() {
                // Nobody else knows which file the datapath was made from.
                self.config.path.clone_from(&catalog.config);
            }
            let hits = self.read("counters of the prefilter", reader.prefilter_hits());
            let malformed = self.read("count of malformed frames", reader.xdp_malformed());
            self.prefilter = Prefilter::new(
                &catalog,
                &hits.unwrap_or_default(),
                malformed.unwrap_or_default(),
            );
            self.interfaces = interfaces(&catalog, attachments);
        }
        self.programs = self.read("programs", reader.programs()).unwrap_or_default();
        self.maps = self.read("maps", reader.maps()).unwrap_or_default();
        self.conntrack = self.read("conntrack counts", reader.conntrack_counts());
        let metrics = self.read("counters", reader.metrics());
        self.drops = drops(&metrics.unwrap_or_default());
        let loss = self.read("event loss", reader.event_loss());
        self.event_loss.kernel = loss.unwrap_or_default();
    }

    /// One thing that can't be read must not hide the others.
    fn read<T>(&mut self, what: &str, answer: Result<T>) -> Option<T> {
        answer
            .map_err(|error| {
                let warning = format!("the datapath's {what} can't be read: {error:#}");
                self.warnings.push(warning);
            })
            .ok()
    }

    /// The whole as text.
    fn screen(&self) -> String {
        let mut out = String::new();
        // Writing into a string can't fail.
        let _ = self.write_head(&mut out);
        self.write_interfaces(&mut out);
        self.write_programs(&mut out);
        self.write_maps(&mut out);
        self.write_prefilter(&mut out);
        self.write_drops(&mut out);
        for warning in &self.warnings {
            let _ = write!(out, "\nwarning: {}\n", indent(warning));
        }
        out
    }

    fn write_head(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "daemon:     {}",
            self.daemon.text(self.config.revision.is_some())
        )?;
        write!(out, "config:     {}", self.config.path)?;
        match self.config.revision {
            Some(revision) => write!(out, ", revision {revision}")?,
            None => out.push_str(", nothing is applied"),
        }
        match self.config.applied_seconds_ago {
            Some(seconds) => writeln!(out, ", applied {} ago", ago(seconds))?,
            None => out.push('\n'),
        }
        if let Some(error) = &self.config.last_error {
            writeln!(out, "last error: {}", indent(error))?;
        }
        if let Some(counts) = &self.conntrack {
            writeln!(
                out,
                "conntrack:  {} present, {} inserted, {} deleted, {} evicted before their time",
                counts.present, counts.inserted, counts.deleted, counts.evicted
            )?;
        }
        let Loss { kernel, observers } = &self.event_loss;
        writeln!(
            out,
            "event loss: {} ring full, {} over the rate, {} observers too slow",
            kernel.ring_full, kernel.rate_limited, observers
        )?;
        if let Some(drift) = &self.drift {
            writeln!(
                out,
                "drift:      put back: {} attachments, {} tables, {} pins, {} times the revision",
                drift.attachments, drift.tables, drift.pins, drift.epoch
            )?;
        }
        Ok(())
    }

    fn write_interfaces(&self, out: &mut String) {
        let lines = self.interfaces.iter().flat_map(|interface| {
            let index = interface.ifindex.map(|index| index.to_string());
            let head = [
                interface.interface.clone(),
                index.unwrap_or_default(),
                interface.role.unwrap_or_default().to_owned(),
                interface.state.to_owned(),
            ];
            let hook = move |attachment: &Attachment| {
                let (program, ahead) = (attachment.program.clone(), attachment.ahead.join(", "));
                let tail = [
                    attachment.hook.clone(),
                    attachment.mechanism.clone(),
                    program,
                    ahead,
                ];
                head.iter().cloned().chain(tail).collect::<Vec<_>>()
            };
            if interface.attachments.is_empty() {
                vec![hook(&Attachment::default())]
            } else {
                interface.attachments.iter().map(hook).collect()
            }
        });
        let header = [
            "INTERFACE",
            "IFINDEX",
            "ROLE",
            "STATE",
            "HOOK",
            "BY",
            "PROGRAM",
            "FOREIGN AHEAD",
        ];
        section(out, "interfaces", &header, lines.collect());
    }

    fn write_programs(&self, out: &mut String) {
        let lines = self.programs.iter().map(|program| {
            let numbers = [
                program.id,
                program.verified_instructions,
                program.jited_bytes,
            ];
            let mut cells = vec![program.name.clone()];
            cells.extend(numbers.map(|number| number.to_string()));
            cells
        });
        let header = ["PROGRAM", "ID", "VERIFIED", "JITED"];
        section(out, "programs", &header, lines.collect());
    }

    fn write_maps(&self, out: &mut String) {
        let lines = self.maps.iter().map(|map| {
            let entries = map.entries.map(|entries| entries.to_string());
            let share = map.entries.filter(|_| map.max_entries > 0).map(|entries| {
                // In whole percent, rounded up: what holds something is not 0 % full.
                format!("{}%", (entries * 100).div_ceil(u64::from(map.max_entries)))
            });
            vec![
                map.name.clone(),
                map.kind.clone(),
                entries.unwrap_or_default(),
                map.max_entries.to_string(),
                share.unwrap_or_default(),
                map.memory_bytes.to_string(),
            ]
        });
        let header = ["MAP", "KIND", "ENTRIES", "MAX", "FULL", "BYTES"];
        section(out, "maps", &header, lines.collect());
    }

    fn write_prefilter(&self, out: &mut String) {
        let Prefilter {
            prefixes,
            packets,
            malformed,
            hits,
        } = &self.prefilter;
        if *prefixes == 0 {
            return;
        }
        if hits.is_empty() {
            let prefixes = count_of(*prefixes, "prefix", "prefixes");
            let _ = writeln!(out, "\nprefilter: {prefixes}, nothing dropped");
        } else {
            self.write_prefilter_hits(out, *packets);
        }
        if *malformed > 0 {
            let frames = count_of(*malformed, "malformed frame", "malformed frames");
            let _ = writeln!(out, "prefilter: {frames} passed on");
        }
    }

    /// Those that drop most; a list of tens of thousands must not push the rest off the screen.
    fn write_prefilter_hits(&self, out: &mut String, packets: u64) {
        let Prefilter { prefixes, hits, .. } = &self.prefilter;
        let line = |first: String, second: &str, packets: u64| {
            vec![first, second.to_owned(), packets.to_string()]
        };
        let (shown, rest) = hits.split_at(hits.len().min(PREFIXES_SHOWN));
        let mut lines: Vec<_> = shown
            .iter()
            .map(|hits| line(hits.prefix.to_string(), &hits.table, hits.packets))
            .collect();
        if !rest.is_empty() {
            let packets = rest.iter().map(|hits| hits.packets).sum();
            lines.push(line(format!("{} more", rest.len()), "", packets));
        }
        let prefixes = count_of(*prefixes, "prefix", "prefixes");
        lines.push(line("total".to_owned(), &prefixes, packets));
        section(out, "prefilter", &["PREFILTER", "TABLE", "PACKETS"], lines);
    }

    fn write_drops(&self, out: &mut String) {
        let lines = self.drops.iter().map(|drops| {
            let reason = format!("{} ({})", drops.reason_text, drops.reason);
            vec![reason, drops.packets.to_string(), drops.bytes.to_string()]
        });
        section(
            out,
            "drops",
            &["DROP REASON", "PACKETS", "BYTES"],
            lines.collect(),
        );
    }
}

impl Daemon {
    fn new(status: &Result<DaemonStatus>) -> Daemon {
        match status {
            Ok(status) => Daemon {
                state: "up",
                pid: Some(status.pid),
                version: Some(status.version.clone()),
                uptime_seconds: Some(status.uptime_seconds),
                error: None,
            },
            Err(error) => Daemon {
                state: if client::is_down(error) {
                    "down"
                } else {
                    "unreachable"
                },
                pid: None,
                version: None,
                uptime_seconds: None,
                error: Some(chain(error)),
            },
        }
    }

    fn text(&self, has_datapath: bool) -> String {
        match (self.pid, &self.version, self.uptime_seconds) {
            (Some(pid), Some(version), Some(uptime)) => {
                format!(
                    "{}, pid {pid}, version {version}, for {}",
                    self.state,
                    ago(uptime)
                )
            }
            _ => {
                let error = self.error.as_deref().unwrap_or("no reason is known");
                let rest = match (self.state, has_datapath) {
                    ("down", true) => "; the datapath goes on without it",
                    ("down", false) => "; there is no datapath either",
                    _ => "",
                };
                format!("{} ({error}){rest}", self.state)
            }
        }
    }
}

impl Prefilter {
    fn new(catalog: &Catalog, packets: &BTreeMap<u32, u64>, malformed: u64) -> Prefilter {
        let hits = catalog.prefilter.iter().filter_map(|(number, info)| {
            let packets = packets
                .get(number)
                .copied()
                .filter(|packets| *packets > 0)?;
            Some(PrefilterHits {
                prefix: info.prefix,
                table: info.table.clone(),
                packets,
            })
        });
        let mut hits: Vec<PrefilterHits> = hits.collect();
        hits.sort_by_key(|hits| (std::cmp::Reverse(hits.packets), hits.prefix));
        Prefilter {
            prefixes: catalog.prefilter.len() as u64,
            packets: hits.iter().map(|hits| hits.packets).sum(),
            malformed,
            hits,
        }
    }
}

fn chain(error: &Error) -> String {
    format!("{error:#}")
}

fn ago(seconds: u64) -> String {
    span(Duration::from_secs(seconds))
}

fn waiting(interfaces: Vec<String>) -> Vec<InterfaceStatus> {
    let status = |interface| InterfaceStatus {
        interface,
        ifindex: None,
        role: None,
        xdp: None,
        state: "waiting",
        attachments: Vec::new(),
    };
    interfaces.into_iter().map(status).collect()
}

/// The interfaces of the catalog, and any other that carries programs of ours.
fn interfaces(catalog: &Catalog, attachments: Vec<Attachment>) -> Vec<InterfaceStatus> {
    let mut by_name: BTreeMap<String, InterfaceStatus> = BTreeMap::new();
    for (name, ifindex) in catalog.interfaces() {
        let uplink = catalog.uplinks.get(name);
        let status = InterfaceStatus {
            interface: name.to_owned(),
            ifindex,
            role: Some(uplink.map_or("endpoint", |_| "uplink")),
            xdp: uplink.map(|uplink| uplink.xdp.name()),
            state: match ifindex {
                Some(_) => "detached",
                None => "waiting",
            },
            attachments: Vec::new(),
        };
        by_name.insert(name.to_owned(), status);
    }
    for attachment in attachments {
        let status = by_name
            .entry(attachment.interface.clone())
            .or_insert_with(|| InterfaceStatus {
                interface: attachment.interface.clone(),
                ifindex: None,
                role: None,
                xdp: None,
                state: "attached",
                attachments: Vec::new(),
            });
        status.ifindex = Some(attachment.ifindex);
        status.state = "attached";
        status.attachments.push(attachment);
    }
    by_name.into_values().collect()
}

/// Drops by reason, over all interfaces and both directions.
fn drops(metrics: &[Metric]) -> Vec<Drops> {
    let mut by_reason: BTreeMap<u8, Drops> = BTreeMap::new();
    for metric in metrics.iter().filter(|metric| metric.reason != 0) {
        let drops = by_reason.entry(metric.reason).or_insert_with(|| Drops {
            reason: metric.reason,
            reason_text: metric.reason_text.clone(),
            packets: 0,
            bytes: 0,
        });
        drops.packets += metric.packets;
        drops.bytes += metric.bytes;
    }
    by_reason.into_values().collect()
}

/// A table under an empty line, or one line that says that it would be empty.
fn section(out: &mut String, what: &str, header: &[&str], lines: Vec<Vec<String>>) {
    out.push('\n');
    if lines.is_empty() {
        let _ = writeln!(out, "{what}: none");
    } else {
        out.push_str(&table(header, lines));
    }
}

/// `1 prefix`, `2 prefixes`.
fn count_of(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}

/// What has several lines stays in one column.
fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n            ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::{Context, anyhow};

    use super::*;

    fn node() -> Node {
        Node {
            config: "/etc/dpd/config.toml".into(),
            bpf_root: "/sys/fs/bpf/dpd".into(),
            socket: "/run/dpd/dpd.sock".into(),
            log: crate::config::LogTarget::Auto,
            is_certain: true,
        }
    }

    /// An endpoint, two uplinks, and three prefixes of the prefilter.
    fn catalog() -> Catalog {
        use crate::model::catalog::{EndpointInfo, PrefilterInfo, UplinkInfo};
        use crate::model::state::XdpMode;
        let endpoint = EndpointInfo {
            ifindex: Some(11),
            identity: 20001,
            addresses: Default::default(),
            row: 1,
        };
        let uplink = |ifindex| UplinkInfo {
            ifindex,
            xdp: XdpMode::Auto,
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
    fn the_prefilters_lines() {
        let prefilter = |catalog, hits: &[(u32, u64)], malformed| {
            let mut status = Status::new(&node(), no_daemon(), no_datapath());
            let hits = hits.iter().copied().collect();
            status.prefilter = Prefilter::new(&catalog, &hits, malformed);
            let mut out = String::new();
            status.write_prefilter(&mut out);
            out
        };
        let rows = [
            ("no prefilter", Catalog::default(), &[][..], 0, ""),
            (
                "hits of a prefix that is gone",
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
                "nothing but what nobody can read",
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

    #[test]
    fn a_long_prefilter_is_summed_up() {
        use crate::model::catalog::PrefilterInfo;
        let denied = |number: u32| PrefilterInfo {
            table: "abusers".to_owned(),
            prefix: IpNet::from(std::net::IpAddr::from(number.to_be_bytes())),
        };
        let catalog = Catalog {
            prefilter: (1..=30_000)
                .map(|number| (number, denied(number)))
                .collect(),
            ..Catalog::default()
        };
        let hits = (1..=12).map(|number| (number, u64::from(number))).collect();
        let mut status = Status::new(&node(), no_daemon(), no_datapath());
        status.prefilter = Prefilter::new(&catalog, &hits, 0);
        let mut out = String::new();
        status.write_prefilter(&mut out);
        let lines: Vec<Vec<&str>> = out
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines.len(), 13, "{out}");
        assert_eq!(lines[1], ["0.0.0.12/32", "abusers", "12"]);
        assert_eq!(lines[10], ["0.0.0.3/32", "abusers", "3"]);
        assert_eq!(lines[11], ["2", "more", "-", "3"]);
        assert_eq!(lines[12], ["total", "30000", "prefixes", "78"]);
        let json = serde_json::to_value(&status.prefilter).unwrap();
        assert_eq!(json["hits"].as_array().unwrap().len(), 12, "JSON has all");
    }

    fn no_daemon() -> Result<DaemonStatus> {
        let error = std::io::Error::from(std::io::ErrorKind::NotFound);
        Err(error).context("no daemon answers at /run/dpd/dpd.sock")
    }

    fn no_datapath() -> Result<Reader> {
        Err(anyhow!(
            "no datapath of dpd at {}",
            Path::new("/sys/fs/bpf/dpd").display()
        ))
    }

    fn daemon() -> DaemonStatus {
        DaemonStatus {
            pid: 4711,
            version: "0.1.0".to_owned(),
            uptime_seconds: 3700,
            config: "/etc/dpd/config.toml".to_owned(),
            last_error: Some("config.toml:3: unknown key\n  colour = 1\n  ^^^^^^".to_owned()),
            applied_seconds_ago: 61,
            waiting: vec!["lxc-late".to_owned()],
            warnings: vec![
                "no route to 10.200.0.64: ip route add 10.200.0.64/32 dev lxc-client".to_owned(),
            ],
            observers_lost: 3,
            drift: DriftCounts {
                attachments: 1,
                epoch: 0,
                pins: 2,
                tables: 0,
            },
        }
    }

    /// A datapath as the reader would tell it.
    fn with_datapath(daemon: Result<DaemonStatus>) -> Status {
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
                ahead: Vec::new(),
            };
        let catalog = catalog();
        let client = attachment("lxc-client", 11, "ingress", "tcx", "dpd_from_container");
        status.interfaces = interfaces(
            &catalog,
            vec![
                attachment("ens5", 2, "xdp", "native", "dpd_xdp_entry"),
                attachment("ens5", 2, "ingress", "tcx", "dpd_from_netdev"),
                Attachment {
                    ahead: vec!["probe".to_owned()],
                    ..client
                },
            ],
        );
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
        status.conntrack = Some(ConntrackCounts {
            inserted: 9,
            deleted: 5,
            present: 3,
            evicted: 1,
        });
        let metric = |ifindex, reason, packets| Metric {
            ifindex,
            direction: "ingress".to_owned(),
            reason,
            reason_text: "policy denied".to_owned(),
            packets,
            bytes: 60 * packets,
        };
        status.drops = drops(&[metric(11, 133, 2), metric(12, 133, 1), metric(12, 0, 9)]);
        status.event_loss.kernel = EventLoss {
            ring_full: 1,
            rate_limited: 2,
        };
        status
    }

    #[test]
    fn a_screen() {
        assert_eq!(
            with_datapath(Ok(daemon())).screen(),
            "\
daemon:     up, pid 4711, version 0.1.0, for 1h01m
config:     /etc/dpd/config.toml, revision 12, applied 1m01s ago
last error: config.toml:3: unknown key
              colour = 1
              ^^^^^^
conntrack:  3 present, 9 inserted, 5 deleted, 1 evicted before their time
event loss: 1 ring full, 2 over the rate, 3 observers too slow
drift:      put back: 1 attachments, 0 tables, 2 pins, 0 times the revision

INTERFACE   IFINDEX  ROLE      STATE     HOOK     BY      PROGRAM             FOREIGN AHEAD
ens5        2        uplink    attached  xdp      native  dpd_xdp_entry       -
ens5        2        uplink    attached  ingress  tcx     dpd_from_netdev     -
ens6        -        uplink    waiting   -        -       -                   -
lxc-client  11       endpoint  attached  ingress  tcx     dpd_from_container  probe

PROGRAM             ID  VERIFIED  JITED
dpd_from_container  31  4321      2000

MAP         KIND      ENTRIES  MAX     FULL  BYTES
dpd_ct_tcp  lru_hash  1        131072  1%    4096
dpd_events  lru_hash  -        0       -     4096

PREFILTER         TABLE       PACKETS
203.0.113.0/24    bogons      40
198.51.100.66/32  abusers     2
total             3 prefixes  42

DROP REASON          PACKETS  BYTES
policy denied (133)  3        180

warning: no route to 10.200.0.64: ip route add 10.200.0.64/32 dev lxc-client
"
        );
    }

    #[test]
    fn heads_of_the_bad_days() {
        let hung = || Err(anyhow!("the daemon at /run/dpd/dpd.sock does not answer"));
        let rows = [
            (
                "the daemon is down, its datapath is not",
                with_datapath(no_daemon()),
                "daemon:     down (no daemon answers at /run/dpd/dpd.sock: entity not found); the datapath goes on without it",
            ),
            (
                "nothing is there",
                Status::new(&node(), no_daemon(), no_datapath()),
                "daemon:     down (no daemon answers at /run/dpd/dpd.sock: entity not found); there is no datapath either",
            ),
            (
                "the daemon hangs",
                with_datapath(hung()),
                "daemon:     unreachable (the daemon at /run/dpd/dpd.sock does not answer)",
            ),
        ];
        for (sentence, status, line) in rows {
            assert_eq!(status.screen().lines().next(), Some(line), "{sentence}");
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
                "drift",
                "drops",
                "event_loss",
                "interfaces",
                "maps",
                "prefilter",
                "programs",
                "warnings",
            ];
            assert_eq!(keys, expected);
        }
        let status = serde_json::to_value(with_datapath(Ok(daemon()))).unwrap();
        assert_eq!(status["config"]["revision"], 12);
        assert_eq!(status["event_loss"]["ring_full"], 1);
        assert_eq!(status["interfaces"][0]["role"], "uplink");
        assert_eq!(status["interfaces"][0]["xdp"], "auto");
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

    #[test]
    fn interfaces_of_the_catalog_and_others() {
        use crate::model::catalog::EndpointInfo;
        let endpoint = |ifindex| EndpointInfo {
            ifindex,
            identity: 1,
            addresses: Default::default(),
            row: 1,
        };
        let catalog = Catalog {
            endpoints: [("a", Some(1)), ("b", Some(2)), ("c", None)]
                .map(|(name, ifindex)| (name.to_owned(), endpoint(ifindex)))
                .into(),
            ..Catalog::default()
        };
        let attached = ["a", "z"].map(|name| Attachment {
            interface: name.to_owned(),
            ifindex: 9,
            ..Attachment::default()
        });
        let states: Vec<(String, &str)> = interfaces(&catalog, attached.into())
            .into_iter()
            .map(|status| (status.interface, status.state))
            .collect();
        let expected = [
            ("a", "attached"),
            ("b", "detached"),
            ("c", "waiting"),
            ("z", "attached"),
        ];
        assert_eq!(
            states,
            expected.map(|(name, state)| (name.to_owned(), state))
        );
    }
}
