//! Serves HTTP requests at a port: one request for each connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::port::Port;
use super::request;
use super::response::{Response, Status};
use crate::listener::{Listener, Service, time_left};

/// How long a client that has its response may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a client over the limit may hold up the acceptor.
const REFUSE_TIMEOUT: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; one more gets a 503 and is closed.
    pub connections: usize,
    /// How long a client may take to send its request.
    pub request_timeout: Duration,
    /// How long it may take to read the response.
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

/// A port that is served. Dropping it closes the port and every connection.
pub struct Server {
    port: Port,
    _listener: Listener<TcpStream>,
}

impl Server {
    /// Serves a port: `respond` is called with the path of each GET, from several threads at once.
    ///
    /// # Errors
    /// If the acceptor's thread can't be started.
    pub fn start(
        port: Port,
        limits: Limits,
        respond: impl Fn(&str) -> Response + Send + Sync + 'static,
    ) -> Result<Server> {
        let socket = port.socket().context("copy the listening socket")?;
        let pages = Pages { limits, respond };
        Ok(Server {
            port,
            _listener: Listener::start(socket, limits.connections, pages)?,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Opens another port while this one is still served: see [`Port::open_while_held`].
    ///
    /// # Errors
    /// If the other port can't be opened.
    pub fn open_port(&self, address: SocketAddr) -> Result<Port> {
        self.port.open_while_held(address)
    }

    #[cfg(test)]
    pub(super) fn open_connections(&self) -> usize {
        self._listener.open_clients().len()
    }
}

struct Pages<R> {
    limits: Limits,
    respond: R,
}

impl<R: Fn(&str) -> Response + Send + Sync + 'static> Service<TcpStream> for Pages<R> {
    const NAME: &'static str = "http";

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let (response, is_head) = match request::read(stream, self.limits.request_timeout)? {
            Ok(request) => ((self.respond)(&request.path), request.is_head),
            Err(refusal) => (refusal, false),
        };
        send(stream, &response, is_head, self.limits.response_timeout)?;
        stream.shutdown(Shutdown::Write)?;
        stream.set_read_timeout(Some(CLOSE_TIMEOUT))?;
        drain_request(stream);
        Ok(())
    }

    fn refuse(&self, stream: &TcpStream) {
        let refusal = Response::text(Status::Busy, "too many connections: try again later");
        // A new connection's send buffer is empty, and its request is read only as far as it has arrived.
        let _ = send(stream, &refusal, false, REFUSE_TIMEOUT);
        let _ = stream.set_nonblocking(true);
        drain_request(stream);
    }
}

/// Reads what the client still sends: closing with unread data sends a reset, which could cost the client its response.
fn drain_request(mut stream: &TcpStream) {
    let mut chunk = [0; 4096];
    for _ in 0..16 {
        if !stream.read(&mut chunk).is_ok_and(|length| length > 0) {
            return;
        }
    }
}

/// Writes the response, however slowly it is read, until the time is over.
fn send(
    mut stream: &TcpStream,
    response: &Response,
    is_head: bool,
    timeout: Duration,
) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut bytes = response.head().into_bytes();
    if !is_head {
        bytes.extend_from_slice(&response.body);
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        stream.set_write_timeout(Some(time_left(deadline)?))?;
        match stream.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => rest = &rest[length..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
