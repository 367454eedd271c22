//! What the socket's threads may know of the daemon.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::config::{Config, JournalFlows};
use crate::model::status::DaemonStatus;
use crate::observe::server::Server;

pub struct Shared {
    started: Instant,
    config: String,
    facts: Mutex<Facts>,
}

struct Facts {
    applied: Instant,
    journal: JournalFlows,
    last_error: Option<String>,
    waiting: Vec<String>,
    warnings: Vec<String>,
    server: Weak<Server>,
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
                last_error: None,
                waiting: Vec::new(),
                warnings: Vec::new(),
                server: Weak::new(),
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

    /// The datapath matches this configuration.
    pub fn applied(&self, config: &Config) {
        let mut facts = self.facts();
        facts.applied = Instant::now();
        facts.journal = config.events.journal;
        facts.last_error = None;
    }

    /// The last try failed, and nothing was changed.
    pub fn failed(&self, error: &str) {
        self.facts().last_error = Some(error.to_owned());
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
            last_error: facts.last_error.clone(),
            applied_seconds_ago: facts.applied.elapsed().as_secs(),
            waiting: facts.waiting.clone(),
            warnings: facts.warnings.clone(),
            observers_lost: facts.server.upgrade().map_or(0, |server| server.lost()),
        }
    }
}
