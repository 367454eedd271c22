//! Where our objects stand in bpffs.
//!
//! ```text
//! <root>/abi-1/maps/dpd_ct_tcp       kept over restarts
//!              gen/<epoch>/services  the inner maps of a generation, and its catalog
//!              load/<n>/tail_ct      one load of the programs, with its prog array
//!              links/7-ingress       attachments, by the interface's index
//! ```

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

/// The folders below one root.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    pub fn new(root: &Path) -> Pins {
        Pins {
            root: root.to_owned(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everything of this version of the layout.
    pub fn version(&self) -> PathBuf {
        self.root.join(format!("{VERSION_PREFIX}{VERSION}"))
    }

    /// What is there of any version. All else below the root is not ours.
    pub fn versions(&self) -> Vec<PathBuf> {
        names(&self.root)
            .into_iter()
            .filter(|name| name.starts_with(VERSION_PREFIX))
            .map(|name| self.root.join(name))
            .collect()
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
    /// If the root is not on a bpffs, with the command that mends it; or if another version of dpd has its maps there.
    pub fn prepare(&self) -> Result<()> {
        self.check_bpffs()?;
        self.check_versions()?;
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

    /// # Errors
    /// If the root is not on a bpffs, with the command that mends it.
    pub fn check_bpffs(&self) -> Result<()> {
        let existing = self
            .root
            .ancestors()
            .find(|folder| folder.exists())
            .unwrap_or(Path::new("/"));
        let stat = rustix::fs::statfs(existing)
            .with_context(|| format!("look at {}", existing.display()))?;
        if stat.f_type as u64 != BPF_FS_MAGIC {
            bail!(
                "{} is not on a bpffs, where pinned maps outlive the daemon: mount one with \
                 `mount -t bpf bpf /sys/fs/bpf`, or name another place in daemon.bpf_root",
                self.root.display()
            );
        }
        Ok(())
    }

    fn check_versions(&self) -> Result<()> {
        let ours = format!("{VERSION_PREFIX}{VERSION}");
        for folder in self.versions() {
            if folder != self.version() {
                let other = folder.file_name().unwrap_or_default().display();
                bail!(
                    "{} holds the datapath of another version of dpd ({other}; this one is {ours}): start that \
                     version, or take its datapath away with its own `dpd cleanup`, which ends its connections",
                    self.root.display()
                );
            }
        }
        Ok(())
    }

    /// Makes this process the only one that writes below the root, for as long as the answer lives.
    ///
    /// # Errors
    /// If another daemon is at work there, with its pid where the kernel tells it.
    pub fn lock(&self) -> Result<OwnedFd> {
        let folder = rustix::fs::open(
            &self.root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .with_context(|| format!("open {}", self.root.display()))?;
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(folder),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = self
                    .lock_holder()
                    .map_or_else(String::new, |pid| format!(" (pid {pid})"));
                bail!(
                    "another dpd{holder} is at work on {}: stop it first",
                    self.root.display()
                )
            }
            Err(error) => Err(error).with_context(|| format!("lock {}", self.root.display())),
        }
    }

    /// Whether that is a lock on the folder that is the root now.
    pub fn is_locked_by(&self, lock: &OwnedFd) -> bool {
        use std::os::unix::fs::MetadataExt;
        let root = fs::metadata(&self.root);
        let locked = rustix::fs::fstat(lock);
        root.is_ok_and(|root| locked.is_ok_and(|locked| locked.st_ino == root.ino()))
    }

    /// The pid in `/proc/locks` of whoever holds the lock on the root.
    fn lock_holder(&self) -> Option<u32> {
        use std::os::unix::fs::MetadataExt;
        let inode = format!(":{}", fs::metadata(&self.root).ok()?.ino());
        let locks = fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, "FLOCK", _, _, pid, place, ..] = fields[..] else {
                return None;
            };
            place.ends_with(&inode).then(|| pid.parse().ok())?
        })
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
