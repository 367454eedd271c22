//! Acquires everything that the daemon needs before it changes anything: if a part fails, the datapath is unchanged.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use signal_hook::consts::SIGHUP;

use crate::bpf::reader::Reader;
use crate::config::{self, Loaded, Runtime};
use crate::http::Port;
use crate::observe::journal::FlowLog;
use crate::observe::socket::Socket;
use crate::reconcile::Reconciler;
use crate::watch::FileWatcher;

/// How often the file is checked for having settled.
const SETTLE_TICK: Duration = Duration::from_millis(20);

pub struct Startup {
    pub loaded: Loaded,
    pub reconciler: Reconciler,
    pub port: Option<Port>,
    pub socket: Socket,
    pub log: FlowLog,
}

/// The runtime drop-ins of a node. Those of the live datapath stay in effect: a restart changes nothing.
pub fn runtime(bpf_root: &Path, folder: Option<PathBuf>) -> Runtime {
    let live = Reader::open(bpf_root).and_then(|reader| reader.catalog());
    Runtime {
        folder,
        in_effect: live.map(|catalog| catalog.drop_ins).unwrap_or_default(),
        ..Runtime::default()
    }
}

impl Startup {
    /// Prepares the start with the settled file: a half-written one is not used. `None`: SIGTERM or SIGINT came.
    ///
    /// # Errors
    /// If the file is invalid, another process holds the lock, port or socket, or the kernel refuses the programs.
    pub fn prepare(
        path: &Path,
        runtime: &Runtime,
        files: &FileWatcher,
        signals: &Receiver<i32>,
    ) -> Result<Option<Startup>> {
        loop {
            let seen = files.look();
            let prepared = Startup::acquire(path, runtime); // meanwhile the file settles
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

    fn acquire(path: &Path, runtime: &Runtime) -> Result<Startup> {
        let loaded = config::load_again(path, None, runtime).map_err(anyhow::Error::new)?;
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let config = loaded.config.clone();
        // The lock first: its error names the other daemon.
        let mut reconciler = Reconciler::start(&config)?;
        reconciler.serve_host_sockets();
        let port = config.daemon.metrics.map(Port::open).transpose();
        let port = port.context("daemon.metrics")?;
        let socket = Socket::open(&config.daemon.socket)?;
        let log = FlowLog::open(config.daemon.log)?;
        Ok(Startup {
            loaded,
            reconciler,
            port,
            socket,
            log,
        })
    }
}
