//! Programs at the hooks of interfaces: attached before a commit, rolled back if one fails, and detached after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::{Reconciler, interface_name};
use crate::bpf::attach::hook::Role;
use crate::bpf::attach::{self, Mechanism, xdp};
use crate::bpf::sys::expedited_rcu::{ExpeditedRcu, MANY};
use crate::bpf::sys::pins::Pins;
use crate::model::state::State;
use crate::model::xdp::XdpMode;
use crate::net;

/// tcx needs two grace periods for each interface, some 25 ms.
const INTERFACES_PER_SECOND: usize = 40;

/// An interface to which a program can't be attached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttachError {
    pub interface: String,
    pub kind: HookKind,
}

/// Which program of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookKind {
    /// At a tc hook.
    Tc,
    Xdp,
    /// None: the interface itself can't be used.
    Link,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {}", self.interface)
    }
}

impl AttachError {
    pub(super) fn of(state: &State, ifindex: u32, kind: HookKind) -> AttachError {
        AttachError {
            interface: interface_name(&state.catalog, ifindex).to_owned(),
            kind,
        }
    }
}

impl Reconciler {
    /// Attaches the programs to interfaces that lack them, before `epoch` is live; rolled back if an interface refuses one.
    pub(super) fn attach(&mut self, state: &State, epoch: u64) -> Result<()> {
        let wanted = roles(state);
        let held = attach::held(self.programs.pins());
        let lacks = |(ifindex, role): &(&u32, &Role)| self.attached.get(ifindex) != Some(role);
        let mut due: Vec<(u32, Role)> =
            wanted.iter().filter(lacks).map(|(i, r)| (*i, *r)).collect();
        // An interface that changes its role last: until the commit the tables have it in the old one.
        due.sort_by_key(|(ifindex, _)| self.attached.contains_key(ifindex));
        let new = due.iter().filter(|(ifindex, _)| !held.contains(ifindex));
        let _expedited = self.expedite_rcu(new.count());
        self.check_other_dpd(state, &due)?;
        if self.epoch() < epoch {
            self.mark_unmanaged(state, (&due, &wanted), epoch)?;
        }
        let mut tried = BTreeMap::new();
        // From-hooks of all workloads first: a to-hook takes what another workload sends for spoofed until that one's from-hook
        // has admitted it.
        for (nth, (ifindex, role)) in (0..2).flat_map(|nth| due.iter().map(move |due| (nth, *due)))
        {
            tried.insert(ifindex, role);
            let hook = role.hooks()[nth];
            let program = self.programs.program(hook)?;
            let pins = self.programs.pins();
            let done = attach::attach(pins, self.mechanism, ifindex, hook, program);
            if let Err(error) = done {
                self.roll_back_attach(&tried, &held);
                self.closed.refuse(ifindex);
                return Err(error.context(AttachError::of(state, ifindex, HookKind::Tc)));
            }
        }
        if let Err(error) = self.attach_xdp(state) {
            self.roll_back_xdp(state);
            self.roll_back_attach(&tried, &held);
            return Err(error);
        }
        self.closed.accept(&tried);
        self.attached.extend(tried);
        Ok(())
    }

    /// Expedites grace periods for many interfaces, if the configuration allows it.
    fn expedite_rcu(&mut self, interfaces: usize) -> Option<ExpeditedRcu> {
        if self.mechanism != Mechanism::Tcx || interfaces < MANY {
            return None;
        }
        let expedited = match self.may_expedite_rcu {
            true => ExpeditedRcu::begin(self.programs.pins().root(), interfaces),
            false => None,
        };
        if expedited.is_some() {
            log::info!(
                "{interfaces} interfaces at once: RCU grace periods are expedited meanwhile"
            );
        } else if self.may_expedite_rcu {
            log::info!(
                "{interfaces} interfaces at once: RCU grace periods are left as they are, since this host has set \
                 rcu_expedited or rcu_normal, or the switch can't be written"
            );
        } else if !self.has_logged_rcu {
            self.has_logged_rcu = true;
            let seconds = interfaces.div_ceil(INTERFACES_PER_SECOND);
            log::info!(
                "{interfaces} interfaces at once: the kernel takes some 25 ms for each, {seconds} s together; \
                 daemon.expedite_rcu = true lets dpd expedite RCU grace periods meanwhile"
            );
        }
        expedited
    }

    fn attach_xdp(&self, state: &State) -> Result<()> {
        let wanted = xdp_modes(state);
        if wanted.is_empty() {
            return Ok(());
        }
        let previous = self.live.as_ref().map(xdp_modes).unwrap_or_default();
        let program = self.programs.xdp_program()?;
        for (ifindex, mode) in wanted {
            let previous = previous.get(&ifindex).copied();
            xdp::attach(
                self.programs.pins(),
                ifindex,
                mode,
                previous,
                program.as_fd(),
            )
            .with_context(|| AttachError::of(state, ifindex, HookKind::Xdp))?;
        }
        Ok(())
    }

    /// Restores XDP where it was, and detaches it elsewhere.
    fn roll_back_xdp(&self, state: &State) {
        let previous = self.live.as_ref().map(xdp_modes).unwrap_or_default();
        for (ifindex, tried) in xdp_modes(state) {
            let restored = match previous.get(&ifindex) {
                Some(mode) => self.attach_previous_xdp(ifindex, *mode, tried),
                None => xdp::detach(self.programs.pins(), ifindex).map(drop),
            };
            if let Err(error) = restored {
                let name = interface_name(&state.catalog, ifindex);
                log::warn!("interface {name} does not have its previous XDP program: {error:#}");
            }
        }
    }

    /// With the program of the load before, if this load has not attached its own yet.
    pub(super) fn attach_previous_xdp(
        &self,
        ifindex: u32,
        mode: XdpMode,
        tried: XdpMode,
    ) -> Result<()> {
        let previous = match self.attached.contains_key(&ifindex) {
            true => None,
            false => self.programs.previous_xdp_program(),
        };
        let program = match previous {
            Some(program) => program,
            None => self.programs.xdp_program()?,
        };
        xdp::attach(
            self.programs.pins(),
            ifindex,
            mode,
            Some(tried),
            program.as_fd(),
        )
    }

    /// Detaches XDP where it is not wanted any more, whatever the interface's role. Returns whether it is detached.
    pub(super) fn detach_xdp(&self) -> bool {
        let wanted = self.live.as_ref().map(xdp_modes).unwrap_or_default();
        let mut is_done = true;
        for ifindex in xdp::held(self.programs.pins()) {
            if !wanted.contains_key(&ifindex)
                && let Err(error) = xdp::detach(self.programs.pins(), ifindex)
            {
                log::warn!("interface {ifindex} keeps its XDP program: {error:#}");
                is_done = false;
            }
        }
        is_done
    }

    /// Restores the programs of interfaces that had some, in their previous role, and detaches those of the others.
    fn roll_back_attach(&mut self, tried: &BTreeMap<u32, Role>, held: &BTreeSet<u32>) {
        let previous = self.live.as_ref().map(roles).unwrap_or_default();
        for (&ifindex, &role) in tried {
            let (restored, what) = if let Some(had) = self.attached.get(&ifindex) {
                (
                    self.attach_again(ifindex, *had),
                    "lacks programs that it had",
                )
            } else if held.contains(&ifindex) {
                let had = previous.get(&ifindex).copied().unwrap_or(role);
                (
                    self.attach_previous(ifindex, had),
                    "lacks programs that it had",
                )
            } else {
                let detached = detach_all(self.programs.pins(), ifindex).map(drop);
                (detached, "keeps programs that it should not have")
            };
            // A deleted interface has no programs.
            if let Err(error) = restored
                && net::is_there(ifindex)
            {
                let name = self.name_of(ifindex);
                log::warn!("interface {name} {what}: {error:#}");
                self.attached.insert(ifindex, role);
            }
        }
    }

    /// With the programs of this load.
    pub(super) fn attach_again(&self, ifindex: u32, role: Role) -> Result<()> {
        for hook in role.hooks() {
            let program = self.programs.program(hook)?;
            attach::attach(self.programs.pins(), self.mechanism, ifindex, hook, program)?;
        }
        Ok(())
    }

    /// With the programs of the load before, if there is one.
    fn attach_previous(&self, ifindex: u32, role: Role) -> Result<()> {
        for hook in role.hooks() {
            let previous = self.programs.previous_program(hook);
            let program = match &previous {
                Some(program) => program,
                None => self.programs.program(hook)?,
            };
            attach::attach(self.programs.pins(), self.mechanism, ifindex, hook, program)?;
        }
        Ok(())
    }

    /// Interfaces that have programs of ours and are not wanted.
    pub(super) fn stale(&self, wanted: &BTreeMap<u32, Role>) -> BTreeSet<u32> {
        let mut found = attach::held(self.programs.pins());
        found.extend(self.attached.keys());
        found.retain(|ifindex| !wanted.contains_key(ifindex));
        found
    }

    /// Detaches programs from interfaces that the live state does not have; returns whether all are detached.
    pub(super) fn detach_stale(&mut self) -> bool {
        let wanted = self.live.as_ref().map(roles).unwrap_or_default();
        let stale = self.stale(&wanted);
        let there = stale.iter().filter(|ifindex| net::is_there(**ifindex));
        let _expedited = self.expedite_rcu(there.count());
        let mut is_done = true;
        for ifindex in stale {
            // A deleted interface has no programs.
            if let Err(error) = detach_all(self.programs.pins(), ifindex) {
                log::warn!("interface {ifindex} keeps programs that it should not have: {error:#}");
                is_done = false;
            }
            self.attached.remove(&ifindex);
        }
        is_done
    }
}

/// Detaches all our programs from an interface, and deletes our qdisc if it is not used. Returns how they were attached.
pub(super) fn detach_all(pins: &Pins, ifindex: u32) -> Result<Option<Mechanism>> {
    let mechanism = attach::detach(pins, ifindex)?;
    attach::forget_qdisc(pins, ifindex, net::has_filters(ifindex)?)?;
    Ok(mechanism)
}

/// The roles of a state's interfaces.
pub(super) fn roles(state: &State) -> BTreeMap<u32, Role> {
    let endpoints = state.catalog.endpoints.values();
    let endpoints = endpoints.filter_map(|endpoint| Some((endpoint.ifindex?, Role::Endpoint)));
    let uplinks = state.catalog.uplinks.values();
    let uplinks = uplinks.filter_map(|uplink| Some((uplink.ifindex?, Role::of_uplink(uplink))));
    endpoints.chain(uplinks).collect()
}

/// The uplinks that have XDP, with its mode; one without Ethernet headers has the prefilter at its tc ingress. It is
/// attached only while the prefilter has prefixes: native XDP on a veth turns its peer's segmentation offload off.
pub(super) fn xdp_modes(state: &State) -> BTreeMap<u32, XdpMode> {
    if state.catalog.prefilter.is_empty() {
        return BTreeMap::new();
    }
    let uplinks = state.catalog.uplinks.values();
    uplinks
        .filter(|uplink| uplink.is_ethernet && uplink.xdp != XdpMode::Off)
        .filter_map(|uplink| Some((uplink.ifindex?, uplink.xdp)))
        .collect()
}
