//! Programs at tc hooks: by tcx links where the kernel has them (6.6), by clsact filters below that.
//!
//! From-hooks are at the head of the hook's programs, to-hooks at the tail; other tools' programs there are left alone.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

use super::hook::{Hook, Role};
use super::mechanism::{Found, Mechanism};
use super::{clsact, tcx, xdp};
use crate::bpf::sys::pin_guard::PinGuard;
use crate::bpf::sys::pins::{self, Pins};

/// How this kernel can attach programs. Nothing is attached to find out.
pub fn probe() -> Mechanism {
    match tcx::is_supported() {
        true => Mechanism::Tcx,
        false => Mechanism::Clsact,
    }
}

/// Attaches a program to its hook of an interface, or replaces the one that we have there.
pub fn attach(
    pins: &Pins,
    mechanism: Mechanism,
    ifindex: u32,
    hook: Hook,
    program: &OwnedFd,
) -> Result<()> {
    match mechanism {
        Mechanism::Tcx => tcx::attach(pins, ifindex, hook, program.as_fd()),
        Mechanism::Clsact => clsact::attach(pins, ifindex, hook, program.as_fd()),
    }
    .with_context(|| format!("attach {} to interface {ifindex}", hook.name()))
}

/// Detaches our programs from an interface, by whatever mechanism they are attached; none is no error. Returns the
/// mechanism, if there was a program. After clsact, `forget_qdisc` is due.
pub fn detach(pins: &Pins, ifindex: u32) -> Result<Option<Mechanism>> {
    let mut found = None;
    // Pins and filters are found by their side: the hooks of one role stand for those of the other.
    for hook in Role::Endpoint.hooks() {
        let context = || format!("detach {} from interface {ifindex}", hook.name());
        if tcx::detach(pins, ifindex, hook).with_context(context)? {
            found = Some(Mechanism::Tcx);
        }
        if clsact::detach(pins, ifindex, hook).with_context(context)? {
            found = Some(Mechanism::Clsact);
        }
    }
    let context = || format!("detach XDP from interface {ifindex}");
    if xdp::detach(pins, ifindex).with_context(context)? {
        found = found.or(Some(Mechanism::Tcx));
    }
    Ok(found)
}

/// After the programs of an interface were detached: removes the clsact qdisc, if dpd created it and it is not used by
/// others.
pub fn forget_qdisc(pins: &Pins, ifindex: u32, is_used: bool) -> Result<()> {
    clsact::forget(pins, ifindex, is_used)
        .with_context(|| format!("remove the clsact qdisc of interface {ifindex}"))
}

/// The interfaces to which our programs were attached and from which they were not detached since.
pub fn held(pins: &Pins) -> BTreeSet<u32> {
    pins::names(&pins.links())
        .iter()
        .filter_map(|name| name.split_once('-')?.0.parse().ok())
        .collect()
}

/// The id of our program on a hook; `None`: there is none.
pub fn program_on(guard: &PinGuard, pins: &Pins, ifindex: u32, hook: Hook) -> Option<u32> {
    tcx::program_on(guard, pins, ifindex, hook).or_else(|| clsact::program_on(pins, ifindex, hook))
}

/// The id of the program that sees packets first at a tcx hook; `None`: there is none.
pub fn first_program(ifindex: u32, hook: Hook) -> Option<u32> {
    tcx::first_program(ifindex, hook)
}

/// Our programs on an interface of this role.
pub fn find(pins: &Pins, ifindex: u32, role: Role) -> Vec<Found> {
    role.hooks()
        .into_iter()
        .filter_map(|hook| {
            tcx::find(pins, ifindex, hook).or_else(|| clsact::find(pins, ifindex, hook))
        })
        .collect()
}
