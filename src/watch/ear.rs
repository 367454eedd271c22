//! Hears of changes at once, through the folders in which the files and their symlinks lie.
//!
//! notify hears of each file that is merely opened too. So it watches no folder in which every program opens files,
//! and what it hears of reading wakes nobody.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::event::EventfdFlags;

use super::Files;
use super::stamp::drop_ins;

/// Symlinks on one way, as many as the kernel follows.
const MAX_LINKS: usize = 40;

#[derive(Debug)]
pub struct Notifier {
    /// Readable when something has been heard.
    heard: Arc<OwnedFd>,
    /// What the watcher was asked to watch.
    folders: BTreeSet<Folder>,
    watcher: Option<RecommendedWatcher>,
    /// A folder that can't be watched was told of.
    is_said: bool,
}

/// A folder to watch.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Folder {
    /// Free of symlinks.
    path: PathBuf,
    /// Another one in its place is watched anew.
    device: u64,
    inode: u64,
}

impl Notifier {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Notifier> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Notifier {
            heard: Arc::new(rustix::event::eventfd(0, flags)?),
            folders: BTreeSet::new(),
            watcher: None,
            is_said: false,
        })
    }

    /// Readable when something has been heard since the last [`clear`](Notifier::clear).
    pub fn heard(&self) -> BorrowedFd<'_> {
        self.heard.as_fd()
    }

    pub fn clear(&self) {
        // Refused when nothing has been heard.
        let _ = rustix::io::read(&*self.heard, &mut [0; 8]);
    }

    /// Finds the folders of the files anew, and watches these and no others.
    pub fn follow(&mut self, files: &Files) {
        let folders = folders(files);
        if folders == self.folders {
            return;
        }
        // A new watcher has no watches left on what has been moved away, nor news of it.
        self.watcher = None;
        let heard = self.heard.clone();
        let watcher = notify::recommended_watcher(move |event| {
            if is_change(&event) {
                // Refused when the counter is full, and then it is readable already.
                let _ = rustix::io::write(&*heard, &1u64.to_ne_bytes());
            }
        });
        match watcher {
            Ok(mut watcher) => {
                for Folder { path, .. } in &folders {
                    if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                        self.say(path, error);
                    }
                }
                self.watcher = Some(watcher);
            }
            Err(error) => self.say(&files.main, error),
        }
        self.folders = folders;
    }

    /// Makes the next [`follow`](Notifier::follow) watch all anew: a new folder may have an old one's inode number.
    pub fn forget(&mut self) {
        self.watcher = None;
        self.folders.clear();
    }

    /// Says once that a place can't be watched. One that has just gone needs no word: the next look sees it.
    fn say(&mut self, path: &Path, error: notify::Error) {
        if self.is_said || matches!(error.kind, ErrorKind::PathNotFound) {
            return;
        }
        self.is_said = true;
        log::warn!(
            "changes at {} are noticed by looking twice a second, as it can't be watched \
             (fs.inotify.max_user_instances or max_user_watches may be too low): {}",
            path.display(),
            error.set_paths(Vec::new())
        );
    }
}

/// Whether it may tell of a change: opening and closing do not, a full queue and an error may.
fn is_change(event: &notify::Result<Event>) -> bool {
    !event.as_ref().is_ok_and(|event| event.kind.is_access())
}

/// The folders in which the files, the drop-in folder and the symlinks that they may be lie, and the drop-in folder
/// itself. Those that are not there or are crowded are left out.
fn folders(files: &Files) -> BTreeSet<Folder> {
    let mut paths = links(&files.main);
    if let Some(folder) = &files.drop_ins {
        paths.extend(links(folder));
        // Some name in it: what counts is the folder.
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

/// The path, and if it is a symlink where it leads, and so on.
fn links(path: &Path) -> Vec<PathBuf> {
    let next = |path: &PathBuf| Some(path.parent()?.join(fs::read_link(path).ok()?));
    std::iter::successors(Some(path.to_owned()), next)
        .take(MAX_LINKS)
        .collect()
}

impl Folder {
    /// The folder in which a path lies; `None` if it is not there or crowded.
    fn of(path: &Path) -> Option<Folder> {
        let path = path.parent()?.canonicalize().ok()?;
        let metadata = fs::metadata(&path).ok()?;
        (!is_crowded(&path)).then(|| Folder {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// The root and the folders in it, such as `/etc` and `/run`, belong to everybody.
fn is_crowded(folder: &Path) -> bool {
    folder.components().count() <= 2
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use notify::EventKind;
    use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind};

    use super::*;

    #[test]
    fn the_folders_of_the_files_and_of_their_symlinks_are_watched() {
        let top = tempfile::tempdir().unwrap();
        // The folder of temporary files may itself be reached by a symlink.
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
                "a file, its drop-ins, one of them behind symlinks and one in a crowded folder",
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
                "a symlink to nothing is waited for where it leads",
            ),
            (
                "none/config.toml",
                &[],
                "a folder that is not there is left to the slow look",
            ),
            ("loop/round.toml", &["loop"], "a symlink to itself ends"),
            (
                "plain/../links/broken.toml",
                &["links"],
                "a way up and down again",
            ),
        ];
        for (main, expected, what) in rows {
            let found = folders(&Files::of(top.join(main)));
            let found = found.iter().map(|folder| &folder.path);
            let expected = expected.iter().map(|path| top.join(path));
            assert!(found.eq(&expected.collect::<Vec<_>>()), "{what}");
        }
    }

    #[test]
    fn a_folder_that_everybody_uses_is_not_watched() {
        let rows = [
            ("/", true),
            ("/etc", true),
            ("/run", true),
            ("/etc/dpd", false),
            ("/run/dpd", false),
        ];
        for (folder, expected) in rows {
            assert_eq!(is_crowded(Path::new(folder)), expected, "{folder}");
        }
    }

    #[test]
    fn only_reading_wakes_nobody() {
        let rows = [
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), false),
            (
                EventKind::Access(AccessKind::Close(AccessMode::Write)),
                false,
            ),
            (EventKind::Create(CreateKind::File), true),
            (EventKind::Modify(ModifyKind::Any), true),
            (EventKind::Remove(RemoveKind::Folder), true),
            // A full queue.
            (EventKind::Other, true),
        ];
        for (kind, expected) in rows {
            assert_eq!(is_change(&Ok(Event::new(kind))), expected, "{kind:?}");
        }
        assert!(is_change(&Err(notify::Error::generic("an error"))));
    }
}
