//! Wakes the watcher at once after a change, by inotify on the folders in which the files and their symlinks lie.
//!
//! It only wakes: what was in the event does not matter, so a full queue (`IN_Q_OVERFLOW`) is an event as any other.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::files::Files;
use super::stamp::drop_ins;

/// Symlinks that are followed on one path, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Reads of the queue at one time: a flood of events must not keep the watcher from looking at the files.
const CLEAR_READS: usize = 16;

/// The inotify descriptor, with the folders that it watches.
#[derive(Debug, Default)]
pub struct Notifier {
    inotify: Option<OwnedFd>,
    folders: BTreeSet<Folder>,
    /// A folder that can't be watched was logged.
    has_warned: bool,
}

/// A folder to watch.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Folder {
    /// Without symlinks.
    path: PathBuf,
    /// Another folder at the same path needs a new watch.
    device: u64,
    inode: u64,
}

impl Notifier {
    /// Readable after an event since the last [`clear`](Notifier::clear); `None` while inotify is refused.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Discards the queued events.
    pub fn clear(&self) {
        let mut events = [0; 4096];
        for _ in 0..CLEAR_READS {
            // Refused when the queue is empty.
            if self
                .fd()
                .is_none_or(|fd| rustix::io::read(fd, &mut events).is_err())
            {
                return;
            }
        }
    }

    /// Finds the folders of the files, and watches these and no others.
    pub fn follow(&mut self, files: &Files) {
        let folders = folders(files);
        if folders == self.folders {
            return;
        }
        // A new descriptor, without watches and events of folders that were moved away.
        self.inotify = None;
        match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(inotify) => {
                for Folder { path, .. } in &folders {
                    if let Err(error) = inotify::add_watch(&inotify, path, changes()) {
                        self.warn(path, error);
                    }
                }
                self.inotify = Some(inotify);
            }
            Err(error) => self.warn(&files.main, error),
        }
        self.folders = folders;
    }

    /// Makes the next [`follow`](Notifier::follow) watch everything again: a new folder may have the inode number of a
    /// removed one.
    pub fn forget(&mut self) {
        self.inotify = None;
        self.folders.clear();
    }

    /// Logs once that a folder can't be watched. One that has just gone is no problem: the next look sees it.
    fn warn(&mut self, path: &Path, error: Errno) {
        if self.has_warned || matches!(error, Errno::NOENT | Errno::NOTDIR) {
            return;
        }
        self.has_warned = true;
        log::warn!(
            "changes at {} are noticed by looking twice a second, as it can't be watched \
             (fs.inotify.max_user_instances or max_user_watches may be too low): {}",
            path.display(),
            io::Error::from(error)
        );
    }
}

/// Everything by which a file of the folder, or the folder itself, may change. Opening, reading and closing are not.
fn changes() -> WatchFlags {
    WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
}

/// The folders that contain the files, the drop-in folder and every symlink on the way to them, and the drop-in folder
/// itself; without those that are missing or busy.
fn folders(files: &Files) -> BTreeSet<Folder> {
    let mut paths = links(&files.main);
    for folder in files.folders() {
        paths.extend(links(folder));
        // Any name in the folder stands for the folder.
        paths.push(folder.join("-"));
        let is_link = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
        paths.extend(
            drop_ins(folder)
                .filter(is_link)
                .flat_map(|entry| links(&entry.path())),
        );
    }
    paths.iter().filter_map(|path| Folder::of(path)).collect()
}

/// The path, and if it is a symlink its target, and so on.
fn links(path: &Path) -> Vec<PathBuf> {
    let next = |path: &PathBuf| Some(path.parent()?.join(fs::read_link(path).ok()?));
    std::iter::successors(Some(path.to_owned()), next)
        .take(MAX_LINKS)
        .collect()
}

impl Folder {
    /// The folder that contains a path; `None` if it is missing or busy.
    fn of(path: &Path) -> Option<Folder> {
        let path = path.parent()?.canonicalize().ok()?;
        let metadata = fs::metadata(&path).ok()?;
        (!is_busy(&path)).then(|| Folder {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// The root and the folders in it, such as `/etc` and `/run`, in which every program writes.
fn is_busy(folder: &Path) -> bool {
    folder.components().count() <= 2
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn the_folders_of_the_files_and_of_their_symlinks_are_watched() {
        let top = tempfile::tempdir().unwrap();
        // The path of the temporary folder may contain a symlink.
        let top = top.path().canonicalize().unwrap();
        for folder in ["plain/config.d", "store/v1/sub", "links", "loop"] {
            fs::create_dir_all(top.join(folder)).unwrap();
        }
        for file in ["plain/config.toml", "store/v1/sub/real"] {
            fs::write(top.join(file), "").unwrap();
        }
        let links: [(&Path, &str); 9] = [
            (Path::new("v1"), "store/current"),
            (
                Path::new("../store/./current/sub/real"),
                "links/relative.toml",
            ),
            (&top.join("store/current/sub/real"), "links/absolute.toml"),
            (Path::new("nowhere"), "links/broken.toml"),
            (
                Path::new("../../links/relative.toml"),
                "plain/config.d/c.toml",
            ),
            (Path::new("/etc/hostname"), "plain/config.d/d.toml"),
            (Path::new("round.toml"), "loop/round.toml"),
            (Path::new("../plain"), "links/plain"),
            (Path::new("../plain/config.d"), "store/config.d"),
        ];
        for (target, link) in links {
            symlink(target, top.join(link)).unwrap();
        }
        let drop_ins: &[&str] = &["links", "plain", "plain/config.d", "store/v1/sub"];
        let rows: &[(&str, &[&str], &str)] = &[
            (
                "plain/config.toml",
                drop_ins,
                "a file, its drop-ins, one of them behind symlinks and one in a busy folder",
            ),
            (
                "links/plain/config.toml",
                drop_ins,
                "a folder behind a symlink",
            ),
            (
                "store/config.toml",
                &["links", "plain", "plain/config.d", "store", "store/v1/sub"],
                "a drop-in folder behind a symlink",
            ),
            (
                "links/relative.toml",
                &["links", "store/v1/sub"],
                "a relative symlink through another",
            ),
            (
                "links/absolute.toml",
                &["links", "store/v1/sub"],
                "an absolute symlink",
            ),
            (
                "links/broken.toml",
                &["links"],
                "a dangling symlink is watched at its target",
            ),
            (
                "none/config.toml",
                &[],
                "a missing folder is left to polling",
            ),
            ("loop/round.toml", &["loop"], "a symlink to itself ends"),
            ("plain/../links/broken.toml", &["links"], "a path with .."),
        ];
        for (main, expected, what) in rows {
            let found = folders(&Files::of(top.join(main), None));
            let found = found.iter().map(|folder| &folder.path);
            let expected = expected.iter().map(|path| top.join(path));
            assert!(found.eq(&expected.collect::<Vec<_>>()), "{what}");
        }
    }

    #[test]
    fn a_busy_folder_is_not_watched() {
        let rows = [
            ("/", true),
            ("/etc", true),
            ("/run", true),
            ("/etc/dpd", false),
            ("/run/dpd", false),
        ];
        for (folder, expected) in rows {
            assert_eq!(is_busy(Path::new(folder)), expected, "{folder}");
        }
    }

    #[test]
    fn only_changes_wake() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("config.toml");
        fs::write(&path, "one").unwrap();
        let mut notifier = Notifier::default();
        notifier.follow(&Files::of(path.clone(), None));
        let wakes = |what: fn(&Path)| {
            notifier.clear();
            what(&path);
            let mut fds = [PollFd::from_borrowed_fd(
                notifier.fd().unwrap(),
                PollFlags::IN,
            )];
            poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
        };
        type Action = fn(&Path);
        let rows: [(&str, bool, Action); 7] = [
            ("a read", false, |path| drop(fs::read(path).unwrap())),
            ("a listing of the folder", false, |path| {
                assert!(fs::read_dir(path.parent().unwrap()).unwrap().count() > 0);
            }),
            ("an open for writing without a write", false, |path| {
                drop(fs::OpenOptions::new().append(true).open(path).unwrap());
            }),
            ("a write", true, |path| fs::write(path, "two").unwrap()),
            ("a new mode", true, |path| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            }),
            ("a rename", true, |path| {
                fs::rename(path, path.with_extension("old")).unwrap();
            }),
            ("a full queue", true, |path| {
                let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
                // Equal events in a row are queued once, so two files take turns.
                let files = [path.with_extension("old"), path.with_extension("other")];
                fs::write(&files[1], "").unwrap();
                for nth in 0..=limit.trim().parse().unwrap() {
                    let mode = fs::Permissions::from_mode(0o600);
                    fs::set_permissions(&files[nth % 2], mode).unwrap();
                }
            }),
        ];
        for (what, expected, change) in rows {
            assert_eq!(wakes(change), expected, "{what}");
        }
    }
}
