//! The daemon's socket: a thread for each client reads one request and writes lines of JSON.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::RecvTimeoutError;
use rustix::event::{PollFd, PollFlags, poll};

use super::hub::{Hub, Sizes, Watch};
use super::protocol::{Observe, Reply, Request};
use super::record::Record;
use super::socket::Socket;
use crate::model::flow::Flow;
use crate::model::status::DaemonStatus;

/// No request that makes sense is longer, in bytes.
const REQUEST_MAX: usize = 64 * 1024;
/// How often a watcher to whom nothing happens is looked at, to see whether it is still there.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Flows that are written together when many wait.
const BATCH: usize = 256;
/// Connections beside those of observers, so that `dpd status` has an answer though all of those are taken.
const SPARE: usize = 16;

/// What one server allows itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Observers at once; one more is told so and closed.
    pub observers: usize,
    /// How long a client may take to ask.
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

/// The listening socket. Dropping it closes every client and takes the socket's file away.
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    socket: Socket,
}

struct Shared {
    hub: Hub,
    clients: Mutex<Clients>,
    limits: Limits,
    status: Box<dyn Fn() -> DaemonStatus + Send + Sync>,
}

/// The open connections, so that they can be counted and closed.
#[derive(Default)]
struct Clients {
    open: BTreeMap<u64, UnixStream>,
    next: u64,
    observers: usize,
    is_closing: bool,
}

impl Server {
    /// Answers at the socket from threads of its own; `status` is asked for each status request.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        socket: Socket,
        limits: Limits,
        status: impl Fn() -> DaemonStatus + Send + Sync + 'static,
    ) -> Result<Server> {
        let listener = socket.listen()?;
        let shared = Arc::new(Shared {
            hub: Hub::new(limits.sizes),
            clients: Mutex::default(),
            limits,
            status: Box::new(status),
        });
        let acceptor = {
            let shared = shared.clone();
            thread::Builder::new()
                .name("observe".to_owned())
                .spawn(move || accept(&listener, &shared))
                .context("start the thread that accepts observers")?
        };
        Ok(Server {
            shared,
            acceptor: Some(acceptor),
            socket,
        })
    }

    /// Hands a flow to those who watch; never waits for one of them.
    pub fn publish(&self, flow: Arc<Flow>) {
        self.shared.hub.publish(flow);
    }

    /// Flows that watchers were too slow for since the start.
    pub fn lost(&self) -> u64 {
        self.shared.hub.lost()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut clients = self.shared.clients();
        clients.is_closing = true;
        for client in clients.open.values() {
            // It may be gone already.
            let _ = client.shutdown(Shutdown::Both);
        }
        drop(clients);
        // On Linux this ends a waiting accept.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.clients().is_closing {
            return;
        }
        match stream {
            Ok(stream) => admit(stream, shared),
            Err(error) => {
                log::warn!("an observer could not be accepted: {error}");
                // Most likely no file descriptor is free, and the error would come again at once.
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn admit(stream: UnixStream, shared: &Arc<Shared>) {
    let id = match register(&stream, shared) {
        Ok(id) => id,
        Err(reason) => {
            // A new connection's buffer is empty, so this does not wait.
            let _ = send(&stream, &Reply::Error(reason.into()));
            return;
        }
    };
    let thread = {
        let shared = shared.clone();
        thread::Builder::new()
            .name("observer".to_owned())
            .spawn(move || {
                if let Err(error) = serve(&stream, &shared) {
                    log::debug!("an observer has gone: {error}");
                }
                shared.clients().open.remove(&id);
            })
    };
    if let Err(error) = thread {
        log::warn!("an observer is turned away: no thread for it: {error}");
        shared.clients().open.remove(&id);
    }
}

/// The number of the new client, or why it can't be one.
fn register(stream: &UnixStream, shared: &Shared) -> Result<u64, String> {
    let copy = stream
        .try_clone()
        .map_err(|error| format!("no file descriptor is free: {error}"))?;
    let mut clients = shared.clients();
    if clients.is_closing {
        return Err("the daemon is ending".to_owned());
    }
    if clients.open.len() >= shared.limits.observers + SPARE {
        return Err("too many are connected already".to_owned());
    }
    let id = clients.next;
    clients.next += 1;
    clients.open.insert(id, copy);
    Ok(id)
}

/// Answers the one request of a client.
fn serve(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    let request = read_request(stream, shared.limits.request_timeout)?;
    match serde_json::from_slice(&request) {
        Ok(Request::Status) => {
            let mut status = (shared.status)();
            status.observers_lost = shared.hub.lost();
            send(stream, &Reply::Status(status))
        }
        Ok(Request::Observe(request)) => observe(stream, shared, request),
        Err(error) => send(
            stream,
            &Reply::Error(format!("this is no request: {error}").into()),
        ),
    }
}

/// Reads up to the first newline. A client that sends too slowly or too much gets an error for an answer.
fn read_request(mut stream: &UnixStream, timeout: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + timeout;
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let length = stream.read(&mut chunk)?;
        if let Some(end) = chunk[..length].iter().position(|byte| *byte == b'\n') {
            request.extend_from_slice(&chunk[..end]);
            return Ok(request);
        }
        request.extend_from_slice(&chunk[..length]);
        // The end of what it sends ends its request, too.
        if length == 0 || request.len() > REQUEST_MAX {
            return Ok(request);
        }
    }
}

/// An observer's place among those that there may be; free again when it is dropped.
struct Place<'a>(&'a Shared);

impl<'a> Place<'a> {
    fn take(shared: &'a Shared) -> Option<Place<'a>> {
        let mut clients = shared.clients();
        if clients.observers >= shared.limits.observers {
            return None;
        }
        clients.observers += 1;
        Some(Place(shared))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.clients().observers -= 1;
    }
}

fn observe(stream: &UnixStream, shared: &Shared, request: Observe) -> io::Result<()> {
    let Some(_place) = Place::take(shared) else {
        let count = shared.limits.observers;
        let error = format!("{count} observers are connected already");
        return send(stream, &Reply::Error(error.into()));
    };
    let (last, watch) = shared.hub.observe(request);
    for batch in last.chunks(BATCH) {
        send_flows(stream, batch)?;
    }
    match watch {
        Some(watch) => follow(stream, &watch),
        None => Ok(()),
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

/// Whether the other end is closed. One that has only stopped sending still wants to hear.
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
