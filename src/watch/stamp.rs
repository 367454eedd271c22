//! Stamps of the files, which differ after a change, and a digest of their contents.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;

use super::files::Files;
use crate::config::{SIZE_MAX, is_drop_in};

/// The stamps of all files of a configuration; a missing file has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps(BTreeMap<PathBuf, Option<Stamp>>);

/// A file at one time, symlinks followed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same for the inode: it also changes with the permissions, by which a file may become readable.
    changed: (i64, i64),
}

impl From<Metadata> for Stamp {
    fn from(metadata: Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// Of what decides whether a folder is used: its times change with each file in it, used or not.
    fn of_owner(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: u64::from(metadata.mode()),
            modified: (i64::from(metadata.uid()), 0),
            changed: (0, 0),
        }
    }
}

impl Stamps {
    /// Of the main file and each drop-in, and of the owner of the runtime drop-ins' folder.
    pub(super) fn take(files: &Files) -> Stamps {
        let drop_ins = files.folders().flat_map(drop_ins);
        let paths = drop_ins.map(|entry| entry.path());
        let stamp = |path: PathBuf| {
            let stamp = fs::metadata(&path).ok().map(Stamp::from);
            (path, stamp)
        };
        let mut stamps: BTreeMap<_, _> = paths.chain([files.main.clone()]).map(stamp).collect();
        if let Some(folder) = &files.runtime {
            let owner = fs::metadata(folder)
                .ok()
                .map(|metadata| Stamp::of_owner(&metadata));
            stamps.insert(folder.clone(), owner);
        }
        Stamps(stamps)
    }

    /// Whether one of them has changed within this time, by its ctime. A ctime in the future is ignored.
    pub(super) fn changed_within(&self, time: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        self.0.values().flatten().any(|stamp| {
            let (seconds, nanoseconds) = stamp.changed;
            let seconds = Duration::from_secs(seconds.try_into().unwrap_or_default());
            let changed =
                seconds + Duration::from_nanos(nanoseconds.try_into().unwrap_or_default());
            now.checked_sub(changed).is_some_and(|age| age < time)
        })
    }

    /// A digest of the contents, up to the length that a configuration may have: the file may be a terabyte. A file that
    /// can't be read counts by its error.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in self.0.keys() {
            let end = read_into(path, &mut hasher).map_err(|error| error.kind());
            hasher.write(format!("{end:?}").as_bytes());
        }
        hasher.finish()
    }
}

/// The drop-ins in a drop-in folder; none without a folder.
pub fn drop_ins(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_drop_in(&entry.path()))
}

/// Hashes the file up to the length limit; returns the length that was hashed.
fn read_into(path: &Path, hasher: &mut DefaultHasher) -> io::Result<u64> {
    let mut file = open(path)?.take(SIZE_MAX);
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(length),
            count => {
                hasher.write(&buffer[..count]);
                length += count as u64;
            }
        }
    }
}

/// Opens a regular file: opening a pipe would block for a writer, and a device may never end.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(file)
}
