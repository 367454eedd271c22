//! The XDP program on uplinks: a pinned link, native where the driver can, generic otherwise.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Result, bail};
use libbpf_rs::Link;
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::LinkInfo;
use rustix::io::Errno;

use super::hook::XDP_ENTRY;
use super::link;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pins::{self, Pins};
use crate::bpf::sys::{map, program};
use crate::model::xdp::XdpMode;

/// `XDP_FLAGS_SKB_MODE`, `XDP_FLAGS_DRV_MODE` (include/uapi/linux/if_link.h).
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;
/// `XDP_ATTACHED_SKB` (the same file).
const ATTACHED_SKB: u8 = 2;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    Native,
    Generic,
}

impl Attached {
    pub fn name(self) -> &'static str {
        match self {
            Attached::Native => "native",
            Attached::Generic => "generic",
        }
    }

    /// Whether it is what the configuration asks for; `previous` is the mode with which this was attached, if known. An
    /// `auto` that was `auto` before has tried the driver already.
    fn fits(self, mode: XdpMode, previous: Option<XdpMode>) -> bool {
        match mode {
            XdpMode::Auto => {
                self == Attached::Native
                    || previous.is_none_or(|previous| previous == XdpMode::Auto)
            }
            XdpMode::Native => self == Attached::Native,
            XdpMode::Generic => self == Attached::Generic,
            XdpMode::Off => false,
        }
    }
}

fn path(pins: &Pins, ifindex: u32) -> PathBuf {
    let point = XDP_ENTRY.attach_point.name();
    pins.links().join(format!("{ifindex}-{point}"))
}

/// The interface whose XDP link has this name.
fn ifindex_of(name: &str) -> Option<u32> {
    let (ifindex, point) = name.split_once('-')?;
    (point == XDP_ENTRY.attach_point.name()).then(|| ifindex.parse().ok())?
}

/// The interfaces to which our program was attached and from which it was not detached since.
pub fn held(pins: &Pins) -> BTreeSet<u32> {
    pins::names(&pins.links())
        .iter()
        .filter_map(|name| ifindex_of(name))
        .collect()
}

/// Attaches the program, or replaces ours, which was attached in the mode `previous`. In the mode `auto` another tool's
/// program is left alone, and ours is not attached.
///
/// # Errors
/// If the mode is native and the driver does not support it, or the mode is not `auto` and another tool's program is there.
pub fn attach(
    pins: &Pins,
    ifindex: u32,
    mode: XdpMode,
    previous: Option<XdpMode>,
    program: BorrowedFd<'_>,
) -> Result<()> {
    let path = path(pins, ifindex);
    if let Some((link, _)) = open(pins, ifindex)
        && attached(ifindex).is_some_and(|now| now.fits(mode, previous))
    {
        return link::update(&path, &link, program);
    }
    detach(pins, ifindex)?;
    if mode == XdpMode::Auto && attached(ifindex).is_some() {
        return Ok(());
    }
    let link = match mode {
        XdpMode::Native => create(ifindex, program, DRV_MODE)?,
        XdpMode::Generic => create(ifindex, program, SKB_MODE)?,
        XdpMode::Auto => match create(ifindex, program, DRV_MODE) {
            Ok(link) => link,
            Err(_) => create(ifindex, program, SKB_MODE)?,
        },
        XdpMode::Off => bail!("xdp is off for this interface"),
    };
    map::pin(&link, &path)
}

fn create(ifindex: u32, program: BorrowedFd<'_>, flags: u32) -> Result<OwnedFd> {
    let kind = (libbpf_sys::BPF_XDP, flags);
    let op = Op::AttachXdp {
        program: XDP_ENTRY.program,
    };
    link::create(op, ifindex as i32, program, kind, |error| {
        with_advice(error, flags)
    })
}

/// Adds what to do about an interface that refuses the program.
fn with_advice(error: io::Error, flags: u32) -> anyhow::Error {
    let is_taken = [Errno::BUSY, Errno::EXIST]
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == error.raw_os_error());
    if is_taken {
        anyhow::Error::new(error).context(
            "another tool's program is there; detach it, or set xdp = \"off\" for this interface",
        )
    } else if flags == DRV_MODE {
        anyhow::Error::new(error).context(
            "the driver does not support native XDP; set xdp = \"auto\" or \"generic\" for this interface",
        )
    } else {
        error.into()
    }
}

/// The pinned link, if it is on this interface: links move with theirs to another network namespace, so the interface
/// must have the link's program.
fn open(pins: &Pins, ifindex: u32) -> Option<(Link, LinkInfo)> {
    let (link, info) = link::open(&path(pins, ifindex))?;
    let here = query(ifindex)?;
    let programs = [here.drv_prog_id, here.skb_prog_id, here.hw_prog_id];
    programs.contains(&info.prog_id).then_some((link, info))
}

/// Detaches the program, wherever its interface has moved; returns whether there was a pin.
pub fn detach(pins: &Pins, ifindex: u32) -> Result<bool> {
    let path = path(pins, ifindex);
    if let Some((link, _)) = link::open(&path) {
        link::detach(&path, &link)?;
    }
    Pins::unpin(&path)
}

/// The id of our program on an interface; `None`: there is none.
pub fn program_on(pins: &Pins, ifindex: u32) -> Option<u32> {
    Some(open(pins, ifindex)?.1.prog_id)
}

/// How our program is attached to an interface; `None`: it is not.
pub fn find(pins: &Pins, ifindex: u32) -> Option<Attached> {
    open(pins, ifindex).and_then(|_| attached(ifindex))
}

/// The name of another tool's program on an interface; `None`: there is none.
pub fn find_foreign(pins: &Pins, ifindex: u32) -> Option<String> {
    let id = query(ifindex)?.prog_id;
    match open(pins, ifindex) {
        Some(_) => None,
        None => Some(program::name(id)),
    }
}

/// Whether our program could be attached as configured, and is not.
pub fn is_missing(pins: &Pins, ifindex: u32, mode: XdpMode) -> bool {
    let is_left_to_others = mode == XdpMode::Auto && attached(ifindex).is_some();
    open(pins, ifindex).is_none() && !is_left_to_others
}

/// How the program of an interface is attached, ours or another tool's.
fn attached(ifindex: u32) -> Option<Attached> {
    match query(ifindex)?.attach_mode {
        ATTACHED_SKB => Some(Attached::Generic),
        _ => Some(Attached::Native),
    }
}

/// What the kernel reports of the program on an interface; `None`: there is none.
fn query(ifindex: u32) -> Option<libbpf_sys::bpf_xdp_query_opts> {
    let mut options = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: the options live for the whole call and give their own size.
    let done = unsafe { libbpf_sys::bpf_xdp_query(ifindex as i32, 0, &mut options) };
    (done == 0 && options.attach_mode != 0).then_some(options)
}
