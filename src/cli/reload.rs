//! `dpd reload`: asks the daemon to read the file at once, and waits for what becomes of it.
//!
//! ```text
//!   status: n reloads are done ─► SIGHUP ─► status, again and again: n + 1 are done ─► its error
//! ```
//!
//! One that is under way when we ask may have read the file before it was changed: then the next one counts.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::node::Node;
use super::output;
use crate::model::status::DaemonStatus;
use crate::observe::client;

/// Time between two questions for the state of things.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

pub fn run(node: &Node) -> Result<()> {
    let daemon = client::process(&node.socket).map_err(explain)?;
    let status = reload(&node.socket, daemon)?;
    if let Some(error) = status.reload_error {
        bail!("{error}");
    }
    // What the host does not let the daemon follow is no fault of the file's.
    if let Some(error) = status.last_error {
        eprintln!("dpd: {error}");
    }
    output::print(&format!("the datapath matches {}\n", status.config))
}

fn explain(error: anyhow::Error) -> anyhow::Error {
    match client::is_down(&error) {
        true => error.context(
            "no daemon is running: `systemctl start dpd`, or restart it if daemon.socket is another now",
        ),
        false => error,
    }
}

/// The daemon's status after a reload that has begun with this call, or later.
fn reload(socket: &Path, pid: Pid) -> Result<DaemonStatus> {
    // A hold on the process, to which nobody else's number can fall.
    let daemon = pidfd_open(pid, PidfdFlags::empty())
        .with_context(|| format!("find the daemon (pid {pid})"))?;
    let before = client::status(socket).map_err(explain)?;
    let Some(reloads) = before.reloads else {
        bail!("the daemon (pid {pid}) is of a version before this: restart it");
    };
    let due = reloads + u64::from(before.is_reloading) + 1;
    signal(&daemon).with_context(|| format!("send SIGHUP to the daemon (pid {pid})"))?;
    while !has_ended(&daemon)? {
        // Busy or about to end: whether it does, its process says.
        if let Ok(status) = client::status(socket)
            && status.reloads.is_some_and(|reloads| reloads >= due)
        {
            return Ok(status);
        }
    }
    bail!("the daemon (pid {pid}) has ended meanwhile: its log says why")
}

fn signal(daemon: &OwnedFd) -> Result<()> {
    match pidfd_send_signal(daemon, Signal::HUP) {
        Err(Errno::PERM) => Err(Errno::PERM).context("only root and its own user may"),
        sent => sent.map_err(Into::into),
    }
}

/// Waits for a tick, or until the process has ended.
fn has_ended(process: &OwnedFd) -> Result<bool> {
    let mut waits = [PollFd::new(process, PollFlags::IN)];
    match poll(&mut waits, Some(&TICK)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error).context("wait for the daemon"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::cli::status::tests::daemon;
    use crate::observe::server::{Limits, Server};
    use crate::observe::socket::Socket;

    /// A process that stands for the daemon, ready to be signalled.
    fn process(script: &str) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{script} echo; exec sleep 1000")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        child
    }

    /// Reloads that are done, and whether another is under way, at each question in turn.
    type Answers = &'static [(u64, bool)];

    /// The reload of a daemon that answers so, and how often it was asked.
    fn reload_of(script: &str, answers: Answers) -> (Result<DaemonStatus>, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dpd.sock");
        let socket = Socket::open(&path).unwrap();
        let mut child = process(script);
        let pid = child.id();
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        let server = Server::start(socket, Limits::default(), move || {
            let nth = count.fetch_add(1, Ordering::Relaxed);
            let nth = usize::try_from(nth).unwrap().min(answers.len() - 1);
            let (reloads, is_reloading) = answers[nth];
            DaemonStatus {
                pid,
                reloads: Some(reloads),
                is_reloading,
                ..daemon()
            }
        });
        let server = server.unwrap();
        let daemon = Pid::from_raw(pid.cast_signed()).unwrap();
        let done = reload(&path, daemon);
        drop(server);
        let _ = child.kill();
        child.wait().unwrap();
        (done, asked.load(Ordering::Relaxed))
    }

    #[test]
    fn the_reload_that_was_asked_for_is_waited_for() {
        let rows: [(&str, Answers, u64); 3] = [
            (
                "the next one",
                &[(4, false), (4, false), (4, true), (5, false)],
                4,
            ),
            (
                "one that was under way has begun before we asked",
                &[(4, true), (5, false), (5, true), (6, false)],
                4,
            ),
            ("others have asked too", &[(4, false), (9, true)], 2),
        ];
        for (sentence, answers, asked) in rows {
            let (done, times) = reload_of("trap '' HUP;", answers);
            let status = done.expect(sentence);
            assert_eq!(
                status.reloads,
                Some(answers[answers.len() - 1].0),
                "{sentence}"
            );
            assert_eq!(times, asked, "{sentence}");
        }
    }

    #[test]
    fn a_daemon_that_ends_meanwhile_is_not_waited_for() {
        let (done, _) = reload_of("", &[(4, false)]);
        let error = done.unwrap_err().to_string();
        assert!(error.contains("has ended meanwhile"), "{error}");
    }
}
