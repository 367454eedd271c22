//! The daemon: it follows the file and the host's interfaces, reads events, sweeps connections, and serves its socket.
//! It stops without touching the datapath.
//!
//! ```text
//!   signals ─┐
//!   watch  ──┼─► main: follow ─► file: stage, apply ─► datapath: reconcile
//!   net    ──┤                                           │ │
//!   ticks  ──┤    sweeper, events, http, observe ◄───────┴─┼─ state: what they show
//!   announcer ◄────────────────────────────────────────────┘
//!                 watchdog: whether main and events make progress
//! ```
//!
//! Each thread has one job. They wake main through channels of one, which mean "look again" and carry no data.

mod announcer;
mod catalog_history;
mod datapath;
mod events;
mod file;
mod held_host;
mod held_stack;
mod history;
mod interface_names;
mod on_change;
mod scrape;
mod skipped;
mod startup;
mod state;
mod sweeper;
mod unit_status;
mod watchdog;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, at, bounded, never, select, tick};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::bpf::sys::call;
use crate::model::catalog::InEffect;
use crate::net;
use crate::observe::journal::FlowLog;
use crate::observe::server::{Limits, Server};
use crate::observe::socket::Socket;
use crate::process::memory;
use crate::systemd;
use crate::watch::FileWatcher;
use datapath::Datapath;
use file::FileFollower;
use on_change::OnChange;
use scrape::MetricsServer;
use startup::Startup;
use state::DaemonState;
use sweeper::Sweeper;
use unit_status::UnitStatus;
use watchdog::{Pulses, Watchdog};

/// How often drift is looked for, drop counters are sampled, and connections are swept unless the sweeper rests.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often the host is looked at without a netlink message.
const HOST_INTERVAL: Duration = Duration::from_secs(30);
/// Signals that are queued: SIGTERM must not be lost behind others.
const SIGNALS: usize = 16;

/// Runs until SIGTERM or SIGINT. `bpf_root` and `runtime_config` are the file's, as far as it can be read.
///
/// # Errors
/// If the file is invalid, or the datapath can't be made to match it at startup; the datapath is unchanged then.
pub fn run(path: &Path, bpf_root: &Path, runtime_config: Option<PathBuf>) -> Result<()> {
    if let Err(error) = memory::use_small_pages() {
        log::debug!("{error:#}");
    }
    raise_file_limit();
    // The watchers first, so that a change during the first read is read again.
    let (stirred, file_stirs) = bounded(1);
    let (changed, file_changes) = bounded(1);
    let (moved, host_changes) = bounded(1);
    let (rewritten, stack_changes) = bounded(1);
    let (announced, announcements) = bounded(1);
    let wakeups = Wakeups {
        file_stirs,
        file_changes,
        host_changes,
        stack_changes,
        announcements,
        signals: signals()?,
    };
    let files = FileWatcher::start(path, runtime_config.as_deref(), stirred, changed)?;
    let _net_watcher = net::Watcher::start(moved)?;
    let _stack_watcher = net::Watcher::start_for_stack(&rewritten)?;

    let runtime = startup::runtime(bpf_root, runtime_config);
    let Some(startup) = Startup::prepare(path, &runtime, &files, &wakeups.signals)? else {
        return Ok(());
    };
    let file = FileFollower::new(path, runtime.folder, files);
    let mut daemon = Daemon::start(file, &runtime.in_effect, startup, announced)?;
    let _watchdog = Watchdog::start(daemon.pulses.clone())?;
    systemd::notify(systemd::READY);
    daemon.report_to_systemd();
    log::info!(
        "ready: the datapath matches {}, revision {}",
        path.display(),
        daemon.datapath.revision()
    );
    // The first scrape finds the counts of connections.
    daemon.sweep();
    daemon.sweeper.wait();
    daemon.follow(&wakeups);
    daemon.sweeper.wait(); // so that what it deletes is counted
    systemd::notify(systemd::STOPPING);
    log::info!("stopping; programs and maps stay in the kernel");
    Ok(())
}

/// Pinned objects are held open, three for each interface: more than the usual soft limit of 1024.
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

/// The thread lives as long as the process: it must never miss SIGTERM.
fn signals() -> Result<Receiver<i32>> {
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).context("handle SIGTERM, SIGINT and SIGHUP")?;
    let (sender, receiver) = bounded(SIGNALS);
    std::thread::Builder::new()
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

/// What wakes the main thread, besides timers.
struct Wakeups {
    file_stirs: Receiver<()>,
    file_changes: Receiver<()>,
    host_changes: Receiver<()>,
    stack_changes: Receiver<()>,
    announcements: Receiver<()>,
    signals: Receiver<i32>,
}

struct Daemon {
    datapath: Datapath,
    file: FileFollower,
    state: Arc<DaemonState>,
    sweeper: Sweeper,
    sample_error: OnChange,
    metrics: MetricsServer,
    pulses: Arc<Pulses>,
    /// As systemd was notified of it last.
    reported: UnitStatus,
    _outputs: Outputs,
}

/// The readers of events, and the socket that serves them.
struct Outputs {
    _server: Arc<Server>,
    _events: events::Reader,
}

impl Daemon {
    /// Makes the datapath match the file, and only then serves the socket. `in_effect` are the runtime drop-ins of the live
    /// datapath.
    fn start(
        mut file: FileFollower,
        in_effect: &InEffect,
        startup: Startup,
        announced: Sender<()>,
    ) -> Result<Daemon> {
        let Startup {
            loaded,
            reconciler,
            port,
            socket,
            log,
        } = startup;
        let state = Arc::new(DaemonState::new(file.path(), &loaded.config));
        let mut datapath =
            Datapath::new(loaded.config.clone(), reconciler, state.clone(), announced);
        let loaded = file.start(loaded, in_effect, &mut datapath)?;
        let pulses = Arc::new(Pulses::default());
        // A large change keeps this thread busy for long: its operations are progress, too.
        call::count_operations(pulses.main.counter());
        file::report_drop_ins(&state, &loaded.drop_ins);
        let outputs = Outputs::start(&datapath, &state, &pulses, socket, log)?;
        let root = &datapath.config().daemon.bpf_root;
        let mut metrics = MetricsServer::new(root, datapath.catalogs(), state.clone());
        metrics.serve(datapath.config().daemon.metrics, port);
        Ok(Daemon {
            datapath,
            file,
            state,
            sweeper: Sweeper::default(),
            sample_error: OnChange::default(),
            metrics,
            pulses,
            reported: UnitStatus::default(),
            _outputs: outputs,
        })
    }

    fn follow(&mut self, wakeups: &Wakeups) {
        let sweeps = tick(SWEEP_INTERVAL);
        let looks = tick(HOST_INTERVAL);
        let beats = watchdog::beat_interval().map_or_else(never, tick);
        loop {
            self.pulses.main.beat();
            self.report_to_systemd();
            let host_look = self.datapath.next_look_at_host().map_or_else(never, at);
            let stack_look = self.datapath.next_look_at_stack().map_or_else(never, at);
            select! {
                recv(wakeups.signals) -> signal => match signal {
                    Ok(SIGHUP) => self.reload(),
                    _ => return,
                },
                recv(wakeups.file_stirs) -> _ => self.file.stage(&mut self.datapath),
                recv(wakeups.file_changes) -> _ => {
                    let _ = wakeups.file_stirs.try_recv(); // sent before this change was settled
                    self.file_changed();
                }
                recv(wakeups.host_changes) -> _ => self.datapath.follow_host(),
                recv(wakeups.announcements) -> _ => self.datapath.follow_host(),
                recv(host_look) -> _ => self.datapath.follow_host(),
                recv(looks) -> _ => {
                    self.datapath.stir_stack(); // iptables-legacy sends no messages
                    self.datapath.follow_host();
                }
                recv(wakeups.stack_changes) -> _ => self.datapath.stir_stack(),
                recv(stack_look) -> _ => self.datapath.follow_stack(),
                recv(sweeps) -> _ => self.sweep(),
                recv(beats) -> _ => {} // another iteration
            }
        }
    }

    /// The unit's line, when it changes.
    fn report_to_systemd(&mut self) {
        let status = self.state.unit_status(self.datapath.revision());
        if status != self.reported {
            systemd::notify(&systemd::status(&status.line()));
            self.reported = status;
        }
    }

    /// SIGHUP: the file is read at once, without waiting until it has settled, and the result is logged.
    fn reload(&mut self) {
        self.state.reload_begins();
        systemd::notify(&systemd::reloading());
        log::info!("reload: reading {}", self.file.path().display());
        let read = self.file.read_now(self.datapath.config());
        if self.apply(read) {
            log::info!("reload: done, revision {}", self.datapath.revision());
        }
        self.report_to_systemd();
        systemd::notify(systemd::READY);
        self.state.reload_ends();
    }

    fn file_changed(&mut self) {
        if let Some(read) = self.file.read_settled(self.datapath.config()) {
            self.apply(read);
        }
    }

    /// Returns whether the datapath matches the file.
    fn apply(&mut self, read: file::Read) -> bool {
        let (metrics, sweeper) = (&mut self.metrics, &mut self.sweeper);
        let drop_ins = self.file.apply(read, &mut self.datapath, metrics, sweeper);
        if let Some(drop_ins) = &drop_ins {
            file::report_drop_ins(&self.state, drop_ins);
        }
        drop_ins.is_some()
    }

    fn sweep(&mut self) {
        if self.datapath.has_drifted() {
            self.datapath.follow_host();
        }
        let Some(live) = self.datapath.live() else {
            return;
        };
        let root = &self.datapath.config().daemon.bpf_root;
        self.sweeper.sweep(root, &live.settings, &self.state);
        self.datapath.forget_old_catalogs();
        let error = self.state.sample_drops().err();
        let error = error.map(|error| format!("sample the drop counters: {error:#}"));
        if let Some(error) = self.sample_error.update(error) {
            log::warn!("{error}");
        }
    }
}

impl Outputs {
    fn start(
        datapath: &Datapath,
        state: &Arc<DaemonState>,
        pulses: &Arc<Pulses>,
        socket: Socket,
        log: FlowLog,
    ) -> Result<Outputs> {
        let server = {
            let state = state.clone();
            Server::start(socket, Limits::default(), move || state.status())?
        };
        let (server, log) = (Arc::new(server), Arc::new(log));
        state.count_losses_of(&server, &log);
        let sinks = events::FlowSinks {
            catalogs: datapath.catalogs(),
            names: datapath.interface_names(),
            server: server.clone(),
            state: state.clone(),
            log,
            pulses: pulses.clone(),
        };
        Ok(Outputs {
            _events: events::Reader::start(&datapath.config().daemon.bpf_root, sinks)?,
            _server: server,
        })
    }
}
