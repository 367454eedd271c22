//! Where inotify has to look: the folders on the way to the files, for names, and the files, for contents.
//!
//! A folder's watch tells only what is done by way of that folder, so each file has a watch of its own, which hears
//! of a write through another name too. And no watch asks for reads: every program that starts reads in `/etc`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

use super::Files;
use super::stamp::drop_ins;

/// Symlinks on one way, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// What inotify watches now.
pub struct Places {
    /// `None`: the kernel gave none, and the slow look has to do.
    inotify: Option<OwnedFd>,
    /// Its numbers of the watches.
    watches: BTreeSet<i32>,
    /// A place that can't be watched was told of.
    is_said: bool,
}

/// The paths to watch, free of symlinks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ways {
    folders: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
}

impl Places {
    /// Watches nothing yet.
    pub fn new(inotify: Option<OwnedFd>) -> Places {
        Places {
            inotify,
            watches: BTreeSet::new(),
            is_said: false,
        }
    }

    /// Readable when something has happened at a place.
    pub fn inotify(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Finds the way to each file anew and watches it, and nothing else. Cheap where nothing has changed: the
    /// kernel gives a watch that is there once more.
    pub fn follow(&mut self, files: &Files) {
        let Some(inotify) = self.inotify.as_ref() else {
            return;
        };
        let ways = Ways::find(files);
        let folders = ways.folders.iter().map(|path| (path, folder_events()));
        let files = ways.files.iter().map(|path| (path, file_events()));
        let mut watches = BTreeSet::new();
        for (path, events) in folders.chain(files) {
            match inotify::add_watch(inotify, path, events) {
                Ok(watch) => {
                    watches.insert(watch);
                }
                // It went meanwhile, which the folder above tells.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) if !self.is_said => {
                    self.is_said = true;
                    let path = path.display();
                    log::warn!(
                        "watch {path}: {error}: it is looked at twice a second instead; the limit is \
                         fs.inotify.max_user_watches"
                    );
                }
                Err(_) => {}
            }
        }
        for gone in self.watches.difference(&watches) {
            // Refused where the watch went with its file.
            let _ = inotify::remove_watch(inotify, *gone);
        }
        self.watches = watches;
    }
}

fn folder_events() -> WatchFlags {
    WatchFlags::ONLYDIR
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
}

fn file_events() -> WatchFlags {
    WatchFlags::MODIFY | WatchFlags::ATTRIB
}

impl Ways {
    fn find(files: &Files) -> Ways {
        let mut ways = Ways::default();
        let main = ways.walk(&files.main);
        ways.files.extend(main);
        let Some(folder) = files.drop_ins.as_deref().and_then(|path| ways.walk(path)) else {
            return ways;
        };
        for entry in drop_ins(&folder) {
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let drop_in = match is_link {
                true => ways.walk(&entry.path()),
                false => Some(entry.path()),
            };
            ways.files.extend(drop_in);
        }
        ways.folders.insert(folder);
        ways
    }

    /// Goes to an absolute path name by name and notes each folder that is passed, also those to which symlinks
    /// lead. The answer is where the path ends; `None` where it leads nowhere, and then the folder that lacks the
    /// name is the last noted.
    fn walk(&mut self, path: &Path) -> Option<PathBuf> {
        let mut here = PathBuf::from("/");
        let mut rest = names(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                here.pop();
                continue;
            }
            self.folders.insert(here.clone());
            // Joining the root goes back to it: a symlink may be absolute.
            let next = here.join(&name);
            if fs::symlink_metadata(&next).ok()?.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                rest.extend(names(&fs::read_link(&next).ok()?));
            } else {
                here = next;
            }
        }
        Some(here)
    }
}

/// The names of a path, the last first. The root is a name of its own.
fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|component| *component != Component::CurDir)
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The ways to `main`, of what lies below `top`, which is written as nothing.
    fn ways(top: &Path, main: &str) -> (Vec<String>, Vec<String>) {
        let main = top.join(main);
        let drop_ins = Some(main.with_extension("d"));
        let ways = Ways::find(&Files { main, drop_ins });
        let below = |paths: &BTreeSet<PathBuf>| {
            let paths = paths.iter().filter_map(|path| path.strip_prefix(top).ok());
            paths.map(|path| path.display().to_string()).collect()
        };
        (below(&ways.folders), below(&ways.files))
    }

    #[test]
    fn each_folder_that_a_path_and_its_symlinks_pass_is_watched() {
        let top = tempfile::tempdir().unwrap();
        // The folder of temporary files may itself be reached by a symlink.
        let top = top.path().canonicalize().unwrap();
        for folder in ["plain/config.d", "store/v1/sub", "links", "loop"] {
            fs::create_dir_all(top.join(folder)).unwrap();
        }
        for file in [
            "plain/config.toml",
            "plain/config.d/a.toml",
            "plain/config.d/b.bak",
            "store/v1/sub/real",
        ] {
            fs::write(top.join(file), "").unwrap();
        }
        let links: [(&Path, &str); 7] = [
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
            (Path::new("round.toml"), "loop/round.toml"),
            (Path::new("../plain"), "links/plain"),
        ];
        for (target, link) in links {
            symlink(target, top.join(link)).unwrap();
        }
        type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a str);
        let through: &[&str] = &["", "links", "store", "store/v1", "store/v1/sub"];
        let drop_ins: &[&str] = &[
            "plain/config.d/a.toml",
            "plain/config.toml",
            "store/v1/sub/real",
        ];
        let rows: &[Row<'_>] = &[
            (
                "plain/config.toml",
                &[
                    "",
                    "links",
                    "plain",
                    "plain/config.d",
                    "store",
                    "store/v1",
                    "store/v1/sub",
                ],
                drop_ins,
                "a file, its drop-ins, and one of them behind symlinks",
            ),
            (
                "links/plain/config.toml",
                &[
                    "",
                    "links",
                    "plain",
                    "plain/config.d",
                    "store",
                    "store/v1",
                    "store/v1/sub",
                ],
                drop_ins,
                "a folder behind a symlink",
            ),
            (
                "links/relative.toml",
                through,
                &["store/v1/sub/real"],
                "a relative symlink through another",
            ),
            (
                "links/absolute.toml",
                through,
                &["store/v1/sub/real"],
                "an absolute symlink",
            ),
            (
                "links/broken.toml",
                &["", "links"],
                &[],
                "a symlink to nothing is waited for where it leads",
            ),
            (
                "none/config.toml",
                &[""],
                &[],
                "a folder that is not there is waited for in the one above",
            ),
            (
                "loop/round.toml",
                &["", "loop"],
                &[],
                "a symlink to itself ends",
            ),
            (
                "plain/../links/broken.toml",
                &["", "links"],
                &[],
                "a way up and down again",
            ),
        ];
        for (main, folders, files, what) in rows {
            let (found_folders, found_files) = ways(&top, main);
            assert_eq!(found_folders, *folders, "{what}");
            assert_eq!(found_files, *files, "{what}");
        }
    }
}
