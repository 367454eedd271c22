//! Follows the configuration file: stages it while it changes, and applies it once it has settled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Error, Result};

use super::datapath::Datapath;
use super::scrape::MetricsServer;
use super::sweeper::Sweeper;
use crate::config::{self, Config, Loaded, Problems, Source};
use crate::model::host::HostState;
use crate::net;
use crate::parallel::both;
use crate::reconcile::AttachError;
use crate::watch::FileWatcher;

pub struct FileFollower {
    path: PathBuf,
    files: FileWatcher,
    /// The last parse while the file was changing: files that are the same are not parsed again.
    parsed: Option<Loaded>,
    /// The earliest time of the next staging: a file that never settles must not take all of the daemon's time.
    next_stage: Instant,
}

/// The file, and the host that it was read with.
pub type Read = (Result<Loaded, Problems>, Result<HostState>);

impl FileFollower {
    pub fn new(path: &Path, files: FileWatcher) -> FileFollower {
        FileFollower {
            path: path.to_owned(),
            files,
            parsed: None,
            next_stage: Instant::now(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file and the host.
    pub fn read(&mut self) -> Read {
        let before = self.parsed.take();
        both(|| config::load_again(&self.path, before), net::snapshot)
    }

    /// Reads the file after a change; `None` if it has changed again, which wakes the daemon once more.
    pub fn read_settled(&mut self) -> Option<Read> {
        let settled = self.files.settled();
        let read = self.read();
        if settled.is_some() && self.files.settled() == settled {
            return Some(read);
        }
        self.parsed = read.0.ok();
        self.files.notify_again();
        None
    }

    /// The file has changed and has not settled: it is checked, planned and written to tables that are not live, which is
    /// most of the work for a large file. Errors are reported when it has settled.
    pub fn stage(&mut self, datapath: &mut Datapath) {
        let started = Instant::now();
        if started < self.next_stage {
            return;
        }
        let (loaded, host) = self.read();
        let Ok(loaded) = loaded else {
            datapath.forget_staged();
            return;
        };
        if let Ok(host) = host {
            datapath.stage(keep_daemon_table(datapath.config(), &loaded.config), host);
        }
        self.parsed = Some(loaded);
        self.next_stage = started + 2 * started.elapsed();
    }

    /// Applies the file; an invalid one changes nothing. Returns whether the datapath matches it.
    pub fn apply(
        &self,
        (loaded, host): Read,
        datapath: &mut Datapath,
        metrics: &mut MetricsServer,
        sweeper: &mut Sweeper,
    ) -> bool {
        let path = self.path.display();
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(problems) => {
                datapath.reject(
                    &format!("{path} is not applied, nothing is changed:\n{problems}"),
                    &problems.headline(),
                );
                return false;
            }
        };
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let config = keep_daemon_table(datapath.config(), &loaded.config);
        if config.daemon != loaded.config.daemon {
            log::warn!(
                "[daemon] has changed: keys other than metrics take effect at the next start"
            );
        }
        let port = match metrics.open_port(config.daemon.metrics) {
            Ok(port) => port,
            Err(error) => {
                let error = format!("daemon.metrics: {error:#}");
                datapath.reject(&format!("apply {path}: {error}"), &error);
                return false;
            }
        };
        if config.conntrack.size != datapath.config().conntrack.size {
            sweeper.wait(); // the change replaces the tables that it walks over
        }
        match host.and_then(|host| datapath.apply_config(config, host)) {
            Ok(()) => {
                metrics.serve(datapath.config().daemon.metrics, port);
                true
            }
            Err(error) => {
                let location = location(&error, &loaded.sources).unwrap_or(path.to_string());
                let error = format!("{location}: {error:#}");
                datapath.reject(&format!("apply {error}"), &error);
                false
            }
        }
    }
}

/// Where the file has the interface that is refused, as `config.toml:12`; `None`: it is about none.
fn location(error: &Error, sources: &[Source]) -> Option<String> {
    let interface = &error.downcast_ref::<AttachError>()?.interface;
    let (file, excerpt) = config::locate(sources, &["interfaces", interface])?;
    Some(format!("{}:{}", file.display(), excerpt.line))
}

/// The configuration with the `[daemon]` table of the running one: all but `metrics` needs a restart.
fn keep_daemon_table(running: &Config, wanted: &Arc<Config>) -> Arc<Config> {
    let daemon = config::Daemon {
        metrics: wanted.daemon.metrics,
        ..running.daemon.clone()
    };
    match wanted.daemon == daemon {
        true => wanted.clone(),
        false => Arc::new(Config {
            daemon,
            ..Config::clone(wanted)
        }),
    }
}
