//! Programs at the hooks of the host's sockets: links to a cgroup, pinned with those of interfaces, and updated in place.
//! Other tools' programs there are left alone.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use libbpf_rs::query::{CgroupLinkInfo, LinkInfo, LinkTypeInfo};
use libbpf_rs::{Link, ProgramType, libbpf_sys};
use rustix::fs::fstat;
use rustix::io::Errno;

use super::link;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pins::{self, Pins};
use crate::bpf::sys::{map, parse, program};

/// A hook of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketHook {
    /// As pins of links, listings and libbpf's sections name it.
    pub name: &'static str,
    /// The name of its function, as `bpftool prog` shows it.
    pub program: &'static str,
    attach_type: libbpf_sys::bpf_attach_type,
}

const fn hook(
    name: &'static str,
    program: &'static str,
    attach_type: libbpf_sys::bpf_attach_type,
) -> SocketHook {
    SocketHook {
        name,
        program,
        attach_type,
    }
}

/// Every one. What undoes a translation comes before what makes one: so they are attached.
pub const SOCKET_HOOKS: [SocketHook; 8] = [
    hook(
        "recvmsg4",
        "dpd_sock_recvmsg4",
        libbpf_sys::BPF_CGROUP_UDP4_RECVMSG,
    ),
    hook(
        "recvmsg6",
        "dpd_sock_recvmsg6",
        libbpf_sys::BPF_CGROUP_UDP6_RECVMSG,
    ),
    hook(
        "getpeername4",
        "dpd_sock_getpeername4",
        libbpf_sys::BPF_CGROUP_INET4_GETPEERNAME,
    ),
    hook(
        "getpeername6",
        "dpd_sock_getpeername6",
        libbpf_sys::BPF_CGROUP_INET6_GETPEERNAME,
    ),
    hook(
        "connect4",
        "dpd_sock_connect4",
        libbpf_sys::BPF_CGROUP_INET4_CONNECT,
    ),
    hook(
        "connect6",
        "dpd_sock_connect6",
        libbpf_sys::BPF_CGROUP_INET6_CONNECT,
    ),
    hook(
        "sendmsg4",
        "dpd_sock_sendmsg4",
        libbpf_sys::BPF_CGROUP_UDP4_SENDMSG,
    ),
    hook(
        "sendmsg6",
        "dpd_sock_sendmsg6",
        libbpf_sys::BPF_CGROUP_UDP6_SENDMSG,
    ),
];

/// Of the names of pins.
const PREFIX: &str = "cgroup-";

/// Whether the kernel has such hooks (`CONFIG_CGROUP_BPF`). Nothing is attached to find out.
pub fn is_supported() -> bool {
    ProgramType::CgroupSockAddr.is_supported().unwrap_or(false)
}

fn path(pins: &Pins, hook: &SocketHook) -> PathBuf {
    pins.links().join(format!("{PREFIX}{}", hook.name))
}

/// The pinned link of a hook, and the number of the cgroup that it is attached to; 0: that is gone.
fn open(pins: &Pins, hook: &SocketHook) -> Option<(Link, LinkInfo, u64)> {
    let link = Link::open(path(pins, hook)).ok()?;
    let info = link.info().ok()?;
    match info.info {
        LinkTypeInfo::Cgroup(CgroupLinkInfo { cgroup_id, .. }) => Some((link, info, cgroup_id)),
        _ => None,
    }
}

/// The number of a cgroup: that of its directory.
///
/// # Errors
/// If the descriptor can't be queried.
pub fn cgroup_id(cgroup: BorrowedFd<'_>) -> Result<u64> {
    let stat = fstat(cgroup).context("query the cgroup")?;
    Ok(stat.st_ino)
}

/// Attaches a program to its hook of a cgroup, or replaces the one that we have there. One at another cgroup is detached.
///
/// # Errors
/// If the kernel refuses, with the program that is in the way where there is one.
pub fn attach(
    pins: &Pins,
    cgroup: BorrowedFd<'_>,
    hook: &SocketHook,
    program: BorrowedFd<'_>,
) -> Result<()> {
    let path = path(pins, hook);
    match open(pins, hook) {
        Some((link, _, id)) if id != 0 && id == cgroup_id(cgroup)? => {
            return link::update(&path, &link, program);
        }
        _ => detach(pins, hook)?,
    };
    let op = Op::CreateCgroupLink { hook: hook.name };
    let kind = (hook.attach_type, 0);
    let link = link::create(op, cgroup.as_raw_fd(), program, kind, |error| {
        explain(error, cgroup, hook)
    })?;
    map::pin(&link, &path)
}

/// Detaches a program, whatever cgroup it is at; returns whether there was a pin.
///
/// # Errors
/// If the kernel refuses.
pub fn detach(pins: &Pins, hook: &SocketHook) -> Result<bool> {
    let path = path(pins, hook);
    if let Some((link, _, id)) = open(pins, hook)
        && id != 0
    {
        link::detach(&path, &link)?;
    }
    Pins::unpin(&path)
}

/// Whether a program of ours was attached, and not detached since.
pub fn is_held(pins: &Pins) -> bool {
    let names = pins::names(&pins.links());
    names.iter().any(|name| name.starts_with(PREFIX))
}

/// The cgroup's number and the program's id at a hook; `None`: there is none of ours.
pub fn attached(pins: &Pins, hook: &SocketHook) -> Option<(u64, u32)> {
    let (_, info, id) = open(pins, hook)?;
    (id != 0).then_some((id, info.prog_id))
}

/// What the error of attaching means. A program without `BPF_F_ALLOW_MULTI` is alone at its cgroup's hook.
fn explain(error: io::Error, cgroup: BorrowedFd<'_>, hook: &SocketHook) -> anyhow::Error {
    let is_refused = error.raw_os_error() == Some(Errno::PERM.raw_os_error());
    let other = is_refused
        .then(|| exclusive_program(cgroup, hook))
        .flatten();
    match other {
        None => error.into(),
        Some(id) => {
            let (name, hook) = (program::name(id), hook.name);
            // Without the kernel's error, which would be taken for a missing capability.
            anyhow!(
                "another tool's program {name} is attached at {hook} and admits no other: find it with `bpftool cgroup \
                 show`, and detach it or attach it with BPF_F_ALLOW_MULTI"
            )
        }
    }
}

/// The id of a program that admits no other at a hook of the cgroup itself.
fn exclusive_program(cgroup: BorrowedFd<'_>, hook: &SocketHook) -> Option<u32> {
    let mut ids = [0u32; 1];
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as libbpf_sys::size_t,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = ids.len() as u32;
    // SAFETY: the options point to an array of the length that they give, which lives for the whole call.
    let done = unsafe {
        libbpf_sys::bpf_prog_query_opts(cgroup.as_raw_fd(), hook.attach_type, &mut options)
    };
    parse(done).ok()?;
    let is_shared = options.attach_flags & libbpf_sys::BPF_F_ALLOW_MULTI != 0;
    (!is_shared && ids[0] != 0).then_some(ids[0])
}
