//! Where our objects stand in bpffs.
//!
//! ```text
//! <root>/abi-3/maps/dpd_ct_tcp       kept over restarts
//!              gen/<epoch>/services  the inner maps of a generation, and its catalog
//!              load/<n>/tail_ct      one load of the programs, with its prog array
//!              links/7-ingress       attachments, by the interface's index
//!        abi-3-next/...              while maps of another layout take over from those of abi-3
//!        dpd-expedited               while grace periods are hurried
//! ```
//!
//! A folder is live once the epoch in its `maps/dpd_live` is not 0. Two are only while one takes over from the other;
//! the higher epoch is then the one that counts.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::{abi, gate};

/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Of the layout of all that is pinned.
const VERSION: u32 = abi::abi::DPD_ABI_VERSION.0;

const VERSION_PREFIX: &str = "abi-";
const NEXT_SUFFIX: &str = "-next";

/// One folder of pinned objects below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
    number: u32,
    is_next: bool,
}

impl Pins {
    /// Those of this version of the layout.
    pub fn new(root: &Path) -> Pins {
        Pins::of_version(root, VERSION)
    }

    /// Those of a version of the layout.
    pub fn of_version(root: &Path, number: u32) -> Pins {
        Pins {
            root: root.to_owned(),
            number,
            is_next: false,
        }
    }

    /// What takes over from these within the same version.
    pub fn next(&self) -> Pins {
        Pins {
            is_next: true,
            ..self.clone()
        }
    }

    /// Where these belong when nothing is being taken over.
    pub fn settled(&self) -> Pins {
        Pins {
            is_next: false,
            ..self.clone()
        }
    }

    /// Every folder of ours below a root, of any version. All else there is not ours.
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

    /// `abi-3`
    pub fn name(&self) -> String {
        let suffix = if self.is_next { NEXT_SUFFIX } else { "" };
        format!("{VERSION_PREFIX}{}{suffix}", self.number)
    }

    /// Everything that is pinned here.
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

    /// The numbers of the loads or generations in a folder, ascending.
    pub fn numbers(folder: &Path) -> Vec<u64> {
        let mut numbers: Vec<u64> = names(folder)
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// If the root is not on a bpffs, with the command that mends it; or if something else has a folder's place.
    pub fn prepare(&self) -> Result<()> {
        check_bpffs(&self.root)?;
        for folder in [self.maps(), self.generations(), self.loads(), self.links()] {
            gate::pass(
                format_args!(
                    "make the folder {} for pinned objects (as root?)",
                    folder.display()
                ),
                || fs::create_dir_all(&folder),
            )?;
        }
        Ok(())
    }

    /// Whether that is a lock on the folder that is the root now.
    pub fn is_locked_by(&self, lock: &OwnedFd) -> bool {
        is_lock_on(&self.root, lock)
    }

    /// Makes one folder.
    pub(super) fn make(folder: &Path) -> Result<()> {
        gate::pass(format_args!("make the folder {}", folder.display()), || {
            fs::create_dir(folder)
        })
    }

    /// Unpins a folder with all that is in it; one that is not there is no error.
    pub fn remove(folder: &Path) -> Result<()> {
        gate::pass(format_args!("unpin {}", folder.display()), || {
            or_not_there(fs::remove_dir_all(folder)).map(drop)
        })
    }

    /// Unpins one object; answers whether there was one.
    pub(super) fn unpin(path: &Path) -> Result<bool> {
        gate::pass(format_args!("unpin {}", path.display()), || {
            or_not_there(fs::remove_file(path))
        })
    }
}

/// Whether there was anything to take away.
fn or_not_there(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes this process the only one that writes below the root, of whatever version, for as long as the answer lives.
///
/// # Errors
/// If the root is not on a bpffs, with the command that mends it; or if another daemon is at work there, with its pid
/// where the kernel tells it.
pub fn lock(root: &Path) -> Result<OwnedFd> {
    check_bpffs(root)?;
    loop {
        let lock = lock_what_is_there(root)?;
        // Whoever cleaned up may have removed the folder after it was opened: then it is nobody's, and keeps nobody out.
        if is_lock_on(root, &lock) {
            return Ok(lock);
        }
    }
}

fn lock_what_is_there(root: &Path) -> Result<OwnedFd> {
    gate::pass(
        format_args!(
            "make the folder {} for pinned objects (as root?)",
            root.display()
        ),
        || fs::create_dir_all(root),
    )?;
    let folder = rustix::fs::open(
        root,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .with_context(|| format!("open {}", root.display()))?;
    let is_ours = gate::pass(
        format_args!("lock {}", root.display()),
        || match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error),
        },
    )?;
    if !is_ours {
        let holder = lock_holder(root).map_or_else(String::new, |pid| format!(" (pid {pid})"));
        bail!(
            "another dpd{holder} is at work on {}: stop it first",
            root.display()
        );
    }
    Ok(folder)
}

fn is_lock_on(root: &Path, lock: &OwnedFd) -> bool {
    use std::os::unix::fs::MetadataExt;
    let root = fs::metadata(root);
    let locked = rustix::fs::fstat(lock);
    root.is_ok_and(|root| locked.is_ok_and(|locked| locked.st_ino == root.ino()))
}

/// Removes the root if it is empty. Whoever does that holds the lock on it, so that nobody begins in a folder that goes.
///
/// # Errors
/// If the kernel refuses for another reason than that something is there.
pub fn remove_root(root: &Path, _lock: &OwnedFd) -> Result<()> {
    gate::pass(format_args!("remove {}", root.display()), || {
        match fs::remove_dir(root) {
            // The bpffs itself was named as the root, or others have pins there: what is theirs stays.
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

/// The pid in `/proc/locks` of whoever holds the lock on the root.
fn lock_holder(root: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{}", fs::metadata(root).ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = fields[..] else {
            return None;
        };
        place.ends_with(&inode).then(|| pid.parse().ok())?
    })
}

/// # Errors
/// If the root is not on a bpffs, with the command that mends it.
fn check_bpffs(root: &Path) -> Result<()> {
    let existing = root
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    let stat =
        rustix::fs::statfs(existing).with_context(|| format!("look at {}", existing.display()))?;
    if stat.f_type as u64 != BPF_FS_MAGIC {
        bail!(
            "{} is not on a bpffs, where pinned maps outlive the daemon: mount one with \
             `mount -t bpf bpf /sys/fs/bpf`, or name another place in daemon.bpf_root",
            root.display()
        );
    }
    // The kernel keeps such names to itself (kernel/bpf/inode.c, bpf_lookup).
    let missing = root.strip_prefix(existing).unwrap_or(root);
    if missing.as_os_str().as_encoded_bytes().contains(&b'.') {
        bail!(
            "{} can't be made: no name on a bpffs has a dot; give daemon.bpf_root another",
            root.display()
        );
    }
    Ok(())
}

/// The names in a folder, in order; none if it is not there.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// By which a pin is known: another object in its place has another. `None`: nothing is there.
pub(super) fn inode(pin: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(pin).ok();
    metadata.map(|metadata| metadata.ino())
}
