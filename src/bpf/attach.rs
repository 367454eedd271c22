//! Programs on hooks: tcx links where the kernel has them (6.6), clsact filters below that.
//!
//! A link is pinned under the interface's index, so it outlives the daemon and is updated in place. From-hooks stand at
//! the head of the hook's programs, to-hooks at the tail; other programs there are left alone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{LinkInfo, LinkTypeInfo, ProgInfoIter};
use libbpf_rs::{Link, TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder};

use super::load::HookProgram;
use super::map;
use super::pins::{self, Pins};

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Tcx,
    Clsact,
}

impl Mechanism {
    /// What this kernel can do. Nothing is attached to find out.
    pub fn probe() -> Mechanism {
        // Every network namespace has a loopback interface, and it is the first.
        match hook_programs(1, HookProgram::FromContainer) {
            Ok(_) => Mechanism::Tcx,
            Err(_) => Mechanism::Clsact,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Tcx => "tcx",
            Mechanism::Clsact => "clsact",
        }
    }
}

/// Our filters among others on a clsact hook.
const FILTER_HANDLE: u32 = 0xd9d;
/// First on the way in, last on the way out.
const FILTER_FIRST: u32 = 1;
const FILTER_LAST: u32 = 0xfffe;

/// `BPF_F_BEFORE` and `BPF_F_AFTER` without a relative: head and tail (include/uapi/linux/bpf.h).
const AT_HEAD: u32 = 1 << 3;
const AT_TAIL: u32 = 1 << 4;

impl HookProgram {
    /// `ingress` or `egress`, as tc names the hook.
    pub fn hook(self) -> &'static str {
        match self {
            HookProgram::FromContainer => "ingress",
            HookProgram::ToContainer => "egress",
        }
    }

    fn attach_type(self) -> u32 {
        match self {
            HookProgram::FromContainer => libbpf_sys::BPF_TCX_INGRESS,
            HookProgram::ToContainer => libbpf_sys::BPF_TCX_EGRESS,
        }
    }

    fn pin_name(self, ifindex: u32) -> String {
        format!("{ifindex}-{}", self.hook())
    }
}

/// Where links of an interface are pinned. bpffs refuses dots, which names like eth0.100 have: so by number.
fn link_path(pins: &Pins, ifindex: u32, program: HookProgram) -> PathBuf {
    pins.links().join(program.pin_name(ifindex))
}

/// Attaches a program to its hook of an interface, or puts it in the place of the one that we have there.
pub fn attach(
    pins: &Pins,
    mechanism: Mechanism,
    ifindex: u32,
    program: HookProgram,
    fd: &OwnedFd,
) -> Result<()> {
    match mechanism {
        Mechanism::Tcx => attach_link(pins, ifindex, program, fd.as_fd()),
        Mechanism::Clsact => attach_filter(ifindex, program, fd.as_fd()),
    }
    .with_context(|| format!("attach {} to interface {ifindex}", program.name()))
}

fn attach_link(pins: &Pins, ifindex: u32, program: HookProgram, fd: BorrowedFd<'_>) -> Result<()> {
    let path = link_path(pins, ifindex, program);
    if let Some(link) = open_link(&path, ifindex) {
        // SAFETY: both descriptors are open for the whole call; null options are the defaults.
        let done = unsafe {
            libbpf_sys::bpf_link_update(link.as_raw_fd(), fd.as_raw_fd(), std::ptr::null())
        };
        return parse(done).map(drop).context("update the link in place");
    }
    if path.exists() {
        // Of an interface that is gone and whose number this one has now.
        fs::remove_file(&path).with_context(|| format!("unpin {}", path.display()))?;
    }
    let link = create_link(ifindex, program, fd)?;
    map::pin(&link, &path)
}

/// The pinned link, if it still holds on to this interface.
fn open_link(path: &std::path::Path, ifindex: u32) -> Option<OwnedFd> {
    let link = Link::open(path).ok()?;
    let LinkTypeInfo::Tcx(info) = link.info().ok()?.info else {
        return None;
    };
    (info.ifindex == ifindex)
        .then(|| link.as_fd().try_clone_to_owned().ok())
        .flatten()
}

fn create_link(ifindex: u32, program: HookProgram, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: match program {
            HookProgram::FromContainer => AT_HEAD,
            HookProgram::ToContainer => AT_TAIL,
        },
        ..Default::default()
    };
    // SAFETY: the program's descriptor and the options live for the whole call.
    let done = unsafe {
        libbpf_sys::bpf_link_create(
            fd.as_raw_fd(),
            ifindex as i32,
            program.attach_type(),
            &options,
        )
    };
    let link = parse(done).context("create a tcx link")?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

fn filter(ifindex: u32, program: HookProgram, fd: BorrowedFd<'_>) -> TcHook {
    let (point, priority) = match program {
        HookProgram::FromContainer => (TC_INGRESS, FILTER_FIRST),
        HookProgram::ToContainer => (TC_EGRESS, FILTER_LAST),
    };
    TcHookBuilder::new(fd)
        .ifindex(ifindex as i32)
        .replace(true)
        .handle(FILTER_HANDLE)
        .priority(priority)
        .hook(point)
}

fn attach_filter(ifindex: u32, program: HookProgram, fd: BorrowedFd<'_>) -> Result<()> {
    let mut hook = filter(ifindex, program, fd);
    hook.create().context("make the clsact qdisc")?; // one that is there is no error
    hook.attach().context("put the filter there")?;
    Ok(())
}

/// Takes our programs off an interface; what is not there is no error. Answers whether anything was.
pub fn detach(pins: &Pins, mechanism: Mechanism, ifindex: u32) -> Result<bool> {
    let mut any = false;
    for program in HookProgram::ALL {
        any |= match mechanism {
            Mechanism::Tcx => {
                let path = link_path(pins, ifindex, program);
                match fs::remove_file(&path) {
                    Ok(()) => true,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                    Err(error) => {
                        return Err(error).with_context(|| format!("unpin {}", path.display()));
                    }
                }
            }
            Mechanism::Clsact => detach_filter(ifindex, program)?,
        };
    }
    Ok(any)
}

fn detach_filter(ifindex: u32, program: HookProgram) -> Result<bool> {
    // The descriptor counts for attaching only.
    let nothing = rustix::stdio::stdin();
    let mut hook = filter(ifindex, program, nothing);
    if hook.query().is_err() {
        return Ok(false);
    }
    hook.detach()
        .with_context(|| format!("take {} off interface {ifindex}", program.name()))?;
    Ok(true)
}

/// The interfaces that our pinned links stand for.
pub fn linked(pins: &Pins) -> BTreeSet<u32> {
    pins::names(&pins.links())
        .iter()
        .filter_map(|name| name.split_once('-')?.0.parse().ok())
        .collect()
}

/// A program of ours on a hook, and what sees packets before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub program: HookProgram,
    pub mechanism: Mechanism,
    pub ahead: Vec<String>,
}

/// What of ours is on an interface.
pub fn find(pins: &Pins, ifindex: u32) -> Vec<Found> {
    HookProgram::ALL
        .into_iter()
        .filter_map(|program| {
            find_link(pins, ifindex, program).or_else(|| find_filter(ifindex, program))
        })
        .collect()
}

fn find_link(pins: &Pins, ifindex: u32, program: HookProgram) -> Option<Found> {
    let link = Link::open(link_path(pins, ifindex, program)).ok()?;
    let LinkInfo {
        info: LinkTypeInfo::Tcx(info),
        prog_id,
        ..
    } = link.info().ok()?
    else {
        return None;
    };
    if info.ifindex != ifindex {
        return None;
    }
    let programs = hook_programs(ifindex, program).unwrap_or_default();
    let ahead = match program {
        HookProgram::FromContainer => programs
            .into_iter()
            .take_while(|id| *id != prog_id)
            .map(program_name)
            .collect(),
        // Behind a to-hook there is nothing that could wave a packet past it.
        HookProgram::ToContainer => Vec::new(),
    };
    Some(Found {
        program,
        mechanism: Mechanism::Tcx,
        ahead,
    })
}

fn find_filter(ifindex: u32, program: HookProgram) -> Option<Found> {
    let nothing = rustix::stdio::stdin();
    filter(ifindex, program, nothing).query().ok()?;
    Some(Found {
        program,
        mechanism: Mechanism::Clsact,
        ahead: Vec::new(),
    })
}

fn program_name(id: u32) -> String {
    ProgInfoIter::default()
        .find(|info| info.id == id)
        .map_or_else(
            || format!("program {id}"),
            |info| info.name.to_string_lossy().into_owned(),
        )
}

/// The ids of the programs on a tcx hook, in the order in which they see packets.
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
        libbpf_sys::bpf_prog_query_opts(ifindex as i32, program.attach_type(), &mut options)
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
