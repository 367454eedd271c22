//! The operations on the kernel's objects, a variant each. Its text is what the error of the operation begins with.

use std::fmt;
use std::path::Path;

/// One operation, with what it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    // Directories and pins of a bpffs.
    /// The directory of a root, or one of its fixed subdirectories.
    CreatePinDir {
        path: &'a Path,
    },
    CreateDir {
        path: &'a Path,
    },
    RemoveDir {
        path: &'a Path,
    },
    MoveDir {
        from: &'a Path,
        to: &'a Path,
    },
    LockDir {
        path: &'a Path,
    },
    Pin {
        path: &'a Path,
    },
    SetMode {
        path: &'a Path,
    },
    /// An object, or a directory with all that is in it.
    Unpin {
        path: &'a Path,
    },

    // Maps.
    OpenMap {
        path: &'a Path,
    },
    CreateMap {
        map: &'a str,
        entries: u32,
    },
    /// A batch: from this row to before that one, of so many.
    WriteRows {
        table: &'a str,
        rows: (usize, usize),
        count: u32,
    },
    DeleteRow {
        map: &'a str,
    },
    FillSlot {
        table: &'a str,
        slot: u32,
    },
    ClearSlot {
        table: &'a str,
        slot: u32,
    },
    /// A row of `dpd_endpoint_counters`.
    ClearCounters {
        row: u32,
    },
    MarkUnmanaged {
        ifindex: u32,
    },

    // Programs.
    /// The map of an object becomes one that exists.
    ReuseMap {
        map: &'a str,
    },
    LoadPrograms,
    FillChain {
        step: &'a str,
    },
    /// A program or table of the datapath that is taken over, for the new programs.
    PublishPrevious {
        object: &'a str,
    },

    // Hooks; `hook` is "ingress" or "egress".
    CreateLink {
        hook: &'a str,
    },
    /// Of a program for sockets.
    CreateCgroupLink {
        hook: &'a str,
    },
    UpdateLink {
        path: &'a Path,
    },
    DetachLink {
        path: &'a Path,
    },
    AttachXdp {
        program: &'a str,
    },
    CreateQdisc,
    DeleteQdisc,
    AttachFilter {
        hook: &'a str,
    },
    DetachFilter {
        hook: &'a str,
    },

    /// The kernel's switch for expedited grace periods.
    WriteSwitch {
        path: &'a Path,
        value: &'a str,
    },
}

impl Op<'_> {
    /// Whether the mode of a directory decides who may do it.
    pub(super) fn is_of_a_directory(&self) -> bool {
        matches!(
            self,
            Op::CreatePinDir { .. }
                | Op::CreateDir { .. }
                | Op::RemoveDir { .. }
                | Op::MoveDir { .. }
                | Op::LockDir { .. }
                | Op::Pin { .. }
                | Op::Unpin { .. }
        )
    }
}

impl fmt::Display for Op<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Op::CreatePinDir { path } => {
                let path = path.display();
                write!(f, "create directory {path} for pinned objects")
            }
            Op::CreateDir { path } => write!(f, "create directory {}", path.display()),
            Op::RemoveDir { path } => write!(f, "remove directory {}", path.display()),
            Op::MoveDir { from, to } => write!(f, "move {} to {}", from.display(), to.display()),
            Op::LockDir { path } => write!(f, "lock {}", path.display()),
            Op::Pin { path } => write!(f, "pin at {}", path.display()),
            Op::SetMode { path } => write!(f, "set the mode of {}", path.display()),
            Op::Unpin { path } => write!(f, "unpin {}", path.display()),
            Op::OpenMap { path } => write!(f, "open map {}", path.display()),
            Op::CreateMap { map, entries } => write!(f, "create map {map} for {entries} entries"),
            Op::WriteRows { table, rows, count } => {
                let (from, to) = rows;
                write!(f, "table {table}: write rows {from} to {to} of {count}")
            }
            Op::DeleteRow { map } => write!(f, "delete a row of {map}"),
            Op::FillSlot { table, slot } => write!(f, "put table {table} into slot {slot}"),
            Op::ClearSlot { table, slot } => write!(f, "clear slot {slot} of table {table}"),
            Op::ClearCounters { row } => write!(f, "clear row {row} of dpd_endpoint_counters"),
            Op::MarkUnmanaged { ifindex } => write!(f, "mark interface {ifindex} as unmanaged"),
            Op::ReuseMap { map } => write!(f, "adopt map {map}"),
            Op::LoadPrograms => f.write_str(LOAD_PROGRAMS),
            Op::FillChain { step } => write!(f, "put {step} into the chain"),
            Op::PublishPrevious { object } => write!(f, "publish the previous {object}"),
            Op::CreateLink { hook } => write!(f, "create a tcx link at {hook}"),
            Op::CreateCgroupLink { hook } => write!(f, "create a cgroup link at {hook}"),
            Op::UpdateLink { path } => write!(f, "update link {}", path.display()),
            Op::DetachLink { path } => write!(f, "detach link {}", path.display()),
            Op::AttachXdp { program } => write!(f, "attach {program}"),
            Op::CreateQdisc => f.write_str("create the clsact qdisc"),
            Op::DeleteQdisc => f.write_str("delete the clsact qdisc"),
            Op::AttachFilter { hook } => write!(f, "attach a clsact filter at {hook}"),
            Op::DetachFilter { hook } => write!(f, "detach the clsact filter at {hook}"),
            Op::WriteSwitch { path, value } => write!(f, "write {value} to {}", path.display()),
        }
    }
}

const LOAD_PROGRAMS: &str =
    "load the eBPF programs (requires Linux 6.1 or later with BTF: /sys/kernel/btf/vmlinux)";
