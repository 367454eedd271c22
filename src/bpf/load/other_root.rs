//! Other roots of pins on this machine: which one has a program that is found on a hook.

use std::fs;
use std::path::{Path, PathBuf};

use super::previous::program_of;
use crate::bpf::attach::hook::Hook;
use crate::bpf::sys::pins::{self, Pins};
use crate::bpf::sys::program;

/// How deep below the mount point of a bpffs roots are looked for.
const DEPTH: u32 = 3;

/// The root whose datapath has this program, on any bpffs of this mount namespace.
pub fn of_program(id: u32) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let mut bpffs = mounts.lines().filter_map(bpffs_of);
    bpffs.find_map(|place| find_below(&place, id, DEPTH))
}

/// The mount point of a line, if it is of a bpffs (proc_pid_mountinfo(5)).
fn bpffs_of(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let place = mount.split(' ').nth(4)?.replace("\\040", " ");
    kind.starts_with("bpf ").then(|| place.into())
}

fn find_below(dir: &Path, id: u32, depth: u32) -> Option<PathBuf> {
    let all = Pins::all(dir);
    if all.iter().any(|pins| has_program(pins, id)) {
        return Some(dir.to_owned());
    }
    if depth == 0 || !all.is_empty() {
        return None;
    }
    let below = pins::names(dir).into_iter().map(|name| dir.join(name));
    below
        .filter(|path| path.is_dir() && !path.is_symlink())
        .find_map(|path| find_below(&path, id, depth - 1))
}

fn has_program(pins: &Pins, id: u32) -> bool {
    let is_it = |load: u64, hook: Hook| {
        let program = program_of(pins, load, hook.name());
        program.is_some_and(|program| program::info(program).is_ok_and(|info| info.id == id))
    };
    Pins::numbers(&pins.loads())
        .into_iter()
        .any(|load| Hook::ALL.into_iter().any(|hook| is_it(load, hook)))
}

/// The process that holds a program, or a link of it, by a descriptor (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c).
pub fn holder(id: u32) -> Option<u32> {
    let wanted = format!("prog_id:\t{id}");
    let holds = |pid: &u32| {
        let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .into_iter()
            .flatten();
        let mut texts = entries
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path()).ok());
        texts.any(|text| text.lines().any(|line| line == wanted))
    };
    let names = pins::names(Path::new("/proc")).into_iter();
    names.filter_map(|name| name.parse().ok()).find(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bpffs_is_found_by_its_mount_point() {
        let rows = [
            (
                "36 25 0:31 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700",
                Some("/sys/fs/bpf"),
            ),
            (
                "40 25 0:44 / /run/a\\040b/bpf rw - bpf node-a rw",
                Some("/run/a b/bpf"),
            ),
            ("37 25 0:32 / /sys/fs/cgroup rw - cgroup2 bpf rw", None),
            ("", None),
        ];
        for (line, place) in rows {
            assert_eq!(bpffs_of(line), place.map(PathBuf::from), "{line}");
        }
    }
}
