//! What a start makes ready before it changes anything: if some of it can't be had, all is as it was.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use signal_hook::consts::SIGHUP;

use super::scrape;
use crate::config::{self, Config};
use crate::http::Port;
use crate::observe::journal::FlowLog;
use crate::observe::socket::Socket;
use crate::reconcile::Reconciler;
use crate::watch::FileWatcher;

/// How often it is looked whether the file is at rest.
const LOOK: Duration = Duration::from_millis(20);

pub struct Ready {
    pub config: Arc<Config>,
    pub reconciler: Reconciler,
    pub port: Option<Port>,
    pub socket: Socket,
    pub log: FlowLog,
}

impl Ready {
    /// Makes everything ready for what the file says at rest: half of one counts for nothing. `None`: a signal says that
    /// there is to be no start.
    ///
    /// # Errors
    /// If the file is wrong, somebody else has what we need, or the kernel refuses the programs.
    pub fn make(
        path: &Path,
        files: &FileWatcher,
        signals: &Receiver<i32>,
    ) -> Result<Option<Ready>> {
        loop {
            let seen = files.look();
            let made = Ready::try_to_make(path); // takes longer than the rest that is waited for
            let rest = loop {
                if let Some(rest) = files.rest() {
                    break rest;
                }
                match signals.recv_timeout(LOOK) {
                    Ok(SIGHUP) | Err(RecvTimeoutError::Timeout) => {}
                    _ => return Ok(None),
                }
            };
            if rest == seen {
                return made.map(Some);
            }
        }
    }

    fn try_to_make(path: &Path) -> Result<Ready> {
        let loaded = config::load(path).map_err(anyhow::Error::new)?;
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let config = loaded.config;
        // The lock first: it tells who else is at work.
        let reconciler = Reconciler::start(&config)?;
        let port = scrape::open_new(None, config.daemon.metrics).context("daemon.metrics")?;
        let socket = Socket::open(&config.daemon.socket)?;
        let log = FlowLog::open(config.daemon.log)?;
        Ok(Ready {
            config,
            reconciler,
            port,
            socket,
            log,
        })
    }
}
