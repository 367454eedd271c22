//! A control group of a test's own, which stands for the root of cgroup2: what is attached there concerns no other process of
//! the machine.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, unlinkat};

const PREFIX: &str = "dpd-t-";

/// Removed when dropped; by then nothing may run in it.
pub struct OwnCgroup {
    /// Where cgroup2 is mounted, and its folder, open: another mount may cover it.
    hierarchy: PathBuf,
    folder: File,
    name: String,
}

impl OwnCgroup {
    /// Creates one below the machine's cgroup2, or below what a container has of it. `None`: there is none.
    pub fn new() -> Option<OwnCgroup> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let found = dpd::net::find_cgroup().ok()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let own = OwnCgroup {
            hierarchy: found.path,
            folder: found.folder.into(),
            name: format!("{PREFIX}{}-{count}", std::process::id()),
        };
        clear_leftovers(&own.hierarchy);
        fs::create_dir(own.hierarchy.join(&own.name))
            .expect("make a control group: this test needs root");
        Some(own)
    }

    /// Makes it the root of cgroup2 for the calling thread, whose mounts are its own.
    pub fn mount(&self) {
        rustix::mount::mount_bind(self.hierarchy.join(&self.name), &self.hierarchy)
            .expect("mount the control group over the whole");
    }

    /// Moves this process into it, until it leaves: what it opens meanwhile is the group's, and so are its children.
    pub fn enter(&self) {
        self.move_to(&format!("{}/cgroup.procs", self.name));
    }

    /// Moves this process to the group that this one was made in.
    pub fn leave(&self) {
        self.move_to("cgroup.procs");
    }

    /// By the open folder a group is reached whatever is mounted.
    fn move_to(&self, members: &str) {
        let path = format!("/proc/self/fd/{}/{members}", self.folder.as_raw_fd());
        fs::write(path, std::process::id().to_string())
            .expect("move this process to a control group");
    }

    /// A command whose sockets are in it. Those of the test's own threads are not: they are in the group of their process.
    pub fn command(&self, program: &str) -> Command {
        // By the open folder it is reached whatever is mounted.
        let (process, folder) = (std::process::id(), self.folder.as_raw_fd());
        let members = format!("/proc/{process}/fd/{folder}/{}/cgroup.procs", self.name);
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ >\"$1\" && shift && exec \"$@\"", "sh"])
            .args([&members, program]);
        command
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        if let Err(error) = unlinkat(&self.folder, &self.name, AtFlags::REMOVEDIR) {
            eprintln!("the control group {} stays behind: {error}", self.name);
        }
    }
}

/// Removes the groups of test processes that have exited.
fn clear_leftovers(hierarchy: &Path) {
    for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let owner = owner.and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
