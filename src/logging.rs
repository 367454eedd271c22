//! The daemon's log: to stderr, or natively to journald. `RUST_LOG` filters it, as with env_logger.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use log::{Level, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};

use crate::config::LogTarget;
use crate::journal::{self, Journal, Priority};

/// Starts logging for the whole process.
///
/// # Errors
/// If that was done before, or the journal's socket can't be created.
pub fn init(target: LogTarget) -> Result<()> {
    let journal = uses_journal(target)
        .then(|| Journal::open(Path::new(journal::SOCKET)))
        .transpose()?;
    let logger = Logger::new(journal);
    log::set_max_level(logger.stderr.filter());
    log::set_boxed_logger(Box::new(logger)).context("start logging")
}

/// Whether the log goes natively to journald.
pub fn uses_journal(target: LogTarget) -> bool {
    match target {
        LogTarget::Stderr => false,
        LogTarget::Journald => true,
        LogTarget::Auto => {
            let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
            let stderr = rustix::fs::fstat(std::io::stderr());
            stderr.is_ok_and(|stat| is_stream(&stream, stat.st_dev, stat.st_ino))
                && fs::metadata(journal::SOCKET).is_ok_and(|file| file.file_type().is_socket())
        }
    }
}

/// Whether `$JOURNAL_STREAM`, which is `DEVICE:INODE`, means this file. With the variable inherited and stderr
/// redirected, the log stays on stderr.
fn is_stream(variable: &str, device: u64, inode: u64) -> bool {
    variable
        .split_once(':')
        .is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

struct Logger {
    /// Also the filter of what goes to the journal.
    stderr: env_logger::Logger,
    journal: Option<Journal>,
    /// Lost lines that are not reported yet.
    lost: AtomicU64,
}

impl Logger {
    fn new(journal: Option<Journal>) -> Logger {
        let environment = env_logger::Env::default().default_filter_or("info");
        let stderr = env_logger::Builder::new()
            .parse_env(environment)
            .format(|out, record| {
                let time = out.timestamp_millis();
                writeln!(out, "{time} {:<5} {}", record.level(), record.args())
            })
            .build();
        Logger {
            stderr,
            journal,
            lost: AtomicU64::new(0),
        }
    }

    /// Without a journal the line goes to stderr; but that may be the same journal, or a stopped terminal, and the daemon
    /// must not block on either.
    fn deliver(&self, record: &Record) -> bool {
        if let Some(journal) = &self.journal
            && journal.send(&entry(record))
        {
            return true;
        }
        let has_room = has_room(std::io::stderr());
        if has_room {
            self.stderr.log(record);
        }
        has_room
    }
}

/// Whether a line can be written without blocking. With a closed reader it can: the write fails at once.
fn has_room(stream: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&stream, PollFlags::OUT)];
    let now = rustix::time::Timespec::default();
    !matches!(poll(&mut fds, Some(&now)), Ok(0))
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.stderr.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.stderr.matches(record) {
            return;
        }
        if !self.deliver(record) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let is_unreported = lost > 0
            && !self.deliver(
                &Record::builder()
                    .level(Level::Warn)
                    .target(module_path!())
                    .args(format_args!(
                        "{lost} log lines were lost before this one: the log was not read"
                    ))
                    .build(),
            );
        if is_unreported {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        self.stderr.flush();
    }
}

fn entry(record: &Record) -> Vec<(String, String)> {
    let priority = match record.level() {
        Level::Error => Priority::Error,
        Level::Warn => Priority::Warning,
        Level::Info => Priority::Info,
        Level::Debug | Level::Trace => Priority::Debug,
    };
    let mut entry = Journal::entry(priority, record.args().to_string());
    if let Some(file) = record.file() {
        entry.push(("CODE_FILE".to_owned(), file.to_owned()));
    }
    if let Some(line) = record.line() {
        entry.push(("CODE_LINE".to_owned(), line.to_string()));
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journals_stream() {
        let rows = [
            ("8:1234", true),
            ("8:1235", false),
            ("9:1234", false),
            ("8", false),
            ("8:", false),
            (":1234", false),
            ("a:b", false),
            ("", false),
        ];
        for (variable, expected) in rows {
            assert_eq!(is_stream(variable, 8, 1234), expected, "{variable:?}");
        }
    }

    #[test]
    fn records() {
        let rows = [
            (Level::Error, "3"),
            (Level::Warn, "4"),
            (Level::Info, "6"),
            (Level::Debug, "7"),
            (Level::Trace, "7"),
        ];
        for (level, priority) in rows {
            let record = Record::builder()
                .level(level)
                .args(format_args!("two\nlines"))
                .file(Some("src/x.rs"))
                .line(Some(7))
                .build();
            let expected = [
                ("MESSAGE", "two\nlines"),
                ("PRIORITY", priority),
                ("SYSLOG_IDENTIFIER", "dpd"),
                ("CODE_FILE", "src/x.rs"),
                ("CODE_LINE", "7"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(entry(&record), expected);
        }
    }

    #[test]
    fn a_full_stream_does_not_block() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(has_room(&writer), "an empty pipe");
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while (&writer).write(&[0; 4096]).is_ok() {}
        assert!(!has_room(&writer), "a full one");
        drop(reader);
        assert!(
            has_room(&writer),
            "one without a reader: the write fails at once"
        );
        assert!(has_room(std::fs::File::create("/dev/null").unwrap()));
    }

    #[test]
    fn the_filter_applies_to_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let logger = Logger {
            stderr: env_logger::Builder::new()
                .filter_level(log::LevelFilter::Info)
                .build(),
            journal: Some(Journal::open(&path).unwrap()),
            lost: AtomicU64::new(0),
        };
        for level in [Level::Debug, Level::Info] {
            logger.log(
                &Record::builder()
                    .level(level)
                    .args(format_args!("{level}"))
                    .build(),
            );
        }
        let mut datagram = [0; 1024];
        let length = socket.recv(&mut datagram).unwrap();
        assert!(datagram[..length].starts_with(b"MESSAGE=INFO\n"));
        assert!(socket.recv(&mut datagram).is_err(), "one record, not two");
    }
}
