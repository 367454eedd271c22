//! Accepts clients of a listening socket, each on a thread of its own, up to a limit. Dropping it closes them all.
//!
//! ```text
//!   acceptor (Worker): poll ─► accept ─┬─ below the limit ──────────────────────────────┬─► ClientSlot ─► thread: serve
//!                                      └─ at the limit: close the one that is waited for ┘
//!                                         longest; while none is, try again
//! ```

mod clients;

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{SendFlags, SocketFlags};

pub use clients::{Client, Clients};

use crate::worker::{Sleeper, Wake, Worker};

/// After a failed accept: most likely no file descriptor is free, and the error would repeat at once.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How often a client is tried again while the table is full of clients that are being served.
const ADMIT_RETRY: Duration = Duration::from_millis(1);
/// How long a client may read a response before it can be closed for a new one.
const READ_PATIENCE: Duration = Duration::from_millis(100);

/// A connected socket.
pub trait Stream: From<OwnedFd> + AsFd + Send + Sync + 'static {}

impl<S: From<OwnedFd> + AsFd + Send + Sync + 'static> Stream for S {}

/// Serves the clients of a protocol.
pub trait Service<S>: Send + Sync + 'static {
    /// In the log, and of the threads.
    const NAME: &'static str;

    /// Serves one client, on the client's own thread. It marks when it waits for the client ([`Client::wait`]): before that
    /// the client can't be closed for a new one.
    fn serve(&self, client: &Arc<Client<S>>) -> io::Result<()>;
}

/// A listening socket with its clients.
pub struct Listener<S: Stream> {
    acceptor: Option<Worker>,
    clients: Arc<Clients<S>>,
}

impl<S: Stream> Listener<S> {
    /// Accepts clients from `socket`, which listens. At `limit`, one that keeps the server waiting is closed for a new one.
    ///
    /// # Errors
    /// If the acceptor's thread can't be started.
    pub fn start<H: Service<S>>(socket: OwnedFd, limit: usize, service: H) -> Result<Listener<S>> {
        // A client may be gone between poll and accept.
        rustix::io::ioctl_fionbio(&socket, true)
            .context("make the listening socket non-blocking")?;
        let clients = Clients::new(limit);
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
    pub fn open_clients(&self) -> Vec<Arc<Client<S>>> {
        self.clients.all()
    }
}

impl<S: Stream> Drop for Listener<S> {
    fn drop(&mut self) {
        // First the acceptor, so that no client is added while they are closed.
        self.acceptor = None;
        for client in self.clients.all() {
            client.close();
        }
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
            Ok(stream) => admit(sleeper, Client::new(S::from(stream)), clients, service),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => {
                log::warn!("{}: accept a client: {error}", H::NAME);
                sleeper.sleep(None, Some(ACCEPT_BACKOFF));
            }
        }
    }
}

fn admit<S: Stream, H: Service<S>>(
    sleeper: &Sleeper,
    client: Arc<Client<S>>,
    clients: &Arc<Clients<S>>,
    service: &Arc<H>,
) {
    let slot = loop {
        if let Some(slot) = clients.add(&client) {
            break slot;
        }
        // All are being served, which takes a moment: others queue in the kernel meanwhile.
        if sleeper.sleep(None, Some(ADMIT_RETRY)) == Wake::Stopped {
            return;
        }
    };
    let service = service.clone();
    let thread = thread::Builder::new()
        .name(format!("{}-client", H::NAME))
        .spawn(move || {
            let _slot = slot;
            if let Err(error) = service.serve(&client) {
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

/// Writes all of it, however slowly it is read, until the time is over. The client is not closed for a new one while
/// its socket takes the bytes at once, nor for [`READ_PATIENCE`] after that.
///
/// # Errors
/// If the client does not read it in time, or is gone.
pub fn write_until<S: Stream>(
    client: &Client<S>,
    bytes: &[u8],
    deadline: Instant,
) -> io::Result<()> {
    let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let mut rest = bytes;
    while !rest.is_empty() {
        let left = time_left(deadline)?;
        sockopt::set_socket_timeout(client.stream(), Timeout::Send, Some(left))?;
        match rustix::net::send(client.stream(), rest, flags) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => rest = &rest[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if flags.contains(SendFlags::DONTWAIT) => {
                client.wait(READ_PATIENCE);
                flags = SendFlags::NOSIGNAL;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
