//! The thread that finds out which addresses the uplinks may answer for, and announces them. The datapath answers:
//! what is announced is an input of the plan, and so a table of the generation.
//!
//! ```text
//!   main: links and addresses ──► claims ◄── what is heard on the links
//!                                   ├──► probes, announcements
//!   main: plan ◄── announced ───────┤
//!   status, warnings ◄── report ────┘
//! ```

mod claim;
mod claims;
mod links;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::Sender;
use rustix::event::{EventfdFlags, eventfd};
use rustix::rand::{GetRandomFlags, getrandom};

use super::state::DaemonState;
use crate::model::announce::{Announcement, AnnouncingLink};
use crate::model::host::LinkAddress;
use crate::worker::{Sleeper, Wake, Worker};
use claim::Moment;
use claims::Claims;
use links::Links;

/// Messages that are sent at once, and the pause after that: switches take floods of broadcasts for storms.
const BURST: usize = 100;
const BURST_PAUSE: Duration = Duration::from_millis(20);
/// When a link whose sockets were refused is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// The main thread's side.
pub struct Announcer {
    shared: Arc<Shared>,
    /// `None` while nothing was to be announced yet.
    worker: Option<Worker>,
    state: Arc<DaemonState>,
    wake_main: Sender<()>,
    wake: Option<OwnedFd>,
    wanted: Wanted,
    start_error: Option<String>,
}

/// What the announcer needs to know.
#[derive(Clone, Default, PartialEq)]
struct Wanted {
    links: Vec<AnnouncingLink>,
    /// What the datapath answers for.
    live: BTreeSet<LinkAddress>,
}

/// What one thread has for the other.
#[derive(Default)]
struct Shared(Mutex<Board>);

#[derive(Default)]
struct Board {
    /// News for the announcer, until it has taken them.
    wanted: Option<Wanted>,
    announced: BTreeSet<LinkAddress>,
    warnings: Vec<String>,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announcer {
    /// `adopted` is what the live datapath answers for. `wake` is sent to when something else is to be announced, or warned of.
    pub fn new(
        adopted: BTreeSet<LinkAddress>,
        state: Arc<DaemonState>,
        wake: Sender<()>,
    ) -> Announcer {
        let shared = Shared::default();
        shared.board().announced = adopted;
        Announcer {
            shared: Arc::new(shared),
            worker: None,
            state,
            wake_main: wake,
            wake: None,
            wanted: Wanted::default(),
            start_error: None,
        }
    }

    /// What the datapath is to answer for.
    pub fn announced(&self) -> BTreeSet<LinkAddress> {
        self.shared.board().announced.clone()
    }

    /// Why something is not announced.
    pub fn warnings(&self) -> Vec<String> {
        let board = self.shared.board();
        let started = self.start_error.iter();
        started.chain(&board.warnings).cloned().collect()
    }

    /// These links announce from now on, and the datapath answers for `live`. The thread is there from the first link
    /// on.
    pub fn follow(&mut self, links: Vec<AnnouncingLink>, live: BTreeSet<LinkAddress>) {
        let wanted = Wanted { links, live };
        if wanted == self.wanted {
            return;
        }
        self.wanted = wanted.clone();
        self.shared.board().wanted = Some(wanted);
        if self.worker.is_none() {
            let started = self.start();
            self.start_error = started
                .err()
                .map(|error| format!("announce addresses: {error:#}"));
        }
        if let Some(wake) = &self.wake {
            // It refuses a write only when it is readable already.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }

    fn start(&mut self) -> Result<()> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags).context("create an event")?;
        let thread = Thread {
            claims: Claims::new(self.announced()),
            links: Links::default(),
            shared: self.shared.clone(),
            state: self.state.clone(),
            wake: wake.try_clone().context("share an event")?,
            wake_main: self.wake_main.clone(),
            report: Vec::new(),
        };
        self.worker = Some(Worker::spawn("announce", move |sleeper| {
            thread.run(&sleeper)
        })?);
        self.wake = Some(wake);
        Ok(())
    }
}

/// The announcer's own side.
struct Thread {
    claims: Claims,
    links: Links,
    shared: Arc<Shared>,
    state: Arc<DaemonState>,
    wake: OwnedFd,
    wake_main: Sender<()>,
    report: Vec<Announcement>,
}

impl Thread {
    fn run(mut self, sleeper: &Sleeper) {
        loop {
            let at = moment();
            self.follow(at);
            self.hear(at);
            let sent = self.send(at);
            self.publish();
            let pause = match sent < BURST {
                true => self.pause(at.now),
                false => Some(BURST_PAUSE),
            };
            let sources = self.links.sources().chain([self.wake.as_fd()]);
            if sleeper.sleep_on(sources, pause) == Wake::Stopped {
                return;
            }
        }
    }

    fn follow(&mut self, at: Moment) {
        // Whatever is in it: the links are looked at in any case.
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        let wanted = self.shared.board().wanted.take();
        if wanted.is_none() && !self.links.is_retry_due(at.now, RETRY) {
            return;
        }
        let (links, live) = wanted.map(|wanted| (wanted.links, wanted.live)).unzip();
        let links = self.links.open(links, at.now);
        self.claims.follow(links, at);
        self.claims.confirm(&live.unwrap_or_default(), at.now);
        self.links.join(self.claims.addresses());
    }

    fn hear(&mut self, at: Moment) {
        for (ifindex, heard) in self.links.receive() {
            if let Some(outgoing) = self.claims.hear(ifindex, heard, at) {
                self.links.send(&outgoing);
            }
        }
    }

    fn send(&mut self, at: Moment) -> usize {
        let due = self.claims.step(at, BURST);
        for outgoing in &due {
            self.links.send(outgoing);
        }
        due.len()
    }

    /// Wakes main if there is something new for it.
    fn publish(&mut self) {
        if !self.claims.take_changed() {
            return;
        }
        let report = self.claims.report();
        let mut warnings = self.links.warnings();
        warnings.extend(claims::warnings(&report));
        let announced = self.claims.announced();
        if report != self.report {
            self.state.set_announcements(report.clone());
            self.report = report;
        }
        let mut board = self.shared.board();
        if board.announced == announced && board.warnings == warnings {
            return;
        }
        board.announced = announced;
        board.warnings = warnings;
        drop(board);
        let _ = self.wake_main.try_send(()); // a full one means the same
    }

    fn pause(&self, now: Instant) -> Option<Duration> {
        let due = self.claims.due().into_iter().chain(self.links.retry(RETRY));
        let next = due.min()?;
        Some(next.saturating_duration_since(now))
    }
}

/// Without random numbers hosts that start together probe together, and one of them waits for a minute.
fn moment() -> Moment {
    let mut bytes = [0; 4];
    if let Err(error) = getrandom(&mut bytes, GetRandomFlags::empty()) {
        log::debug!("get a random number: {error}");
    }
    Moment {
        now: Instant::now(),
        random: u32::from_ne_bytes(bytes),
    }
}
