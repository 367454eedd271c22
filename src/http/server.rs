//! Serves HTTP requests at a port: one request for each connection.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::port::Port;
use super::request;
use super::response::Response;
use crate::listener::{Client, Listener, Service, time_left, write_until};

/// How long a client that has its response may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; for one more, the one for which the server has waited longest is closed.
    pub connections: usize,
    /// How long a client may take in all to send its request.
    pub request_timeout: Duration,
    /// How long it may take in all to read the response.
    pub response_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 32,
            request_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
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

    fn serve(&self, client: &Arc<Client<TcpStream>>) -> io::Result<()> {
        let stream = client.stream();
        client.wait(Duration::ZERO);
        let request = request::read(stream, self.limits.request_timeout)?;
        client.hold();
        let (response, is_head) = match request {
            Ok(request) => ((self.respond)(&request.path), request.is_head),
            Err(refusal) => (refusal, false),
        };
        send(client, &response, is_head, self.limits.response_timeout)?;
        client.wait(Duration::ZERO);
        stream.shutdown(Shutdown::Write)?;
        drain_request(stream)
    }
}

/// Reads what the client still sends: closing with unread data sends a reset, which could cost the client its response.
fn drain_request(mut stream: &TcpStream) -> io::Result<()> {
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    let mut chunk = [0; 4096];
    for _ in 0..16 {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        if stream.read(&mut chunk)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Writes the response, however slowly it is read, until the time is over.
fn send(
    client: &Client<TcpStream>,
    response: &Response,
    is_head: bool,
    timeout: Duration,
) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut bytes = response.head().into_bytes();
    if !is_head {
        bytes.extend_from_slice(&response.body);
    }
    write_until(client, &bytes, deadline)
}
