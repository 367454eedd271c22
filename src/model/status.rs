//! What the host's datapath is doing: the facts behind `dpd status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the daemon says of itself over its socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    pub pid: u32,
    pub version: String,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    pub config: String,
    /// The error of the last try to apply the file, whole; `None`: the datapath matches the file.
    pub last_error: Option<String>,
    /// Reloads that are done, well or not: times that it was told to read the file at once. A daemon of before does not tell.
    #[serde(default)]
    pub reloads: Option<u64>,
    /// Another one is under way.
    #[serde(default)]
    pub is_reloading: bool,
    /// Why what the last of these found in the file is not applied; `None`: it is.
    #[serde(default)]
    pub reload_error: Option<String>,
    /// Seconds since the live configuration was applied.
    pub applied_seconds_ago: u64,
    /// Interfaces of the file that are not there.
    pub waiting: Vec<String>,
    /// What the host lacks for the file, each with the command that mends it.
    pub warnings: Vec<String>,
    /// Flows that observers were too slow for.
    pub observers_lost: u64,
    /// What was dropped lately. A daemon of before does not tell.
    #[serde(default)]
    pub recent_drops: Option<RecentDrops>,
    /// Flows that should have gone to the journal and did not.
    #[serde(default)]
    pub journal_lost: u64,
    pub drift: DriftCounts,
}

/// Drops of the last minute, or since the start if that is less long ago.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentDrops {
    /// Seconds that they are of.
    pub seconds: u64,
    /// By the reason's number.
    pub by_reason: BTreeMap<u8, Amount>,
}

/// So many packets.
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

/// What something else did to the datapath and the daemon undid, since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftCounts {
    /// Interfaces whose hooks had lost programs, or had others in their place.
    pub attachments: u64,
    /// Times that packets were led to another revision.
    pub epoch: u64,
    /// Pins that were gone or led elsewhere.
    pub pins: u64,
    /// Tables that were not in their slot.
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

/// What something else can do to the datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriftKind {
    Attachment,
    Epoch,
    Pin,
    Table,
}

/// One thing that something else did and that was undone.
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
    /// Instructions that the verifier went through at load.
    pub verified_instructions: u32,
    /// Bytes of machine code; 0: not compiled.
    pub jited_bytes: u32,
}

/// A map of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapStatus {
    pub name: String,
    pub kind: String,
    /// `None`: a kind that is always full.
    pub entries: Option<u64>,
    pub max_entries: u32,
    /// What the kernel says that it takes.
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
    /// The foreign programs that see a packet before ours.
    pub ahead: Vec<String>,
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

/// Events that did not get out.
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
    /// Not lost: repeats of a drop, for which one report stands.
    pub suppressed: u64,
}

/// Counts of the conntrack tables since they were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConntrackCounts {
    pub inserted: u64,
    pub deleted: u64,
    pub present: u64,
    /// inserted − deleted − present: pushed out by the kernel before their time.
    pub evicted: u64,
}
