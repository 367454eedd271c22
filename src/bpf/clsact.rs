//! Programs as filters of a clsact qdisc, on kernels before tcx.
//!
//! Filters can't be pinned: an empty folder among the links remembers the interface, `7-clsact`, and another that the
//! qdisc is of our making, `7-qdisc`.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::Result;
use libbpf_rs::libbpf_sys;
use libbpf_rs::{TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder};
use rustix::io::Errno;

use super::attach::{Found, Mechanism};
use super::gate;
use super::hook::{Hook, Role, TcSide};
use super::pins::Pins;

/// Our filters among others on a hook.
const FILTER_HANDLE: u32 = 0xd9d;
/// First on the way in, last on the way out.
const FILTER_FIRST: u32 = 1;
const FILTER_LAST: u32 = 0xfffe;

fn filters_mark(pins: &Pins, ifindex: u32) -> PathBuf {
    pins.links().join(format!("{ifindex}-clsact"))
}

fn qdisc_mark(pins: &Pins, ifindex: u32) -> PathBuf {
    pins.links().join(format!("{ifindex}-qdisc"))
}

fn mark(path: &Path) -> Result<()> {
    gate::pass(
        format_args!("make {}", path.display()),
        || match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        },
    )
}

fn unmark(path: &Path) -> Result<()> {
    gate::pass(
        format_args!("remove {}", path.display()),
        || match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        },
    )
}

fn filter(ifindex: u32, program: Hook, fd: BorrowedFd<'_>) -> TcHook {
    let (point, priority) = match program.side() {
        TcSide::Ingress => (TC_INGRESS, FILTER_FIRST),
        TcSide::Egress => (TC_EGRESS, FILTER_LAST),
    };
    TcHookBuilder::new(fd)
        .ifindex(ifindex as i32)
        .replace(true)
        .handle(FILTER_HANDLE)
        .priority(priority)
        .hook(point)
}

/// Both hooks at once: libbpf's name for the qdisc itself.
fn qdisc(ifindex: u32) -> libbpf_sys::bpf_tc_hook {
    libbpf_sys::bpf_tc_hook {
        sz: size_of::<libbpf_sys::bpf_tc_hook>() as libbpf_sys::size_t,
        ifindex: ifindex as i32,
        attach_point: TC_INGRESS | TC_EGRESS,
        ..Default::default()
    }
}

/// Puts the filter there, or its program in the place of the one that it has, without a gap.
pub fn attach(pins: &Pins, ifindex: u32, program: Hook, fd: BorrowedFd<'_>) -> Result<()> {
    make_qdisc(pins, ifindex)?;
    mark(&filters_mark(pins, ifindex))?;
    gate::pass(
        format_args!(
            "put a filter into the clsact qdisc at {}",
            program.side().name()
        ),
        || filter(ifindex, program, fd).attach().map(drop),
    )
}

fn make_qdisc(pins: &Pins, ifindex: u32) -> Result<()> {
    let mut qdisc = qdisc(ifindex);
    let is_new = gate::pass(format_args!("make the clsact qdisc"), || {
        // SAFETY: the hook lives for the whole call.
        match unsafe { libbpf_sys::bpf_tc_hook_create(&mut qdisc) } {
            0 => Ok(true),
            done => match io::Error::from_raw_os_error(-done) {
                error if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                error => Err(error),
            },
        }
    })?;
    if !is_new {
        // Ours had our filters in it: somebody has made another in its place.
        return match has_lost_filters(pins, ifindex) {
            true => unmark(&qdisc_mark(pins, ifindex)),
            false => Ok(()),
        };
    }
    // Not before it is made: whoever is killed in between leaves a qdisc that nobody removes, which harms nobody, and not a mark
    // on one that somebody else made. So does whoever takes all filters out of ours: it looks like another's.
    mark(&qdisc_mark(pins, ifindex)).inspect_err(|_| {
        // Without its mark nobody would know that it is of our making.
        if let Err(error) = remove_qdisc(ifindex) {
            log::warn!("interface {ifindex} keeps a clsact qdisc of our making: {error:#}");
        }
    })
}

/// Whether our filters were put into the qdisc and none of them is in the one that is there.
fn has_lost_filters(pins: &Pins, ifindex: u32) -> bool {
    let mut programs = Role::Endpoint.hooks().into_iter(); // of both hooks, whatever the role is
    filters_mark(pins, ifindex).exists()
        && programs.all(|program| program_on(pins, ifindex, program).is_none())
}

/// What is not there any more, as with its interface, is no error.
fn remove_qdisc(ifindex: u32) -> Result<()> {
    let mut qdisc = qdisc(ifindex);
    gate::pass(format_args!("remove the clsact qdisc"), || {
        // SAFETY: the hook lives for the whole call.
        let done = unsafe { libbpf_sys::bpf_tc_hook_destroy(&mut qdisc) };
        let error = io::Error::from_raw_os_error(-done);
        let is_gone = matches!(
            Errno::from_io_error(&error),
            Some(Errno::NOENT | Errno::INVAL | Errno::NODEV)
        );
        if done >= 0 || is_gone {
            Ok(())
        } else {
            Err(error)
        }
    })
}

/// Takes a filter off its hook; answers whether there was one.
pub fn detach(pins: &Pins, ifindex: u32, program: Hook) -> Result<bool> {
    if find(pins, ifindex, program).is_none() {
        return Ok(false);
    }
    gate::pass(
        format_args!(
            "take a filter off the clsact qdisc at {}",
            program.side().name()
        ),
        || filter(ifindex, program, no_program()).detach(),
    )?;
    Ok(true)
}

/// The interface has none of our filters any more. The qdisc goes too if we made it and nobody uses it.
pub fn forget(pins: &Pins, ifindex: u32, qdisc_is_used: bool) -> Result<()> {
    // First: whoever goes on here must not take them for lost with the qdisc.
    unmark(&filters_mark(pins, ifindex))?;
    let made = qdisc_mark(pins, ifindex);
    if made.exists() && !qdisc_is_used {
        remove_qdisc(ifindex)?;
    }
    unmark(&made)
}

pub fn program_on(pins: &Pins, ifindex: u32, program: Hook) -> Option<u32> {
    if !filters_mark(pins, ifindex).exists() {
        return None;
    }
    filter(ifindex, program, no_program()).query().ok()
}

pub fn find(pins: &Pins, ifindex: u32, program: Hook) -> Option<Found> {
    program_on(pins, ifindex, program)?;
    Some(Found {
        program,
        mechanism: Mechanism::Clsact,
        other_programs_first: Vec::new(),
    })
}

/// The descriptor counts for attaching only.
fn no_program() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}
