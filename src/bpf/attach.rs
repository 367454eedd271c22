//! Programs on hooks: tcx links where the kernel has them (6.6), clsact filters below that.
//!
//! From-hooks stand at the head of the hook's programs, to-hooks at the tail; other programs there are left alone.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

use super::hook::{Hook, Role};
use super::kept::Kept;
use super::pins::{self, Pins};
use super::{clsact, tcx, xdp};

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Tcx,
    Clsact,
}

impl Mechanism {
    /// What this kernel can do. Nothing is attached to find out.
    pub fn probe() -> Mechanism {
        if tcx::is_there() {
            Mechanism::Tcx
        } else {
            Mechanism::Clsact
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Tcx => "tcx",
            Mechanism::Clsact => "clsact",
        }
    }
}

/// Attaches a program to its hook of an interface, or puts it in the place of the one that we have there.
pub fn attach(
    pins: &Pins,
    mechanism: Mechanism,
    ifindex: u32,
    program: Hook,
    fd: &OwnedFd,
) -> Result<()> {
    match mechanism {
        Mechanism::Tcx => tcx::attach(pins, ifindex, program, fd.as_fd()),
        Mechanism::Clsact => clsact::attach(pins, ifindex, program, fd.as_fd()),
    }
    .with_context(|| format!("attach {} to interface {ifindex}", program.name()))
}

/// Takes our programs off an interface, however they got there; what is not there is no error. Answers how they were
/// attached, if any was. After clsact, `forget_qdisc` is due.
pub fn detach(pins: &Pins, ifindex: u32) -> Result<Option<Mechanism>> {
    let mut was = None;
    // Whatever its role was: what is pinned and handled by the hook is taken off.
    for program in Role::Endpoint.hooks() {
        let say = || format!("take {} off interface {ifindex}", program.name());
        if tcx::detach(pins, ifindex, program).with_context(say)? {
            was = Some(Mechanism::Tcx);
        }
        if clsact::detach(pins, ifindex, program).with_context(say)? {
            was = Some(Mechanism::Clsact);
        }
    }
    if xdp::detach(pins, ifindex).with_context(|| format!("take XDP off interface {ifindex}"))? {
        was = was.or(Some(Mechanism::Tcx));
    }
    Ok(was)
}

/// After the programs of an interface were detached: removes the clsact qdisc, if it is of our making and nobody else
/// uses it.
pub fn forget_qdisc(pins: &Pins, ifindex: u32, is_used: bool) -> Result<()> {
    clsact::forget(pins, ifindex, is_used)
        .with_context(|| format!("remove the clsact qdisc of interface {ifindex}"))
}

/// The interfaces that have had our programs, and nobody has detached them since.
pub fn held(pins: &Pins) -> BTreeSet<u32> {
    pins::names(&pins.links())
        .iter()
        .filter_map(|name| name.split_once('-')?.0.parse().ok())
        .collect()
}

/// A program of ours on a hook, and what sees packets before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub program: Hook,
    pub mechanism: Mechanism,
    pub other_programs_first: Vec<String>,
}

/// The kernel's number of the program in our place on a hook; `None`: there is none.
pub fn program_on(kept: &Kept, pins: &Pins, ifindex: u32, program: Hook) -> Option<u32> {
    tcx::program_on(kept, pins, ifindex, program)
        .or_else(|| clsact::program_on(pins, ifindex, program))
}

/// The kernel's number of the program that sees packets first at a program's hook; `None`: there is none, or it stands on
/// another kind of hook.
pub fn head(ifindex: u32, program: Hook) -> Option<u32> {
    tcx::head(ifindex, program)
}

/// What of ours is on an interface of this role.
pub fn find(pins: &Pins, ifindex: u32, role: Role) -> Vec<Found> {
    role.hooks()
        .into_iter()
        .filter_map(|program| {
            tcx::find(pins, ifindex, program).or_else(|| clsact::find(pins, ifindex, program))
        })
        .collect()
}
