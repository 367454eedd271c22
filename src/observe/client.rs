//! The client side of the daemon's socket.

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

/// A daemon that is silent for longer than this, other than between the flows that it sends as they come, does not reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// The daemon's status.
///
/// # Errors
/// If no daemon listens, see [`is_down`], or it does not reply.
pub fn status(socket: &Path) -> Result<DaemonStatus> {
    let stream = connect(socket)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    let mut status = None;
    exchange(&stream, socket, &Request::Status, |reply| {
        if let Reply::Status(reply) = reply {
            status = Some(reply);
        }
        Ok(ControlFlow::Break(()))
    })?;
    status.with_context(|| format!("the daemon at {} closed without a reply", socket.display()))
}

/// Calls `take` with every reply until that breaks or the daemon closes.
pub fn observe(
    socket: &Path,
    request: Observe,
    take: impl FnMut(Reply) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let stream = connect(socket)?;
    if !request.follow {
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    }
    exchange(&stream, socket, &Request::Observe(request), take)
}

/// The daemon's process in this PID namespace.
///
/// # Errors
/// If no daemon listens, see [`is_down`], or its process is not in this namespace.
pub fn process(socket: &Path) -> Result<Pid> {
    let stream = connect(socket)?;
    let daemon = sockopt::socket_peercred(&stream).context("read the daemon's pid")?;
    // 0 is a process that has no number in this namespace.
    match daemon.pid.as_raw_pid() {
        0 => bail!("the daemon runs in another PID namespace: run this command there"),
        _ => Ok(daemon.pid),
    }
}

/// Whether the error means that no daemon listens.
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
        .with_context(|| format!("no daemon listens at {}", socket.display()))
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
        // A daemon that refuses the client sends the reason before it closes.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        sent => sent.with_context(|| format!("send to the daemon at {}", socket.display()))?,
    }
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => anyhow!("the daemon at {} does not reply", socket.display()),
            _ => anyhow!("read from the daemon at {}: {error}", socket.display()),
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
