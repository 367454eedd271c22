//! The cgroup2 hierarchy, to which programs for the host's sockets are attached. Only reads.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FsWord, Mode, OFlags, fstatfs, open, statat};
use rustix::io::Errno;

/// Of the calling thread: the mounts of a thread may be its own.
const MOUNTS: &str = "/proc/thread-self/mounts";

/// The type of the file system (`linux/magic.h`).
const CGROUP2_SUPER_MAGIC: FsWord = 0x6367_7270;

/// The file that every group has but the root of all (`kernel/cgroup/cgroup.c`).
const NOT_OF_ROOT: &str = "cgroup.type";

/// A control group that is mounted as the root of a hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    pub path: PathBuf,
    /// Its open folder, to which programs are attached.
    pub folder: OwnedFd,
    /// It is the root of all: each process of the machine is in it. Else it is a part, as a container has.
    pub is_root: bool,
}

/// Why there is no control group to attach to. Displayed with what to do.
#[derive(Debug)]
pub enum CgroupError {
    NotMounted,
    /// Nothing that is mounted as cgroup2 can be opened: the first path, and why.
    Unusable(PathBuf, io::Error),
    /// The mounts can't be read.
    Mounts(io::Error),
}

impl fmt::Display for CgroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CgroupError::NotMounted => write!(
                f,
                "no cgroup2 hierarchy is mounted: boot with systemd.unified_cgroup_hierarchy=1, or \
                 mkdir -p /run/cgroup2 && mount -t cgroup2 cgroup2 /run/cgroup2"
            ),
            CgroupError::Unusable(path, error) => write!(
                f,
                "the cgroup2 hierarchy at {} can't be used: {error}",
                path.display()
            ),
            CgroupError::Mounts(error) => write!(f, "read {MOUNTS}: {error}"),
        }
    }
}

impl std::error::Error for CgroupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CgroupError::NotMounted => None,
            CgroupError::Unusable(_, error) | CgroupError::Mounts(error) => Some(error),
        }
    }
}

/// Finds the first cgroup2 hierarchy that the calling thread sees. Needs no privilege.
///
/// # Errors
/// If there is none, or none can be opened.
pub fn find_cgroup() -> Result<Cgroup, CgroupError> {
    let mounts = fs::read(MOUNTS).map_err(CgroupError::Mounts)?;
    let mut unusable = None;
    for path in mount_points(&mounts) {
        match open_cgroup(&path) {
            Ok(cgroup) => return Ok(cgroup),
            Err(error) => {
                unusable.get_or_insert(CgroupError::Unusable(path, error));
            }
        }
    }
    Err(unusable.unwrap_or(CgroupError::NotMounted))
}

/// Opens it, if it is no other mount that covers the hierarchy.
fn open_cgroup(path: &Path) -> io::Result<Cgroup> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(path, flags, Mode::empty())?;
    if fstatfs(&folder)?.f_type != CGROUP2_SUPER_MAGIC {
        return Err(io::Error::other("another file system is mounted over it"));
    }
    let is_root = match statat(&folder, NOT_OF_ROOT, AtFlags::empty()) {
        Ok(_) => false,
        Err(Errno::NOENT) => true,
        Err(error) => return Err(error.into()),
    };
    Ok(Cgroup {
        path: path.to_owned(),
        folder,
        is_root,
    })
}

/// Where cgroup2 is mounted, in the order of a table of mounts (`proc_pid_mounts(5)`).
fn mount_points(mounts: &[u8]) -> impl Iterator<Item = PathBuf> {
    mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut words = line.split(|byte| *byte == b' ');
        let (path, kind) = (words.nth(1)?, words.next()?);
        (kind == b"cgroup2").then(|| PathBuf::from(OsString::from_vec(unescape(path))))
    })
}

/// Undoes the kernel's escapes of white space and backslashes: three octal digits after a backslash (`mangle_path()`).
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = (*byte == b'\\').then(|| octal(after)).flatten();
        plain.push(escaped.unwrap_or(*byte));
        rest = match escaped {
            Some(_) => &after[3..],
            None => after,
        };
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounts_of_cgroup2_are_found_in_their_order() {
        let rows: &[(&str, &str, &[&str])] = &[
            ("nothing", "", &[]),
            (
                "a unified hierarchy",
                "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n",
                &["/sys/fs/cgroup"],
            ),
            (
                "a hybrid one",
                "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                 cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
                &["/sys/fs/cgroup/unified"],
            ),
            (
                "version 1 alone, and a device of the name",
                "cgroup2 /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n",
                &[],
            ),
            (
                "two, with characters that are escaped",
                "none /my\\040own\\011\\134group cgroup2 rw 0 0\nnone /\\0x cgroup2 rw 0 0",
                &["/my own\t\\group", "/\\0x"],
            ),
            ("half a line", "cgroup2 /sys/fs/cgroup", &[]),
        ];
        for (what, mounts, expected) in rows {
            let found: Vec<PathBuf> = mount_points(mounts.as_bytes()).collect();
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn an_escape_that_is_none_stays() {
        let rows: [(&[u8], &[u8]); 5] = [
            (b"/a\\040b", b"/a b"),
            (b"\\", b"\\"),
            (b"\\04", b"\\04"),
            (b"\\999", b"\\999"),
            (b"\\777", b"\\777"),
        ];
        for (text, expected) in rows {
            assert_eq!(unescape(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_errors_say_what_to_do() {
        let missing = CgroupError::NotMounted.to_string();
        assert!(missing.contains("mount -t cgroup2"), "{missing}");
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(
            CgroupError::Unusable("/sys/fs/cgroup".into(), refused).to_string(),
            "the cgroup2 hierarchy at /sys/fs/cgroup can't be used: permission denied"
        );
    }

    /// A folder of another kind is none, whatever the table of mounts says.
    #[test]
    fn a_folder_that_is_covered_is_refused() {
        let error = open_cgroup(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().contains("mounted over"), "{error}");
    }
}
