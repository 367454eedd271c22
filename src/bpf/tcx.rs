//! Programs on tcx hooks. A link is pinned under the interface's index, so it outlives the daemon and is updated in place.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use libbpf_rs::Link;
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{LinkInfo, LinkTypeInfo, TcxLinkInfo};

use super::attach::{Found, Hook, Mechanism};
use super::gate;
use super::kept::Kept;
use super::load::HookProgram;
use super::map;
use super::pins::Pins;
use super::program;

/// `BPF_F_BEFORE` and `BPF_F_AFTER` without a relative: head and tail (include/uapi/linux/bpf.h).
const AT_HEAD: u32 = 1 << 3;
const AT_TAIL: u32 = 1 << 4;

fn attach_type(program: HookProgram) -> u32 {
    match program.hook() {
        Hook::Ingress => libbpf_sys::BPF_TCX_INGRESS,
        Hook::Egress => libbpf_sys::BPF_TCX_EGRESS,
    }
}

/// Whether this kernel has tcx. Nothing is attached to find out.
pub fn is_there() -> bool {
    // Every network namespace has a loopback interface, and it is the first.
    hook_programs(1, HookProgram::FromContainer).is_ok()
}

/// Where links of an interface are pinned. bpffs refuses dots, which names like eth0.100 have: so by number.
fn path(pins: &Pins, ifindex: u32, program: HookProgram) -> PathBuf {
    pins.links()
        .join(format!("{ifindex}-{}", program.hook().name()))
}

pub fn attach(pins: &Pins, ifindex: u32, program: HookProgram, fd: BorrowedFd<'_>) -> Result<()> {
    let path = path(pins, ifindex, program);
    if let Some((link, _)) = open(&path, ifindex) {
        return gate::pass(format_args!("update the link {}", path.display()), || {
            // SAFETY: both descriptors are open for the whole call; null options are the defaults.
            let done = unsafe {
                libbpf_sys::bpf_link_update(
                    link.as_fd().as_raw_fd(),
                    fd.as_raw_fd(),
                    std::ptr::null(),
                )
            };
            parse(done).map(drop)
        });
    }
    // One that is there all the same was taken off its hook by somebody else, or its interface is gone and another
    // has the number.
    Pins::unpin(&path)?;
    let link = create(ifindex, program, fd)?;
    map::pin(&link, &path)
}

/// The pinned link, if it still holds on to this interface.
fn open(path: &Path, ifindex: u32) -> Option<(Link, LinkInfo)> {
    if !path.exists() {
        return None;
    }
    let link = Link::open(path).ok()?;
    let info = link.info().ok()?;
    match info.info {
        LinkTypeInfo::Tcx(TcxLinkInfo { ifindex: of, .. }) if of == ifindex => Some((link, info)),
        _ => None,
    }
}

fn create(ifindex: u32, program: HookProgram, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: match program.hook() {
            Hook::Ingress => AT_HEAD,
            Hook::Egress => AT_TAIL,
        },
        ..Default::default()
    };
    gate::pass(
        format_args!("create a tcx link at {}", program.hook().name()),
        || {
            // SAFETY: the program's descriptor and the options live for the whole call.
            let done = unsafe {
                libbpf_sys::bpf_link_create(
                    fd.as_raw_fd(),
                    ifindex as i32,
                    attach_type(program),
                    &options,
                )
            };
            // SAFETY: the kernel has just made this descriptor for us.
            parse(done).map(|link| unsafe { OwnedFd::from_raw_fd(link) })
        },
    )
}

/// Takes a program off its hook; answers whether there was one.
pub fn detach(pins: &Pins, ifindex: u32, program: HookProgram) -> Result<bool> {
    let path = path(pins, ifindex, program);
    if let Some((link, _)) = open(&path, ifindex) {
        // Without this it would go a moment after the last reference.
        gate::pass(format_args!("detach the link {}", path.display()), || {
            link.detach()
        })?;
    }
    Pins::unpin(&path)
}

/// By the link that is held open, if it is: with a thousand interfaces this is asked two thousand times every few seconds.
pub fn program_on(kept: &Kept, pins: &Pins, ifindex: u32, program: HookProgram) -> Option<u32> {
    let path = path(pins, ifindex, program);
    let Some(link) = kept.held(&path) else {
        let (_, info) = open(&path, ifindex)?;
        return Some(info.prog_id);
    };
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut size = size_of::<libbpf_sys::bpf_link_info>() as u32;
    // SAFETY: the descriptor is open, and both pointers lead to room of the size that is said, for the whole call.
    let done = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(link.as_raw_fd(), (&raw mut info).cast(), &raw mut size)
    };
    parse(done).ok()?;
    // SAFETY: the kernel has filled in the arm of the union that the type names; a link that is off its hook has no
    // interface.
    let is_there = info.type_ == libbpf_sys::BPF_LINK_TYPE_TCX
        && unsafe { info.__bindgen_anon_1.tcx.ifindex } == ifindex;
    is_there.then_some(info.prog_id)
}

pub fn find(pins: &Pins, ifindex: u32, program: HookProgram) -> Option<Found> {
    let (_, info) = open(&path(pins, ifindex, program), ifindex)?;
    let programs = hook_programs(ifindex, program).unwrap_or_default();
    let ahead = match program.hook() {
        Hook::Ingress => programs
            .into_iter()
            .take_while(|id| *id != info.prog_id)
            .map(program::name)
            .collect(),
        // What stands before a to-hook at the tail is where it belongs.
        Hook::Egress => Vec::new(),
    };
    Some(Found {
        program,
        mechanism: Mechanism::Tcx,
        ahead,
    })
}

/// The id of the program that sees packets first.
pub fn head(ifindex: u32, program: HookProgram) -> Option<u32> {
    hook_programs(ifindex, program).ok()?.first().copied()
}

/// The ids of the programs on a hook, in the order in which they see packets.
fn hook_programs(ifindex: u32, program: HookProgram) -> Result<Vec<u32>> {
    const ROOM: usize = 64; // BPF_MPROG_MAX, include/linux/bpf_mprog.h
    let mut ids = [0u32; ROOM];
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as libbpf_sys::size_t,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = ROOM as u32;
    // SAFETY: the options point to room for as many ids as they say, which lives for the whole call.
    let done = unsafe {
        libbpf_sys::bpf_prog_query_opts(ifindex as i32, attach_type(program), &mut options)
    };
    parse(done).context("ask for the programs of a tcx hook")?;
    // SAFETY: both arms of the union are the count.
    let count = unsafe { options.__bindgen_anon_1.count } as usize;
    if count > ROOM {
        bail!("{count} programs on one hook");
    }
    Ok(ids[..count].to_vec())
}

/// libbpf's answers: minus an errno, or a number.
fn parse(done: i32) -> io::Result<i32> {
    if done < 0 {
        return Err(io::Error::from_raw_os_error(-done));
    }
    Ok(done)
}
