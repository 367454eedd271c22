//! Accepts clients on a port and answers each from a thread of its own.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::port::Port;
use super::{Response, Status, request};

/// How long a client that has its answer may take to close.
const HEAR_OUT: Duration = Duration::from_millis(500);

/// What one server allows itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; one more is told so and closed.
    pub connections: usize,
    /// How long a client may take to ask.
    pub request_timeout: Duration,
    /// How long it may take to read the answer.
    pub response_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 16,
            request_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(20),
        }
    }
}

/// A port that is answered. Dropping it closes the port and every connection.
pub struct Server {
    port: Port,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    clients: Mutex<Clients>,
    limits: Limits,
    respond: Box<dyn Fn(&str) -> Response + Send + Sync>,
}

/// The open connections, so that they can be counted and closed.
#[derive(Default)]
struct Clients {
    open: BTreeMap<u64, Arc<TcpStream>>,
    next: u64,
    is_closing: bool,
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Answers at a port from threads of its own: `respond` is asked with the path of each GET, by several threads at
    /// once.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(
        port: Port,
        limits: Limits,
        respond: impl Fn(&str) -> Response + Send + Sync + 'static,
    ) -> Result<Server> {
        let shared = Arc::new(Shared {
            clients: Mutex::default(),
            limits,
            respond: Box::new(respond),
        });
        let acceptor = {
            let port = port.copy().context("copy the listening socket")?;
            let shared = shared.clone();
            thread::Builder::new()
                .name("http".to_owned())
                .spawn(move || accept(&port.listener, &shared))
                .context("start the thread that accepts HTTP clients")?
        };
        Ok(Server {
            port,
            shared,
            acceptor: Some(acceptor),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Takes another port while this one is still answered: see [`Port::open_beside`].
    ///
    /// # Errors
    /// If the other port can't be had.
    pub fn open_beside(&self, address: SocketAddr) -> Result<Port> {
        self.port.open_beside(address)
    }
}

#[cfg(test)]
impl Server {
    pub(super) fn open_connections(&self) -> usize {
        self.shared.clients().open.len()
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
        // On Linux this ends a waiting accept, and the port is free from here on.
        let _ = rustix::net::shutdown(&self.port.listener, rustix::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.clients().is_closing {
            return;
        }
        match stream {
            Ok(stream) => admit(Arc::new(stream), shared),
            Err(error) => {
                log::warn!("an HTTP client could not be accepted: {error}");
                // Most likely no file descriptor is free, and the error would come again at once.
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn admit(stream: Arc<TcpStream>, shared: &Arc<Shared>) {
    let Some(client) = register(&stream, shared) else {
        let refusal = Response::text(Status::Busy, "too many connections: ask again later");
        // Nobody is waited for here: a new connection's buffer is empty, and what it asks is read only if it is there.
        let _ = send(&stream, &refusal, false, Duration::from_millis(100));
        let _ = stream.set_nonblocking(true);
        drain_request(&stream);
        return;
    };
    let thread = thread::Builder::new()
        .name("http-client".to_owned())
        .spawn(move || {
            if let Err(error) = serve(&stream, &client.shared) {
                log::debug!("an HTTP client has gone: {error}");
            }
        });
    if let Err(error) = thread {
        log::warn!("an HTTP client is turned away: no thread for it: {error}");
    }
}

/// A client's place among the open connections, given back however its thread ends.
struct Client {
    id: u64,
    shared: Arc<Shared>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.clients().open.remove(&self.id);
    }
}

/// The new client's place, if there is one.
fn register(stream: &Arc<TcpStream>, shared: &Arc<Shared>) -> Option<Client> {
    let mut clients = shared.clients();
    if clients.is_closing || clients.open.len() >= shared.limits.connections {
        return None;
    }
    let id = clients.next;
    clients.next += 1;
    clients.open.insert(id, stream.clone());
    Some(Client {
        id,
        shared: shared.clone(),
    })
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let (response, is_head) = match request::read(stream, shared.limits.request_timeout)? {
        Ok(request) => ((shared.respond)(&request.path), request.is_head),
        Err(refusal) => (refusal, false),
    };
    send(stream, &response, is_head, shared.limits.response_timeout)?;
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(HEAR_OUT))?;
    drain_request(stream);
    Ok(())
}

/// Reads what the client still sends: unread, it would turn the end into a reset, which could cost it the answer.
fn drain_request(mut stream: &TcpStream) {
    let mut chunk = [0; 4096];
    for _ in 0..16 {
        if !stream.read(&mut chunk).is_ok_and(|length| length > 0) {
            return;
        }
    }
}

/// Writes the answer, however slowly it is read, until the patience ends.
fn send(
    mut stream: &TcpStream,
    response: &Response,
    is_head: bool,
    patience: Duration,
) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    let mut bytes = response.head().into_bytes();
    if !is_head {
        bytes.extend_from_slice(&response.body);
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => rest = &rest[length..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
