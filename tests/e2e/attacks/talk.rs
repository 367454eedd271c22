//! A TCP connection with both of its ends in the test's hands.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::lab::{DEADLINE, NetnsLab};

pub struct Talk {
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Talk {
    /// Connects, and waits until the listener has accepted.
    pub fn open(lab: &NetnsLab, place: &str, to: SocketAddr, listener: &TcpListener) -> Talk {
        let client = lab.connect(place, &to.to_string());
        let client = client.unwrap_or_else(|error| panic!("{place}: {to}: {error}"));
        Talk::accepted(client, listener)
    }

    pub fn accepted(client: TcpStream, listener: &TcpListener) -> Talk {
        let (server, _) = listener.accept().expect("accept the connection");
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("no delay");
            stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        }
        Talk { client, server }
    }

    /// A few bytes there and back.
    pub fn round_trip(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4];
        self.client.write_all(b"ping")?;
        self.server.read_exact(&mut bytes)?;
        self.server.write_all(b"pong")?;
        self.client.read_exact(&mut bytes)
    }

    /// The client's own port.
    pub fn port(&self) -> u16 {
        self.client
            .local_addr()
            .expect("the client's address")
            .port()
    }
}

pub fn listen(lab: &NetnsLab, place: &str, address: SocketAddr) -> TcpListener {
    let listener = lab.within(place, || TcpListener::bind(address));
    listener.unwrap_or_else(|error| panic!("{place}: {address}: {error}"))
}

/// A connection from this address and port.
pub fn connect_from(
    lab: &NetnsLab,
    place: &str,
    from: SocketAddr,
    to: SocketAddr,
) -> io::Result<TcpStream> {
    let family = match from {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    lab.within(place, || {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        set_socket_reuseaddr(&socket, true)?;
        set_socket_timeout(&socket, Timeout::Send, Some(DEADLINE))?;
        rustix::net::bind(&socket, &from)?;
        rustix::net::connect(&socket, &to)?;
        Ok(TcpStream::from(socket))
    })
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).expect("no lingering");
}
