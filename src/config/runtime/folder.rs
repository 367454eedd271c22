//! Reads the folder of the runtime drop-ins. Only files that root alone can write are used, in a folder that root alone can
//! write.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::config::drop_in::{Found, Runtime, digest, is_drop_in, name};
use crate::config::file_problem::{problem, source_of, unreadable};
use crate::config::problem::Problem;
use crate::config::source::Source;

/// The largest size of one drop-in: some 100,000 prefixes, or 20,000 workloads.
const SIZE_MAX: u64 = 4 << 20;

/// Permissions to write that only the owner may have.
const OTHERS_WRITE: u32 = 0o022;

/// The drop-ins in name order; none if there is no folder. A folder that can't be used is the one entry, with the problem.
pub fn read(runtime: &Runtime) -> Vec<Found> {
    let mut all = runtime
        .folder
        .as_deref()
        .map(read_or_explain)
        .unwrap_or_default();
    for found in &mut all {
        let Ok(source) = &found.source else { continue };
        let refusal = runtime.refused.get(&name(&found.path));
        if let Some(refusal) = refusal.filter(|refusal| refusal.digest == digest(&source.text)) {
            let message = format!("a change with this drop-in was refused: {}", refusal.error);
            found.source = Err(problem(&found.path, message, None));
        }
    }
    all
}

fn read_or_explain(folder: &Path) -> Vec<Found> {
    match read_folder(folder) {
        Ok(found) => found,
        Err(problem) => vec![Found {
            path: folder.to_owned(),
            source: Err(problem),
        }],
    }
}

fn read_folder(path: &Path) -> Result<Vec<Found>, Box<Problem>> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(folder) => File::from(folder),
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(Errno::NOTDIR) => {
            let message = "this is where runtime drop-ins are looked for, but it is not a folder";
            return Err(problem(path, message.into(), Some("move it away".into())));
        }
        Err(error) => return Err(unreadable(path, &error.into())),
    };
    let metadata = folder.metadata().map_err(|e| unreadable(path, &e))?;
    check_owner(path, &metadata, "the folder")?;
    let unlisted = |error: Errno| unreadable(path, &error.into());
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in Dir::read_from(&folder).map_err(unlisted)? {
        let entry = entry.map_err(unlisted)?;
        let path = path.join(OsStr::from_bytes(entry.file_name().to_bytes()));
        if is_drop_in(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    let found = paths.into_iter().filter_map(|path| {
        let source = read_file(&folder, &path).transpose()?;
        Some(Found { path, source })
    });
    Ok(found.collect())
}

/// `None`: it has just been removed.
fn read_file(folder: &File, path: &Path) -> Result<Option<Source>, Box<Problem>> {
    let name = path.file_name().unwrap_or_default();
    // A link is refused, and a pipe is not waited for.
    let flags =
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(irregular(path, "a symlink")),
        Err(Errno::NXIO) => return Err(irregular(path, "a socket")),
        Err(error) => return Err(unreadable(path, &error.into())),
    };
    let metadata = file.metadata().map_err(|e| unreadable(path, &e))?;
    if !metadata.is_file() {
        return Err(irregular(path, "no regular file"));
    }
    check_owner(path, &metadata, "the drop-in")?;
    if metadata.len() > SIZE_MAX {
        return Err(too_large(path));
    }
    let mut bytes = Vec::new();
    let read = file.take(SIZE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(path, &error))?;
    match bytes.len() as u64 > SIZE_MAX {
        true => Err(too_large(path)),
        false => source_of(path, bytes).map(Some),
    }
}

fn check_owner(path: &Path, metadata: &Metadata, what: &str) -> Result<(), Box<Problem>> {
    let shown = path.display();
    let (message, help) = if metadata.uid() != 0 {
        let owner = metadata.uid();
        let message = format!("{what} belongs to the user {owner}, not to root");
        (message, format!("chown root '{shown}'"))
    } else if metadata.mode() & OTHERS_WRITE != 0 {
        let mode = metadata.mode() & 0o7777;
        let message =
            format!("{what} can be written by users other than root: its mode is {mode:04o}");
        (message, format!("chmod go-w '{shown}'"))
    } else {
        return Ok(());
    };
    Err(problem(path, message, Some(help)))
}

fn irregular(path: &Path, kind: &str) -> Box<Problem> {
    let message = format!("this is {kind}: a runtime drop-in must be a regular file");
    problem(path, message, None)
}

fn too_large(path: &Path) -> Box<Problem> {
    let message = format!("the drop-in is larger than {} MiB", SIZE_MAX >> 20);
    problem(path, message, Some("split it".into()))
}
