//! Asks the daemon over its socket.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::sockopt;
use rustix::process::Pid;

use super::protocol::{Observe, Reply, Request};
use crate::model::status::DaemonStatus;

/// A daemon that takes longer than this for its status hangs.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// The daemon's own words on how it is. Errors if there is none, see [`is_down`], or if it does not answer.
pub fn status(socket: &Path) -> Result<DaemonStatus> {
    let stream = connect(socket)?;
    stream.set_read_timeout(Some(STATUS_TIMEOUT))?;
    let mut status = None;
    exchange(&stream, socket, &Request::Status, |reply| {
        if let Reply::Status(answer) = reply {
            status = Some(answer);
        }
        Ok(ControlFlow::Break(()))
    })?;
    status.with_context(|| {
        format!(
            "the daemon at {} closed without an answer",
            socket.display()
        )
    })
}

/// Hands every reply to `take` until that breaks off or the daemon closes.
pub fn observe(
    socket: &Path,
    request: Observe,
    take: impl FnMut(Reply) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let stream = connect(socket)?;
    exchange(&stream, socket, &Request::Observe(request), take)
}

/// The daemon's process, as this PID namespace knows it.
///
/// # Errors
/// If there is no daemon, see [`is_down`], or its process is none of this namespace.
pub fn process(socket: &Path) -> Result<Pid> {
    let stream = connect(socket)?;
    let daemon = sockopt::socket_peercred(&stream).context("ask whose the socket is")?;
    // The kernel says 0 of one that it has no number for here.
    match daemon.pid.as_raw_pid() {
        0 => bail!("the daemon runs in another PID namespace: ask there"),
        _ => Ok(daemon.pid),
    }
}

/// Whether the error says that no daemon listens.
pub fn is_down(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused
        )
    })
}

fn connect(socket: &Path) -> Result<UnixStream> {
    UnixStream::connect(socket)
        .with_context(|| format!("no daemon answers at {}", socket.display()))
}

fn exchange(
    mut stream: &UnixStream,
    socket: &Path,
    request: &Request,
    mut take: impl FnMut(Reply) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // One that turns us away says why before it closes.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        sent => sent.with_context(|| format!("ask the daemon at {}", socket.display()))?,
    }
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => anyhow!("the daemon at {} does not answer", socket.display()),
            _ => anyhow!("hear the daemon at {}: {error}", socket.display()),
        })?;
        let reply = serde_json::from_str(&line).with_context(|| {
            format!("the daemon at {} speaks another version", socket.display())
        })?;
        if let Reply::Error(error) = reply {
            bail!("the daemon at {} refuses: {error}", socket.display());
        }
        if take(reply)?.is_break() {
            break;
        }
    }
    Ok(())
}
