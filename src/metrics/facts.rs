//! The data of a page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::announce::AnnouncementState;
use crate::model::catalog::Catalog;
use crate::model::conntrack::Tally;
use crate::model::process::Usage;
use crate::model::service::BackendState;
use crate::model::status::{
    Attachment, ConntrackCounts, DriftCounts, EventLoss, MapStatus, Metric, ProgramStatus,
};

/// Everything that is known at one time. `None` could not be read: its series are missing from the page, and
/// `dpd_collector_success` is 0.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub version: &'static str,
    /// The live epoch.
    pub revision: u64,
    /// Of that epoch.
    pub catalog: Arc<Catalog>,
    pub counters: Option<Vec<Metric>>,
    /// By rule number.
    pub rule_hits: Option<BTreeMap<u32, u64>>,
    /// By prefix number.
    pub prefilter_hits: Option<BTreeMap<u32, u64>>,
    /// Frames that XDP could not parse.
    pub malformed: Option<u64>,
    /// Errors and resets that were not sent.
    pub responses_limited: Option<u64>,
    pub event_loss: Option<EventLoss>,
    pub maps: Option<Vec<MapStatus>>,
    pub programs: Option<Vec<ProgramStatus>>,
    /// The uplinks' XDP programs.
    pub xdp: Vec<Attachment>,
    pub usage: Option<Usage>,
    pub work: Work,
}

/// What the daemon has done since its start, and what it knows without reading from the kernel.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// When the file was last applied, in seconds of Unix time.
    pub file_applied_seconds: f64,
    pub file_failed: bool,
    pub reloads_done: u64,
    pub reloads_failed: u64,
    /// The last change of the host could not be followed.
    pub host_failed: bool,
    /// The runtime drop-ins, and how many of them are skipped.
    pub drop_ins: usize,
    pub drop_ins_skipped: usize,
    /// What the host lacks for the file.
    pub warnings: usize,
    /// Of the addresses that uplinks announce, or are to announce.
    pub announcements: Vec<AnnouncementState>,
    /// Comparing the datapath with the configuration, and changing it.
    pub applies: Times,
    pub sweeps: Times,
    pub sweeps_failed: u64,
    /// The last sweep.
    pub sweep: Option<Sweep>,
    pub backends: BTreeMap<BackendState, u64>,
    /// Backends that do not keep all of their connections, by number.
    pub ending: BTreeMap<u32, BackendState>,
    /// Drift that was repaired.
    pub drift: DriftCounts,
    /// Events that were read.
    pub events: u64,
    /// Flows that observers were too slow for.
    pub observers_lost: u64,
    /// Flows that were not written to the journal.
    pub journal_lost: u64,
}

/// How often something was done, and how long it took in total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub count: u64,
    pub total: Duration,
}

impl Times {
    pub fn add(&mut self, took: Duration) {
        self.count += 1;
        self.total += took;
    }
}

/// What a sweep of the connections counted.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// When it ended, in seconds of Unix time.
    pub at_seconds: f64,
    pub tally: Arc<Tally>,
    pub counts: ConntrackCounts,
}
