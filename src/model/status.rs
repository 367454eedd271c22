//! The state of the datapath on this host, for `dpd status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::announce::Announcement;

/// The status that the daemon reports on its socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    pub pid: u32,
    pub version: String,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    pub config: String,
    /// The whole error of the last attempt to apply the file; `None`: the datapath matches the file.
    pub last_error: Option<String>,
    /// Completed reloads, successful or not: how often it has read the file on request.
    pub reloads: u64,
    /// Another one is running.
    pub is_reloading: bool,
    /// Why the last of them did not apply the file; `None`: it did.
    pub reload_error: Option<String>,
    /// Seconds since the live configuration was applied.
    pub applied_seconds_ago: u64,
    /// Interfaces of the file that do not exist yet, or are skipped.
    pub pending: Vec<String>,
    /// What the host lacks for the file, each with the command that fixes it.
    pub warnings: Vec<String>,
    /// What may be intended: no problem.
    #[serde(default)]
    pub hints: Vec<String>,
    /// Flows that slow observers lost.
    pub observers_lost: u64,
    /// Drops of the last minute.
    pub recent_drops: Option<RecentDrops>,
    /// Flows that were not written to the journal.
    pub journal_lost: u64,
    pub drift: DriftCounts,
    /// The runtime drop-ins, in name order.
    #[serde(default)]
    pub drop_ins: Vec<DropInStatus>,
    /// The addresses that uplinks announce, or are to announce.
    #[serde(default)]
    pub announcements: Vec<Announcement>,
}

/// A runtime drop-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropInStatus {
    pub path: String,
    /// Why it is skipped; `None`: it is in effect.
    pub reason: Option<String>,
}

/// Drops of the last minute, or since a later start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentDrops {
    /// The length of the period.
    pub seconds: u64,
    /// By the reason's number.
    pub by_reason: BTreeMap<u8, Amount>,
}

/// A number of packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub packets: u64,
    pub bytes: u64,
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, more: Amount) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

/// Drift that the daemon has repaired since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftCounts {
    /// Interfaces whose hooks had lost programs, or had others instead.
    pub attachments: u64,
    /// Times that another revision had been made live.
    pub epoch: u64,
    /// Pins that were missing or replaced.
    pub pins: u64,
    /// Tables that were replaced in their slot.
    pub tables: u64,
}

impl DriftCounts {
    pub fn add(&mut self, kind: DriftKind) {
        *match kind {
            DriftKind::Attachment => &mut self.attachments,
            DriftKind::Epoch => &mut self.epoch,
            DriftKind::Pin => &mut self.pins,
            DriftKind::Table => &mut self.tables,
        } += 1;
    }
}

/// What other programs can change in the datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriftKind {
    Attachment,
    Epoch,
    Pin,
    Table,
}

/// One change by another program, which was repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    pub kind: DriftKind,
    /// What was found, as a clause.
    pub what: String,
}

/// A program on this host that is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramStatus {
    pub name: String,
    pub id: u32,
    /// Instructions that the verifier processed at load.
    pub verified_instructions: u32,
    /// Bytes of machine code; 0: not compiled.
    pub jited_bytes: u32,
}

/// A map of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapStatus {
    pub name: String,
    pub kind: String,
    /// `None`: an array, which is always full.
    pub entries: Option<u64>,
    pub max_entries: u32,
    /// Its memory as the kernel reports it.
    pub memory_bytes: u64,
}

/// One program on one hook of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attachment {
    pub interface: String,
    pub ifindex: u32,
    /// `ingress`, `egress` or `xdp`.
    pub hook: String,
    /// `tcx` or `clsact`; for XDP `native` or `generic`.
    pub mechanism: String,
    pub program: String,
    /// The programs of others that see a packet before this one.
    pub other_programs_first: Vec<String>,
}

/// A program on a hook of the host's sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SocketAttachment {
    /// `connect4`, `sendmsg6` and so on.
    pub hook: String,
    pub program: String,
    /// The number of the cgroup that it is attached to.
    pub cgroup_id: u64,
    /// Where that is mounted; `None`: not where this process would attach it.
    pub cgroup: Option<String>,
}

/// A counter of packets by reason, direction and interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metric {
    pub ifindex: u32,
    /// `ingress`: into the workload; `egress`: out of it.
    pub direction: String,
    /// Number of the drop reason; 0: forwarded.
    pub reason: u8,
    /// The reason in words; `forwarded` for 0.
    pub reason_text: String,
    pub packets: u64,
    pub bytes: u64,
}

/// What became of the packets of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EndpointCounts {
    /// Delivered to the workload.
    pub packets_in: u64,
    pub bytes_in: u64,
    /// From the workload, and not dropped.
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Packets of `packets_out` that went up the host's stack.
    pub to_stack: u64,
    /// Packets of `packets_out` that dpd answered itself.
    pub answered: u64,
    /// Packets from the host's stack to the workload that were dropped.
    pub drops_in: u64,
    /// Packets from the workload that were dropped.
    pub drops_out: u64,
}

/// Events that were not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventLoss {
    /// The ring buffer was full.
    pub ring_full: u64,
    /// Over `events.rate`.
    pub rate_limited: u64,
    /// Drops: `dpd_drop_throttle` had no room.
    pub throttle_full: u64,
    /// Drops: the settings table was missing.
    pub no_settings: u64,
    /// Not lost: repeats of a drop, which one report includes.
    pub suppressed: u64,
}

/// Counts of the conntrack tables since their creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConntrackCounts {
    pub inserted: u64,
    pub deleted: u64,
    pub present: u64,
    /// inserted − deleted − present: evicted by the kernel before they expired.
    pub evicted: u64,
}
