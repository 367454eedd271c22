//! The XDP program on uplinks: a pinned link, native where the driver can, generic otherwise.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Result, bail};
use libbpf_rs::Link;
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{LinkInfo, LinkTypeInfo, XdpLinkInfo};
use rustix::io::Errno;

use super::gate;
use super::hook::XDP_ENTRY;
use super::map;
use super::pins::{self, Pins};
use super::program;
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

    /// Whether it is what the file wants now; `before` is what it wanted when this was attached, if that is known.
    /// `auto` has tried the driver already where it wanted the same before.
    fn suits(self, mode: XdpMode, before: Option<XdpMode>) -> bool {
        match mode {
            XdpMode::Auto => {
                self == Attached::Native || before.is_none_or(|before| before == XdpMode::Auto)
            }
            XdpMode::Native => self == Attached::Native,
            XdpMode::Generic => self == Attached::Generic,
            XdpMode::Off => false,
        }
    }
}

fn path(pins: &Pins, ifindex: u32) -> PathBuf {
    pins.links().join(format!("{ifindex}-xdp"))
}

/// The interfaces that have had our program, and nobody has detached it since.
pub fn held(pins: &Pins) -> BTreeSet<u32> {
    pins::names(&pins.links())
        .iter()
        .filter_map(|name| name.strip_suffix("-xdp")?.parse().ok())
        .collect()
}

/// Attaches the program, or puts it in the place of the one that we have there, which the file wanted as `before` says.
/// In the mode `auto` somebody else's program is left alone, and ours is not attached.
///
/// # Errors
/// If the mode is native and the driver can't, or the mode is not `auto` and somebody else's program is there.
pub fn attach(
    pins: &Pins,
    ifindex: u32,
    mode: XdpMode,
    before: Option<XdpMode>,
    fd: BorrowedFd<'_>,
) -> Result<()> {
    let path = path(pins, ifindex);
    if let Some((link, _)) = open(pins, ifindex)
        && attached(ifindex).is_some_and(|now| now.suits(mode, before))
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
    detach(pins, ifindex)?;
    if mode == XdpMode::Auto && attached(ifindex).is_some() {
        return Ok(());
    }
    let link = match mode {
        XdpMode::Native => create(ifindex, fd, DRV_MODE)?,
        XdpMode::Generic => create(ifindex, fd, SKB_MODE)?,
        XdpMode::Auto => match create(ifindex, fd, DRV_MODE) {
            Ok(link) => link,
            Err(_) => create(ifindex, fd, SKB_MODE)?,
        },
        XdpMode::Off => bail!("xdp is off for this interface"),
    };
    map::pin(&link, &path)
}

fn create(ifindex: u32, fd: BorrowedFd<'_>, flags: u32) -> Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        ..Default::default()
    };
    gate::pass(format_args!("attach {}", XDP_ENTRY.program), || {
        // SAFETY: the program's descriptor and the options live for the whole call.
        let done = unsafe {
            libbpf_sys::bpf_link_create(
                fd.as_raw_fd(),
                ifindex as i32,
                libbpf_sys::BPF_XDP,
                &options,
            )
        };
        // SAFETY: the kernel has just made this descriptor for us.
        parse(done)
            .map(|link| unsafe { OwnedFd::from_raw_fd(link) })
            .map_err(|error| with_advice(error, flags))
    })
}

/// What to do about an interface that refuses the program.
fn with_advice(error: io::Error, flags: u32) -> anyhow::Error {
    let is_taken = [Errno::BUSY, Errno::EXIST]
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == error.raw_os_error());
    if is_taken {
        anyhow::Error::new(error).context(
            "somebody else's is there; take it off, or set xdp = \"off\" for this interface",
        )
    } else if flags == DRV_MODE {
        anyhow::Error::new(error).context(
            "the driver can't run it; set xdp = \"auto\" or \"generic\" for this interface",
        )
    } else {
        error.into()
    }
}

/// The pinned link, if it still holds on to any interface: links go with theirs to another network namespace, and don't
/// tell so.
fn open_anywhere(pins: &Pins, ifindex: u32) -> Option<(Link, LinkInfo)> {
    let path = path(pins, ifindex);
    if !path.exists() {
        return None;
    }
    let link = Link::open(path).ok()?;
    let info = link.info().ok()?;
    match info.info {
        LinkTypeInfo::Xdp(XdpLinkInfo { ifindex: 1.., .. }) => Some((link, info)),
        _ => None,
    }
}

/// The same, if it is this interface: what the kernel says of it here is that it has the link's program.
fn open(pins: &Pins, ifindex: u32) -> Option<(Link, LinkInfo)> {
    let (link, info) = open_anywhere(pins, ifindex)?;
    let here = query(ifindex)?;
    let programs = [here.drv_prog_id, here.skb_prog_id, here.hw_prog_id];
    programs.contains(&info.prog_id).then_some((link, info))
}

/// Takes the program off, wherever the interface is by now; answers whether there was one.
pub fn detach(pins: &Pins, ifindex: u32) -> Result<bool> {
    let path = path(pins, ifindex);
    if let Some((link, _)) = open_anywhere(pins, ifindex) {
        gate::pass(format_args!("detach the link {}", path.display()), || {
            link.detach()
        })?;
    }
    Pins::unpin(&path)
}

/// The kernel's number of the program in our place; `None`: there is none.
pub fn program_on(pins: &Pins, ifindex: u32) -> Option<u32> {
    Some(open(pins, ifindex)?.1.prog_id)
}

/// How our program is attached to an interface; `None`: it is not.
pub fn find(pins: &Pins, ifindex: u32) -> Option<Attached> {
    open(pins, ifindex).and_then(|_| attached(ifindex))
}

/// The name of somebody else's program on an interface; `None`: there is none.
pub fn find_foreign(pins: &Pins, ifindex: u32) -> Option<String> {
    let id = query(ifindex)?.prog_id;
    match open(pins, ifindex) {
        Some(_) => None,
        None => Some(program::name(id)),
    }
}

/// Whether our program could be where the file wants it, and is not.
pub fn is_missing(pins: &Pins, ifindex: u32, mode: XdpMode) -> bool {
    let is_left_to_them = mode == XdpMode::Auto && attached(ifindex).is_some();
    open(pins, ifindex).is_none() && !is_left_to_them
}

/// How whatever is on an interface is attached.
fn attached(ifindex: u32) -> Option<Attached> {
    match query(ifindex)?.attach_mode {
        ATTACHED_SKB => Some(Attached::Generic),
        _ => Some(Attached::Native),
    }
}

/// What the kernel says of the program on an interface; `None`: there is none.
fn query(ifindex: u32) -> Option<libbpf_sys::bpf_xdp_query_opts> {
    let mut options = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: the options live for the whole call and say how long they are.
    let done = unsafe { libbpf_sys::bpf_xdp_query(ifindex as i32, 0, &mut options) };
    (done == 0 && options.attach_mode != 0).then_some(options)
}

/// libbpf's answers: minus an errno, or a number.
fn parse(done: i32) -> io::Result<i32> {
    if done < 0 {
        return Err(io::Error::from_raw_os_error(-done));
    }
    Ok(done)
}
