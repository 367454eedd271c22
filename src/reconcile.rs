//! Makes the kernel equal to the plan: the only writer of our tables and links.
//!
//! A change is planned, staged, committed and cleaned up (`reconcile/change.rs`). All that can fail comes before the commit,
//! and is rolled back if it does. Drift is repaired before each change.

mod ahead;
mod change;
mod cleanup;
mod connection_snapshot;
mod drift;
mod foreign;
mod hooks;
mod links;
mod other_dpd;
mod planned;
mod resize;
mod sockets;
mod unmanaged;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use crate::bpf::attach::hook::Role;
use crate::bpf::attach::{self, Mechanism};
use crate::bpf::image::ProgramImage;
use crate::bpf::load::{self, LoadedPrograms, map_policy};
use crate::bpf::state::ct_table::Sizes;
use crate::bpf::sys::pin_guard::PinGuard;
use crate::bpf::sys::{expedited_rcu, lock};
use crate::bpf::tables::contents;
use crate::bpf::tables::generation::Generations;
use crate::bpf::takeover::datapath_dir::DatapathDir;
use crate::config::Config;
use crate::model::catalog::Catalog;
use crate::model::host::HostState;
use crate::model::state::State;
use crate::model::status::Drift;
use crate::plan::Change;
use ahead::Ahead;
pub use cleanup::cleanup;
use hooks::roles;
pub use hooks::{AttachError, HookKind};
use sockets::Sockets;
use unmanaged::Closed;

/// The datapath of this host, as its one writer has it.
pub struct Reconciler {
    mechanism: Mechanism,
    image: ProgramImage<'static>,
    programs: LoadedPrograms,
    generations: Generations,
    /// What the live tables hold; `None` before the first configuration.
    live: Option<State>,
    ahead: Ahead,
    /// Interfaces that have the programs of this load.
    attached: BTreeMap<u32, Role>,
    /// `daemon.expedite_rcu`
    may_expedite_rcu: bool,
    has_logged_rcu: bool,
    /// Counters of rules, prefixes or interfaces that are gone may be left.
    has_old_counters: bool,
    /// Interfaces may be marked as unmanaged.
    has_unmanaged: bool,
    closed: Closed,
    sockets: Sockets,
    /// Nothing else is left to clean up after the last commit.
    is_clean: bool,
    pin_guard: PinGuard,
    repaired: Vec<Drift>,
    lock: OwnedFd,
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    pub epoch: u64,
    pub changes: Vec<Change>,
}

impl Reconciler {
    /// Takes the datapath over, or creates it: programs are loaded, pinned maps adopted; nothing is attached yet.
    ///
    /// # Errors
    /// If another daemon is at work on it, or the kernel refuses; what was there continues as it was.
    pub fn start(config: &Config) -> Result<Reconciler> {
        Reconciler::start_with(config, attach::probe())
    }

    /// As `start`, with a given mechanism of attaching: clsact works on every kernel.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_with(config: &Config, mechanism: Mechanism) -> Result<Reconciler> {
        Reconciler::start_as(config, mechanism, ProgramImage::own())
    }

    /// As `start_with`, with given programs, which may be of another version of dpd.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_as(
        config: &Config,
        mechanism: Mechanism,
        image: ProgramImage<'static>,
    ) -> Result<Reconciler> {
        let root = &config.daemon.bpf_root;
        let lock = lock::lock(root)?;
        expedited_rcu::recover(root);
        let loaded = Reconciler::load(config, &image);
        let (programs, (generations, live)) =
            loaded.inspect_err(|_| remove_empty_root(root, &lock))?;
        Ok(Reconciler {
            mechanism,
            image,
            programs,
            generations,
            live,
            ahead: Ahead::default(),
            attached: BTreeMap::new(),
            may_expedite_rcu: config.daemon.expedite_rcu,
            has_logged_rcu: false,
            has_old_counters: true,
            has_unmanaged: true, // an earlier daemon may have left some
            closed: Closed::default(),
            sockets: Sockets::default(),
            is_clean: true,
            pin_guard: PinGuard::default(),
            repaired: Vec::new(),
            lock,
        })
    }

    fn load(config: &Config, image: &ProgramImage<'static>) -> Result<(LoadedPrograms, Tables)> {
        let dir = DatapathDir::find(&config.daemon.bpf_root, image)?;
        let programs = load::load_at(&dir, image, &map_policy::DATAPATH, &sizes(config))?;
        let tables = open_tables(&programs).inspect_err(|_| programs.discard())?;
        Ok((programs, tables))
    }

    /// The live epoch.
    pub fn epoch(&self) -> u64 {
        self.generations.epoch()
    }

    /// What is live.
    pub fn live(&self) -> Option<&State> {
        self.live.as_ref()
    }

    /// Whether the interface is an endpoint or an uplink of the live tables, and has the programs for it.
    pub fn serves(&self, interface: &str) -> bool {
        let Some(live) = &self.live else { return false };
        let mut interfaces = live.catalog.interfaces();
        let Some((_, Some(ifindex))) = interfaces.find(|(name, _)| *name == interface) else {
            return false;
        };
        let role = roles(live).get(&ifindex).copied();
        role.is_some_and(|role| attach::find(self.programs.pins(), ifindex, role).len() == 2)
    }

    /// Whether a clean-up failed after the last commit; the next `apply` retries it.
    pub fn is_unfinished(&self) -> bool {
        !self.is_clean || self.has_old_counters || !self.programs.is_takeover_finished()
    }

    /// Repairs drift, then makes the kernel equal to this configuration on this host. `announce` is called with the epoch and
    /// its catalog before the first packet meets it.
    ///
    /// # Errors
    /// If the kernel refuses; then all is as it was before.
    pub fn apply(
        &mut self,
        config: &Config,
        host: &HostState,
        mut announce: impl FnMut(u64, Arc<Catalog>),
    ) -> Result<Applied> {
        self.may_expedite_rcu = config.daemon.expedite_rcu;
        self.repair_drift(host)?;
        let mut applied = self.resize_and_change(config, host, &mut announce)?;
        if self.programs.is_takeover_finished() && self.programs.sizes() != sizes(config) {
            // An interrupted takeover had to be finished first: only now can the tables be resized.
            applied.epoch = self.resize_and_change(config, host, &mut announce)?.epoch;
        }
        Ok(applied)
    }
}

impl Drop for Reconciler {
    /// The datapath continues. Removed are only a load that was never attached, staged tables, and a root that is empty then.
    fn drop(&mut self) {
        self.discard_ahead();
        if !self.programs.is_takeover_finished() && self.attached.is_empty() {
            self.programs.discard();
            remove_empty_root(self.programs.pins().root(), &self.lock);
        }
    }
}

fn remove_empty_root(root: &Path, lock: &OwnedFd) {
    if let Err(error) = lock::remove_root(root, lock) {
        log::debug!("{error:#}");
    }
}

/// The tables of a load, and the live state before anything is applied.
type Tables = (Generations, Option<State>);

/// The live state is its own, or that of the datapath that it takes over.
fn open_tables(programs: &LoadedPrograms) -> Result<Tables> {
    let generations = Generations::open_after(
        programs.pins(),
        programs.previous_epoch()?,
        programs.previous_mark()?,
    )?;
    let live = match programs.previous() {
        Some(previous) if !generations.is_live() => {
            let version = programs.pins().number();
            contents::read_previous(previous, generations.epoch(), version).map(Some)
        }
        _ => generations.read(),
    };
    let live = live.unwrap_or_else(|error| {
        log::warn!("the live tables can't be read, and are all written again: {error:#}");
        None
    });
    Ok((generations, live))
}

fn interface_name(catalog: &Catalog, ifindex: u32) -> &str {
    catalog.interface_name(ifindex).unwrap_or("without a name")
}

fn sizes(config: &Config) -> Sizes {
    Sizes {
        connections: config.conntrack.size,
    }
}
