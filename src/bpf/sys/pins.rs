//! Paths of our pinned objects in bpffs.
//!
//! ```text
//! <root>/abi-<n>/maps/dpd_ct_tcp     kept over restarts
//!              gen/<epoch>/services  the inner maps of a generation, and its catalog
//!              load/<n>/tail_ct      one load of the programs, with its private maps, and the
//!                                    layouts of the shared ones as text
//!              links/7-ingress       attachments, by the interface's index
//!        abi-<n>-next/...            while maps of another size take over from those of abi-<n>
//!        dpd-expedited               while grace periods are expedited
//! ```
//!
//! A directory is live once the epoch in its `maps/dpd_live` is not 0. Two are live only during a takeover; the one with
//! the higher epoch then serves.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::bpffs;
use super::call::call;
use super::op::Op;

use crate::bpf::abi;

/// Version of the layout of all that is pinned.
const VERSION: u32 = abi::abi::DPD_ABI_VERSION.0;

pub(super) const VERSION_PREFIX: &str = "abi-";
const NEXT_SUFFIX: &str = "-next";

/// A directory of pinned objects below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
    number: u32,
    is_next: bool,
}

impl Pins {
    /// The pins of this version of the layout.
    pub fn new(root: &Path) -> Pins {
        Pins::of_version(root, VERSION)
    }

    /// The pins of a version of the layout.
    pub fn of_version(root: &Path, number: u32) -> Pins {
        Pins {
            root: root.to_owned(),
            number,
            is_next: false,
        }
    }

    /// The pins that take over from these within the same version.
    pub fn next(&self) -> Pins {
        Pins {
            is_next: true,
            ..self.clone()
        }
    }

    /// The directory of this version when no takeover is going on.
    pub fn primary(&self) -> Pins {
        Pins {
            is_next: false,
            ..self.clone()
        }
    }

    /// The pins of every version below a root. Other names there are not ours.
    pub fn all(root: &Path) -> Vec<Pins> {
        names(root)
            .iter()
            .filter_map(|name| {
                let rest = name.strip_prefix(VERSION_PREFIX)?;
                let number = rest.strip_suffix(NEXT_SUFFIX).unwrap_or(rest);
                let pins = Pins {
                    root: root.to_owned(),
                    number: number.parse().ok()?,
                    is_next: rest.ends_with(NEXT_SUFFIX),
                };
                (pins.name() == *name && pins.version().is_dir()).then_some(pins)
            })
            .collect()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The version of the layout.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// `abi-7`
    pub fn name(&self) -> String {
        let suffix = if self.is_next { NEXT_SUFFIX } else { "" };
        format!("{VERSION_PREFIX}{}{suffix}", self.number)
    }

    /// The directory itself.
    pub fn version(&self) -> PathBuf {
        self.root.join(self.name())
    }

    pub fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub fn generations(&self) -> PathBuf {
        self.version().join("gen")
    }

    pub fn generation(&self, epoch: u64) -> PathBuf {
        self.generations().join(epoch.to_string())
    }

    pub fn loads(&self) -> PathBuf {
        self.version().join("load")
    }

    pub fn load(&self, number: u64) -> PathBuf {
        self.loads().join(number.to_string())
    }

    pub fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    /// The numbers of the loads or generations in a directory, ascending.
    pub fn numbers(dir: &Path) -> Vec<u64> {
        let mut numbers: Vec<u64> = names(dir)
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// Creates the directories.
    ///
    /// # Errors
    /// If the root is not on a bpffs, with the command that mounts one; or if a directory's name is taken.
    pub fn make_dirs(&self) -> Result<()> {
        check_bpffs(&self.root)?;
        for path in [self.maps(), self.generations(), self.loads(), self.links()] {
            call(Op::CreatePinDir { path: &path }, || {
                bpffs::dir_builder().recursive(true).create(&path)
            })?;
        }
        Ok(())
    }

    /// Creates one directory.
    pub(in crate::bpf) fn make_dir(path: &Path) -> Result<()> {
        call(Op::CreateDir { path }, || bpffs::dir_builder().create(path))
    }

    /// Unpins a directory with all that is in it; a missing one is no error.
    pub fn remove(path: &Path) -> Result<()> {
        call(Op::Unpin { path }, || {
            or_missing(fs::remove_dir_all(path)).map(drop)
        })
    }

    /// Unpins one object; returns whether there was one.
    pub(in crate::bpf) fn unpin(path: &Path) -> Result<bool> {
        call(Op::Unpin { path }, || or_missing(fs::remove_file(path)))
    }
}

/// Sets who may open a pin.
pub(in crate::bpf) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    call(Op::SetMode { path }, || {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    })
}

/// Whether there was anything to remove.
fn or_missing(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// # Errors
/// If the root is not on a bpffs, with the command that mounts one.
pub(super) fn check_bpffs(root: &Path) -> Result<()> {
    let existing = root
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    if !bpffs::is_bpffs(existing) {
        bail!(
            "{} is not on a bpffs, where pinned maps outlive the daemon: mount one with \
             `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`, or set another path in daemon.bpf_root",
            root.display()
        );
    }
    // The kernel reserves such names (kernel/bpf/inode.c, bpf_lookup).
    let missing = root.strip_prefix(existing).unwrap_or(root);
    if missing.as_os_str().as_encoded_bytes().contains(&b'.') {
        bail!(
            "{} can't be created: no name on a bpffs has a dot; set another path in daemon.bpf_root",
            root.display()
        );
    }
    Ok(())
}

/// The names in a directory, sorted; none if it does not exist.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Identifies a pin: another object at the same path has another inode. `None`: there is nothing.
pub(in crate::bpf) fn inode(pin: &Path) -> Option<u64> {
    let metadata = fs::symlink_metadata(pin).ok();
    metadata.map(|metadata| metadata.ino())
}
