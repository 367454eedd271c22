//! Programs on tcx hooks. A link is pinned under the interface's index, so it outlives the daemon and is updated in place.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use libbpf_rs::libbpf_sys;

use super::hook::{Hook, TcSide};
use super::link;
use super::mechanism::{Found, Mechanism};
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pin_guard::PinGuard;
use crate::bpf::sys::pins::Pins;
use crate::bpf::sys::{map, parse, program};

/// `BPF_F_BEFORE` and `BPF_F_AFTER` without a relative: head and tail (include/uapi/linux/bpf.h).
const AT_HEAD: u32 = 1 << 3;
const AT_TAIL: u32 = 1 << 4;

fn attach_type(hook: Hook) -> u32 {
    match hook.side() {
        TcSide::Ingress => libbpf_sys::BPF_TCX_INGRESS,
        TcSide::Egress => libbpf_sys::BPF_TCX_EGRESS,
    }
}

/// Whether this kernel has tcx. Nothing is attached to find out.
pub fn is_supported() -> bool {
    // Every network namespace has a loopback interface, and it is the first.
    on_hook(1, Hook::FromContainer).is_ok()
}

/// Where a link is pinned: by ifindex, since bpffs refuses the dot in names like eth0.100.
fn path(pins: &Pins, ifindex: u32, hook: Hook) -> PathBuf {
    let side = hook.side().name();
    pins.links().join(format!("{ifindex}-{side}"))
}

pub fn attach(pins: &Pins, ifindex: u32, hook: Hook, program: BorrowedFd<'_>) -> Result<()> {
    let path = path(pins, ifindex, hook);
    if let Some((link, info)) = link::open(&path)
        && find_link(ifindex, hook, info.id)?.is_some()
    {
        return link::update(&path, &link, program);
    }
    // A pin without a link on this hook: somebody detached it, or its interface was deleted or moved to another network
    // namespace and its ifindex was reused.
    detach(pins, ifindex, hook)?;
    let flags = match hook.side() {
        TcSide::Ingress => AT_HEAD,
        TcSide::Egress => AT_TAIL,
    };
    let op = Op::CreateLink {
        hook: hook.side().name(),
    };
    let kind = (attach_type(hook), flags);
    let link = link::create(op, ifindex as i32, program, kind, |error| error)?;
    map::pin(&link, &path)
}

/// Detaches a program, wherever its interface has moved; returns whether there was a pin.
pub fn detach(pins: &Pins, ifindex: u32, hook: Hook) -> Result<bool> {
    let path = path(pins, ifindex, hook);
    if let Some((link, _)) = link::open(&path) {
        link::detach(&path, &link)?;
    }
    Pins::unpin(&path)
}

/// Asks the link that the guard holds open where there is one: with a thousand interfaces this is called two thousand times
/// every few seconds.
pub fn program_on(guard: &PinGuard, pins: &Pins, ifindex: u32, hook: Hook) -> Option<u32> {
    let path = path(pins, ifindex, hook);
    let link = match guard.held(&path) {
        Some(link) => id(link).ok()?,
        None => link::open(&path)?.1.id,
    };
    Some(find_link(ifindex, hook, link).ok()??.program)
}

/// The id of a link.
fn id(link: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut size = size_of::<libbpf_sys::bpf_link_info>() as u32;
    // SAFETY: the descriptor is open, and `info` has the size that is given, for the whole call.
    let done = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(link.as_raw_fd(), (&raw mut info).cast(), &raw mut size)
    };
    parse(done)?;
    Ok(info.id)
}

pub fn find(pins: &Pins, ifindex: u32, hook: Hook) -> Option<Found> {
    let (_, info) = link::open(&path(pins, ifindex, hook))?;
    let on_hook = on_hook(ifindex, hook).ok()?;
    let position = on_hook.iter().position(|on| on.link == info.id)?;
    let names = on_hook[..position]
        .iter()
        .map(|on| program::name(on.program));
    Some(Found {
        program: hook,
        mechanism: Mechanism::Tcx,
        other_programs_first: match hook {
            // It enforces nothing, so nothing can be bypassed: policy was applied at the sender's hook.
            Hook::ToNetdev => Vec::new(),
            _ => names.collect(),
        },
    })
}

/// The id of the program that sees packets first.
pub fn first_program(ifindex: u32, hook: Hook) -> Option<u32> {
    Some(on_hook(ifindex, hook).ok()?.first()?.program)
}

/// The programs on a tcx hook but this one, in the order in which they see packets.
pub fn other_programs(ifindex: u32, hook: Hook, own: u32) -> Vec<String> {
    let on_hook = on_hook(ifindex, hook).unwrap_or_default().into_iter();
    let others = on_hook.filter(|on| on.program != own);
    others.map(|on| program::name(on.program)).collect()
}

/// The programs on a tcx hook that are attached by links.
pub fn linked_programs(ifindex: u32, hook: Hook) -> Vec<u32> {
    let on_hook = on_hook(ifindex, hook).unwrap_or_default().into_iter();
    let links = on_hook.filter(|on| on.link != 0);
    links.map(|on| on.program).collect()
}

/// A program on a hook, by the kernel's ids.
#[derive(Clone, Copy, Debug)]
struct OnHook {
    program: u32,
    /// 0: it is attached without a link.
    link: u32,
}

/// What a link has on a hook of an interface of this network namespace.
fn find_link(ifindex: u32, hook: Hook, link: u32) -> Result<Option<OnHook>> {
    let on_hook = on_hook(ifindex, hook)?;
    Ok(on_hook.into_iter().find(|on| on.link == link))
}

/// The programs on a hook, in the order in which they see packets.
fn on_hook(ifindex: u32, hook: Hook) -> Result<Vec<OnHook>> {
    const ROOM: usize = 64; // BPF_MPROG_MAX, include/linux/bpf_mprog.h
    let (mut programs, mut links) = ([0u32; ROOM], [0u32; ROOM]);
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as libbpf_sys::size_t,
        prog_ids: programs.as_mut_ptr(),
        link_ids: links.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = ROOM as u32;
    // SAFETY: the options point to arrays of the length that they give, which live for the whole call.
    let done =
        unsafe { libbpf_sys::bpf_prog_query_opts(ifindex as i32, attach_type(hook), &mut options) };
    parse(done).context("query the programs of a tcx hook")?;
    // SAFETY: both arms of the union are the count.
    let count = unsafe { options.__bindgen_anon_1.count } as usize;
    if count > ROOM {
        bail!("{count} programs on one hook");
    }
    let both = programs.into_iter().zip(links).take(count);
    Ok(both
        .map(|(program, link)| OnHook { program, link })
        .collect())
}
