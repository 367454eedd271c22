//! Our pinned objects, held open: a deleted pin changes nothing for packets, and is created again.
//!
//! Without this a link whose pin is deleted is detached, and a prog array without a pin or an open descriptor is emptied.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys;
use rustix::process::{Resource, getrlimit};

use super::pins::{self, Pins, inode};
use super::{bpffs, map, parse};

/// What is pinned below one root, by directory.
#[derive(Debug, Default)]
pub struct PinGuard {
    dirs: BTreeMap<PathBuf, Dir>,
    /// Objects beyond the limit of open files, as logged last.
    unguarded: u64,
}

#[derive(Debug, Default)]
struct Dir {
    /// By name.
    objects: BTreeMap<String, Object>,
    /// Of the directory when all of them were in place.
    intact: Option<Stamp>,
}

#[derive(Debug)]
struct Object {
    /// `None`: an empty directory, which is a marker.
    held: Option<OwnedFd>,
    /// Of the pin: another object at its path has another one.
    inode: u64,
    /// Of the pin.
    mode: u32,
}

/// Changes with every pin that is created, deleted or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: SystemTime,
}

/// The kernel's file times advance in steps of some milliseconds: within one, a second change leaves no trace. So a stamp
/// is trusted only if it is older than that, generously.
const MIN_STAMP_AGE: Duration = Duration::from_secs(1);

/// Open files that are left for everything else: the maps of a change, clients, the configuration.
const RESERVE: u64 = 256;

impl PinGuard {
    /// Holds all that is pinned now for this load and generation, and nothing else. What can't be held is logged.
    pub fn hold(&mut self, pins: &Pins, load: u64, epoch: u64) {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let mut room = limit.saturating_sub(RESERVE);
        let mut unguarded = 0;
        let dirs = [
            pins.maps(),
            pins.load(load),
            pins.generation(epoch),
            pins.links(),
        ];
        let mut before = std::mem::take(&mut self.dirs);
        for path in dirs {
            let mut known = before.remove(&path).unwrap_or_default().objects;
            let mut dir = Dir::default();
            for name in pins::names(&path) {
                let pin = path.join(&name);
                let same = known
                    .remove(&name)
                    .filter(|object| inode(&pin) == Some(object.inode));
                if room == 0 {
                    unguarded += 1;
                    continue;
                }
                match same.map_or_else(|| Object::open(&pin), Ok) {
                    Ok(object) => {
                        room -= u64::from(object.held.is_some());
                        dir.objects.insert(name, object);
                    }
                    Err(error) => log::warn!("{error:#}: if it is deleted, it can't be restored"),
                }
            }
            self.dirs.insert(path, dir);
        }
        if unguarded > self.unguarded {
            log::warn!(
                "this process may open {limit} files, too few to hold all pinned objects: {unguarded} of them can't be \
                 restored if they are deleted; raise the hard limit, as with LimitNOFILE= of the unit"
            );
        }
        self.unguarded = unguarded;
    }

    /// The open descriptor of this pin.
    pub fn held(&self, path: &Path) -> Option<BorrowedFd<'_>> {
        let dir = self.dirs.get(path.parent()?)?;
        let object = dir.objects.get(path.file_name()?.to_str()?)?;
        object.held.as_ref().map(AsFd::as_fd)
    }

    /// The pins that are missing or replaced. With a thousand interfaces there are thousands, checked every few seconds: an
    /// unchanged directory is not read.
    pub fn lost(&mut self) -> Vec<PathBuf> {
        let dirs = self.dirs.iter_mut();
        dirs.flat_map(|(path, dir)| dir.lost(path)).collect()
    }

    /// Pins the lost objects again; returns their paths.
    ///
    /// # Errors
    /// If one can't be pinned; those before it are.
    pub fn restore(&mut self) -> Result<Vec<PathBuf>> {
        let mut restored = Vec::new();
        for (path, dir) in &mut self.dirs {
            for pin in dir.lost(path) {
                let name = pin.file_name().and_then(|name| name.to_str());
                let object = name.and_then(|name| dir.objects.get_mut(name));
                object
                    .map_or(Ok(()), |object| object.restore(&pin))
                    .with_context(|| format!("restore {}", pin.display()))?;
                restored.push(pin);
            }
        }
        Ok(restored)
    }
}

impl Dir {
    fn lost(&mut self, path: &Path) -> Vec<PathBuf> {
        let stamp = Stamp::of(path);
        if stamp.is_some() && stamp == self.intact {
            return Vec::new();
        }
        let is_lost =
            |(name, object): &(&String, &Object)| inode(&path.join(name)) != Some(object.inode);
        let lost = self.objects.iter().filter(is_lost);
        let lost: Vec<PathBuf> = lost.map(|(name, _)| path.join(name)).collect();
        self.intact = stamp.filter(|stamp| lost.is_empty() && stamp.is_old());
        lost
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: metadata.modified().ok()?,
        })
    }

    fn is_old(&self) -> bool {
        let age = SystemTime::now().duration_since(self.modified);
        age.is_ok_and(|age| age > MIN_STAMP_AGE)
    }
}

impl Object {
    fn open(path: &Path) -> Result<Object> {
        let what = || format!("hold {}", path.display());
        let metadata = fs::metadata(path).with_context(what)?;
        Ok(Object {
            held: match metadata.is_dir() {
                true => None,
                false => Some(open(path).with_context(what)?),
            },
            inode: inode(path).with_context(what)?,
            mode: metadata.permissions().mode() & 0o7777,
        })
    }

    fn restore(&mut self, path: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            bpffs::dir_builder()
                .recursive(true)
                .create(dir)
                .with_context(|| format!("create {}", dir.display()))?;
        }
        remove(path).context("remove what replaced it")?;
        match &self.held {
            Some(object) => map::pin(object, path)?,
            None => bpffs::dir_builder()
                .create(path)
                .context("create the directory")?,
        }
        pins::set_mode(path, self.mode)?;
        self.inode = inode(path).context("it was deleted again")?;
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Opens a pinned object of any kind.
fn open(path: &Path) -> Result<OwnedFd> {
    let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the path ends in a zero byte and lives for the whole call.
    let fd = parse(unsafe { libbpf_sys::bpf_obj_get(text.as_ptr()) })?;
    // SAFETY: the kernel has just created this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with two markers, changed an hour ago.
    fn unchanged_dir() -> (tempfile::TempDir, Dir) {
        let place = tempfile::tempdir().unwrap();
        let mut dir = Dir::default();
        for name in ["one", "other"] {
            fs::create_dir(place.path().join(name)).unwrap();
            let object = Object::open(&place.path().join(name)).unwrap();
            dir.objects.insert(name.to_owned(), object);
        }
        change_at(place.path(), SystemTime::now() - Duration::from_secs(3600));
        (place, dir)
    }

    fn change_at(path: &Path, time: SystemTime) {
        let dir = fs::File::open(path).unwrap();
        dir.set_modified(time).unwrap();
    }

    #[test]
    fn an_unchanged_directory_is_not_read() {
        let (place, mut dir) = unchanged_dir();
        let before = Stamp::of(place.path()).unwrap();
        assert!(dir.lost(place.path()).is_empty());
        fs::remove_dir(place.path().join("one")).unwrap();
        change_at(place.path(), before.modified);
        assert!(
            dir.lost(place.path()).is_empty(),
            "its time has not changed"
        );
        change_at(place.path(), SystemTime::now());
        assert_eq!(dir.lost(place.path()), [place.path().join("one")]);
    }

    #[test]
    fn a_directory_that_has_just_changed_is_read() {
        let (place, mut dir) = unchanged_dir();
        let now = SystemTime::now();
        change_at(place.path(), now);
        assert!(dir.lost(place.path()).is_empty());
        fs::remove_dir(place.path().join("other")).unwrap();
        change_at(place.path(), now);
        assert_eq!(dir.lost(place.path()), [place.path().join("other")]);
    }

    #[test]
    fn a_deleted_directory_has_lost_all() {
        let (place, mut dir) = unchanged_dir();
        assert!(dir.lost(place.path()).is_empty());
        fs::remove_dir_all(place.path()).unwrap();
        assert_eq!(dir.lost(place.path()).len(), 2);
        assert_eq!(dir.lost(place.path()).len(), 2, "and still has");
    }

    #[test]
    fn a_lost_pin_stays_lost_until_it_is_restored() {
        let (place, mut dir) = unchanged_dir();
        let other = place.path().join("other");
        fs::remove_dir(&other).unwrap();
        change_at(place.path(), SystemTime::now() - Duration::from_secs(60));
        for _ in 0..2 {
            assert_eq!(dir.lost(place.path()), std::slice::from_ref(&other));
        }
        dir.objects
            .get_mut("other")
            .unwrap()
            .restore(&other)
            .unwrap();
        assert!(dir.lost(place.path()).is_empty());
    }
}
