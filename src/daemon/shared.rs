//! What the socket's threads may know of the daemon.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::config::{Config, JournalFlows};
use crate::model::status::{DaemonStatus, Drift, DriftCounts};
use crate::observe::server::Server;

pub struct Shared {
    started: Instant,
    config: String,
    facts: Mutex<Facts>,
}

struct Facts {
    applied: Instant,
    journal: JournalFlows,
    /// Why the file is not applied; stays until it is.
    file_error: Option<String>,
    /// Why the host's last change was not followed.
    host_error: Option<String>,
    waiting: Vec<String>,
    warnings: Vec<String>,
    server: Weak<Server>,
    drift: DriftCounts,
}

impl Shared {
    pub fn new(config: &Path) -> Shared {
        let now = Instant::now();
        Shared {
            started: now,
            config: config.display().to_string(),
            facts: Mutex::new(Facts {
                applied: now,
                journal: JournalFlows::Drops,
                file_error: None,
                host_error: None,
                waiting: Vec::new(),
                warnings: Vec::new(),
                server: Weak::new(),
                drift: DriftCounts::default(),
            }),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server asks us for our status, and we it for what it lost.
    pub fn serve(&self, server: &Arc<Server>) {
        self.facts().server = Arc::downgrade(server);
    }

    /// The datapath matches the file.
    pub fn follows(&self, config: &Config) {
        let mut facts = self.facts();
        facts.journal = config.events.journal;
        facts.file_error = None;
        facts.host_error = None;
    }

    /// The live configuration has changed.
    pub fn applied(&self) {
        self.facts().applied = Instant::now();
    }

    /// What something else had done was undone.
    pub fn undone(&self, drift: &[Drift]) {
        let mut facts = self.facts();
        drift.iter().for_each(|drift| facts.drift.add(drift.kind));
    }

    /// The file was not applied, and nothing was changed.
    pub fn file_failed(&self, error: &str) {
        self.facts().file_error = Some(error.to_owned());
    }

    /// Whether the host's interfaces could be followed.
    pub fn host_failed(&self, error: Option<String>) {
        self.facts().host_error = error;
    }

    pub fn host(&self, waiting: &[String], warnings: &[String]) {
        let mut facts = self.facts();
        facts.waiting = waiting.to_vec();
        facts.warnings = warnings.to_vec();
    }

    /// Which flows go to the journal now.
    pub fn journal(&self) -> JournalFlows {
        self.facts().journal
    }

    pub fn status(&self) -> DaemonStatus {
        let facts = self.facts();
        DaemonStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            config: self.config.clone(),
            last_error: facts.file_error.clone().or(facts.host_error.clone()),
            applied_seconds_ago: facts.applied.elapsed().as_secs(),
            waiting: facts.waiting.clone(),
            warnings: facts.warnings.clone(),
            observers_lost: facts.server.upgrade().map_or(0, |server| server.lost()),
            drift: facts.drift,
        }
    }
}
