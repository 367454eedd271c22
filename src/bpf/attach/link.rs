//! BPF links, as tcx, XDP and cgroups have them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Error, Result};
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{LinkInfo, LinkTypeInfo, TcxLinkInfo, XdpLinkInfo};
use libbpf_rs::{Link, libbpf_sys::bpf_link_create_opts};

use crate::bpf::sys::call::call;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::parse;

/// The pinned link, if it is attached to an interface, of any network namespace: a link moves with its interface and does
/// not report that.
pub fn open(path: &Path) -> Option<(Link, LinkInfo)> {
    if !path.exists() {
        return None;
    }
    let link = Link::open(path).ok()?;
    let info = link.info().ok()?;
    match info.info {
        LinkTypeInfo::Tcx(TcxLinkInfo { ifindex: 1.., .. })
        | LinkTypeInfo::Xdp(XdpLinkInfo { ifindex: 1.., .. }) => Some((link, info)),
        _ => None,
    }
}

/// Attaches a program by a new link. `target` is an ifindex, or the descriptor of a cgroup.
pub fn create<E: Into<Error>>(
    op: Op<'_>,
    target: i32,
    program: BorrowedFd<'_>,
    (attach_type, flags): (libbpf_sys::bpf_attach_type, u32),
    explain: impl FnOnce(io::Error) -> E,
) -> Result<OwnedFd> {
    let options = bpf_link_create_opts {
        sz: size_of::<bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        ..Default::default()
    };
    call(op, || {
        // SAFETY: the program's descriptor and the options live for the whole call.
        let done = unsafe {
            libbpf_sys::bpf_link_create(program.as_raw_fd(), target, attach_type, &options)
        };
        // SAFETY: the kernel has just created this descriptor for us.
        let link = parse(done).map(|link| unsafe { OwnedFd::from_raw_fd(link) });
        link.map_err(explain)
    })
}

/// Replaces the program of a link atomically.
pub fn update(path: &Path, link: &Link, program: BorrowedFd<'_>) -> Result<()> {
    call(Op::UpdateLink { path }, || {
        // SAFETY: both descriptors are open for the whole call; null options are the defaults.
        let done = unsafe {
            libbpf_sys::bpf_link_update(
                link.as_fd().as_raw_fd(),
                program.as_raw_fd(),
                std::ptr::null(),
            )
        };
        parse(done).map(drop)
    })
}

/// Detaches a link. Without this its program would run until a moment after the last reference is closed.
pub fn detach(path: &Path, link: &Link) -> Result<()> {
    call(Op::DetachLink { path }, || link.detach())
}
