//! `dpd status`: how the daemon and the datapath are, on one screen.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Error, Result};
use serde::Serialize;

use super::node::Node;
use super::output::{self, Format, span, table};
use crate::bpf::reader::Reader;
use crate::model::catalog::Catalog;
use crate::model::status::{
    Attachment, ConntrackCounts, DaemonStatus, EventLoss, MapStatus, Metric, ProgramStatus,
};
use crate::observe::client;

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
    drops: Vec<Drops>,
    event_loss: Loss,
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
    /// `attached`, `detached` or `waiting`.
    state: &'static str,
    attachments: Vec<Attachment>,
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
            drops: Vec::new(),
            event_loss: Loss::default(),
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
        )
    }

    fn write_interfaces(&self, out: &mut String) {
        let lines = self.interfaces.iter().flat_map(|interface| {
            let index = interface.ifindex.map(|index| index.to_string());
            let head = [
                interface.interface.clone(),
                index.unwrap_or_default(),
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
        state: "waiting",
        attachments: Vec::new(),
    };
    interfaces.into_iter().map(status).collect()
}

/// The interfaces of the catalog, and any other that carries programs of ours.
fn interfaces(catalog: &Catalog, attachments: Vec<Attachment>) -> Vec<InterfaceStatus> {
    let mut by_name: BTreeMap<String, InterfaceStatus> = BTreeMap::new();
    for (name, endpoint) in &catalog.endpoints {
        let state = match endpoint.ifindex {
            Some(_) => "detached",
            None => "waiting",
        };
        let status = InterfaceStatus {
            interface: name.clone(),
            ifindex: endpoint.ifindex,
            state,
            attachments: Vec::new(),
        };
        by_name.insert(name.clone(), status);
    }
    for attachment in attachments {
        let status = by_name
            .entry(attachment.interface.clone())
            .or_insert_with(|| InterfaceStatus {
                interface: attachment.interface.clone(),
                ifindex: None,
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

/// What has several lines stays in one column.
fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n            ")
}
