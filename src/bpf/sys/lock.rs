//! The lock on a root of pins: one process at a time writes below it, of whatever version.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, bail};
use rustix::fs::FlockOperation;

use super::call::call;
use super::op::Op;
use super::pins::check_bpffs;
use super::write_access;

/// Makes this process the only one that writes below the root, for as long as the descriptor lives.
///
/// # Errors
/// If the root is not on a bpffs, with the command that mounts one; if users other than root could change what is pinned there; or
/// if another daemon holds the lock, with its pid where the kernel reports it.
pub fn lock(root: &Path) -> Result<OwnedFd> {
    check_bpffs(root)?;
    loop {
        let lock = lock_existing(root)?;
        // A cleanup may have removed the directory after it was opened: a lock on it excludes nobody then.
        if is_lock_on(root, &lock) {
            return Ok(lock);
        }
    }
}

fn lock_existing(root: &Path) -> Result<OwnedFd> {
    let dir = write_access::create(root)?;
    let is_ours = call(Op::LockDir { path: root }, || {
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error),
        }
    })?;
    if !is_ours {
        let holder = holder(root).map_or_else(String::new, |pid| format!(" (pid {pid})"));
        bail!(
            "another dpd{holder} is at work on {}: stop it first",
            root.display()
        );
    }
    Ok(dir)
}

/// Whether that is a lock on the directory that is the root now.
pub fn is_lock_on(root: &Path, lock: &OwnedFd) -> bool {
    let root = fs::metadata(root);
    let locked = rustix::fs::fstat(lock);
    root.is_ok_and(|root| locked.is_ok_and(|locked| locked.st_ino == root.ino()))
}

/// Removes the root if it is empty. The caller holds the lock on it, so that no daemon starts in a directory that is removed.
///
/// # Errors
/// If the kernel refuses for another reason than that the directory is not empty.
pub fn remove_root(root: &Path, _lock: &OwnedFd) -> Result<()> {
    call(Op::RemoveDir { path: root }, || {
        match fs::remove_dir(root) {
            // The root is the mount point of the bpffs itself, or has other tools' pins.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Ok(())
            }
            removed => removed,
        }
    })
}

/// The pid in `/proc/locks` that holds the lock on the root.
fn holder(root: &Path) -> Option<u32> {
    let inode = format!(":{}", fs::metadata(root).ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields[..] else {
            return None;
        };
        file.ends_with(&inode).then(|| pid.parse().ok())?
    })
}
