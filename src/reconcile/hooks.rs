//! Programs at the hooks of interfaces: put there before a switch, undone if one is refused, and taken off after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::{Reconciler, interface_name};
use crate::bpf::attach::{self, Mechanism};
use crate::bpf::grace::{self, ExpeditedRcu};
use crate::bpf::hook::Role;
use crate::bpf::outside;
use crate::bpf::pins::Pins;
use crate::bpf::xdp;
use crate::model::state::State;
use crate::model::xdp::XdpMode;
use crate::net;

/// An interface that can't have a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    pub interface: String,
    pub part: Part,
}

/// Which of its programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Those at its tc hooks.
    Tc,
    Xdp,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {}", self.interface)
    }
}

impl Refused {
    fn of(state: &State, ifindex: u32, part: Part) -> Refused {
        Refused {
            interface: interface_name(&state.catalog, ifindex).to_owned(),
            part,
        }
    }
}

impl Reconciler {
    /// Puts the programs on interfaces that lack them, before `epoch` counts; undone if one can't have them.
    pub(super) fn attach(
        &mut self,
        state: &State,
        wanted: &BTreeMap<u32, Role>,
        epoch: u64,
    ) -> Result<()> {
        let held = attach::held(self.load.pins());
        let lacks = |(ifindex, role): &(&u32, &Role)| self.attached.get(ifindex) != Some(role);
        let mut due: Vec<(u32, Role)> =
            wanted.iter().filter(lacks).map(|(i, r)| (*i, *r)).collect();
        // Whose role changes is served by the former tables until the switch: they come last.
        due.sort_by_key(|(ifindex, _)| self.attached.contains_key(ifindex));
        let new = due.iter().filter(|(ifindex, _)| !held.contains(ifindex));
        let _hurry = self.hurry(new.count());
        if self.epoch() < epoch {
            self.announce(&due, wanted, epoch)?;
        }
        let mut tried = BTreeMap::new();
        // What workloads send first, then what they get: the second hook takes what another workload sent for a forgery
        // unless that one's first hook has passed it.
        for (nth, (ifindex, role)) in (0..2).flat_map(|nth| due.iter().map(move |due| (nth, *due)))
        {
            tried.insert(ifindex, role);
            let hook = role.hooks()[nth];
            let program = self.load.program(hook)?;
            let done = attach::attach(self.load.pins(), self.mechanism, ifindex, hook, program);
            if let Err(error) = done {
                self.undo_attach(&tried, &held);
                return Err(error.context(Refused::of(state, ifindex, Part::Tc)));
            }
        }
        if let Err(error) = self.attach_xdp(state) {
            self.undo_xdp(state);
            self.undo_attach(&tried, &held);
            return Err(error);
        }
        self.attached.extend(tried);
        Ok(())
    }

    /// Many interfaces at once would take a while, one waiting for the other.
    fn hurry(&self, interfaces: usize) -> Option<ExpeditedRcu> {
        if self.mechanism != Mechanism::Tcx {
            return None;
        }
        let hurry = ExpeditedRcu::begin(self.load.pins().root(), interfaces);
        if hurry.is_some() {
            log::info!(
                "{interfaces} interfaces at once: the kernel's grace periods are expedited meanwhile"
            );
        } else if interfaces >= grace::MANY {
            log::info!(
                "{interfaces} interfaces at once: the kernel may take some 20 ms for each, unless its grace periods are \
                 expedited by somebody else"
            );
        }
        hurry
    }

    fn attach_xdp(&self, state: &State) -> Result<()> {
        let wanted = xdp_modes(state);
        if wanted.is_empty() {
            return Ok(());
        }
        let before = self.live.as_ref().map(xdp_modes).unwrap_or_default();
        let program = self.load.xdp_program()?;
        for (ifindex, mode) in wanted {
            let before = before.get(&ifindex).copied();
            xdp::attach(self.load.pins(), ifindex, mode, before, program.as_fd())
                .with_context(|| Refused::of(state, ifindex, Part::Xdp))?;
        }
        Ok(())
    }

    /// What had XDP before gets it again, the rest has none.
    fn undo_xdp(&self, state: &State) {
        let before = self.live.as_ref().map(xdp_modes).unwrap_or_default();
        for (ifindex, tried) in xdp_modes(state) {
            let undone = match before.get(&ifindex) {
                Some(mode) => self.attach_xdp_before(ifindex, *mode, tried),
                None => xdp::detach(self.load.pins(), ifindex).map(drop),
            };
            if let Err(error) = undone {
                let name = interface_name(&state.catalog, ifindex);
                log::warn!("interface {name} has not the XDP program that it had: {error:#}");
            }
        }
    }

    /// With the program that packets met before this load. There is none if this one only had to mend what something else did.
    pub(super) fn attach_xdp_before(
        &self,
        ifindex: u32,
        mode: XdpMode,
        tried: XdpMode,
    ) -> Result<()> {
        let before = match self.attached.contains_key(&ifindex) {
            true => None,
            false => self.load.xdp_program_before(),
        };
        let program = match before {
            Some(program) => program,
            None => self.load.xdp_program()?,
        };
        xdp::attach(
            self.load.pins(),
            ifindex,
            mode,
            Some(tried),
            program.as_fd(),
        )
    }

    /// Takes XDP off where nothing wants it any more, whatever the interface is for now. Answers whether it is off.
    pub(super) fn detach_xdp(&self) -> bool {
        let wanted = self.live.as_ref().map(xdp_modes).unwrap_or_default();
        let mut is_done = true;
        for ifindex in xdp::held(self.load.pins()) {
            if !wanted.contains_key(&ifindex)
                && let Err(error) = xdp::detach(self.load.pins(), ifindex)
            {
                log::warn!("interface {ifindex} keeps its XDP program: {error:#}");
                is_done = false;
            }
        }
        is_done
    }

    /// What had programs before gets those again, in the role that it had, the rest has none.
    fn undo_attach(&mut self, tried: &BTreeMap<u32, Role>, held: &BTreeSet<u32>) {
        let before = self.live.as_ref().map(roles).unwrap_or_default();
        for (&ifindex, &role) in tried {
            let (undone, what) = if let Some(had) = self.attached.get(&ifindex) {
                (self.attach_again(ifindex, *had), "lacks what it had")
            } else if held.contains(&ifindex) {
                let had = before.get(&ifindex).copied().unwrap_or(role);
                (self.attach_before(ifindex, had), "lacks what it had")
            } else {
                let undone = take_off(self.load.pins(), ifindex).map(drop);
                (undone, "keeps what it should not have")
            };
            // One that is gone has taken its programs with it.
            if let Err(error) = undone
                && net::is_there(ifindex)
            {
                let name = self.name_of(ifindex);
                log::warn!("interface {name} {what}, of programs: {error:#}");
                self.attached.insert(ifindex, role);
            }
        }
    }

    /// With the programs of this load: only the role had changed.
    pub(super) fn attach_again(&self, ifindex: u32, role: Role) -> Result<()> {
        for hook in role.hooks() {
            let program = self.load.program(hook)?;
            attach::attach(self.load.pins(), self.mechanism, ifindex, hook, program)?;
        }
        Ok(())
    }

    /// With those of the load before, if there are any.
    fn attach_before(&self, ifindex: u32, role: Role) -> Result<()> {
        for hook in role.hooks() {
            let before = self.load.program_before(hook);
            let program = match &before {
                Some(program) => program,
                None => self.load.program(hook)?,
            };
            attach::attach(self.load.pins(), self.mechanism, ifindex, hook, program)?;
        }
        Ok(())
    }

    /// Interfaces that have programs of ours and should not.
    fn stale(&self, wanted: &BTreeMap<u32, Role>) -> BTreeSet<u32> {
        let mut found = attach::held(self.load.pins());
        found.extend(self.attached.keys());
        found.retain(|ifindex| !wanted.contains_key(ifindex));
        found
    }

    /// Whoever has the programs before or after it is an endpoint is not to be cut off.
    fn announce(
        &mut self,
        due: &[(u32, Role)],
        wanted: &BTreeMap<u32, Role>,
        epoch: u64,
    ) -> Result<()> {
        let served = self.live.as_ref().map(|live| &live.endpoints);
        let is_served = |ifindex: &u32| served.is_some_and(|served| served.contains_key(ifindex));
        let coming = due.iter().map(|(ifindex, _)| *ifindex);
        let coming = coming.filter(|ifindex| !is_served(ifindex));
        let stale = self.stale(wanted).into_iter();
        let outside: BTreeMap<u32, u64> = coming
            .map(|ifindex| (ifindex, epoch))
            .chain(stale.map(|ifindex| (ifindex, outside::FOR_GOOD)))
            .collect();
        if outside.is_empty() {
            return Ok(());
        }
        self.has_outsiders = true;
        outside::restate(self.load.pins(), &outside)
    }

    /// After a change, or what came of it: whoever still has programs and is no endpoint stays outside. Answers whether there
    /// is nobody.
    pub(super) fn forget_outsiders(&mut self) -> bool {
        if !self.has_outsiders {
            return true;
        }
        let wanted = self.live.as_ref().map(roles).unwrap_or_default();
        let left = self.stale(&wanted).into_iter();
        let left: BTreeMap<u32, u64> = left.map(|ifindex| (ifindex, outside::FOR_GOOD)).collect();
        let done = outside::restate(self.load.pins(), &left);
        if let Err(error) = &done {
            log::warn!("interfaces stay announced to be no endpoints: {error:#}");
        }
        self.has_outsiders = done.is_err() || !left.is_empty();
        !self.has_outsiders
    }

    /// Answers whether all of them are off.
    pub(super) fn detach_all_but(&mut self, wanted: &BTreeMap<u32, Role>) -> bool {
        let stale = self.stale(wanted);
        let there = stale.iter().filter(|ifindex| net::is_there(**ifindex));
        let _hurry = self.hurry(there.count());
        let mut is_done = true;
        for ifindex in stale {
            // One that is gone has taken its programs with it.
            if let Err(error) = take_off(self.load.pins(), ifindex) {
                log::warn!("interface {ifindex} keeps programs that it should not have: {error:#}");
                is_done = false;
            }
            self.attached.remove(&ifindex);
        }
        is_done
    }
}

/// Takes our programs off an interface, and the qdisc that they stood on if nobody needs it. Answers how they were
/// attached.
pub(super) fn take_off(pins: &Pins, ifindex: u32) -> Result<Option<Mechanism>> {
    let was = attach::detach(pins, ifindex)?;
    attach::forget_qdisc(pins, ifindex, net::has_filters(ifindex)?)?;
    Ok(was)
}

/// What the interfaces of a state are for.
pub(super) fn roles(state: &State) -> BTreeMap<u32, Role> {
    let endpoints = state.catalog.endpoints.values();
    let endpoints = endpoints.filter_map(|endpoint| Some((endpoint.ifindex?, Role::Endpoint)));
    let uplinks = state.catalog.uplinks.values();
    let uplinks = uplinks.filter_map(|uplink| Some((uplink.ifindex?, Role::Uplink)));
    endpoints.chain(uplinks).collect()
}

/// The uplinks that have XDP, and how. It stands there while a prefilter has prefixes, not always: native XDP on a veth
/// turns its peer's segmentation offload off.
pub(super) fn xdp_modes(state: &State) -> BTreeMap<u32, XdpMode> {
    if state.catalog.prefilter.is_empty() {
        return BTreeMap::new();
    }
    let uplinks = state.catalog.uplinks.values();
    uplinks
        .filter(|uplink| uplink.xdp != XdpMode::Off)
        .filter_map(|uplink| Some((uplink.ifindex?, uplink.xdp)))
        .collect()
}
