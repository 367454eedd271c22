//! Another `conntrack.size`: another load of the programs, with the entries migrated to its tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;

use super::{Applied, Reconciler, open_tables, sizes};
use crate::bpf::attach::hook::Role;
use crate::bpf::load::{self, LoadedPrograms, map_policy};
use crate::bpf::tables::generation::Generations;
use crate::bpf::takeover::datapath_dir::DatapathDir;
use crate::config::Config;
use crate::model::catalog::Catalog;
use crate::model::host::HostState;

/// What a resize replaced.
struct Replaced {
    programs: LoadedPrograms,
    generations: Generations,
    attached: BTreeMap<u32, Role>,
    socket_cgroup: Option<u64>,
}

impl Reconciler {
    /// Loads programs for another size of the conntrack tables, if it changed, and changes the datapath. If that fails, the load
    /// before is restored. Then the pin guard holds what is pinned.
    pub(super) fn resize_and_change(
        &mut self,
        config: &Config,
        host: &HostState,
        announce: impl FnMut(u64, Arc<Catalog>),
    ) -> Result<Applied> {
        let replaced = self.resize(config)?;
        let old_sizes = replaced.as_ref().map(|old| old.programs.sizes());
        let done = self.change(config, host, old_sizes, announce);
        if done.is_err() {
            replaced.into_iter().for_each(|old| self.restore(old));
            self.generations.forget_old(); // what was staged ahead
        }
        let (load, epoch) = (self.programs.number(), self.epoch());
        self.pin_guard.hold(self.programs.pins(), load, epoch);
        done
    }

    /// Returns what was there before, if it was replaced.
    fn resize(&mut self, config: &Config) -> Result<Option<Replaced>> {
        let sizes = sizes(config);
        if sizes == self.programs.sizes() || !self.programs.is_takeover_finished() {
            return Ok(None); // or not yet: one takeover at a time
        }
        let dir = DatapathDir {
            pins: self.programs.pins().clone(),
            previous: None,
        };
        let programs = load::load_at(&dir, &self.image, &map_policy::DATAPATH, &sizes)?;
        let (generations, _) = open_tables(&programs).inspect_err(|_| programs.discard())?;
        Ok(Some(Replaced {
            programs: std::mem::replace(&mut self.programs, programs),
            generations: std::mem::replace(&mut self.generations, generations),
            attached: std::mem::take(&mut self.attached),
            socket_cgroup: self.sockets.attached.take(),
        }))
    }

    fn restore(&mut self, old: Replaced) {
        if !self.attached.is_empty() {
            // A link could not be updated back. Until a commit the new programs hand every packet to the previous ones; the next
            // `apply` continues from here.
            return;
        }
        std::mem::replace(&mut self.programs, old.programs).discard();
        self.generations = old.generations;
        self.attached = old.attached;
        self.sockets.attached = old.socket_cgroup;
    }
}
