//! Our pinned objects, held open: whoever deletes a pin takes nothing from packets, and the pin is made again.
//!
//! Without this a link whose pin is deleted is off its hook, and a prog array without a pin or a holder is emptied.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys;
use rustix::process::{Resource, getrlimit};

use super::map;
use super::pins::{self, Pins, inode};

/// What is pinned below one root, by its folder.
#[derive(Debug, Default)]
pub struct Kept {
    folders: BTreeMap<PathBuf, Folder>,
    /// Objects that there was no room for, as it was said last.
    left: u64,
}

#[derive(Debug, Default)]
struct Folder {
    /// By name.
    objects: BTreeMap<String, Object>,
    /// Of the folder when all of them were in their places.
    whole: Option<Stamp>,
}

#[derive(Debug)]
struct Object {
    /// `None`: an empty folder, by which something is remembered.
    held: Option<OwnedFd>,
    /// Of the pin: another one in its place leads elsewhere.
    inode: u64,
}

/// What changes with every pin that comes, goes or is put in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: SystemTime,
}

/// The kernel's clock of files goes in steps of some milliseconds: within one, a second change leaves no trace. So a stamp
/// tells something only if it is older.
const STEP: Duration = Duration::from_secs(1);

/// Files that are left for everything else: the maps that a change makes and opens, clients, the configuration.
const RESERVE: u64 = 256;

impl Kept {
    /// Holds all that is pinned now for this load and generation, and nothing else. What can't be held is said.
    pub fn hold(&mut self, pins: &Pins, load: u64, epoch: u64) {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let mut room = limit.saturating_sub(RESERVE);
        let mut left = 0;
        let folders = [
            pins.maps(),
            pins.load(load),
            pins.generation(epoch),
            pins.links(),
        ];
        let mut before = std::mem::take(&mut self.folders);
        for path in folders {
            let mut known = before.remove(&path).unwrap_or_default().objects;
            let mut folder = Folder::default();
            for name in pins::names(&path) {
                let pin = path.join(&name);
                let same = known
                    .remove(&name)
                    .filter(|object| inode(&pin) == Some(object.inode));
                if room == 0 {
                    left += 1;
                    continue;
                }
                match same.map_or_else(|| Object::open(&pin), Ok) {
                    Ok(object) => {
                        room -= u64::from(object.held.is_some());
                        folder.objects.insert(name, object);
                    }
                    Err(error) => log::warn!("{error:#}: if it is deleted, it is gone"),
                }
            }
            self.folders.insert(path, folder);
        }
        if left > self.left {
            log::warn!(
                "this process may open {limit} files, too few to hold all pinned objects: {left} of them are gone if somebody \
                 deletes them; raise the hard limit, as with LimitNOFILE= of the unit"
            );
        }
        self.left = left;
    }

    /// What is held of this pin.
    pub fn held(&self, path: &Path) -> Option<BorrowedFd<'_>> {
        let folder = self.folders.get(path.parent()?)?;
        let object = folder.objects.get(path.file_name()?.to_str()?)?;
        object.held.as_ref().map(AsFd::as_fd)
    }

    /// The pins that are gone, or lead elsewhere. With a thousand interfaces they are thousands, and asked for every few seconds:
    /// where no pin has moved, it is enough to look at the folder.
    pub fn lost(&mut self) -> Vec<PathBuf> {
        let folders = self.folders.iter_mut();
        folders
            .flat_map(|(path, folder)| folder.lost(path))
            .collect()
    }

    /// Makes the lost pins again; answers with their paths.
    ///
    /// # Errors
    /// If one can't be made; those before it are.
    pub fn restore(&mut self) -> Result<Vec<PathBuf>> {
        let mut restored = Vec::new();
        for (path, folder) in &mut self.folders {
            for pin in folder.lost(path) {
                let name = pin.file_name().and_then(|name| name.to_str());
                let object = name.and_then(|name| folder.objects.get_mut(name));
                object
                    .map_or(Ok(()), |object| object.restore(&pin))
                    .with_context(|| format!("restore {}", pin.display()))?;
                restored.push(pin);
            }
        }
        Ok(restored)
    }
}

impl Folder {
    fn lost(&mut self, path: &Path) -> Vec<PathBuf> {
        let stamp = Stamp::of(path);
        if stamp.is_some() && stamp == self.whole {
            return Vec::new();
        }
        let is_lost =
            |(name, object): &(&String, &Object)| inode(&path.join(name)) != Some(object.inode);
        let lost = self.objects.iter().filter(is_lost);
        let lost: Vec<PathBuf> = lost.map(|(name, _)| path.join(name)).collect();
        self.whole = stamp.filter(|stamp| lost.is_empty() && stamp.is_old());
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
        age.is_ok_and(|age| age > STEP)
    }
}

impl Object {
    fn open(path: &Path) -> Result<Object> {
        let what = || format!("hold {}", path.display());
        let is_folder = fs::metadata(path).with_context(what)?.is_dir();
        Ok(Object {
            held: match is_folder {
                true => None,
                false => Some(open(path).with_context(what)?),
            },
            inode: inode(path).with_context(what)?,
        })
    }

    fn restore(&mut self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        remove(path).context("remove what is in its place")?;
        match &self.held {
            Some(object) => map::pin(object, path)?,
            None => fs::create_dir(path).context("make the folder")?,
        }
        self.inode = inode(path).context("it is gone again")?;
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

/// Opens whatever is pinned there.
fn open(path: &Path) -> Result<OwnedFd> {
    let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the path ends in a zero byte and lives for the whole call.
    let fd = unsafe { libbpf_sys::bpf_obj_get(text.as_ptr()) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd).into());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder in which two things are kept, that was changed an hour ago.
    fn rested() -> (tempfile::TempDir, Folder) {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::default();
        for name in ["one", "other"] {
            fs::create_dir(place.path().join(name)).unwrap();
            let object = Object::open(&place.path().join(name)).unwrap();
            folder.objects.insert(name.to_owned(), object);
        }
        change_at(place.path(), SystemTime::now() - Duration::from_secs(3600));
        (place, folder)
    }

    fn change_at(path: &Path, time: SystemTime) {
        let folder = fs::File::open(path).unwrap();
        folder.set_modified(time).unwrap();
    }

    #[test]
    fn a_folder_at_rest_is_not_looked_into() {
        let (place, mut folder) = rested();
        let before = Stamp::of(place.path()).unwrap();
        assert!(folder.lost(place.path()).is_empty());
        fs::remove_dir(place.path().join("one")).unwrap();
        change_at(place.path(), before.modified);
        assert!(
            folder.lost(place.path()).is_empty(),
            "it seems to be at rest"
        );
        change_at(place.path(), SystemTime::now());
        assert_eq!(folder.lost(place.path()), [place.path().join("one")]);
    }

    #[test]
    fn what_has_just_changed_is_not_taken_for_rest() {
        let (place, mut folder) = rested();
        let now = SystemTime::now();
        change_at(place.path(), now);
        assert!(folder.lost(place.path()).is_empty());
        fs::remove_dir(place.path().join("other")).unwrap();
        change_at(place.path(), now);
        assert_eq!(folder.lost(place.path()), [place.path().join("other")]);
    }

    #[test]
    fn a_folder_that_is_gone_has_lost_all() {
        let (place, mut folder) = rested();
        assert!(folder.lost(place.path()).is_empty());
        fs::remove_dir_all(place.path()).unwrap();
        assert_eq!(folder.lost(place.path()).len(), 2);
        assert_eq!(
            folder.lost(place.path()).len(),
            2,
            "and has not found it again"
        );
    }

    #[test]
    fn what_is_lost_stays_lost_until_it_is_there_again() {
        let (place, mut folder) = rested();
        let other = place.path().join("other");
        fs::remove_dir(&other).unwrap();
        change_at(place.path(), SystemTime::now() - Duration::from_secs(60));
        for _ in 0..2 {
            assert_eq!(folder.lost(place.path()), std::slice::from_ref(&other));
        }
        folder
            .objects
            .get_mut("other")
            .unwrap()
            .restore(&other)
            .unwrap();
        assert!(folder.lost(place.path()).is_empty());
    }
}
