//! Sweeps connections on a thread of its own, one walk at a time. A walk over a million of them takes more than a second
//! of a core, so after each there is a rest in proportion: it takes no more than a few percent.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::said::Said;
use super::shared::Shared;
use crate::bpf::state::sweep::Swept;
use crate::model::state::Settings;

/// How many times as long as a walk the rest after it is at least.
const REST: u32 = 30;
/// No rest is longer: programs trust the endpoints' counts for a minute after a walk (`USAGE_GOOD_FOR_NS`), and so long do
/// the alerts wait.
const LONGEST_REST: Duration = Duration::from_secs(40);
/// The same while `conntrack.per_endpoint` bounds connections: until they are swept, those that have expired count.
const LONGEST_REST_WITH_BOUND: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Sweeper {
    walk: Option<JoinHandle<Walked>>,
    /// What the last walk found; `None`: it failed, or there was none yet.
    last: Option<Swept>,
    rests_until: Option<Instant>,
    longest_rest: Duration,
    said: Said,
}

/// What a walk found, and how long it took.
#[derive(Debug, Default)]
struct Walked {
    swept: Option<Swept>,
    error: Option<String>,
    took: Duration,
}

impl Sweeper {
    /// Begins a walk, unless one is on its way, or rests.
    pub fn walk(&mut self, root: &Path, settings: &Settings, shared: &Arc<Shared>) {
        if self.walk.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait();
        }
        self.longest_rest = match settings.per_endpoint {
            0 => LONGEST_REST,
            _ => LONGEST_REST_WITH_BOUND,
        };
        let rests = self.rests_until.is_some_and(|until| Instant::now() < until);
        if self.walk.is_some() || rests {
            return;
        }
        let (root, settings, shared) = (root.to_owned(), settings.clone(), shared.clone());
        let last = self.last.take();
        let walk = move || sweep(&root, &settings, &shared, last);
        match thread::Builder::new().name("sweep".to_owned()).spawn(walk) {
            Ok(walk) => self.walk = Some(walk),
            Err(error) => log::warn!("start the thread that sweeps connections: {error}"),
        }
    }

    /// Waits for the walk that is on its way.
    pub fn wait(&mut self) {
        if let Some(walk) = self.walk.take() {
            let walked = walk.join().unwrap_or_default(); // it has said why it panicked
            let rest = self.longest_rest.min(walked.took * REST);
            self.rests_until = Some(Instant::now() + rest);
            self.last = walked.swept;
            if let Some(error) = self.said.news(walked.error) {
                log::warn!("{error}");
            }
        }
    }
}

fn sweep(root: &Path, settings: &Settings, shared: &Shared, last: Option<Swept>) -> Walked {
    let started = Instant::now();
    let done = crate::sweep::sweep(root, settings, last);
    let took = started.elapsed();
    let (swept, error) = match done {
        Ok(swept) => {
            let (present, deleted) = (swept.counts.present, swept.deleted);
            log::debug!("swept {present} entries in {took:?}: {deleted} deleted");
            shared.swept(took, swept.clone());
            (Some(swept), None)
        }
        Err(error) => {
            shared.sweep_failed();
            (None, Some(format!("sweep connections: {error:#}")))
        }
    };
    Walked { swept, error, took }
}
