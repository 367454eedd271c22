//! Programs on tcx hooks. A link is pinned under the interface's index, so it outlives the daemon and is updated in place.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use libbpf_rs::Link;
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{LinkInfo, LinkTypeInfo, TcxLinkInfo};

use super::attach::{Found, Mechanism};
use super::gate;
use super::hook::{Hook, TcSide};
use super::kept::Kept;
use super::map;
use super::pins::Pins;
use super::program;

/// `BPF_F_BEFORE` and `BPF_F_AFTER` without a relative: head and tail (include/uapi/linux/bpf.h).
const AT_HEAD: u32 = 1 << 3;
const AT_TAIL: u32 = 1 << 4;

fn attach_type(program: Hook) -> u32 {
    match program.side() {
        TcSide::Ingress => libbpf_sys::BPF_TCX_INGRESS,
        TcSide::Egress => libbpf_sys::BPF_TCX_EGRESS,
    }
}

/// Whether this kernel has tcx. Nothing is attached to find out.
pub fn is_there() -> bool {
    // Every network namespace has a loopback interface, and it is the first.
    on_hook(1, Hook::FromContainer).is_ok()
}

/// Where links of an interface are pinned. bpffs refuses dots, which names like eth0.100 have: so by number.
fn path(pins: &Pins, ifindex: u32, program: Hook) -> PathBuf {
    pins.links()
        .join(format!("{ifindex}-{}", program.side().name()))
}

pub fn attach(pins: &Pins, ifindex: u32, program: Hook, fd: BorrowedFd<'_>) -> Result<()> {
    let path = path(pins, ifindex, program);
    if let Some((link, info)) = open(&path)
        && find_link(ifindex, program, info.id)?.is_some()
    {
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
    // One that is there all the same was taken off its hook by somebody else, or its interface is gone, here at least, and
    // another has the number.
    detach(pins, ifindex, program)?;
    let link = create(ifindex, program, fd)?;
    map::pin(&link, &path)
}

/// The pinned link, if it still is on a hook: of any interface, for links go with theirs to another network namespace, and
/// don't tell so.
fn open(path: &Path) -> Option<(Link, LinkInfo)> {
    if !path.exists() {
        return None;
    }
    let link = Link::open(path).ok()?;
    let info = link.info().ok()?;
    match info.info {
        LinkTypeInfo::Tcx(TcxLinkInfo { ifindex: 1.., .. }) => Some((link, info)),
        _ => None,
    }
}

fn create(ifindex: u32, program: Hook, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: match program.side() {
            TcSide::Ingress => AT_HEAD,
            TcSide::Egress => AT_TAIL,
        },
        ..Default::default()
    };
    gate::pass(
        format_args!("create a tcx link at {}", program.side().name()),
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

/// Takes a program off its hook, wherever the interface is by now; answers whether there was one.
pub fn detach(pins: &Pins, ifindex: u32, program: Hook) -> Result<bool> {
    let path = path(pins, ifindex, program);
    if let Some((link, _)) = open(&path) {
        // Without this it would go a moment after the last reference.
        gate::pass(format_args!("detach the link {}", path.display()), || {
            link.detach()
        })?;
    }
    Pins::unpin(&path)
}

/// By the link that is held open, if it is: with a thousand interfaces this is asked two thousand times every few seconds.
pub fn program_on(kept: &Kept, pins: &Pins, ifindex: u32, program: Hook) -> Option<u32> {
    let path = path(pins, ifindex, program);
    let link = match kept.held(&path) {
        Some(link) => id(link).ok()?,
        None => open(&path)?.1.id,
    };
    Some(find_link(ifindex, program, link).ok()??.program)
}

/// The kernel's number of a link.
fn id(link: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut size = size_of::<libbpf_sys::bpf_link_info>() as u32;
    // SAFETY: the descriptor is open, and both pointers lead to room of the size that is said, for the whole call.
    let done = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(link.as_raw_fd(), (&raw mut info).cast(), &raw mut size)
    };
    parse(done)?;
    Ok(info.id)
}

pub fn find(pins: &Pins, ifindex: u32, program: Hook) -> Option<Found> {
    let (_, info) = open(&path(pins, ifindex, program))?;
    let there = on_hook(ifindex, program).ok()?;
    let place = there.iter().position(|on| on.link == info.id)?;
    let first = match program {
        // It decides nothing: what leaves was judged where it came from.
        Hook::ToNetdev => Vec::new(),
        _ => there[..place]
            .iter()
            .map(|on| program::name(on.program))
            .collect(),
    };
    Some(Found {
        program,
        mechanism: Mechanism::Tcx,
        other_programs_first: first,
    })
}

/// The id of the program that sees packets first.
pub fn head(ifindex: u32, program: Hook) -> Option<u32> {
    Some(on_hook(ifindex, program).ok()?.first()?.program)
}

/// The kernel's numbers of what is on a hook.
#[derive(Clone, Copy, Debug)]
struct OnHook {
    program: u32,
    /// 0: it is attached without one.
    link: u32,
}

/// What a link has on a hook of an interface of this network namespace.
fn find_link(ifindex: u32, program: Hook, link: u32) -> Result<Option<OnHook>> {
    let there = on_hook(ifindex, program)?;
    Ok(there.into_iter().find(|on| on.link == link))
}

/// What is on a hook, in the order in which it sees packets.
fn on_hook(ifindex: u32, program: Hook) -> Result<Vec<OnHook>> {
    const ROOM: usize = 64; // BPF_MPROG_MAX, include/linux/bpf_mprog.h
    let (mut programs, mut links) = ([0u32; ROOM], [0u32; ROOM]);
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as libbpf_sys::size_t,
        prog_ids: programs.as_mut_ptr(),
        link_ids: links.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = ROOM as u32;
    // SAFETY: the options point to room for as many numbers as they say, which lives for the whole call.
    let done = unsafe {
        libbpf_sys::bpf_prog_query_opts(ifindex as i32, attach_type(program), &mut options)
    };
    parse(done).context("ask for the programs of a tcx hook")?;
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

/// libbpf's answers: minus an errno, or a number.
fn parse(done: i32) -> io::Result<i32> {
    if done < 0 {
        return Err(io::Error::from_raw_os_error(-done));
    }
    Ok(done)
}
