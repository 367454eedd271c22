//! Our pinned objects, held open: whoever deletes a pin takes nothing from packets, and the pin is made again.
//!
//! Without this a link whose pin is deleted is off its hook, and a prog array without a pin or a holder is emptied.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys;

use super::map;
use super::pins::{self, Pins};

/// What is pinned below one root, by its path.
#[derive(Debug, Default)]
pub struct Kept {
    objects: BTreeMap<PathBuf, Object>,
}

#[derive(Debug)]
struct Object {
    /// `None`: an empty folder, by which something is remembered.
    held: Option<OwnedFd>,
    /// Of the pin: another one in its place leads elsewhere.
    inode: u64,
}

impl Kept {
    /// Holds all that is pinned now for this load and generation, and nothing else. What can't be held is said.
    pub fn hold(&mut self, pins: &Pins, load: u64, epoch: u64) {
        let folders = [
            pins.maps(),
            pins.load(load),
            pins.generation(epoch),
            pins.links(),
        ];
        let mut before = std::mem::take(&mut self.objects);
        for folder in folders {
            for name in pins::names(&folder) {
                let path = folder.join(name);
                let same = before
                    .remove(&path)
                    .filter(|object| inode(&path) == Some(object.inode));
                match same.map_or_else(|| Object::open(&path), Ok) {
                    Ok(object) => {
                        self.objects.insert(path, object);
                    }
                    Err(error) => log::warn!("{error:#}: if it is deleted, it is gone"),
                }
            }
        }
    }

    /// What is held of this pin.
    pub fn held(&self, path: &Path) -> Option<BorrowedFd<'_>> {
        let held = self.objects.get(path)?.held.as_ref();
        held.map(AsFd::as_fd)
    }

    /// The pins that are gone, or lead elsewhere.
    pub fn lost(&self) -> Vec<&Path> {
        let is_lost = |(path, object): &(&PathBuf, &Object)| inode(path) != Some(object.inode);
        let lost = self.objects.iter().filter(is_lost);
        lost.map(|(path, _)| path.as_path()).collect()
    }

    /// Makes the lost pins again; answers with their paths.
    ///
    /// # Errors
    /// If one can't be made; those before it are.
    pub fn restore(&mut self) -> Result<Vec<PathBuf>> {
        let lost: Vec<PathBuf> = self.lost().into_iter().map(Path::to_owned).collect();
        for path in &lost {
            let restore = |object: &mut Object| object.restore(path);
            self.objects
                .get_mut(path)
                .map_or(Ok(()), restore)
                .with_context(|| format!("restore {}", path.display()))?;
        }
        Ok(lost)
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

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| metadata.ino())
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
