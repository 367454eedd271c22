//! Sweeps connections on a thread of its own, one walk at a time. A walk over a million of them takes more than a second
//! of a core, so after each there is a rest in proportion: it never takes more than a few percent.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::model::state::Settings;

/// How many times as long as a walk the rest after it is at least.
const REST: u32 = 30;

#[derive(Debug, Default)]
pub struct Sweeper {
    /// Answers with what it took.
    walk: Option<JoinHandle<Duration>>,
    rests_until: Option<Instant>,
}

impl Sweeper {
    /// Begins a walk, unless one is on its way, or rests.
    pub fn walk(&mut self, root: &Path, settings: &Settings, shared: &Arc<Shared>) {
        if self.walk.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait();
        }
        let rests = self.rests_until.is_some_and(|until| Instant::now() < until);
        if self.walk.is_some() || rests {
            return;
        }
        let (root, settings, shared) = (root.to_owned(), settings.clone(), shared.clone());
        let walk = move || sweep(&root, &settings, &shared);
        match thread::Builder::new().name("sweep".to_owned()).spawn(walk) {
            Ok(walk) => self.walk = Some(walk),
            Err(error) => log::warn!("start the thread that sweeps connections: {error}"),
        }
    }

    /// Waits for the walk that is on its way.
    pub fn wait(&mut self) {
        if let Some(walk) = self.walk.take() {
            let took = walk.join().unwrap_or_default(); // it has said why it panicked
            self.rests_until = Some(Instant::now() + took * REST);
        }
    }
}

fn sweep(root: &Path, settings: &Settings, shared: &Shared) -> Duration {
    let started = Instant::now();
    let done = crate::sweep::sweep(root, settings);
    let took = started.elapsed();
    match done {
        Ok(swept) => {
            let (present, deleted) = (swept.counts.present, swept.deleted);
            log::debug!("swept {present} entries in {took:?}: {deleted} deleted");
            shared.swept(took, swept);
        }
        Err(error) => {
            log::warn!("sweep connections: {error:#}");
            shared.sweep_failed();
        }
    }
    took
}
