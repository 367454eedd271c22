//! The daemon's socket: each client sends one request, and gets lines of JSON.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::RecvTimeoutError;
use rustix::event::{PollFd, PollFlags, poll};

use super::hub::{Hub, Sizes, Watch};
use super::protocol::{Observe, Reply, Request};
use super::record::Record;
use super::socket::Socket;
use crate::listener::{Client, Clients, Listener, Service, time_left, write_until};
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
    /// Observers that follow at once. For one more, one that does not read is closed; if all read, it gets an error and is closed.
    pub observers: usize,
    /// How long a client may take in all to send its request.
    pub request_timeout: Duration,
    /// How long it may take in all to read its response, unless it follows.
    pub response_timeout: Duration,
    /// How long a client that follows may read nothing before it can be closed for a new one.
    pub patience: Duration,
    pub sizes: Sizes,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            observers: 64,
            request_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(5),
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
            observers: Clients::new(limits.observers),
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
    observers: Arc<Clients<UnixStream>>,
    limits: Limits,
    status: F,
}

impl<F: Fn() -> DaemonStatus + Send + Sync + 'static> Service<UnixStream> for Requests<F> {
    const NAME: &'static str = "observe";

    fn serve(&self, client: &Arc<Client<UnixStream>>) -> io::Result<()> {
        client.wait(Duration::ZERO);
        let request = read_request(client.stream(), self.limits.request_timeout)?;
        client.hold();
        match serde_json::from_slice(&request) {
            Ok(Request::Status) => {
                let mut status = (self.status)();
                status.observers_lost = self.hub.lost();
                self.reply(client, &Reply::Status(status))
            }
            Ok(Request::Observe(request)) => self.observe(client, request),
            Err(error) => {
                let error = format!("invalid request: {error}");
                self.reply(client, &Reply::Error(error.into()))
            }
        }
    }
}

impl<F> Requests<F> {
    /// Sends the only reply to a request.
    fn reply(&self, client: &Client<UnixStream>, reply: &Reply) -> io::Result<()> {
        let deadline = Instant::now() + self.limits.response_timeout;
        write_until(client, &line(reply)?, deadline)
    }

    fn observe(&self, client: &Arc<Client<UnixStream>>, request: Observe) -> io::Result<()> {
        let slot = request.follow.then(|| self.observers.add(client));
        if matches!(slot, Some(None)) {
            let count = self.limits.observers;
            let error = format!("{count} observers are connected already");
            return self.reply(client, &Reply::Error(error.into()));
        }
        let (last, watch) = self.hub.observe(request);
        match watch {
            Some(watch) => self.follow(client, &last, &watch),
            None => self.send_history(client, &last),
        }
    }

    fn send_history(&self, client: &Client<UnixStream>, last: &[Arc<Flow>]) -> io::Result<()> {
        let deadline = Instant::now() + self.limits.response_timeout;
        for batch in last.chunks(BATCH) {
            write_until(client, &flow_lines(batch)?, deadline)?;
        }
        Ok(())
    }

    /// Sends the history, and new flows for as long as the client is there.
    fn follow(
        &self,
        client: &Client<UnixStream>,
        last: &[Arc<Flow>],
        watch: &Watch,
    ) -> io::Result<()> {
        for batch in last.chunks(BATCH) {
            self.feed(client, &flow_lines(batch)?)?;
        }
        loop {
            match watch.flows.recv_timeout(IDLE_TICK) {
                Ok(flow) => {
                    let mut batch = vec![flow];
                    batch.extend(watch.flows.try_iter().take(BATCH - 1));
                    self.feed(client, &flow_lines(&batch)?)?;
                }
                Err(RecvTimeoutError::Timeout) if is_gone(client.stream())? => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let lost = watch.take_lost();
            if lost > 0 {
                self.feed(client, &line(&Reply::Lost(lost))?)?;
            }
        }
    }

    /// Writes to a client that follows, which may take as long as it likes while there is room for others.
    fn feed(&self, client: &Client<UnixStream>, lines: &[u8]) -> io::Result<()> {
        client.wait(self.limits.patience);
        let mut stream = client.stream();
        stream.write_all(lines)?;
        client.hold();
        Ok(())
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

/// Whether the other end is closed. A client that has only shut down its sending side still reads.
fn is_gone(stream: &UnixStream) -> io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let now = rustix::time::Timespec::default();
    poll(&mut fds, Some(&now))?;
    Ok(fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

fn line(reply: &Reply) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    Ok(line)
}

fn flow_lines(flows: &[Arc<Flow>]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for flow in flows {
        serde_json::to_writer(&mut lines, &Reply::Flow(Record::from(&**flow)))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests;
