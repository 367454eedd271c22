//! Reads the files that a configuration is made of.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::checked::Config;
use super::drop_in::{DropIn, Found, Runtime, is_drop_in};
use super::file_problem::{Reading, problem, source_of, unreadable};
use super::host_name::host_name;
use super::parse::check_sources;
use super::problem::{Problem, Problems};
use super::runtime::{self, Operator, accept};
use super::source::Source;
use crate::model::catalog::InEffect;

/// The largest size of one file: six times that of ten thousand services with ten backends each.
pub const SIZE_MAX: u64 = 32 << 20;

/// `PIPEFS_MAGIC`, include/uapi/linux/magic.h
const PIPEFS_MAGIC: u64 = 0x5049_5045;

/// A configuration with its sources.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Arc<Config>,
    pub warnings: Vec<Problem>,
    /// The main file, then the drop-ins in name order.
    pub sources: Vec<Source>,
    /// The runtime drop-ins, in name order.
    pub drop_ins: Vec<DropIn>,
    operator: Arc<Checked>,
    runtime: RuntimeFiles,
}

/// The configuration of the operator's files, and its warnings.
type Checked = (Config, Vec<Problem>);

/// What was read besides the operator's files.
#[derive(Clone, Debug, PartialEq)]
struct RuntimeFiles {
    found: Vec<Found>,
    in_effect: InEffect,
}

/// The folder of a file's drop-ins: `config.d` for `config.toml`; a file with another ending has none.
pub fn drop_in_folder(path: &Path) -> Option<PathBuf> {
    let is_toml = path.extension().is_some_and(|ending| ending == "toml");
    is_toml.then(|| path.with_extension("d"))
}

/// Reads and checks a file and its drop-ins.
///
/// The error has every problem: those of all unreadable files, or else those of all texts.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    load_node(read(path, open)?, &InEffect::new())
}

/// As `load`, of a file that may be a pipe given to this process, as `/dev/stdin`: its writer is waited for. `in_effect` are the
/// runtime drop-ins of the node.
///
/// # Errors
/// As `load`.
pub fn load_once(path: &Path, in_effect: &InEffect) -> Result<Loaded, Problems> {
    load_node(read(path, open_or_wait)?, in_effect)
}

/// The same for a running daemon, which keeps its folder of runtime drop-ins, after an earlier load: what is unchanged is not
/// checked a second time.
///
/// # Errors
/// As `load`.
pub fn load_again(
    path: &Path,
    before: Option<Loaded>,
    runtime: &Runtime,
) -> Result<Loaded, Problems> {
    let sources = read(path, open)?;
    let read = RuntimeFiles {
        found: runtime::read(runtime),
        in_effect: runtime.in_effect.clone(),
    };
    let before = before.filter(|before| before.sources == sources);
    match before {
        Some(before) if before.runtime == read => Ok(before),
        Some(before) => Ok(add_drop_ins(sources, before.operator, read)),
        None => {
            let operator = check_sources(&sources, &host_name())?;
            Ok(add_drop_ins(sources, Arc::new(operator), read))
        }
    }
}

/// The operator's files with the runtime drop-ins of the node that they name.
fn load_node(sources: Vec<Source>, in_effect: &InEffect) -> Result<Loaded, Problems> {
    let operator = check_sources(&sources, &host_name())?;
    let runtime = Runtime {
        folder: operator.0.daemon.runtime_config.clone(),
        in_effect: in_effect.clone(),
        ..Runtime::default()
    };
    let read = RuntimeFiles {
        found: runtime::read(&runtime),
        in_effect: runtime.in_effect,
    };
    Ok(add_drop_ins(sources, Arc::new(operator), read))
}

fn add_drop_ins(sources: Vec<Source>, operator: Arc<Checked>, runtime: RuntimeFiles) -> Loaded {
    let of_operator = Operator {
        sources: &sources,
        host_name: &host_name(),
    };
    let accepted = accept(of_operator, &runtime.found, &runtime.in_effect);
    let (config, warnings) = accepted.config.unwrap_or_else(|| Checked::clone(&operator));
    Loaded {
        config: Arc::new(config),
        warnings,
        sources,
        drop_ins: accepted.drop_ins,
        operator,
        runtime,
    }
}

/// Opens a file; `None` if it is of a kind that can't be a configuration.
type Open = fn(&Path) -> io::Result<Option<File>>;

/// Reads the main file, which `open_main` opens, and its drop-ins.
fn read(path: &Path, open_main: Open) -> Result<Vec<Source>, Problems> {
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    let drop_ins = drop_ins(path).unwrap_or_else(|problem| {
        problems.push(*problem);
        Vec::new()
    });
    let main = read_file(path, open_main).map_err(|problem| with_hint_at_example(path, problem));
    let rest = drop_ins.iter().map(|path| read_file(path, open));
    for source in std::iter::once(main).chain(rest) {
        match source {
            Ok(source) => sources.push(source),
            Err(problem) => problems.push(*problem),
        }
    }
    match problems.is_empty() {
        true => Ok(sources),
        false => Err(Problems(problems)),
    }
}

/// The drop-ins of a file, in name order.
///
/// # Errors
/// If their folder is another kind of file, or can't be read.
pub fn drop_ins(path: &Path) -> Reading<Vec<PathBuf>> {
    let Some(folder) = drop_in_folder(path) else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            let message = "this is where drop-ins are looked for, but it is not a folder";
            return Err(problem(
                &folder,
                message.into(),
                Some("move it away".into()),
            ));
        }
        Err(error) => return Err(unreadable(&folder, &error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(&folder, &error))?.path();
        if is_drop_in(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The text of one file, with invalid UTF-8 replaced; `None` if it is no regular file, or too large for a configuration.
/// Never blocks, as opening a pipe would.
///
/// # Errors
/// If the file can't be opened or read.
pub fn read_lossy(path: &Path) -> io::Result<Option<String>> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    let bytes = read_bytes(file)?;
    let is_small = bytes.len() as u64 <= SIZE_MAX;
    Ok(is_small.then(|| String::from_utf8_lossy(&bytes).into_owned()))
}

fn read_file(path: &Path, open: Open) -> Reading<Source> {
    let file = open(path).map_err(|error| unreadable(path, &error))?;
    let Some(file) = file else {
        return Err(problem(path, "this is not a regular file".into(), None));
    };
    let too_large = || {
        let message = format!("the file is larger than {} MiB", SIZE_MAX >> 20);
        let help = "split it into drop-ins, if it is a configuration at all";
        Err(problem(path, message, Some(help.into())))
    };
    if file
        .metadata()
        .is_ok_and(|metadata| metadata.len() > SIZE_MAX)
    {
        return too_large();
    }
    let bytes = read_bytes(file).map_err(|error| unreadable(path, &error))?;
    match bytes.len() as u64 > SIZE_MAX {
        true => too_large(),
        false => source_of(path, bytes),
    }
}

/// Opens a file; `None` if it is a folder, a pipe, a device or a socket. Never blocks, as opening a pipe would.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let kind = |file: &File| file.metadata().map(|metadata| metadata.file_type());
    match file.and_then(|file| kind(&file).map(|kind| (file, kind))) {
        Ok((file, kind)) => Ok(kind.is_file().then_some(file)),
        Err(_) if fs::metadata(path).is_ok_and(|m| m.file_type().is_socket()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// As `open`; of a pipe that this process was given it waits for the writer. A named one may never have a writer.
fn open_or_wait(path: &Path) -> io::Result<Option<File>> {
    let is_given_pipe = rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type as u64 == PIPEFS_MAGIC);
    match is_given_pipe {
        true => File::open(path).map(Some),
        false => open(path),
    }
}

/// The bytes of a file, up to one more than allowed.
fn read_bytes(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn with_hint_at_example(path: &Path, mut problem: Box<Problem>) -> Box<Problem> {
    let is_missing = fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if is_missing {
        problem.message = "there is no such file".to_owned();
        problem.help = Some("start with a copy of examples/config.toml, or name another file with --config or DPD_CONFIG".to_owned());
    }
    problem
}
