//! One change of the configuration, in phases:
//!
//! 1. plan: what the tables are to become;
//! 2. stage: the tables are written, and no packet meets them;
//! 3. commit: programs are attached, then one store makes the tables live. All that can fail is rolled back before it;
//! 4. clean up: old tables, programs and counters are removed. What fails is retried with the next change.
//!
//! The first configuration is committed before its programs are attached, and reverted if they can't be.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::connection_snapshot::ConnectionSnapshot;
use super::hooks::roles;
use super::links;
use super::planned::Planned;
use super::{Applied, Reconciler};
use crate::bpf::state::conntrack::Tables;
use crate::bpf::state::counters;
use crate::bpf::state::ct_table::Sizes;
use crate::bpf::sys::pins::Pins;
use crate::bpf::tables::staged::Staged;
use crate::config::Config;
use crate::model::catalog::Catalog;
use crate::model::host::HostState;
use crate::model::state::State;
use crate::plan::{self, Change};

/// A change whose tables are written.
struct StagedChange {
    state: State,
    changes: Vec<Change>,
    tables: Staged,
    /// The connections before the commit, being read.
    snapshot: Option<ConnectionSnapshot>,
}

/// A change that is live.
struct CommittedChange {
    epoch: u64,
    at: Instant,
    changes: Vec<Change>,
    /// The live state before.
    previous: Option<State>,
    snapshot: Option<ConnectionSnapshot>,
}

impl Reconciler {
    /// Changes the datapath of the loaded programs. `old_sizes`: those of the conntrack tables, if the load has resized them.
    pub(super) fn change(
        &mut self,
        config: &Config,
        host: &HostState,
        old_sizes: Option<Sizes>,
        announce: impl FnMut(u64, Arc<Catalog>),
    ) -> Result<Applied> {
        links::check(config, host)?;
        let planned = match self.take_ahead(config, host) {
            Some(planned) => planned,
            None => self.plan(config, host)?,
        };
        if self.is_in_effect(&planned.state) {
            self.clean_up();
            return Ok(Applied {
                epoch: self.epoch(),
                changes: Vec::new(),
            });
        }
        let staged = self.stage(planned)?;
        let committed = self.commit(staged, announce)?;
        if self.programs.previous().is_some() {
            // The clean-up migrates the entries that are still being read.
            committed
                .snapshot
                .iter()
                .for_each(ConnectionSnapshot::finish);
        }
        self.clean_up();
        Ok(self.report(committed, old_sizes))
    }

    /// Whether the tables and programs of this state are there already.
    fn is_in_effect(&self, state: &State) -> bool {
        self.generations.is_live()
            && !self.generations.is_epoch_poisoned()
            && self.attached == roles(state)
            && self.live.as_ref() == Some(state)
    }

    /// Phase 2. Tables that were staged ahead are used if they are still intact.
    fn stage(&self, planned: Planned) -> Result<StagedChange> {
        let is_migrating = self.programs.previous().is_some();
        let snapshot = match &self.live {
            Some(live) if !planned.changes.is_empty() || is_migrating => {
                ConnectionSnapshot::begin(self.pins_of_connections(), live)
            }
            _ => None,
        };
        let ahead = planned.staged;
        let tables = match ahead.filter(|staged| self.generations.can_commit(staged)) {
            Some(staged) => staged,
            None => self.generations.stage(&planned.state, self.live.as_ref())?,
        };
        Ok(StagedChange {
            state: planned.state,
            changes: planned.changes,
            tables,
            snapshot,
        })
    }

    /// Phase 3.
    ///
    /// # Errors
    /// If an interface can't have its programs: then all is rolled back.
    fn commit(
        &mut self,
        change: StagedChange,
        mut announce: impl FnMut(u64, Arc<Catalog>),
    ) -> Result<CommittedChange> {
        let StagedChange {
            state,
            changes,
            tables,
            snapshot,
        } = change;
        let epoch = tables.epoch();
        let mut make_live = |reconciler: &mut Reconciler, tables| {
            // Events are named by the catalog: it is needed before the first packet meets the tables.
            announce(epoch, state.catalog.clone());
            reconciler.generations.commit(tables);
        };
        // Attaching takes a grace period for each program. With a first configuration that is live before, each workload is
        // served from the moment at which it has its programs, instead of being cut off until the last one has them.
        let pending = match self.generations.epoch() {
            0 => {
                make_live(self, tables);
                None
            }
            _ => Some(tables),
        };
        snapshot.iter().for_each(ConnectionSnapshot::wait);
        if let Err(error) = self.prepare_hooks(&state, epoch) {
            self.roll_back(pending);
            return Err(error);
        }
        // Critical section: from here to the store nothing can fail. New interfaces have their programs, which pass packets
        // untouched until the epoch is live, or drop them (`reconcile/unmanaged.rs`); a change of an interface's role takes
        // effect at different moments in its hook and in the tables. So nothing else is done in between.
        if let Some(tables) = pending {
            make_live(self, tables);
        }
        // End of the critical section.
        let at = Instant::now();
        let previous = self.live.replace(state);
        self.has_old_counters = true;
        Ok(CommittedChange {
            epoch,
            at,
            changes,
            previous,
            snapshot,
        })
    }

    /// All that can fail before the commit: counters of new endpoints are cleared, and programs attached.
    fn prepare_hooks(&mut self, state: &State, epoch: u64) -> Result<()> {
        let rows = new_rows(self.live.as_ref(), &state.catalog);
        counters::clear_endpoints(self.programs.pins(), rows)?;
        self.attach(state, epoch)
    }

    /// After `prepare_hooks` failed, which has detached what it had attached. `pending`: the tables, if they are not live.
    fn roll_back(&mut self, pending: Option<Staged>) {
        self.forget_unmanaged();
        match pending {
            Some(tables) => self.generations.discard(tables.epoch()),
            None => self.revert_first(),
        }
    }

    /// Reverts a first configuration whose programs are detached again, and deletes its connections: the next daemon would use
    /// the same epoch, and they bear it.
    fn revert_first(&mut self) {
        self.generations.revert_first();
        let flushed = Tables::open(self.programs.pins()).and_then(|tables| tables.flush());
        if let Err(error) = flushed {
            log::warn!("connections of the refused configuration are not deleted: {error:#}");
        }
    }

    /// Phase 4. What fails is retried with the next change.
    fn clean_up(&mut self) {
        let done = [
            self.generations.forget_old(),
            self.detach_stale(),
            self.forget_unmanaged(),
            self.detach_xdp(),
            self.follow_sockets(),
        ];
        self.is_clean = done == [true; 5];
        self.finish_takeover();
        self.forget_counters();
    }

    fn finish_takeover(&mut self) {
        let wait = || self.generations.wait_for_programs();
        if let Err(error) = self.programs.finish_takeover(wait) {
            log::warn!("the previous programs are not removed yet: {error:#}");
        }
        self.generations.set_pins(self.programs.pins());
    }

    fn forget_counters(&mut self) {
        let Some(live) = &self.live else { return };
        if !self.has_old_counters {
            return;
        }
        let done = counters::forget(
            self.programs.pins(),
            |rule| live.catalog.rules.contains_key(&rule),
            |prefix| live.catalog.prefilter.contains_key(&prefix),
            |ifindex| self.attached.contains_key(&ifindex),
        );
        self.has_old_counters = done.is_err();
        if let Err(error) = done {
            log::warn!(
                "counters of removed rules, prefixes or interfaces are not deleted: {error:#}"
            );
        }
    }

    /// What the change did, to connections too.
    fn report(&mut self, change: CommittedChange, old_sizes: Option<Sizes>) -> Applied {
        let CommittedChange {
            epoch,
            at,
            mut changes,
            previous,
            snapshot,
        } = change;
        if let Some(previous) = &previous {
            self.end_sockets(previous);
        }
        let sizes = self.programs.sizes();
        let mut excess = 0;
        if let (Some(snapshot), Some(previous), Some(live)) = (snapshot, &previous, &self.live) {
            excess = snapshot.count(at, (previous, live), sizes, &mut changes);
        }
        let resized = old_sizes.map(|old| (old.connections, sizes.connections));
        changes.extend(resized.and_then(|(old, new)| plan::resized(old, new, excess)));
        Applied { epoch, changes }
    }

    /// The connections of the packets before the commit. Those of the previous datapath are migrated after it; of another
    /// version's the layout is unknown here.
    fn pins_of_connections(&self) -> &Pins {
        let own = self.programs.pins();
        let previous = self.programs.previous();
        let previous = previous.filter(|_| !self.generations.is_live());
        previous
            .filter(|previous| previous.number() == own.number())
            .unwrap_or(own)
    }
}

/// The rows of `dpd_endpoint_counters` of endpoints that are not in the live catalog.
fn new_rows(live: Option<&State>, new: &Catalog) -> Vec<u32> {
    let is_live =
        |name: &String| live.is_some_and(|live| live.catalog.endpoints.contains_key(name));
    let endpoints = new.endpoints.iter();
    let new = endpoints.filter(|(name, _)| !is_live(name));
    new.map(|(_, info)| info.row).collect()
}
