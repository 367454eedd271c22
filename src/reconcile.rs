//! Makes the kernel equal to the plan: the only writer of our tables and links.
//!
//! One change goes so: the plan is computed; its tables are written beside the live ones; new interfaces get the
//! programs; one store switches; interfaces that left the file lose theirs. All that can fail stands before the switch,
//! and is undone if it does. (But a first configuration counts before its programs are attached, and is taken back if
//! they can't be.) Before that, what something else did to the datapath is undone too.

mod census;
mod drift;
mod hooks;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::bpf::attach::{self, Mechanism};
use crate::bpf::conntrack::{Sizes, Tables};
use crate::bpf::counters;
use crate::bpf::generation::{self, Generations, Prepared};
use crate::bpf::grace::{self, ExpeditedRcu};
use crate::bpf::hook::Role;
use crate::bpf::kept::Kept;
use crate::bpf::load::{self, Load, Release};
use crate::bpf::pins::{self, Pins};
use crate::bpf::place::{self, Place};
use crate::bpf::xdp;
use crate::config::Config;
use crate::model::catalog::Catalog;
use crate::model::host::HostState;
use crate::model::state::State;
use crate::model::status::Drift;
use crate::model::xdp::XdpMode;
use crate::parallel::both;
use crate::plan::{self, Change, Inputs};
use census::ConnectionSnapshot;
pub use hooks::{Part, Refused};
use hooks::{roles, take_off, xdp_modes};

/// The datapath of this host, as its one writer sees it.
pub struct Reconciler {
    mechanism: Mechanism,
    release: Release<'static>,
    load: Load,
    generations: Generations,
    /// What the live tables hold; `None` before the first configuration.
    live: Option<State>,
    ahead: Option<Ahead>,
    /// Interfaces that have the programs of `load`.
    attached: BTreeMap<u32, Role>,
    /// Counters may be left of what is gone.
    has_old_counters: bool,
    /// Interfaces may be announced to be no endpoints.
    has_outsiders: bool,
    /// Nothing else is left that was to be cleared away after the last switch.
    is_tidy: bool,
    kept: Kept,
    undone: Vec<Drift>,
    lock: OwnedFd,
}

/// What the live tables are to become.
struct Planned {
    /// The epoch that the changes begin from.
    after: u64,
    state: State,
    changes: Vec<Change>,
    /// The tables, where they have been written already.
    prepared: Option<Prepared>,
}

/// A plan that was made before it was asked for, and what it was made for.
struct Ahead {
    config: Arc<Config>,
    world: HostState,
    planned: Planned,
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
        Reconciler::start_as(config, mechanism, Release::own())
    }

    /// As `start_with`, with the programs given: those of another version of dpd.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_as(
        config: &Config,
        mechanism: Mechanism,
        release: Release<'static>,
    ) -> Result<Reconciler> {
        let root = &config.daemon.bpf_root;
        let lock = pins::lock(root)?;
        grace::recover(root);
        let made = Reconciler::load(config, &release).inspect_err(|_| leave_root(root, &lock));
        let (load, (generations, live)) = made?;
        Ok(Reconciler {
            mechanism,
            release,
            load,
            generations,
            live,
            ahead: None,
            attached: BTreeMap::new(),
            has_old_counters: true,
            has_outsiders: true, // of a daemon before us
            is_tidy: true,
            kept: Kept::default(),
            undone: Vec::new(),
            lock,
        })
    }

    fn load(config: &Config, release: &Release<'static>) -> Result<(Load, TakenOver)> {
        let place = Place::find(&config.daemon.bpf_root, release.version)?;
        let load = load::load_at(&place, release, &sizes(config))?;
        let taken_over = take_over(&load).inspect_err(|_| load.discard())?;
        Ok((load, taken_over))
    }

    /// The live epoch.
    pub fn epoch(&self) -> u64 {
        self.generations.epoch()
    }

    /// What is live.
    pub fn live(&self) -> Option<&State> {
        self.live.as_ref()
    }

    /// Whether the interface is an endpoint or an uplink by the live tables, and has the programs for it.
    pub fn serves(&self, interface: &str) -> bool {
        let Some(live) = &self.live else { return false };
        let mut interfaces = live.catalog.interfaces();
        let Some((_, Some(ifindex))) = interfaces.find(|(name, _)| *name == interface) else {
            return false;
        };
        let role = roles(live).get(&ifindex).copied();
        role.is_some_and(|role| attach::find(self.load.pins(), ifindex, role).len() == 2)
    }

    /// Whether something is left to do that failed after the last switch; the next `apply` tries it again.
    pub fn is_unfinished(&self) -> bool {
        !self.is_tidy || self.has_old_counters || !self.load.is_settled()
    }

    /// A sentence for each program of somebody else that is in our way. It is left alone.
    pub fn foreign(&self) -> Vec<String> {
        let Some(live) = &self.live else {
            return Vec::new();
        };
        let mut sentences = self.foreign_ahead(live);
        for (ifindex, mode) in xdp_modes(live) {
            if mode != XdpMode::Auto {
                continue; // then it was an error
            }
            if let Some(foreign) = xdp::find_foreign(self.load.pins(), ifindex) {
                let interface = interface_name(&live.catalog, ifindex);
                sentences.push(format!(
                    "interface {interface}: the XDP program {foreign} of somebody else is there, and the prefilter \
                     drops nothing on it: look at it with `bpftool net show dev {interface}` and take it off, or set \
                     xdp = \"off\" for this interface"
                ));
            }
        }
        sentences
    }

    /// Those that see packets before ours: they could wave them past policy.
    fn foreign_ahead(&self, live: &State) -> Vec<String> {
        let mut sentences = Vec::new();
        let own = self.load.program_ids();
        for (&ifindex, &role) in &self.attached {
            let is_first = |hook| own[&hook].is_some() && attach::head(ifindex, hook) == own[&hook];
            let [from, to] = role.hooks();
            if is_first(from) && (role == Role::Uplink || is_first(to)) {
                continue; // quickly told of a thousand
            }
            for found in attach::find(self.load.pins(), ifindex, role) {
                let interface = interface_name(&live.catalog, ifindex);
                let ours = found.program.name();
                sentences.extend(found.other_programs_first.iter().map(|foreign| {
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
        world: &HostState,
        mut announce: impl FnMut(u64, Arc<Catalog>),
    ) -> Result<Applied> {
        self.mend(world)?;
        let mut applied = self.apply_mended(config, world, &mut announce)?;
        if self.load.is_settled() && self.load.sizes() != sizes(config) {
            // A takeover that was broken off had to be finished first.
            applied.epoch = self.apply_mended(config, world, &mut announce)?.epoch;
        }
        Ok(applied)
    }

    fn apply_mended(
        &mut self,
        config: &Config,
        world: &HostState,
        announce: impl FnMut(u64, Arc<Catalog>),
    ) -> Result<Applied> {
        let before = self.resize(config)?;
        let sizes = before.as_ref().map(|before| before.load.sizes());
        let done = self.change(config, world, sizes, announce);
        if done.is_err() {
            before.into_iter().for_each(|before| self.restore(before));
            self.generations.forget_old(); // what was written ahead for another epoch
        }
        let (load, epoch) = (self.load.number(), self.epoch());
        self.kept.hold(self.load.pins(), load, epoch);
        done
    }

    /// Plans what `apply` would do with this configuration in this world, writes the tables beside the live ones, and keeps
    /// both for it. No packet meets any of it, and what fails is left to `apply`, which says why.
    pub fn prepare_ahead(&mut self, config: Arc<Config>, world: HostState) {
        let planned = match self.take_ahead(&config, &world) {
            Some(planned) => planned,
            None => {
                let is_same_load = self.load.is_settled() && self.load.sizes() == sizes(&config);
                // Whoever has led packets to the other slot has them there until that is undone.
                let is_ours = self.generations.is_live() && !self.generations.has_other_epoch();
                match is_same_load && is_ours {
                    true => self.plan_and_write(&config, &world),
                    false => self.plan(&config, &world),
                }
            }
        };
        self.ahead = Some(Ahead {
            config,
            world,
            planned,
        });
    }

    /// Lets go of a plan that was made ahead.
    pub fn forget_ahead(&mut self) {
        if self.ahead.take().is_some() {
            self.generations.forget_old();
        }
    }

    /// The plan that was made ahead, if it still is the right one. Tables of another are written over by the next change.
    fn take_ahead(&mut self, config: &Config, world: &HostState) -> Option<Planned> {
        let Ahead {
            config: for_config,
            world: in_world,
            planned,
        } = self.ahead.take()?;
        let is_config = std::ptr::eq(&*for_config, config) || &*for_config == config;
        let is_same = is_config && &in_world == world && planned.after == self.epoch();
        is_same.then_some(planned)
    }

    fn plan(&self, config: &Config, world: &HostState) -> Planned {
        self.plan_beside(config, world, || (), |_| None)
    }

    fn plan_and_write(&self, config: &Config, world: &HostState) -> Planned {
        // What fails here is tried again, and told, by the writing.
        let wait = || self.generations.wait_for_readers();
        self.plan_beside(config, world, wait, |state| self.write_ahead(state))
    }

    /// The plan; while it is compiled, `wait` is done, and while it is compared with what is live, `write`.
    fn plan_beside<W>(
        &self,
        config: &Config,
        world: &HostState,
        wait: impl FnOnce() -> W,
        write: impl FnOnce(&State) -> Option<Prepared>,
    ) -> Planned {
        let nothing = State::default();
        let before = self.live.as_ref().unwrap_or(&nothing);
        let inputs = Inputs {
            config,
            host: world,
            previous: &before.catalog,
        };
        let (state, _) = both(|| plan::compile(inputs), wait);
        let (changes, prepared) = match before == &state {
            true => (Vec::new(), None),
            false => both(|| plan::diff(before, &state), || write(&state)),
        };
        Planned {
            after: self.epoch(),
            state,
            changes,
            prepared,
        }
    }

    fn write_ahead(&self, state: &State) -> Option<Prepared> {
        let prepared = self.generations.prepare(state, self.live.as_ref());
        prepared
            .inspect_err(|error| log::debug!("not written ahead: {error:#}"))
            .ok()
    }

    /// `sizes`: what the tables of connections had, if they have others now.
    fn change(
        &mut self,
        config: &Config,
        world: &HostState,
        sizes: Option<Sizes>,
        mut announce: impl FnMut(u64, Arc<Catalog>),
    ) -> Result<Applied> {
        let Planned {
            state,
            mut changes,
            prepared,
            ..
        } = match self.take_ahead(config, world) {
            Some(planned) => planned,
            None => self.plan(config, world),
        };
        let nothing = State::default();
        let before = self.live.as_ref().unwrap_or(&nothing);
        let wanted = roles(&state);
        let is_in_place = self.attached == wanted && !self.generations.is_burnt();
        if self.live.as_ref() == Some(&state) && is_in_place && self.generations.is_live() {
            self.tidy(&wanted);
            return Ok(Applied {
                epoch: self.epoch(),
                changes: Vec::new(),
            });
        }
        let is_carrying = self.load.former().is_some();
        let census = match changes.is_empty() && !is_carrying {
            true => None,
            false => ConnectionSnapshot::begin(self.pins_of_connections(), before),
        };
        let is_ready = |prepared: &Prepared| self.generations.is_ready(prepared);
        let prepared = match prepared.filter(is_ready) {
            Some(prepared) => prepared,
            None => self.generations.prepare(&state, self.live.as_ref())?,
        };
        let epoch = prepared.epoch();
        // Attaching takes the kernel a grace period for each program: a first configuration counts before that, so that each
        // workload is served from the moment at which it has the programs, and not cut off until the last one has them.
        let prepared = match self.generations.epoch() {
            0 => {
                announce(epoch, state.catalog.clone());
                self.generations.commit(prepared);
                None
            }
            _ => Some(prepared),
        };
        census.iter().for_each(ConnectionSnapshot::wait);
        let rows = new_rows(&before.catalog, &state.catalog);
        let cleared = counters::clear_traffic(self.load.pins(), rows);
        if let Err(error) = cleared.and_then(|()| self.attach(&state, &wanted, epoch)) {
            self.forget_outsiders();
            match prepared {
                Some(prepared) => self.generations.discard(prepared.epoch()),
                None => self.retract(),
            }
            return Err(error);
        }
        if let Some(prepared) = prepared {
            announce(epoch, state.catalog.clone());
            self.generations.commit(prepared);
        }
        let switched = Instant::now();
        let before = self.live.replace(state);
        self.has_old_counters = true;
        if is_carrying {
            census.iter().for_each(ConnectionSnapshot::finish);
        }
        self.tidy(&wanted);
        let mut excess = 0;
        let sizes_now = self.load.sizes();
        if let (Some(census), Some(before), Some(live)) = (census, &before, &self.live) {
            excess = census.count(switched, (before, live), sizes_now, &mut changes);
        }
        let resized = sizes.map(|was| (was.connections, sizes_now.connections));
        changes.extend(resized.and_then(|(was, is)| plan::resized(was, is, excess)));
        Ok(Applied { epoch, changes })
    }

    /// Where the connections are that packets meet before the switch: those of a former load are carried over after it.
    fn pins_of_connections(&self) -> &Pins {
        let own = self.load.pins();
        let former = self.load.former().filter(|_| !self.generations.is_live());
        // Of another version's nobody here knows the layout.
        former
            .filter(|former| former.number() == own.number())
            .unwrap_or(own)
    }

    /// Takes back a first configuration whose programs are off again, and the connections that were judged under it: a
    /// daemon that starts anew would give its first one the same epoch.
    fn retract(&mut self) {
        self.generations.retract();
        let flushed = Tables::open(self.load.pins()).and_then(|tables| tables.flush());
        if let Err(error) = flushed {
            log::warn!("connections of the refused configuration are kept: {error:#}");
        }
    }

    /// Another size of the conntrack tables is another load of the programs, with the entries carried over. Answers
    /// with what was there before.
    fn resize(&mut self, config: &Config) -> Result<Option<Before>> {
        let sizes = sizes(config);
        if sizes == self.load.sizes() || !self.load.is_settled() {
            return Ok(None); // or not yet: one takeover at a time
        }
        let place = Place {
            pins: self.load.pins().clone(),
            former: None,
        };
        let load = load::load_at(&place, &self.release, &sizes)?;
        let (generations, _) = take_over(&load).inspect_err(|_| load.discard())?;
        Ok(Some(Before {
            load: std::mem::replace(&mut self.load, load),
            generations: std::mem::replace(&mut self.generations, generations),
            attached: std::mem::take(&mut self.attached),
        }))
    }

    fn restore(&mut self, before: Before) {
        if !self.attached.is_empty() {
            // A link that would not go back. Until the switch the new programs leave all to the former: the next apply goes
            // on from here.
            return;
        }
        std::mem::replace(&mut self.load, before.load).discard();
        self.generations = before.generations;
        self.attached = before.attached;
    }

    /// The switch is done. What can't be cleared away now is tried again with the next look.
    fn tidy(&mut self, wanted: &BTreeMap<u32, Role>) {
        let done = [
            self.generations.forget_old(),
            self.detach_all_but(wanted),
            self.forget_outsiders(),
            self.detach_xdp(),
        ];
        self.is_tidy = done == [true; 4];
        self.settle();
        self.forget_counters();
    }

    fn settle(&mut self) {
        let wait = || self.generations.wait_for_programs();
        if let Err(error) = self.load.settle(wait) {
            log::warn!("the programs before these are not let go of yet: {error:#}");
        }
        self.generations.moved(self.load.pins());
    }

    fn forget_counters(&mut self) {
        let Some(live) = &self.live else { return };
        if !self.has_old_counters {
            return;
        }
        let done = counters::forget(
            self.load.pins(),
            |rule| live.catalog.rules.contains_key(&rule),
            |prefix| live.catalog.prefilter.contains_key(&prefix),
            |ifindex| self.attached.contains_key(&ifindex),
        );
        self.has_old_counters = done.is_err();
        if let Err(error) = done {
            log::warn!("counters of what is gone are kept: {error:#}");
        }
    }
}

impl Drop for Reconciler {
    /// The datapath goes on. Only a load that no interface ever got is nobody's, and tables that were written ahead; so is a
    /// root that has nothing in it then.
    fn drop(&mut self) {
        self.forget_ahead();
        if !self.load.is_settled() && self.attached.is_empty() {
            self.load.discard();
            leave_root(self.load.pins().root(), &self.lock);
        }
    }
}

/// The rows of `dpd_endpoint_counters` that this change gives to endpoints that had none.
fn new_rows<'a>(before: &'a Catalog, after: &'a Catalog) -> impl Iterator<Item = u32> + 'a {
    let endpoints = after.endpoints.iter();
    let new = endpoints.filter(|(name, _)| !before.endpoints.contains_key(*name));
    new.map(|(_, info)| info.row)
}

/// What a change of size replaced.
struct Before {
    load: Load,
    generations: Generations,
    attached: BTreeMap<u32, Role>,
}

/// After a start that failed: of a root with nothing in it nobody has any use.
fn leave_root(root: &Path, lock: &OwnedFd) {
    if let Err(error) = pins::remove_root(root, lock) {
        log::debug!("{error:#}");
    }
}

type TakenOver = (Generations, Option<State>);

/// The tables of a load, and what is live before anything is applied: its own, or that of the datapath which it takes over
/// from.
fn take_over(load: &Load) -> Result<TakenOver> {
    let generations = Generations::open_after(load.pins(), load.epoch_before()?)?;
    let live = match load.former() {
        Some(former) if !generations.is_live() => {
            generation::read_former(former, generations.epoch(), load.pins()).map(Some)
        }
        _ => generations.read(),
    };
    let live = live.unwrap_or_else(|error| {
        log::warn!("the live tables can't be read, and are written anew: {error:#}");
        None
    });
    Ok((generations, live))
}

fn interface_name(catalog: &Catalog, ifindex: u32) -> &str {
    catalog.interface_name(ifindex).unwrap_or("of no name")
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
    // Whoever may not look must not hear that nothing is there.
    let is_there = root
        .try_exists()
        .with_context(|| format!("look at {} (as root?)", root.display()))?;
    if !is_there {
        return Ok(Vec::new());
    }
    let lock = pins::lock(root)?;
    grace::recover(root);
    let mut removed = Vec::new();
    let all = Pins::all(root);
    let held = all.iter().map(|pins| attach::held(pins).len()).sum();
    let hurry = ExpeditedRcu::begin(root, held);
    for pins in &all {
        for ifindex in attach::held(pins) {
            if let Some(mechanism) = take_off(pins, ifindex)? {
                removed.push(format!(
                    "programs of interface {ifindex} ({})",
                    mechanism.name()
                ));
            }
        }
    }
    drop(hurry);
    for pins in all {
        place::forget(&pins)?;
        removed.push(format!(
            "pinned maps and programs in {}",
            pins.version().display()
        ));
    }
    pins::remove_root(root, &lock)?;
    Ok(removed)
}
