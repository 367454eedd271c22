//! Paces the sweeps of expired connections: one at a time, on a thread of its own. A sweep of a million connections
//! takes more than a second of a core, so after each the sweeper rests in proportion: it takes a few percent of a core.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::on_change::OnChange;
use super::state::DaemonState;
use crate::bpf::state::affinity::Affinity;
use crate::bpf::state::conntrack::{Tables, now_ns};
use crate::bpf::state::sweep::Swept;
use crate::bpf::takeover::datapath_dir;
use crate::host_sockets;
use crate::model::state::Settings;
use crate::worker::Task;

/// The rest after a sweep, in durations of that sweep.
const REST: u32 = 30;
/// The rest is no longer than this: programs trust the endpoints' counts for a minute after a sweep
/// (`USAGE_GOOD_FOR_NS`), and alerts wait as long.
const LONGEST_REST: Duration = Duration::from_secs(40);
/// The same while `conntrack.per_endpoint` limits connections: expired ones count until they are swept.
const LONGEST_REST_WITH_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Sweeper {
    running: Option<Task<Outcome>>,
    /// What the last sweep found; `None`: it failed, or there was none yet.
    last: Option<Swept>,
    rests_until: Option<Instant>,
    longest_rest: Duration,
    error: OnChange,
}

#[derive(Debug, Default)]
struct Outcome {
    swept: Option<Swept>,
    error: Option<String>,
    /// With the listing of the host's sockets.
    took: Duration,
}

impl Sweeper {
    /// Starts a sweep, unless one is running or the sweeper rests.
    pub fn sweep(&mut self, root: &Path, settings: &Settings, state: &Arc<DaemonState>) {
        if self.running.as_ref().is_some_and(Task::is_finished) {
            self.wait();
        }
        self.longest_rest = match settings.per_endpoint {
            0 => LONGEST_REST,
            _ => LONGEST_REST_WITH_LIMIT,
        };
        let rests = self.rests_until.is_some_and(|until| Instant::now() < until);
        if self.running.is_some() || rests {
            return;
        }
        let (root, settings, state) = (root.to_owned(), settings.clone(), state.clone());
        let last = self.last.take();
        match Task::spawn("sweep", move || run(&root, &settings, &state, last)) {
            Ok(task) => self.running = Some(task),
            Err(error) => log::warn!("sweep connections: {error:#}"),
        }
    }

    /// Waits for the sweep that is running.
    pub fn wait(&mut self) {
        if let Some(task) = self.running.take() {
            let outcome = task.join().unwrap_or_default();
            let rest = self.longest_rest.min(outcome.took * REST);
            self.rests_until = Some(Instant::now() + rest);
            self.last = outcome.swept;
            if let Some(error) = self.error.update(outcome.error) {
                log::warn!("{error}");
            }
        }
    }
}

fn run(root: &Path, settings: &Settings, state: &DaemonState, last: Option<Swept>) -> Outcome {
    let started = Instant::now();
    let done = sweep(root, settings, last);
    let took = started.elapsed();
    let (swept, error) = match done {
        Ok(swept) => {
            let (present, deleted) = (swept.counts.present, swept.deleted);
            log::debug!("swept {present} entries in {took:?}: {deleted} deleted");
            let mut reported = swept.clone();
            let pins = datapath_dir::readable(root);
            if let Err(error) = host_sockets::count_untracked(&pins, &mut reported.tally.by_backend)
            {
                log::debug!("sockets of the host are not counted: {error:#}");
            }
            match Affinity::open(&pins).and_then(|it| it.sweep(now_ns())) {
                Ok(counts) => reported.tally.affinity = counts,
                Err(error) => log::debug!("clients with affinity are not counted: {error:#}"),
            }
            state.swept(took, reported);
            (Some(swept), None)
        }
        Err(error) => {
            state.sweep_failed();
            (None, Some(format!("sweep connections: {error:#}")))
        }
    };
    Outcome {
        swept,
        error,
        took: started.elapsed(), // a host of many sockets takes longer to list than to sweep
    }
}

/// One walk over all entries; none if the last one found no entry and none was inserted since.
fn sweep(root: &Path, settings: &Settings, last: Option<Swept>) -> Result<Swept> {
    let tables = Tables::open(&datapath_dir::readable(root))?;
    match last {
        Some(last) if last.counts.present == 0 && last.counts.inserted == tables.inserted()? => {
            tables.reset_endpoint_conns()?;
            Ok(Swept { deleted: 0, ..last })
        }
        _ => tables.sweep(settings, now_ns()),
    }
}
