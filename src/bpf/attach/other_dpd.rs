//! Programs of another dpd, which has a root of pins of its own, at the tc hooks of an interface.

use super::hook::{HOOKS, Role};
use super::{clsact, tcx};
use crate::bpf::sys::pins::Pins;
use crate::bpf::sys::program;

/// Characters of a program's name (`BPF_OBJ_NAME_LEN` without the zero byte, include/uapi/linux/bpf.h).
const NAME_LENGTH: usize = 15;

/// A program that may be one of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherDpd {
    /// The kernel's id.
    pub program: u32,
    /// It is attached by a link, which somebody holds, and not by a filter, which nobody needs to hold.
    pub has_link: bool,
    /// It has the name of one; `false`: this process may not read the names of programs.
    pub has_name: bool,
}

/// Programs of another dpd on an interface where none of these directories has a program.
pub fn find(own: &[Pins], ifindex: u32) -> Vec<OtherDpd> {
    // The hooks of one role stand for those of the other: they are found by their side.
    let hooks = Role::Endpoint.hooks();
    let has_own = |pins: &Pins| {
        let mut hooks = hooks.iter();
        hooks.any(|hook| tcx::find(pins, ifindex, *hook).is_some())
    };
    if own.iter().any(has_own) {
        return Vec::new();
    }
    let is_marked = own.iter().any(|pins| clsact::is_marked(pins, ifindex));
    let mut found = Vec::new();
    for hook in hooks {
        let links = tcx::linked_programs(ifindex, hook).into_iter();
        found.extend(links.filter_map(|program| candidate(program, true)));
        if !is_marked {
            let filter = clsact::any_program_on(ifindex, hook);
            found.extend(filter.and_then(|program| candidate(program, false)));
        }
    }
    found
}

fn candidate(program: u32, has_link: bool) -> Option<OtherDpd> {
    let name = program::find_name(program);
    let is_candidate = name.as_deref().is_none_or(is_of_dpd);
    is_candidate.then_some(OtherDpd {
        program,
        has_link,
        has_name: name.is_some(),
    })
}

fn is_of_dpd(name: &str) -> bool {
    HOOKS.iter().any(|row| {
        let length = row.program.len().min(NAME_LENGTH);
        name == row.program || name == &row.program[..length]
    })
}
