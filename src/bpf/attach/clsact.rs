//! Programs as filters of a clsact qdisc, on kernels before tcx.
//!
//! Filters can't be pinned: an empty directory among the links records that the interface has our filters, `7-clsact`, and
//! another that dpd created the qdisc, `7-qdisc`.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::Result;
use libbpf_rs::libbpf_sys;
use libbpf_rs::{TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder};
use rustix::io::Errno;

use super::hook::{Hook, Role, TcSide};
use super::mechanism::{Found, Mechanism};
use crate::bpf::sys::bpffs;
use crate::bpf::sys::call::call;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pins::Pins;

/// The handle of our filters.
const FILTER_HANDLE: u32 = 0xd9d;
/// First at ingress, last at egress.
const FILTER_FIRST: u32 = 1;
const FILTER_LAST: u32 = 0xfffe;

/// Records that the interface has our filters.
fn filters_marker(pins: &Pins, ifindex: u32) -> PathBuf {
    pins.links().join(format!("{ifindex}-clsact"))
}

/// Records that dpd created the qdisc.
fn qdisc_marker(pins: &Pins, ifindex: u32) -> PathBuf {
    pins.links().join(format!("{ifindex}-qdisc"))
}

fn set_marker(path: &Path) -> Result<()> {
    call(Op::CreateDir { path }, || {
        match bpffs::dir_builder().create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    })
}

fn clear_marker(path: &Path) -> Result<()> {
    call(Op::RemoveDir { path }, || match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    })
}

fn filter(ifindex: u32, hook: Hook, program: BorrowedFd<'_>) -> TcHook {
    let (point, priority) = match hook.side() {
        TcSide::Ingress => (TC_INGRESS, FILTER_FIRST),
        TcSide::Egress => (TC_EGRESS, FILTER_LAST),
    };
    TcHookBuilder::new(program)
        .ifindex(ifindex as i32)
        .replace(true)
        .handle(FILTER_HANDLE)
        .priority(priority)
        .hook(point)
}

/// Both attach points at once stand for the qdisc itself in libbpf.
fn qdisc(ifindex: u32) -> libbpf_sys::bpf_tc_hook {
    libbpf_sys::bpf_tc_hook {
        sz: size_of::<libbpf_sys::bpf_tc_hook>() as libbpf_sys::size_t,
        ifindex: ifindex as i32,
        attach_point: TC_INGRESS | TC_EGRESS,
        ..Default::default()
    }
}

/// Attaches the filter, or replaces the program of the one that is there, without a gap.
pub fn attach(pins: &Pins, ifindex: u32, hook: Hook, program: BorrowedFd<'_>) -> Result<()> {
    create_qdisc(pins, ifindex)?;
    set_marker(&filters_marker(pins, ifindex))?;
    let op = Op::AttachFilter {
        hook: hook.side().name(),
    };
    call(op, || filter(ifindex, hook, program).attach().map(drop))
}

fn create_qdisc(pins: &Pins, ifindex: u32) -> Result<()> {
    let mut qdisc = qdisc(ifindex);
    let is_new = call(Op::CreateQdisc, || {
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
        // Ours had our filters in it: this one replaced it.
        return match has_lost_filters(pins, ifindex) {
            true => clear_marker(&qdisc_marker(pins, ifindex)),
            false => Ok(()),
        };
    }
    // The marker comes after the qdisc. A daemon that is killed in between leaves a qdisc that is never removed, which does
    // no harm; the other order could leave a marker on another tool's qdisc, which would then be removed.
    set_marker(&qdisc_marker(pins, ifindex)).inspect_err(|_| {
        if let Err(error) = delete_qdisc(ifindex) {
            log::warn!("interface {ifindex} keeps a clsact qdisc that dpd created: {error:#}");
        }
    })
}

/// Whether our filters were attached to the qdisc and none of them is in the one that is there.
fn has_lost_filters(pins: &Pins, ifindex: u32) -> bool {
    let mut hooks = Role::Endpoint.hooks().into_iter(); // one for each side, whatever the role
    is_marked(pins, ifindex) && hooks.all(|hook| program_on(pins, ifindex, hook).is_none())
}

/// A qdisc that does not exist, as that of a deleted interface, is no error.
fn delete_qdisc(ifindex: u32) -> Result<()> {
    let mut qdisc = qdisc(ifindex);
    call(Op::DeleteQdisc, || {
        // SAFETY: the hook lives for the whole call.
        let done = unsafe { libbpf_sys::bpf_tc_hook_destroy(&mut qdisc) };
        let error = io::Error::from_raw_os_error(-done);
        let is_gone = matches!(
            Errno::from_io_error(&error),
            Some(Errno::NOENT | Errno::INVAL | Errno::NODEV)
        );
        match done >= 0 || is_gone {
            true => Ok(()),
            false => Err(error),
        }
    })
}

/// Detaches a filter; returns whether there was one.
pub fn detach(pins: &Pins, ifindex: u32, hook: Hook) -> Result<bool> {
    if find(pins, ifindex, hook).is_none() {
        return Ok(false);
    }
    let op = Op::DetachFilter {
        hook: hook.side().name(),
    };
    call(op, || filter(ifindex, hook, no_program()).detach())?;
    Ok(true)
}

/// The interface has none of our filters any more. The qdisc is deleted too, if dpd created it and it is not used.
pub fn forget(pins: &Pins, ifindex: u32, qdisc_is_used: bool) -> Result<()> {
    // First: with the qdisc deleted and this marker there, the filters would count as lost.
    clear_marker(&filters_marker(pins, ifindex))?;
    let is_ours = qdisc_marker(pins, ifindex);
    if is_ours.exists() && !qdisc_is_used {
        delete_qdisc(ifindex)?;
    }
    clear_marker(&is_ours)
}

pub fn program_on(pins: &Pins, ifindex: u32, hook: Hook) -> Option<u32> {
    if !is_marked(pins, ifindex) {
        return None;
    }
    any_program_on(ifindex, hook)
}

/// Whether these pins have filters on the interface.
pub fn is_marked(pins: &Pins, ifindex: u32) -> bool {
    filters_marker(pins, ifindex).exists()
}

/// The program of a filter with our handle, which another tool may have attached.
pub fn any_program_on(ifindex: u32, hook: Hook) -> Option<u32> {
    filter(ifindex, hook, no_program()).query().ok()
}

pub fn find(pins: &Pins, ifindex: u32, hook: Hook) -> Option<Found> {
    program_on(pins, ifindex, hook)?;
    Some(Found {
        program: hook,
        mechanism: Mechanism::Clsact,
        other_programs_first: Vec::new(),
    })
}

/// Only attaching uses the descriptor.
fn no_program() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}
