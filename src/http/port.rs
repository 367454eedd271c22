//! A port of this host that is ours, also while we move from one address to another.

use std::io;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening port on which nobody need be answered yet.
#[derive(Debug)]
pub struct Port {
    pub(super) listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Takes a port. An address that the host does not have yet, as while it boots, is taken ahead, and that is said.
    ///
    /// # Errors
    /// If it is taken.
    pub fn open(address: SocketAddr) -> Result<Port> {
        bind(address, false).with_context(|| format!("listen at {address}"))
    }

    /// Takes another port while we keep this one. They may overlap, as one address and all addresses do with the same
    /// port.
    ///
    /// # Errors
    /// If the other port is taken by somebody else.
    pub fn open_beside(&self, address: SocketAddr) -> Result<Port> {
        if address.port() != self.address.port() {
            return Port::open(address);
        }
        // Sockets of one user share a port if all of them agree to. Others than we two shall not: so for a moment only.
        sockopt::set_socket_reuseport(&self.listener, true).context("share the port")?;
        let opened = bind(address, true);
        sockopt::set_socket_reuseport(&self.listener, false).context("end sharing the port")?;
        opened.with_context(|| format!("listen at {address}"))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same port once more: it closes with the last of them.
    pub(super) fn copy(&self) -> io::Result<Port> {
        Ok(Port {
            listener: self.listener.try_clone()?,
            address: self.address,
        })
    }
}

fn bind(address: SocketAddr, is_shared: bool) -> io::Result<Port> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A daemon that was just ended has left connections in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, is_shared)?;
    match rustix::net::bind(&socket, &address) {
        Err(Errno::ADDRNOTAVAIL) => bind_ahead(&socket, address)?,
        bound => bound?,
    }
    rustix::net::listen(&socket, BACKLOG)?;
    sockopt::set_socket_reuseport(&socket, false)?;
    let listener = TcpListener::from(socket);
    Ok(Port {
        address: listener.local_addr()?,
        listener,
    })
}

/// Not at the first try: whoever has the address need not be told anything.
fn bind_ahead(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(socket, true)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(socket, true)?,
    }
    rustix::net::bind(socket, &address)?;
    let ip = address.ip();
    log::warn!("this host does not have the address {ip}: nobody reaches {address} until it has");
    Ok(())
}
