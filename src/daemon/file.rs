//! Follows the configuration file: stages it while it changes, and applies it once it has settled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Error, Result};

use super::datapath::Datapath;
use super::scrape::MetricsServer;
use super::state::DaemonState;
use super::sweeper::Sweeper;
use crate::config::{self, Config, DropIn, Loaded, Problems, Refusal, Runtime, Source};
use crate::model::catalog::InEffect;
use crate::model::host::HostState;
use crate::model::status::DropInStatus;
use crate::net;
use crate::parallel::both;
use crate::reconcile::AttachError;
use crate::watch::FileWatcher;

/// Drop-ins that are newly skipped and logged each; all of them are in `dpd status`.
const SKIPPED_LOGGED: usize = 20;

pub struct FileFollower {
    path: PathBuf,
    /// The folder of the runtime drop-ins.
    runtime: Option<PathBuf>,
    /// The drop-ins with which the last change was refused.
    refused: BTreeMap<String, Refusal>,
    files: FileWatcher,
    /// The last parse while the file was changing: files that are the same are not parsed again.
    parsed: Option<Loaded>,
    /// The earliest time of the next staging: a file that never settles must not take all of the daemon's time.
    next_stage: Instant,
}

/// The file, and the host that it was read with.
pub type Read = (Result<Loaded, Problems>, Result<HostState>);

impl FileFollower {
    pub fn new(path: &Path, runtime: Option<PathBuf>, files: FileWatcher) -> FileFollower {
        FileFollower {
            path: path.to_owned(),
            runtime,
            refused: BTreeMap::new(),
            files,
            parsed: None,
            next_stage: Instant::now(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file and the host. The runtime drop-ins of the running configuration are those in effect.
    fn read(&mut self, running: &Config) -> Read {
        let before = self.parsed.take();
        let runtime = self.runtime(&running.drop_ins);
        both(
            || config::load_again(&self.path, before, &runtime),
            net::snapshot,
        )
    }

    /// Reads the file at once: what is settled later is notified only if it differs.
    pub fn read_now(&mut self, running: &Config) -> Read {
        self.refused.clear();
        let seen = self.files.look();
        let read = self.read(running);
        self.files.note_read(seen);
        read
    }

    fn runtime(&self, in_effect: &InEffect) -> Runtime {
        Runtime {
            folder: self.runtime.clone(),
            in_effect: in_effect.clone(),
            refused: self.refused.clone(),
        }
    }

    /// Reads the file after a change; `None` if it has changed again, which wakes the daemon once more.
    pub fn read_settled(&mut self, running: &Config) -> Option<Read> {
        let settled = self.files.settled();
        self.refused.clear(); // they are tried again after a change
        let read = self.read(running);
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
        let (loaded, host) = self.read(datapath.config());
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

    /// Applies the file; an invalid one changes nothing. Returns the runtime drop-ins if the datapath matches the file.
    pub fn apply(
        &mut self,
        (loaded, host): Read,
        datapath: &mut Datapath,
        metrics: &mut MetricsServer,
        sweeper: &mut Sweeper,
    ) -> Option<Vec<DropIn>> {
        let path = self.path.display();
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(problems) => {
                datapath.reject(
                    &format!("{path} is not applied, nothing is changed:\n{problems}"),
                    &problems.headline(),
                );
                return None;
            }
        };
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let drop_ins = loaded.drop_ins.clone();
        let applied = host.and_then(|host| apply_loaded(&loaded, host, datapath, metrics, sweeper));
        let applied = match applied {
            Ok(()) => Ok(drop_ins),
            Err(error) => self.apply_without_new(loaded, error, datapath, metrics, sweeper),
        };
        applied
            .map_err(|error| {
                let error = format!("{error:#}");
                datapath.reject(&format!("apply {error}"), &error);
            })
            .ok()
    }

    /// Makes the datapath match the file at the start, and returns what is in effect. `in_effect` are the drop-ins of the live
    /// datapath.
    ///
    /// # Errors
    /// If the kernel refuses it, without the drop-ins that are not in effect too.
    pub fn start(
        &mut self,
        loaded: Loaded,
        in_effect: &InEffect,
        datapath: &mut Datapath,
    ) -> Result<Loaded> {
        let Err(error) = datapath.start(loaded.config.clone(), net::snapshot()?) else {
            return Ok(loaded);
        };
        let fewer = self.without_new(loaded, in_effect, error)?;
        datapath.start(fewer.config.clone(), net::snapshot()?)?;
        Ok(fewer)
    }

    /// Applies what was refused without the drop-ins that were not in effect before, so that they never prevent a change of the
    /// operator's files. They are skipped until something changes.
    fn apply_without_new(
        &mut self,
        loaded: Loaded,
        error: anyhow::Error,
        datapath: &mut Datapath,
        metrics: &mut MetricsServer,
        sweeper: &mut Sweeper,
    ) -> Result<Vec<DropIn>> {
        let fewer = self.without_new(loaded, &datapath.config().drop_ins, error)?;
        apply_loaded(&fewer, net::snapshot()?, datapath, metrics, sweeper)?;
        Ok(fewer.drop_ins)
    }

    /// The file without the drop-ins that were not in effect before a change that was refused.
    ///
    /// # Errors
    /// The change's, if there are none.
    fn without_new(
        &mut self,
        loaded: Loaded,
        before: &InEffect,
        error: anyhow::Error,
    ) -> Result<Loaded> {
        let new = loaded.config.drop_ins.iter();
        let new = new.filter(|(name, digest)| before.get(*name) != Some(*digest));
        let refusal = |(name, digest): (&String, &u64)| {
            let error = format!("{error:#}");
            let digest = *digest;
            (name.clone(), Refusal { digest, error })
        };
        let refused: BTreeMap<_, _> = new.map(refusal).collect();
        if refused.is_empty() {
            return Err(error);
        }
        self.refused.extend(refused);
        let runtime = self.runtime(before);
        Ok(config::load_again(&self.path, Some(loaded), &runtime)?)
    }
}

/// # Errors
/// If the kernel refuses it; the error begins with the place in the file.
fn apply_loaded(
    loaded: &Loaded,
    host: HostState,
    datapath: &mut Datapath,
    metrics: &mut MetricsServer,
    sweeper: &mut Sweeper,
) -> Result<()> {
    try_apply(loaded, host, datapath, metrics, sweeper).map_err(|error| {
        let place = location(&error, &loaded.sources);
        let place = place.unwrap_or_else(|| loaded.config.path.display().to_string());
        error.context(place)
    })
}

fn try_apply(
    loaded: &Loaded,
    host: HostState,
    datapath: &mut Datapath,
    metrics: &mut MetricsServer,
    sweeper: &mut Sweeper,
) -> Result<()> {
    let config = keep_daemon_table(datapath.config(), &loaded.config);
    if config.daemon != loaded.config.daemon {
        log::warn!("[daemon] has changed: keys other than metrics take effect at the next start");
    }
    let port = metrics.open_port(config.daemon.metrics);
    let port = port.context("daemon.metrics")?;
    if config.conntrack.size != datapath.config().conntrack.size {
        sweeper.wait(); // the change replaces the tables that it walks over
    }
    datapath.apply_config(config, host)?;
    metrics.serve(datapath.config().daemon.metrics, port);
    Ok(())
}

/// Shows the runtime drop-ins in `dpd status`, and logs what has become of them since the last time.
pub fn report_drop_ins(state: &DaemonState, drop_ins: &[DropIn]) {
    let now: Vec<DropInStatus> = drop_ins
        .iter()
        .map(|drop_in| DropInStatus {
            path: drop_in.path.display().to_string(),
            reason: drop_in.reason(),
        })
        .collect();
    let before = state.set_drop_ins(now.clone());
    let before: BTreeMap<&str, Option<&str>> = before
        .iter()
        .map(|drop_in| (drop_in.path.as_str(), drop_in.reason.as_deref()))
        .collect();
    let mut skipped = 0;
    for DropInStatus { path, reason } in &now {
        let was = before.get(path.as_str()).copied().flatten();
        match reason {
            Some(reason) if was != Some(reason) => {
                skipped += 1;
                if skipped <= SKIPPED_LOGGED {
                    log::warn!("the runtime drop-in {path} is skipped:\n{reason}");
                }
            }
            None if was.is_some() => log::info!("the runtime drop-in {path} is in effect"),
            _ => {}
        }
    }
    if skipped > SKIPPED_LOGGED {
        let more = skipped - SKIPPED_LOGGED;
        log::warn!("{more} more runtime drop-ins are skipped: see `dpd status -o json`");
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
