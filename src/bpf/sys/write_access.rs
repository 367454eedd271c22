//! Who may change what is pinned: a user that may write a directory on the way to the pins can put other maps and programs in
//! place of dpd's, and so write policy. Only root may, and below the root of pins the daemon's user.
//!
//! A directory is safe if it is root's, and group and others may not write it. In a *sticky* one of root, as the kernel's
//! default for a bpffs (mode 1777), others can create entries, but neither rename nor remove those of root: it is safe above an
//! entry that is safe.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::bpffs;
use super::call::call;
use super::op::Op;
use super::pins;

/// As the unit runs the daemon (systemd/dpd.sysusers).
const USER: &str = "dpd";
/// Bits of a mode by which group and others may write.
const WRITE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;
/// `MAXSYMLINKS`, include/linux/namei.h
const MAX_LINKS: usize = 40;

/// Opens the root of pins, and creates what is missing of its path. The descriptor is of the directory that was checked.
///
/// # Errors
/// If users other than root could change what is there, with what to do; or if the kernel refuses.
pub(super) fn create(root: &Path) -> Result<OwnedFd> {
    let dir = Walk::new(root)?.run(create_missing)?;
    let dir = dir.with_context(|| format!("open {} (as root?)", root.display()))?;
    check_below(root)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(&dir, ".", flags, Mode::empty())
        .with_context(|| format!("open {} (as root?)", root.display()))
}

/// A root that is missing, or hidden from this user, is no error.
///
/// # Errors
/// If users other than root could change what is pinned there, with what to do.
pub fn check(root: &Path) -> Result<()> {
    match Walk::new(root)?.run(|_, _, _| Ok(false))? {
        Some(_) => check_below(root),
        None => Ok(()),
    }
}

/// The sticky directory of the bpffs above the root, if there is one, with what to do: others can take the root's name before dpd
/// does, which then does not start.
pub fn warning(root: &Path) -> Option<String> {
    let is_open = |path: &&Path| {
        let stat = rustix::fs::stat(*path).ok();
        let is_open = stat.is_some_and(|stat| stat.st_mode & WRITE_BY_OTHERS != 0);
        is_open && bpffs::is_bpffs(path)
    };
    let place = root.ancestors().skip(1).find(is_open)?.display();
    Some(format!(
        "every user may create entries in {place}, and so keep dpd from a start on {}: run `chmod 0700 {place}` now, and mount \
         the bpffs with `-o mode=0700`",
        root.display()
    ))
}

/// What to do about a missing component: its directory, its name, its path. Returns whether it is there now.
type OnMissing = fn(&OwnedFd, &OsStr, &Path) -> Result<bool>;

fn create_missing(dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<bool> {
    call(Op::CreatePinDir { path }, || {
        match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(bpffs::OWN_MODE)) {
            // Somebody was faster: it is checked like all that is found.
            Ok(()) | Err(Errno::EXIST) => Ok(true),
            Err(error) => Err(error),
        }
    })
}

/// Follows a path from `/` by descriptors, so that each component is the one that was checked.
struct Walk<'a> {
    root: &'a Path,
    /// Where the walk is, without links.
    place: PathBuf,
    dir: OwnedFd,
    rest: VecDeque<OsString>,
    links: usize,
}

impl Walk<'_> {
    fn new(root: &Path) -> Result<Walk<'_>> {
        Ok(Walk {
            root,
            place: PathBuf::from("/"),
            dir: open_at(CWD, OsStr::new("/")).context("open /")?,
            rest: names(root),
            links: 0,
        })
    }

    /// The directory at the end; `None`: it is missing or hidden.
    fn run(mut self, on_missing: OnMissing) -> Result<Option<OwnedFd>> {
        self.check_dir(&rustix::fs::fstat(&self.dir)?)?;
        while let Some(name) = self.rest.pop_front() {
            let path = self.place.join(&name);
            let found = match open_at(&self.dir, &name) {
                Err(Errno::NOENT) if on_missing(&self.dir, &name, &path)? => {
                    open_at(&self.dir, &name)
                }
                found => found,
            };
            let found = match found {
                Err(Errno::NOENT | Errno::ACCESS) => return Ok(None),
                found => found.with_context(|| format!("open {}", path.display()))?,
            };
            self.step(&name, found)?;
        }
        // A link may end in a directory that was passed as one on the way.
        self.check_dir(&rustix::fs::fstat(&self.dir)?)?;
        Ok(Some(self.dir))
    }

    fn step(&mut self, name: &OsStr, found: OwnedFd) -> Result<()> {
        let path = self.place.join(name);
        let stat = rustix::fs::fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => self.follow(&path, &stat, &found),
            FileType::Directory => {
                match name == ".." {
                    true => drop(self.place.pop()),
                    false => self.place = path,
                }
                self.dir = found;
                self.check_dir(&stat)
            }
            _ => bail!("{} is not a directory", path.display()),
        }
    }

    /// A link in a safe place is changed by its owner alone.
    fn follow(&mut self, path: &Path, stat: &Stat, link: &OwnedFd) -> Result<()> {
        if stat.st_uid != 0 {
            return Err(refusal(self.root, path, stat));
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            bail!("{}: too many symbolic links", self.root.display());
        }
        let target = rustix::fs::readlinkat(link, "", Vec::new())
            .with_context(|| format!("read the link {}", path.display()))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.dir = open_at(CWD, OsStr::new("/")).context("open /")?;
            self.place = PathBuf::from("/");
        }
        let mut rest = names(&target);
        rest.append(&mut self.rest);
        self.rest = rest;
        Ok(())
    }

    fn check_dir(&self, stat: &Stat) -> Result<()> {
        let is_safe = match self.rest.is_empty() {
            true => is_safe_pin(stat),
            false => is_safe(stat) || (stat.st_uid == 0 && stat.st_mode & STICKY != 0),
        };
        match is_safe {
            true => Ok(()),
            false => Err(refusal(self.root, &self.place, stat)),
        }
    }
}

/// The components but `/`.
fn names(path: &Path) -> VecDeque<OsString> {
    let components = path.components();
    let names =
        components.filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|part| part.as_os_str().to_owned()).collect()
}

fn open_at(dir: impl std::os::fd::AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn is_safe(stat: &Stat) -> bool {
    stat.st_uid == 0 && stat.st_mode & WRITE_BY_OTHERS == 0
}

/// The same for the root of pins and what is below, which may be the daemon's too.
fn is_safe_pin(stat: &Stat) -> bool {
    static DAEMON: OnceLock<Option<u32>> = OnceLock::new();
    let is_trusted = stat.st_uid == 0
        || stat.st_uid == rustix::process::geteuid().as_raw()
        || Some(stat.st_uid) == *DAEMON.get_or_init(|| uid_of(USER));
    is_trusted && stat.st_mode & WRITE_BY_OTHERS == 0
}

/// A user of this host; those that a directory service has are not looked for.
fn uid_of(user: &str) -> Option<u32> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// What others have created before their access was taken away is still theirs. Only dpd's own names are looked at.
fn check_below(root: &Path) -> Result<()> {
    let own = pins::names(root).into_iter();
    own.filter(|name| name.starts_with(pins::VERSION_PREFIX))
        .try_for_each(|name| check_entry(root, &root.join(name)))
}

fn check_entry(root: &Path, path: &Path) -> Result<()> {
    let stat = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(()), // the daemon unpins what is old
        stat => stat.with_context(|| format!("read {}", path.display()))?,
    };
    if !is_safe_pin(&stat) {
        return Err(refusal(root, path, &stat));
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let names = pins::names(path).into_iter();
        return names
            .map(|name| path.join(name))
            .try_for_each(|path| check_entry(root, &path));
    }
    Ok(())
}

fn refusal(root: &Path, path: &Path, stat: &Stat) -> anyhow::Error {
    let (place, owner, mode) = (path.display(), stat.st_uid, stat.st_mode & 0o7777);
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let advice = if owner == 0 {
        format!("run `chmod go-w {place}`, or set another path in daemon.bpf_root")
    } else if path.parent().is_some_and(bpffs::is_bpffs) {
        format!(
            "remove it with `rm -r {place}`, and mount the bpffs with `-o mode=0700`, so that others can't create it again"
        )
    } else if is_dir && bpffs::is_bpffs(path) {
        format!("run `chown root {place} && chmod 0700 {place}`")
    } else {
        "set a path in daemon.bpf_root that root alone may write".to_owned()
    };
    anyhow::anyhow!(
        "{place} has owner uid {owner} and mode {mode:04o}: users other than root could replace what is pinned at {}; {advice}",
        root.display()
    )
}
