//! The daemon: it follows the file and the host's interfaces, reads events, sweeps connections, and answers on its
//! socket. It ends without touching the datapath.
//!
//! Every thread but this one does one thing; they meet in channels of one, which say "look again" and carry nothing.

mod events;
pub mod flows;
mod history;
mod host;
mod left_out;
mod names;
mod ready;
mod said;
mod scrape;
mod shared;
mod sweeper;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, bounded, select, tick};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::bpf::reader::Reader;
use crate::config::{self, Config, Loaded, Problems};
use crate::http;
use crate::model::host::HostState;
use crate::net;
use crate::observe::journal::FlowLog;
use crate::observe::server::{Limits, Server};
use crate::observe::socket::Socket;
use crate::parallel::both;
use crate::process::memory;
use crate::reconcile::{AttachError, HookKind, Reconciler};
use crate::systemd;
use crate::watch::FileWatcher;
use left_out::SkippedInterfaces;
use names::Names;
use ready::Ready;
use said::Said;
use scrape::Scraper;
use shared::Shared;
use sweeper::Sweeper;

/// How often connections are swept, if they are not too many, counters sampled, and what something else did is looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Lines of one change that the log is given; a first start with thousands of services has as many.
const CHANGES_TOLD: usize = 200;
/// What the log tells of that something else did at one time; all is counted.
const DRIFT_TOLD: usize = 8;
/// How often the host is looked at though nothing has called.
const LOOK: Duration = Duration::from_secs(30);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// If the file is wrong, or the datapath can't be made to match it at the start; what was there goes on as it was.
pub fn run(path: &Path) -> Result<()> {
    if let Err(error) = memory::use_small_pages() {
        log::debug!("{error:#}");
    }
    raise_file_limit();
    // The watchers first: what changes while we read is then looked at again.
    let (stirred, file_stirs) = bounded(1);
    let (changed, file_changes) = bounded(1);
    let (moved, host_changes) = bounded(1);
    let signals = signals()?;
    let files = FileWatcher::start(path, stirred, changed)?;
    let _net_watcher = net::Watcher::start(moved)?;

    let Some(ready) = Ready::make(path, &files, &signals)? else {
        return Ok(());
    };
    let mut daemon = Daemon::start(path, files, ready)?;
    systemd::notify(systemd::READY);
    log::info!(
        "ready: the datapath matches {}, revision {}",
        path.display(),
        daemon.reconciler.epoch()
    );
    // What a daemon before us could not know is known before the first is asked for it.
    daemon.sweep();
    daemon.sweeper.wait();
    let calls = Calls {
        file_stirs,
        file_changes,
        host_changes,
        signals,
    };
    daemon.follow(&calls);
    daemon.sweeper.wait(); // so that what it deletes is counted
    systemd::notify(systemd::STOPPING);
    log::info!("stopping; the datapath goes on without me");
    Ok(())
}

/// Pinned objects are held open, three for each interface: more than the 1024 that a process begins with.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!("raise the limit of open files: {error}");
    }
}

/// Signals as they come. The one that stops us is not to be lost behind others, so there is room for a few.
fn signals() -> Result<Receiver<i32>> {
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).context("ask for SIGTERM, SIGINT and SIGHUP")?;
    let (sender, receiver) = bounded(16);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if sender.send(signal).is_err() {
                    return;
                }
            }
        })
        .context("start the thread that waits for signals")?;
    Ok(receiver)
}

/// What wakes the daemon.
struct Calls {
    file_stirs: Receiver<()>,
    file_changes: Receiver<()>,
    host_changes: Receiver<()>,
    signals: Receiver<i32>,
}

struct Daemon {
    path: PathBuf,
    files: FileWatcher,
    config: Arc<Config>,
    /// What the file says while it comes to rest.
    ahead: Option<Loaded>,
    /// When it is read ahead again at the earliest: a file that never rests is not to take all of our time.
    ahead_from: Instant,
    reconciler: Reconciler,
    names: Arc<Names>,
    shared: Arc<Shared>,
    sweeper: Sweeper,
    sample_said: Said,
    /// Interfaces that were said to be missing.
    waiting: Vec<String>,
    warnings: Vec<String>,
    scraper: Arc<Scraper>,
    /// Who answers Prometheus, if the file says where.
    metrics: Option<http::Server>,
    /// What the datapath was made to match last; `None` after a failure.
    followed: Option<HostState>,
    /// What of it the kernel refused.
    left_out: SkippedInterfaces,
    /// What not all was done for; it is not tried again before this time.
    again: Option<(HostState, Instant)>,
    /// Why the host could not be followed.
    host_said: Said,
    telling: Option<Outputs>,
}

/// Who tells of events.
struct Outputs {
    _server: Arc<Server>,
    _events: events::Reader,
}

impl Daemon {
    /// Makes the datapath match the file, and only then answers at the socket.
    fn start(path: &Path, files: FileWatcher, ready: Ready) -> Result<Daemon> {
        let Ready {
            config,
            reconciler,
            port,
            socket,
            log,
        } = ready;
        let names = Arc::new(Names::default());
        if let Some(live) = reconciler.live() {
            names.add(reconciler.epoch(), live.catalog.clone());
        }
        let shared = Arc::new(Shared::new(path, &config));
        let mut daemon = Daemon {
            path: path.to_owned(),
            files,
            ahead: None,
            ahead_from: Instant::now(),
            reconciler,
            sweeper: Sweeper::default(),
            sample_said: Said::default(),
            waiting: Vec::new(),
            warnings: Vec::new(),
            scraper: Scraper::new(&config.daemon.bpf_root, names.clone(), shared.clone()),
            config,
            names,
            shared,
            metrics: None,
            followed: None,
            left_out: SkippedInterfaces::default(),
            again: None,
            host_said: Said::default(),
            telling: None,
        };
        daemon.apply_in(net::snapshot()?, |_| true)?;
        daemon.shared.follows(&daemon.config);
        daemon.note_left_out();
        daemon.tell(socket, log)?;
        daemon.serve_metrics(port);
        Ok(daemon)
    }

    fn tell(&mut self, socket: Socket, log: FlowLog) -> Result<()> {
        let server = {
            let shared = self.shared.clone();
            Server::start(socket, Limits::default(), move || shared.status())?
        };
        let (server, log) = (Arc::new(server), Arc::new(log));
        self.shared.serve(&server, &log);
        let audience = events::FlowSinks {
            names: self.names.clone(),
            server: server.clone(),
            shared: self.shared.clone(),
            log,
        };
        self.telling = Some(Outputs {
            _events: events::Reader::start(&self.config.daemon.bpf_root, audience)?,
            _server: server,
        });
        Ok(())
    }

    fn follow(&mut self, calls: &Calls) {
        let sweeps = tick(SWEEP);
        let looks = tick(LOOK);
        loop {
            select! {
                recv(calls.signals) -> signal => match signal {
                    Ok(SIGHUP) => self.reload(),
                    _ => return,
                },
                recv(calls.file_stirs) -> _ => self.read_ahead(),
                recv(calls.file_changes) -> _ => {
                    let _ = calls.file_stirs.try_recv(); // of what is at rest now
                    self.follow_file();
                }
                recv(calls.host_changes) -> _ => self.follow_host(),
                recv(looks) -> _ => self.follow_host(),
                recv(sweeps) -> _ => self.sweep(),
            }
        }
    }

    /// SIGHUP: at once, and loud.
    fn reload(&mut self) {
        self.shared.reload_begins();
        systemd::notify(&systemd::reloading());
        log::info!("reload: reading {}", self.path.display());
        let (loaded, world) = self.read();
        if self.apply_file(loaded, world) {
            log::info!("reload: done, revision {}", self.reconciler.epoch());
        }
        systemd::notify(systemd::READY);
        self.shared.reload_ends();
    }

    /// The file has changed and is not at rest: what it says by now is checked, planned and written beside the live tables,
    /// which is most of the work on a large one. No packet meets it, and what is wrong with it is said when it rests.
    fn read_ahead(&mut self) {
        let started = Instant::now();
        if started < self.ahead_from {
            return;
        }
        let (loaded, world) = self.read();
        let Ok(loaded) = loaded else {
            self.reconciler.discard_ahead();
            return;
        };
        if let Ok(world) = world {
            let config = self.in_place(&loaded.config);
            self.reconciler.stage_ahead(config, world);
        }
        self.ahead = Some(loaded);
        let took = started.elapsed();
        self.ahead_from = started + 2 * took;
    }

    /// Follows what the file says at rest. It may move again before we come to it: then there is another call to come.
    fn follow_file(&mut self) {
        let rest = self.files.rest();
        let (loaded, world) = self.read();
        if rest.is_some() && self.files.rest() == rest {
            self.apply_file(loaded, world);
        } else {
            self.ahead = loaded.ok();
            self.files.tell_again();
        }
    }

    /// What the file says, and the host.
    fn read(&mut self) -> (Result<Loaded, Problems>, Result<HostState>) {
        let before = self.ahead.take();
        both(|| config::load_again(&self.path, before), net::snapshot)
    }

    /// Applies what the file says; a wrong one changes nothing. Answers whether the datapath matches it.
    fn apply_file(&mut self, loaded: Result<Loaded, Problems>, world: Result<HostState>) -> bool {
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(problems) => {
                self.fail(&format!(
                    "{} is not applied, and nothing is changed:\n{problems}",
                    self.path.display()
                ));
                return false;
            }
        };
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let config = self.in_place(&loaded.config);
        if config.daemon != loaded.config.daemon {
            log::warn!("[daemon] has changed: but for metrics, that counts from the next start on");
        }
        let metrics = config.daemon.metrics;
        let port = match scrape::open_new(self.metrics.as_ref(), metrics) {
            Ok(port) => port,
            Err(error) => {
                let path = self.path.display();
                self.fail(&format!("apply {path}: daemon.metrics: {error:#}"));
                return false;
            }
        };
        if config.conntrack.size != self.config.conntrack.size {
            self.sweeper.wait(); // the tables are about to be others
        }
        let previous = std::mem::replace(&mut self.config, config);
        // A change is refused whole. What it does not concern may be left out.
        let (before, wanted) = (previous.clone(), self.config.clone());
        let may_leave_out = |refused: &AttachError| {
            let of = |config: &Config| config.interfaces.get(&refused.interface).cloned();
            let is_same = of(&before) == of(&wanted);
            is_same && (refused.kind == HookKind::Tc || !before.prefilter.is_empty())
        };
        let done = world.and_then(|world| self.apply_in(world, may_leave_out));
        match done {
            Ok(()) => {
                self.serve_metrics(port);
                self.shared.follows(&self.config);
                self.note_left_out();
                true
            }
            Err(error) => {
                self.config = previous;
                self.fail(&format!("apply {}: {error:#}", self.path.display()));
                false
            }
        }
    }

    /// The configuration, with what a running daemon can't move where it is.
    fn in_place(&self, wanted: &Arc<Config>) -> Arc<Config> {
        let daemon = config::Daemon {
            metrics: wanted.daemon.metrics,
            ..self.config.daemon.clone()
        };
        match wanted.daemon == daemon {
            true => wanted.clone(),
            false => Arc::new(Config {
                daemon,
                ..Config::clone(wanted)
            }),
        }
    }

    /// Prometheus is answered where the file says: at the new port if there is one.
    fn serve_metrics(&mut self, port: Option<http::Port>) {
        if self.config.daemon.metrics.is_none() {
            self.metrics = None;
        }
        match port.map(|port| self.scraper.serve(port)).transpose() {
            Ok(None) => {}
            Ok(server) => self.metrics = server,
            Err(error) => log::error!("daemon.metrics: {error:#}"),
        }
    }

    /// What something else did to the datapath, in one line.
    fn say_undone(&mut self) {
        let undone = self.reconciler.take_repaired();
        if undone.is_empty() {
            return;
        }
        self.shared.undone(&undone);
        let (told, rest) = undone.split_at(undone.len().min(DRIFT_TOLD));
        let told: Vec<&str> = told.iter().map(|drift| drift.what.as_str()).collect();
        let rest = match rest.len() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        log::warn!(
            "something else changed the datapath: {}{rest}: all is as it was again",
            told.join(", ")
        );
    }

    /// The file is not what the datapath does.
    fn fail(&mut self, error: &str) {
        log::error!("{error}");
        self.reconciler.discard_ahead();
        self.shared.file_failed(error);
    }

    fn say(&self, changes: &[crate::plan::Change]) {
        if changes.is_empty() {
            return;
        }
        log::info!("revision {}:", self.reconciler.epoch());
        let (told, rest) = changes.split_at(changes.len().min(CHANGES_TOLD));
        for change in told {
            log::info!("{change}");
        }
        if !rest.is_empty() {
            log::info!("and {} more changes (told at level debug)", rest.len());
        }
        for change in rest {
            log::debug!("{change}");
        }
    }

    fn sweep(&mut self) {
        if self.reconciler.has_drifted() {
            self.follow_host();
        }
        let Some(live) = self.reconciler.live() else {
            return;
        };
        let root = &self.config.daemon.bpf_root;
        self.sweeper.walk(root, &live.settings, &self.shared);
        if self.names.forget_old(Instant::now()) {
            memory::release_free();
        }
        let drops = Reader::open(root).and_then(|reader| reader.drops());
        let error = drops
            .map(|drops| self.shared.sample(&drops))
            .map_err(|error| format!("sample the counters of drops: {error:#}"));
        if let Some(error) = self.sample_said.news(error.err()) {
            log::warn!("{error}");
        }
    }
}
