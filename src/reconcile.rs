//! Makes the kernel equal to the plan: the only writer of our tables and links.
//!
//! One change goes so: the plan is computed; its tables are written beside the live ones; new interfaces get the
//! programs; one store switches; interfaces that left the file lose theirs. All that can fail stands before the switch,
//! and is undone if it does.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::bpf::attach::{self, Mechanism};
use crate::bpf::conntrack::Sizes;
use crate::bpf::counters;
use crate::bpf::generation::Generations;
use crate::bpf::load::{self, HookProgram, Load};
use crate::bpf::pins::Pins;
use crate::config::Config;
use crate::model::catalog::Catalog;
use crate::model::state::State;
use crate::model::world::World;
use crate::net;
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
        Reconciler::start_with(config, Mechanism::probe())
    }

    /// As `start`, with the way of attaching given: the older one works on every kernel.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_with(config: &Config, mechanism: Mechanism) -> Result<Reconciler> {
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
            mechanism,
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

    /// A sentence for each foreign program that sees packets before ours: it could wave them past policy. It is left
    /// alone.
    pub fn foreign_ahead(&self) -> Vec<String> {
        let Some(live) = &self.live else {
            return Vec::new();
        };
        let mut sentences = Vec::new();
        for &ifindex in &self.attached {
            for found in attach::find(&self.pins, ifindex) {
                let interface = interface_name(&live.catalog, ifindex);
                let ours = found.program.name();
                sentences.extend(found.ahead.iter().map(|foreign| {
                    format!(
                        "interface {interface}: the program {foreign} of somebody else sees packets before {ours}, \
                         and could wave them past policy: look at it with `bpftool prog show name {foreign}`"
                    )
                }));
            }
        }
        sentences
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
        announce: impl FnMut(u64, Arc<Catalog>),
    ) -> Result<Applied> {
        let before = self.resize(config)?;
        let done = self.change(config, world, announce);
        if let (Err(_), Some(before)) = (&done, before) {
            self.restore(before);
        }
        done
    }

    fn change(
        &mut self,
        config: &Config,
        world: &World,
        mut announce: impl FnMut(u64, Arc<Catalog>),
    ) -> Result<Applied> {
        let lost = self.look_for_losses();
        let nothing = State::default();
        let before = self.live.as_ref().unwrap_or(&nothing);
        let state = plan::compile(config, world, &before.catalog);
        let wanted: BTreeSet<u32> = state.endpoints.keys().copied().collect();
        let is_in_place = self.attached == wanted && self.stale(&wanted).is_empty();
        if self.live.as_ref() == Some(&state) && is_in_place {
            self.settle();
            return Ok(Applied {
                epoch: self.epoch(),
                changes: Vec::new(),
            });
        }
        let changes = plan::diff(before, &state);
        let prepared = self.generations.prepare(&state, self.live.as_ref())?;
        if let Err(error) = self.attach(&state) {
            self.generations.discard(prepared.epoch());
            return Err(error);
        }
        for ifindex in lost.intersection(&wanted) {
            let name = interface_name(&state.catalog, *ifindex);
            log::warn!("interface {name} had lost programs of ours: they are attached again");
        }
        announce(prepared.epoch(), Arc::new(state.catalog.clone()));
        let epoch = self.generations.commit(prepared);
        self.live = Some(state);
        self.detach_all_but(&wanted);
        self.settle();
        self.forget_counters();
        Ok(Applied { epoch, changes })
    }

    /// Another size of the conntrack tables is another load of the programs, with the entries carried over. Answers
    /// with what was there before.
    fn resize(&mut self, config: &Config) -> Result<Option<Before>> {
        let sizes = sizes(config);
        if sizes == self.sizes {
            return Ok(None);
        }
        let load = load::load(&self.pins, &sizes)?;
        Ok(Some(Before {
            load: std::mem::replace(&mut self.load, load),
            sizes: std::mem::replace(&mut self.sizes, sizes),
            attached: std::mem::take(&mut self.attached),
        }))
    }

    fn restore(&mut self, before: Before) {
        if !self.attached.is_empty() {
            return; // a link that would not go back: the new load stays, and the next apply goes on with it
        }
        std::mem::replace(&mut self.load, before.load).discard();
        self.sizes = before.sizes;
        self.attached = before.attached;
    }

    /// The interfaces whose programs somebody else took off their hooks, or that are gone: not attached any more.
    fn look_for_losses(&mut self) -> BTreeSet<u32> {
        let is_lost =
            |ifindex: u32| attach::find(&self.pins, ifindex).len() < HookProgram::ALL.len();
        let attached = self.attached.iter().copied();
        let lost: BTreeSet<u32> = attached.filter(|ifindex| is_lost(*ifindex)).collect();
        self.attached.retain(|ifindex| !lost.contains(ifindex));
        lost
    }

    /// Puts the programs on interfaces that lack them; undone if one can't have them.
    fn attach(&mut self, state: &State) -> Result<()> {
        let held = attach::held(&self.pins);
        let mut tried = Vec::new();
        for &ifindex in state.endpoints.keys() {
            if self.attached.contains(&ifindex) {
                continue;
            }
            tried.push(ifindex);
            for hook in HookProgram::ALL {
                let program = self.load.program(hook)?;
                let done = attach::attach(&self.pins, self.mechanism, ifindex, hook, program);
                if let Err(error) = done {
                    self.undo_attach(&tried, &held);
                    let name = interface_name(&state.catalog, ifindex);
                    return Err(error).with_context(|| format!("interface {name}"));
                }
            }
        }
        self.attached.extend(tried);
        Ok(())
    }

    /// What had programs before gets those of the load before again, the rest has none.
    fn undo_attach(&mut self, tried: &[u32], held: &BTreeSet<u32>) {
        for &ifindex in tried {
            let undone = if held.contains(&ifindex) {
                self.attach_before(ifindex)
            } else {
                take_off(&self.pins, ifindex).map(drop)
            };
            if let Err(error) = undone {
                log::warn!("interface {ifindex} keeps programs that it should not have: {error:#}");
                self.attached.insert(ifindex);
            }
        }
    }

    fn attach_before(&self, ifindex: u32) -> Result<()> {
        for hook in HookProgram::ALL {
            let program = self.load.program_before(hook);
            let program = program.context("there are no programs from before")?;
            attach::attach(&self.pins, self.mechanism, ifindex, hook, &program)?;
        }
        Ok(())
    }

    /// Interfaces that have programs of ours and should not.
    fn stale(&self, wanted: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut found = attach::held(&self.pins);
        found.extend(&self.attached);
        &found - wanted
    }

    fn detach_all_but(&mut self, wanted: &BTreeSet<u32>) {
        for ifindex in self.stale(wanted) {
            // One that is gone has taken its programs with it.
            if let Err(error) = take_off(&self.pins, ifindex) {
                log::warn!("interface {ifindex} keeps programs that it should not have: {error:#}");
            }
            self.attached.remove(&ifindex);
        }
    }

    /// The switch is done: what can't be cleared away now is tried again with the next look.
    fn settle(&mut self) {
        if let Err(error) = self.load.settle() {
            log::warn!("the programs before these are not let go of yet: {error:#}");
        }
    }

    fn forget_counters(&self) {
        let Some(live) = &self.live else { return };
        let done = counters::forget(
            &self.pins,
            |rule| live.catalog.rules.contains_key(&rule),
            |ifindex| live.endpoints.contains_key(&ifindex),
        );
        if let Err(error) = done {
            log::warn!("counters of what is gone are kept: {error:#}");
        }
    }
}

impl Drop for Reconciler {
    /// The datapath goes on. Only a load that no interface ever got is nobody's.
    fn drop(&mut self) {
        if !self.load.is_settled() && self.attached.is_empty() {
            self.load.discard();
        }
    }
}

/// What a change of size replaced.
struct Before {
    load: Load,
    sizes: Sizes,
    attached: BTreeSet<u32>,
}

fn interface_name(catalog: &Catalog, ifindex: u32) -> &str {
    catalog
        .endpoints
        .iter()
        .find(|(_, endpoint)| endpoint.ifindex == Some(ifindex))
        .map_or("of no name", |(name, _)| name)
}

/// Takes our programs off an interface, and the qdisc that they stood on if nobody needs it. Answers how they were
/// attached.
fn take_off(pins: &Pins, ifindex: u32) -> Result<Option<Mechanism>> {
    let was = attach::detach(pins, ifindex)?;
    attach::forget_qdisc(pins, ifindex, net::has_filters(ifindex)?)?;
    Ok(was)
}

fn sizes(config: &Config) -> Sizes {
    Sizes {
        connections: config.conntrack.size,
    }
}

/// Takes everything away that dpd put on this host; answers with what that was, a line each.
///
/// # Errors
/// If a daemon is at work on it, the root is on no bpffs, or the kernel refuses.
pub fn cleanup(root: &Path) -> Result<Vec<String>> {
    let pins = Pins::new(root);
    // Whoever may not look must not hear that nothing is there.
    let is_there = root
        .try_exists()
        .with_context(|| format!("look at {} (as root?)", root.display()))?;
    if !is_there {
        return Ok(Vec::new());
    }
    pins.check_bpffs()?;
    let lock = pins.lock()?;
    let mut removed = Vec::new();
    for ifindex in attach::held(&pins) {
        if let Some(mechanism) = take_off(&pins, ifindex)? {
            removed.push(format!(
                "programs of interface {ifindex} ({})",
                mechanism.name()
            ));
        }
    }
    for folder in pins.versions() {
        Pins::remove(&folder).with_context(|| format!("unpin {}", folder.display()))?;
        removed.push(format!("pinned maps and programs in {}", folder.display()));
    }
    drop(lock);
    match std::fs::remove_dir(root) {
        // The bpffs itself was named as the root, or others have pins there: what is theirs stays.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty
            ) => {}
        done => done.with_context(|| format!("remove {}", root.display()))?,
    }
    Ok(removed)
}
