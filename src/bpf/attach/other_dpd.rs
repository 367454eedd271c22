//! Programs of another dpd, which has a root of pins of its own, at the tc hooks of an interface.

use super::hook::{HOOKS, Role};
use super::{clsact, tcx};
use crate::bpf::sys::pins::Pins;
use crate::bpf::sys::program;

/// Characters of a program's name (`BPF_OBJ_NAME_LEN` without the zero byte, include/uapi/linux/bpf.h).
const NAME_LENGTH: usize = 15;

/// One of its programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherDpd {
    /// The kernel's id.
    pub program: u32,
    /// Its link, which somebody holds; `None`: it is a filter, which nobody needs to hold.
    pub link: Option<u32>,
}

/// A program of another dpd on an interface where none of these directories has a program.
pub fn find(own: &[Pins], ifindex: u32) -> Option<OtherDpd> {
    // The hooks of one role stand for those of the other: they are found by their side.
    let hooks = Role::Endpoint.hooks();
    if hooks.iter().any(|hook| {
        own.iter()
            .any(|pins| tcx::find(pins, ifindex, *hook).is_some())
    }) {
        return None;
    }
    let is_marked = own.iter().any(|pins| clsact::is_marked(pins, ifindex));
    hooks.into_iter().find_map(|hook| {
        let links = tcx::links_on(ifindex, hook).into_iter();
        let mut links = links.filter(|(program, _)| is_of_dpd(*program));
        let by_link = links.next().map(|(program, link)| OtherDpd {
            program,
            link: Some(link),
        });
        by_link.or_else(|| {
            let program = clsact::any_program_on(ifindex, hook)?;
            let link = None;
            (!is_marked && is_of_dpd(program)).then_some(OtherDpd { program, link })
        })
    })
}

fn is_of_dpd(program: u32) -> bool {
    let name = program::name(program);
    HOOKS.iter().any(|row| {
        let length = row.program.len().min(NAME_LENGTH);
        name == row.program || name == row.program[..length]
    })
}
