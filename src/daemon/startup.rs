//! Acquires everything that the daemon needs before it changes anything: if a part fails, the datapath is unchanged.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use signal_hook::consts::SIGHUP;

use crate::config::{self, Config};
use crate::http::Port;
use crate::observe::journal::FlowLog;
use crate::observe::socket::Socket;
use crate::reconcile::Reconciler;
use crate::watch::FileWatcher;

/// How often the file is checked for having settled.
const SETTLE_TICK: Duration = Duration::from_millis(20);

pub struct Startup {
    pub config: Arc<Config>,
    pub reconciler: Reconciler,
    pub port: Option<Port>,
    pub socket: Socket,
    pub log: FlowLog,
}

impl Startup {
    /// Prepares the start with the settled file: a half-written one is not used. `None`: SIGTERM or SIGINT came.
    ///
    /// # Errors
    /// If the file is invalid, another process holds the lock, port or socket, or the kernel refuses the programs.
    pub fn prepare(
        path: &Path,
        files: &FileWatcher,
        signals: &Receiver<i32>,
    ) -> Result<Option<Startup>> {
        loop {
            let seen = files.look();
            let prepared = Startup::acquire(path); // meanwhile the file settles
            let settled = loop {
                if let Some(settled) = files.settled() {
                    break settled;
                }
                match signals.recv_timeout(SETTLE_TICK) {
                    Ok(SIGHUP) | Err(RecvTimeoutError::Timeout) => {}
                    _ => return Ok(None),
                }
            };
            if settled == seen {
                return prepared.map(Some);
            }
        }
    }

    fn acquire(path: &Path) -> Result<Startup> {
        let loaded = config::load(path).map_err(anyhow::Error::new)?;
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let config = loaded.config;
        // The lock first: its error names the other daemon.
        let reconciler = Reconciler::start(&config)?;
        let port = config.daemon.metrics.map(Port::open).transpose();
        let port = port.context("daemon.metrics")?;
        let socket = Socket::open(&config.daemon.socket)?;
        let log = FlowLog::open(config.daemon.log)?;
        Ok(Startup {
            config,
            reconciler,
            port,
            socket,
            log,
        })
    }
}
