//! Accepts clients of a listening socket, each on a thread of its own, up to a limit. Dropping it closes them all.
//!
//! ```text
//!   acceptor (Worker): poll ─► accept ─┬─ below the limit ─► ClientSlot ─► thread: serve
//!                                      └─ over the limit ──► refuse, close
//! ```

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags};

use crate::worker::{Sleeper, Wake, Worker};

/// After a failed accept: most likely no file descriptor is free, and the error would repeat at once.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A connected socket.
pub trait Stream: From<OwnedFd> + AsFd + Send + Sync + 'static {}

impl<S: From<OwnedFd> + AsFd + Send + Sync + 'static> Stream for S {}

/// Serves the clients of a protocol.
pub trait Service<S>: Send + Sync + 'static {
    /// In the log, and of the threads.
    const NAME: &'static str;

    /// Serves one client, on the client's own thread.
    fn serve(&self, stream: &S) -> io::Result<()>;

    /// Sends a client over the limit the reason why it is closed. Runs on the acceptor's thread: it must not block for long.
    fn refuse(&self, stream: &S);
}

/// A listening socket with its clients.
pub struct Listener<S: Stream> {
    acceptor: Option<Worker>,
    clients: Arc<Clients<S>>,
}

impl<S: Stream> Listener<S> {
    /// Accepts up to `limit` clients at once from `socket`, which listens.
    ///
    /// # Errors
    /// If the acceptor's thread can't be started.
    pub fn start<H: Service<S>>(socket: OwnedFd, limit: usize, service: H) -> Result<Listener<S>> {
        // A client may be gone between poll and accept.
        rustix::io::ioctl_fionbio(&socket, true)
            .context("make the listening socket non-blocking")?;
        let clients = Arc::new(Clients {
            open: Mutex::default(),
            limit,
        });
        let (service, accepted) = (Arc::new(service), clients.clone());
        let acceptor = Worker::spawn(H::NAME, move |sleeper| {
            accept_all(&sleeper, &socket, &accepted, &service);
        })?;
        Ok(Listener {
            acceptor: Some(acceptor),
            clients,
        })
    }

    #[cfg(test)]
    pub fn open_clients(&self) -> Vec<Arc<S>> {
        self.clients.open().streams.values().cloned().collect()
    }
}

impl<S: Stream> Drop for Listener<S> {
    fn drop(&mut self) {
        // First the acceptor, so that no client is added while they are closed.
        self.acceptor = None;
        for stream in self.clients.open().streams.values() {
            // It may be closed already.
            let _ = rustix::net::shutdown(&**stream, Shutdown::Both);
        }
    }
}

/// The open connections, so that they can be counted and closed.
struct Clients<S> {
    open: Mutex<Open<S>>,
    limit: usize,
}

struct Open<S> {
    streams: BTreeMap<u64, Arc<S>>,
    next: u64,
}

impl<S> Default for Open<S> {
    fn default() -> Self {
        Open {
            streams: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<S> Clients<S> {
    fn open(&self) -> MutexGuard<'_, Open<S>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` at the limit.
    fn add(self: &Arc<Self>, stream: &Arc<S>) -> Option<ClientSlot<S>> {
        let mut open = self.open();
        if open.streams.len() >= self.limit {
            return None;
        }
        let id = open.next;
        open.next += 1;
        open.streams.insert(id, stream.clone());
        Some(ClientSlot {
            id,
            clients: self.clone(),
        })
    }
}

/// One of the connections below the limit; free again when dropped, also by a panic of the client's thread.
struct ClientSlot<S> {
    id: u64,
    clients: Arc<Clients<S>>,
}

impl<S> Drop for ClientSlot<S> {
    fn drop(&mut self) {
        self.clients.open().streams.remove(&self.id);
    }
}

fn accept_all<S: Stream, H: Service<S>>(
    sleeper: &Sleeper,
    socket: &OwnedFd,
    clients: &Arc<Clients<S>>,
    service: &Arc<H>,
) {
    while sleeper.sleep(Some(socket.as_fd()), None) != Wake::Stopped {
        match rustix::net::accept_with(socket, SocketFlags::CLOEXEC) {
            Ok(stream) => admit(Arc::new(S::from(stream)), clients, service),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => {
                log::warn!("{}: accept a client: {error}", H::NAME);
                sleeper.sleep(None, Some(ACCEPT_BACKOFF));
            }
        }
    }
}

fn admit<S: Stream, H: Service<S>>(stream: Arc<S>, clients: &Arc<Clients<S>>, service: &Arc<H>) {
    let Some(slot) = clients.add(&stream) else {
        return service.refuse(&stream);
    };
    let service = service.clone();
    let thread = thread::Builder::new()
        .name(format!("{}-client", H::NAME))
        .spawn(move || {
            let _slot = slot;
            if let Err(error) = service.serve(&stream) {
                log::debug!("{}: a client is gone: {error}", H::NAME);
            }
        });
    if let Err(error) = thread {
        log::warn!("{}: a client is closed: no thread for it: {error}", H::NAME);
    }
}

/// The time until `deadline`, as a socket's timeout.
///
/// # Errors
/// `TimedOut` if it is over: a timeout of zero would wait for ever.
pub fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}
