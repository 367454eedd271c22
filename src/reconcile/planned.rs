//! The first phase of a change: what the live tables are to become.

use anyhow::Result;

use super::Reconciler;
use crate::bpf::state::conntrack::now_ns;
use crate::bpf::tables::staged::Staged;
use crate::config::Config;
use crate::model::host::HostState;
use crate::model::state::State;
use crate::parallel::both;
use crate::plan::{self, Change, Inputs};

/// A plan, from one live epoch.
pub(super) struct Planned {
    pub after: u64,
    pub state: State,
    pub changes: Vec<Change>,
    /// The tables, if they were staged ahead.
    pub staged: Option<Staged>,
}

impl Reconciler {
    pub(super) fn plan(&self, config: &Config, host: &HostState) -> Result<Planned> {
        self.plan_while(config, host, || (), |_| None)
    }

    /// The plan. `wait` runs while it is compiled, and `stage` while it is compared with the live state.
    pub(super) fn plan_while<W>(
        &self,
        config: &Config,
        host: &HostState,
        wait: impl FnOnce() -> W,
        stage: impl FnOnce(&State) -> Option<Staged>,
    ) -> Result<Planned> {
        let empty = State::default();
        let live = self.live.as_ref().unwrap_or(&empty);
        let inputs = Inputs {
            config,
            host,
            previous: &live.catalog,
            previous_maglev: &live.maglev,
            now_ns: now_ns(),
        };
        let (state, _) = both(|| plan::compile(inputs), wait);
        let state = state?;
        let (changes, staged) = match live == &state {
            true => (Vec::new(), None),
            false => both(|| plan::diff(live, &state), || stage(&state)),
        };
        Ok(Planned {
            after: self.epoch(),
            state,
            changes,
            staged,
        })
    }
}
