//! The state of the daemon that other threads show: `dpd status` and the metrics.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::history::History;
use super::unit_status::UnitStatus;
use crate::bpf::reader::Reader;
use crate::bpf::state::sweep::Swept;
use crate::config::{Config, JournalFlows};
use crate::metrics::{Sweep, Work};
use crate::model::announce::Announcement;
use crate::model::protocol::Protocol;
use crate::model::state::State;
use crate::model::status::{DaemonStatus, Drift, DriftCounts, DropInStatus, Metric, RecentDrops};
use crate::observe::journal::FlowLog;
use crate::observe::server::Server;

pub struct DaemonState {
    started: Instant,
    config: String,
    bpf_root: PathBuf,
    /// Events read since the start.
    events: AtomicU64,
    facts: Mutex<Facts>,
    history: Mutex<History>,
}

struct Facts {
    applied: Instant,
    journal: JournalFlows,
    /// Why the file is not applied; kept until it is.
    file_error: Option<FileError>,
    /// Reloads completed.
    reloads: u64,
    is_reloading: bool,
    reload_error: Option<String>,
    /// Why the host's last change was not followed.
    host_error: Option<String>,
    pending: Vec<String>,
    warnings: Vec<String>,
    hints: Vec<String>,
    work: Work,
    server: Weak<Server>,
    log: Option<Arc<FlowLog>>,
    drift: DriftCounts,
    drop_ins: Vec<DropInStatus>,
    announcements: Vec<Announcement>,
}

#[derive(Clone)]
struct FileError {
    text: String,
    /// In one line.
    headline: String,
}

impl Facts {
    /// The whole error of the file, or of the host.
    fn last_error(&self) -> Option<String> {
        let of_file = self.file_error.as_ref().map(|error| error.text.clone());
        of_file.or_else(|| self.host_error.clone())
    }
}

/// Seconds of Unix time.
fn unix_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

impl DaemonState {
    pub fn new(path: &Path, config: &Config) -> DaemonState {
        let now = Instant::now();
        DaemonState {
            started: now,
            config: path.display().to_string(),
            bpf_root: config.daemon.bpf_root.clone(),
            events: AtomicU64::new(0),
            facts: Mutex::new(Facts {
                applied: now,
                journal: JournalFlows::Drops,
                file_error: None,
                reloads: 0,
                is_reloading: false,
                reload_error: None,
                host_error: None,
                pending: Vec::new(),
                warnings: Vec::new(),
                hints: Vec::new(),
                work: Work::default(),
                server: Weak::new(),
                log: None,
                drift: DriftCounts::default(),
                drop_ins: Vec::new(),
                announcements: Vec::new(),
            }),
            history: Mutex::default(),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Includes the losses of these two. The server holds the state, so it is held weakly.
    pub fn count_losses_of(&self, server: &Arc<Server>, log: &Arc<FlowLog>) {
        let mut facts = self.facts();
        facts.server = Arc::downgrade(server);
        facts.log = Some(log.clone());
    }

    /// The datapath matches the file.
    pub fn follows(&self, config: &Config) {
        let mut facts = self.facts();
        facts.journal = config.events.journal;
        facts.file_error = None;
        facts.host_error = None;
        facts.work.reloads_done += 1;
        facts.work.file_applied_seconds = unix_seconds();
    }

    /// The runtime drop-ins of the configuration that was applied; returns those of the one before.
    pub fn set_drop_ins(&self, drop_ins: Vec<DropInStatus>) -> Vec<DropInStatus> {
        std::mem::replace(&mut self.facts().drop_ins, drop_ins)
    }

    /// What becomes of the addresses that uplinks are to announce.
    pub fn set_announcements(&self, announcements: Vec<Announcement>) {
        self.facts().announcements = announcements;
    }

    /// The live configuration has changed.
    pub fn applied(&self) {
        self.facts().applied = Instant::now();
    }

    /// The datapath was compared with the configuration, and is `live` now.
    pub fn compared(&self, took: Duration, live: Option<&State>) {
        let work = &mut self.facts().work;
        work.applies.add(took);
        work.backends.clear();
        work.ending.clear();
        for (number, backend) in live.into_iter().flat_map(|live| &live.backends) {
            *work.backends.entry(backend.state).or_default() += 1;
            if !backend.state.keeps(Protocol::Udp) {
                work.ending.insert(*number, backend.state);
            }
        }
    }

    pub fn repaired(&self, drift: &[Drift]) {
        let mut facts = self.facts();
        drift.iter().for_each(|drift| facts.drift.add(drift.kind));
    }

    /// The file was not applied; nothing was changed.
    pub fn file_failed(&self, error: &str, headline: &str) {
        let mut facts = self.facts();
        facts.file_error = Some(FileError {
            text: error.to_owned(),
            headline: headline.to_owned(),
        });
        facts.work.reloads_failed += 1;
    }

    /// A requested reload begins.
    pub fn reload_begins(&self) {
        self.facts().is_reloading = true;
    }

    /// After its result was noted by `follows` or `file_failed`.
    pub fn reload_ends(&self) {
        let mut facts = self.facts();
        facts.is_reloading = false;
        facts.reload_error = facts.file_error.as_ref().map(|error| error.text.clone());
        facts.reloads += 1;
    }

    /// Why the host's interfaces can't be followed; `None`: they are.
    pub fn host_failed(&self, error: Option<String>) {
        self.facts().host_error = error;
    }

    pub fn host(&self, pending: &[String], warnings: &[String], hints: &[String]) {
        let mut facts = self.facts();
        facts.pending = pending.to_vec();
        facts.warnings = warnings.to_vec();
        facts.hints = hints.to_vec();
    }

    /// The connections were swept.
    pub fn swept(&self, took: Duration, swept: Swept) {
        let work = &mut self.facts().work;
        work.sweeps.add(took);
        let mut counts = swept.counts;
        // The count is an estimate while packets arrive, and a counter never decreases.
        if let Some(last) = &work.sweep {
            counts.evicted = counts.evicted.max(last.counts.evicted);
        }
        work.sweep = Some(Sweep {
            at_seconds: unix_seconds(),
            tally: Arc::new(swept.tally),
            counts,
        });
    }

    pub fn sweep_failed(&self) {
        self.facts().work.sweeps_failed += 1;
    }

    /// Adds the drop counters to the history.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn sample_drops(&self) -> Result<()> {
        let drops = self.read_drops()?;
        self.history().sample(&drops, Instant::now());
        Ok(())
    }

    fn read_drops(&self) -> Result<Vec<Metric>> {
        Reader::open(&self.bpf_root)?.drops()
    }

    pub fn count_event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// Which flows go to the journal now.
    pub fn journal(&self) -> JournalFlows {
        self.facts().journal
    }

    /// For the metrics.
    pub fn work(&self) -> Work {
        let facts = self.facts();
        Work {
            file_failed: facts.file_error.is_some(),
            host_failed: facts.host_error.is_some(),
            warnings: facts.warnings.len(),
            drop_ins: facts.drop_ins.len(),
            drop_ins_skipped: facts
                .drop_ins
                .iter()
                .filter(|drop_in| drop_in.reason.is_some())
                .count(),
            announcements: facts.announcements.iter().map(|row| row.state).collect(),
            drift: facts.drift,
            events: self.events.load(Ordering::Relaxed),
            observers_lost: facts.server.upgrade().map_or(0, |server| server.lost()),
            journal_lost: facts.log.as_ref().map_or(0, |log| log.lost()),
            ..facts.work.clone()
        }
    }

    /// The drops of the last minute, those since the last sample included.
    fn recent_drops(&self) -> Option<RecentDrops> {
        let drops = self
            .read_drops()
            .map_err(|error| log::debug!("status: {error:#}"))
            .ok()?;
        self.history().recent(&drops, Instant::now())
    }

    /// For the unit's line.
    pub fn unit_status(&self, revision: u64) -> UnitStatus {
        let facts = self.facts();
        UnitStatus {
            revision,
            file_error: facts
                .file_error
                .as_ref()
                .map(|error| error.headline.clone()),
            host_error: facts.host_error.clone(),
            pending: facts.pending.clone(),
            warnings: facts.warnings.len(),
        }
    }

    pub fn status(&self) -> DaemonStatus {
        let recent_drops = self.recent_drops();
        let facts = self.facts();
        DaemonStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            config: self.config.clone(),
            last_error: facts.last_error(),
            reloads: facts.reloads,
            is_reloading: facts.is_reloading,
            reload_error: facts.reload_error.clone(),
            applied_seconds_ago: facts.applied.elapsed().as_secs(),
            pending: facts.pending.clone(),
            warnings: facts.warnings.clone(),
            hints: facts.hints.clone(),
            observers_lost: facts.server.upgrade().map_or(0, |server| server.lost()),
            recent_drops,
            journal_lost: facts.log.as_ref().map_or(0, |log| log.lost()),
            drift: facts.drift,
            drop_ins: facts.drop_ins.clone(),
            announcements: facts.announcements.clone(),
        }
    }
}
