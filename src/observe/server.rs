//! The daemon's socket: each client sends one request, and gets lines of JSON.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::RecvTimeoutError;
use rustix::event::{PollFd, PollFlags, poll};

use super::hub::{Hub, Sizes, Watch};
use super::protocol::{Observe, Reply, Request};
use super::record::Record;
use super::socket::Socket;
use crate::listener::{Listener, Service, time_left};
use crate::model::flow::Flow;
use crate::model::status::DaemonStatus;

/// Longer requests are refused, in bytes.
const REQUEST_MAX: usize = 64 * 1024;
/// How often a client that follows is checked for having gone, while there are no flows for it.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Flows that are written together when many are queued.
const BATCH: usize = 256;
/// Connections beyond those of observers, so that `dpd status` is served while all observers' slots are taken.
const SPARE: usize = 16;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Observers at once; one more gets an error and is closed.
    pub observers: usize,
    /// How long a client may take to send its request.
    pub request_timeout: Duration,
    pub sizes: Sizes,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            observers: 64,
            request_timeout: Duration::from_secs(5),
            sizes: Sizes::default(),
        }
    }
}

/// The socket while it is served. Dropping it closes every client and removes the socket's file.
pub struct Server {
    hub: Arc<Hub>,
    // Dropped in this order: the clients are closed before the file is removed.
    _listener: Listener<UnixStream>,
    _socket: Socket,
}

impl Server {
    /// Serves the socket; `status` is called for each status request.
    ///
    /// # Errors
    /// If the acceptor's thread can't be started, or another process has replaced the socket's file.
    pub fn start(
        socket: Socket,
        limits: Limits,
        status: impl Fn() -> DaemonStatus + Send + Sync + 'static,
    ) -> Result<Server> {
        let hub = Arc::new(Hub::new(limits.sizes));
        let requests = Requests {
            hub: hub.clone(),
            observers: AtomicUsize::new(0),
            limits,
            status,
        };
        let limit = limits.observers + SPARE;
        Ok(Server {
            hub,
            _listener: Listener::start(socket.listen()?, limit, requests)?,
            _socket: socket,
        })
    }

    /// Sends a flow to the observers; never blocks on one of them.
    pub fn publish(&self, flow: Arc<Flow>) {
        self.hub.publish(flow);
    }

    /// Flows that observers were too slow for since the start.
    pub fn lost(&self) -> u64 {
        self.hub.lost()
    }
}

/// Serves the requests of clients.
struct Requests<F> {
    hub: Arc<Hub>,
    /// Slots that are taken, of `limits.observers`.
    observers: AtomicUsize,
    limits: Limits,
    status: F,
}

impl<F: Fn() -> DaemonStatus + Send + Sync + 'static> Service<UnixStream> for Requests<F> {
    const NAME: &'static str = "observe";

    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let request = read_request(stream, self.limits.request_timeout)?;
        match serde_json::from_slice(&request) {
            Ok(Request::Status) => {
                let mut status = (self.status)();
                status.observers_lost = self.hub.lost();
                send(stream, &Reply::Status(status))
            }
            Ok(Request::Observe(request)) => self.observe(stream, request),
            Err(error) => {
                let error = format!("invalid request: {error}");
                send(stream, &Reply::Error(error.into()))
            }
        }
    }

    fn refuse(&self, stream: &UnixStream) {
        // A new connection's send buffer is empty, so this does not block.
        let _ = send(stream, &Reply::Error("too many connections".into()));
    }
}

impl<F> Requests<F> {
    fn observe(&self, stream: &UnixStream, request: Observe) -> io::Result<()> {
        let count = self.limits.observers;
        let Some(_slot) = ObserverSlot::take(&self.observers, count) else {
            let error = format!("{count} observers are connected already");
            return send(stream, &Reply::Error(error.into()));
        };
        let (last, watch) = self.hub.observe(request);
        for batch in last.chunks(BATCH) {
            send_flows(stream, batch)?;
        }
        match watch {
            Some(watch) => follow(stream, &watch),
            None => Ok(()),
        }
    }
}

/// One of the slots for observers; free again when dropped.
struct ObserverSlot<'a>(&'a AtomicUsize);

impl<'a> ObserverSlot<'a> {
    fn take(taken: &'a AtomicUsize, limit: usize) -> Option<ObserverSlot<'a>> {
        let add = |count| (count < limit).then_some(count + 1);
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .ok()
            .map(|_| ObserverSlot(taken))
    }
}

impl Drop for ObserverSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads up to the first newline. What is too long is returned as far as it was read, which no request parses from.
fn read_request(mut stream: &UnixStream, timeout: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + timeout;
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        let length = stream.read(&mut chunk)?;
        if let Some(end) = chunk[..length].iter().position(|byte| *byte == b'\n') {
            request.extend_from_slice(&chunk[..end]);
            return Ok(request);
        }
        request.extend_from_slice(&chunk[..length]);
        // End of file ends the request, too.
        if length == 0 || request.len() > REQUEST_MAX {
            return Ok(request);
        }
    }
}

fn follow(stream: &UnixStream, watch: &Watch) -> io::Result<()> {
    loop {
        match watch.flows.recv_timeout(IDLE_TICK) {
            Ok(flow) => {
                let mut batch = vec![flow];
                batch.extend(watch.flows.try_iter().take(BATCH - 1));
                send_flows(stream, &batch)?;
            }
            Err(RecvTimeoutError::Timeout) if is_gone(stream)? => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let lost = watch.take_lost();
        if lost > 0 {
            send(stream, &Reply::Lost(lost))?;
        }
    }
}

/// Whether the other end is closed. A client that has only shut down its sending side still reads.
fn is_gone(stream: &UnixStream) -> io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let now = rustix::time::Timespec::default();
    poll(&mut fds, Some(&now))?;
    Ok(fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

fn send(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn send_flows(mut stream: &UnixStream, flows: &[Arc<Flow>]) -> io::Result<()> {
    let mut lines = Vec::new();
    for flow in flows {
        serde_json::to_writer(&mut lines, &Reply::Flow(Record::from(&**flow)))?;
        lines.push(b'\n');
    }
    stream.write_all(&lines)
}

#[cfg(test)]
mod tests;
