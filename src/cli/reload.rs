//! `dpd reload`: makes the daemon read the file at once, and waits for the result.
//!
//! ```text
//!   status: n reloads are done ─► SIGHUP ─► status, again and again: n + 1 are done ─► its error
//! ```
//!
//! A reload that is running when SIGHUP is sent may have read the file before it was changed: then the next one counts.

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

/// Time between two status requests.
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
    // An error of the host's interfaces is not an error of the file.
    if let Some(error) = status.last_error {
        eprintln!("dpd: {error}");
    }
    for drop_in in &status.drop_ins {
        if let Some(reason) = &drop_in.reason {
            eprintln!(
                "dpd: the runtime drop-in {} is skipped:\n{reason}",
                drop_in.path
            );
        }
    }
    output::print(&format!("the datapath matches {}\n", status.config))
}

fn explain(error: anyhow::Error) -> anyhow::Error {
    match client::is_down(&error) {
        true => error.context(
            "no daemon is running: `systemctl start dpd`, or restart it if daemon.socket has changed",
        ),
        false => error,
    }
}

/// The daemon's status after a reload that began after this call.
fn reload(socket: &Path, pid: Pid) -> Result<DaemonStatus> {
    // A pidfd: the pid may be reused by another process.
    let daemon = pidfd_open(pid, PidfdFlags::empty())
        .with_context(|| format!("find the daemon (pid {pid})"))?;
    let before = client::status(socket).map_err(explain)?;
    let due = before.reloads + u64::from(before.is_reloading) + 1;
    signal(&daemon).with_context(|| format!("send SIGHUP to the daemon (pid {pid})"))?;
    while !has_ended(&daemon)? {
        // An error means that it is busy or stopping; `has_ended` distinguishes the two.
        if let Ok(status) = client::status(socket)
            && status.reloads >= due
        {
            return Ok(status);
        }
    }
    bail!("the daemon (pid {pid}) has stopped meanwhile: see its log")
}

fn signal(daemon: &OwnedFd) -> Result<()> {
    match pidfd_send_signal(daemon, Signal::HUP) {
        Err(Errno::PERM) => Err(Errno::PERM).context("this needs root or the daemon's user"),
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

    /// A process in place of the daemon, ready to be signalled.
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

    /// The replies to status requests: reloads that are done, and whether another is running.
    type Replies = &'static [(u64, bool)];

    /// The reload of a daemon with these replies, and the number of status requests.
    fn reload_of(script: &str, replies: Replies) -> (Result<DaemonStatus>, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dpd.sock");
        let socket = Socket::open(&path).unwrap();
        let mut child = process(script);
        let pid = child.id();
        let requests = Arc::new(AtomicU64::new(0));
        let count = requests.clone();
        let server = Server::start(socket, Limits::default(), move || {
            let nth = count.fetch_add(1, Ordering::Relaxed);
            let nth = usize::try_from(nth).unwrap().min(replies.len() - 1);
            let (reloads, is_reloading) = replies[nth];
            DaemonStatus {
                pid,
                reloads,
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
        (done, requests.load(Ordering::Relaxed))
    }

    #[test]
    fn a_reload_that_began_after_the_call_is_waited_for() {
        let rows: [(&str, Replies, u64); 3] = [
            (
                "the next one",
                &[(4, false), (4, false), (4, true), (5, false)],
                4,
            ),
            (
                "one that was running began before the call",
                &[(4, true), (5, false), (5, true), (6, false)],
                4,
            ),
            ("other callers reload too", &[(4, false), (9, true)], 2),
        ];
        for (sentence, replies, requests) in rows {
            let (done, times) = reload_of("trap '' HUP;", replies);
            let status = done.expect(sentence);
            assert_eq!(status.reloads, replies[replies.len() - 1].0, "{sentence}");
            assert_eq!(times, requests, "{sentence}");
        }
    }

    #[test]
    fn a_daemon_that_stops_meanwhile_is_an_error() {
        let (done, _) = reload_of("", &[(4, false)]);
        let error = done.unwrap_err().to_string();
        assert!(error.contains("has stopped meanwhile"), "{error}");
    }
}
