//! Makes the kernel equal to the plan: the only writer of our tables and links.
//!
//! One change goes so: the plan is computed; its tables are written beside the live ones; new interfaces get the
//! programs; one store switches; interfaces that left the file lose theirs. All that can fail stands before the switch,
//! and is undone if it does.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::bpf::attach::{self, Mechanism};
use crate::bpf::conntrack::Sizes;
use crate::bpf::generation::Generations;
use crate::bpf::load::{self, HookProgram, Load};
use crate::bpf::pins::Pins;
use crate::config::Config;
use crate::model::catalog::Catalog;
use crate::model::state::State;
use crate::model::world::World;
use crate::plan::{self, Change};

/// The datapath of this host, as its one writer sees it.
pub struct Reconciler {
    pins: Pins,
    mechanism: Mechanism,
    sizes: Sizes,
    load: Load,
    generations: Generations,
    /// What the live tables hold; `None` before the first configuration.
    live: Option<State>,
    /// Interfaces that have the programs of `load`.
    attached: BTreeSet<u32>,
    _lock: OwnedFd,
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    pub epoch: u64,
    pub changes: Vec<Change>,
}

impl Reconciler {
    /// Takes the datapath over, or makes it: the programs are loaded, pinned maps adopted; nothing is attached yet.
    ///
    /// # Errors
    /// If another daemon is at work on it, or the kernel refuses; what was there goes on as it was.
    pub fn start(config: &Config) -> Result<Reconciler> {
        let pins = Pins::new(&config.daemon.bpf_root);
        pins.prepare()?;
        let lock = pins.lock()?;
        let sizes = sizes(config);
        let load = load::load(&pins, &sizes)?;
        let generations = Generations::open(&pins)?;
        let live = generations.read().unwrap_or_else(|error| {
            log::warn!("the live tables can't be read, and are written anew: {error:#}");
            None
        });
        Ok(Reconciler {
            mechanism: Mechanism::probe(),
            pins,
            sizes,
            load,
            generations,
            live,
            attached: BTreeSet::new(),
            _lock: lock,
        })
    }

    /// The live epoch.
    pub fn epoch(&self) -> u64 {
        self.generations.epoch()
    }

    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What is live.
    pub fn live(&self) -> Option<&State> {
        self.live.as_ref()
    }

    /// Makes the kernel equal to this configuration in this world. `announce` is told the epoch and its catalog before
    /// the first packet meets it.
    ///
    /// # Errors
    /// If the kernel refuses; then all is as it was before.
    pub fn apply(
        &mut self,
        config: &Config,
        world: &World,
        mut announce: impl FnMut(u64, Arc<Catalog>),
    ) -> Result<Applied> {
        self.resize(config)?;
        let nothing = State::default();
        let before = self.live.as_ref().unwrap_or(&nothing);
        let state = plan::compile(config, world, &before.catalog);
        let wanted: BTreeSet<u32> = state.endpoints.keys().copied().collect();
        let is_settled = self.attached == wanted && self.stale(&wanted).is_empty();
        if self.live.as_ref() == Some(&state) && is_settled {
            return Ok(Applied {
                epoch: self.epoch(),
                changes: Vec::new(),
            });
        }
        let changes = plan::diff(before, &state);
        let prepared = self.generations.prepare(&state, self.live.as_ref())?;
        if let Err(error) = self.attach(&wanted) {
            self.generations.discard(prepared.epoch());
            return Err(error);
        }
        announce(prepared.epoch(), Arc::new(state.catalog.clone()));
        let epoch = self.generations.commit(prepared);
        self.live = Some(state);
        self.detach_all_but(&wanted);
        self.load.settle()?;
        Ok(Applied { epoch, changes })
    }

    /// Another size of the conntrack tables is another load of the programs, with the entries carried over.
    fn resize(&mut self, config: &Config) -> Result<()> {
        let sizes = sizes(config);
        if sizes != self.sizes {
            self.load = load::load(&self.pins, &sizes)?;
            self.sizes = sizes;
            self.attached.clear();
        }
        Ok(())
    }

    /// Puts the programs on interfaces that lack them; undone if one can't have them.
    fn attach(&mut self, wanted: &BTreeSet<u32>) -> Result<()> {
        let before = attach::linked(&self.pins);
        let mut added = Vec::new();
        for &ifindex in wanted.difference(&self.attached) {
            for hook in HookProgram::ALL {
                let program = self.load.program(hook)?;
                let done = attach::attach(&self.pins, self.mechanism, ifindex, hook, program);
                if let Err(error) = done {
                    self.undo_attach(&added, &before);
                    return Err(error);
                }
            }
            added.push(ifindex);
        }
        self.attached.extend(added);
        Ok(())
    }

    fn undo_attach(&self, added: &[u32], before: &BTreeSet<u32>) {
        for &ifindex in added {
            if !before.contains(&ifindex)
                && let Err(error) = attach::detach(&self.pins, self.mechanism, ifindex)
            {
                log::warn!("interface {ifindex} keeps programs that it should not have: {error:#}");
            }
        }
    }

    /// Interfaces that have programs of ours and should not.
    fn stale(&self, wanted: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut found = attach::linked(&self.pins);
        found.extend(&self.attached);
        &found - wanted
    }

    fn detach_all_but(&mut self, wanted: &BTreeSet<u32>) {
        for ifindex in self.stale(wanted) {
            // One that is gone has taken its programs with it.
            if let Err(error) = attach::detach(&self.pins, self.mechanism, ifindex) {
                log::warn!("interface {ifindex} keeps programs that it should not have: {error:#}");
            }
            self.attached.remove(&ifindex);
        }
    }
}

fn sizes(config: &Config) -> Sizes {
    Sizes {
        connections: config.conntrack.size,
    }
}

/// Takes everything away that dpd put on this host; answers with what that was, a line each.
///
/// # Errors
/// If a daemon is at work on it, or the kernel refuses.
pub fn cleanup(root: &Path) -> Result<Vec<String>> {
    let pins = Pins::new(root);
    // Whoever may not look must not hear that nothing is there.
    let is_there = root
        .try_exists()
        .with_context(|| format!("look at {} (as root?)", root.display()))?;
    if !is_there {
        return Ok(Vec::new());
    }
    let lock = pins.lock()?;
    let mut removed = Vec::new();
    let mut interfaces = attach::linked(&pins);
    if let Ok(generations) = Generations::open(&pins)
        && let Ok(Some(state)) = generations.read()
    {
        interfaces.extend(state.endpoints.keys());
    }
    for ifindex in interfaces {
        for mechanism in [Mechanism::Tcx, Mechanism::Clsact] {
            if attach::detach(&pins, mechanism, ifindex)? {
                removed.push(format!(
                    "programs of interface {ifindex} ({})",
                    mechanism.name()
                ));
            }
        }
    }
    for name in crate::bpf::pins::names(root) {
        let path = root.join(&name);
        Pins::remove(&path).with_context(|| format!("unpin {}", path.display()))?;
        removed.push(format!("pinned maps and programs in {}", path.display()));
    }
    drop(lock);
    std::fs::remove_dir(root).with_context(|| format!("remove {}", root.display()))?;
    Ok(removed)
}
