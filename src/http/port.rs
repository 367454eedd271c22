//! A listening TCP port, which can be opened at another address before the old one is closed.

use std::io;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 128;

/// A listening port; its clients are queued until a server accepts them.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Opens a port. An address that the host does not have yet, as during boot, is bound all the same, with a warning.
    ///
    /// # Errors
    /// If the port is in use.
    pub fn open(address: SocketAddr) -> Result<Port> {
        bind(address, false).with_context(|| format!("listen at {address}"))
    }

    /// Opens another port while this one stays open. The two may overlap, as one address and all addresses of the same
    /// port number do.
    ///
    /// # Errors
    /// If the other port is in use by another process.
    pub fn open_while_held(&self, address: SocketAddr) -> Result<Port> {
        if address.port() != self.address.port() {
            return Port::open(address);
        }
        // Sockets of one user share a port if all of them have SO_REUSEPORT: only for this call, so that no other
        // process gets in.
        sockopt::set_socket_reuseport(&self.listener, true).context("share the port")?;
        let opened = bind(address, true);
        sockopt::set_socket_reuseport(&self.listener, false).context("end sharing the port")?;
        opened.with_context(|| format!("listen at {address}"))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The listening socket once more: the port closes with the last copy.
    pub(super) fn socket(&self) -> io::Result<OwnedFd> {
        Ok(self.listener.try_clone()?.into())
    }
}

fn bind(address: SocketAddr, is_shared: bool) -> io::Result<Port> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A daemon that has just stopped leaves connections in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, is_shared)?;
    match rustix::net::bind(&socket, &address) {
        Err(Errno::ADDRNOTAVAIL) => bind_missing_address(&socket, address)?,
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

/// Only after a plain bind has failed, since it warns.
fn bind_missing_address(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(socket, true)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(socket, true)?,
    }
    rustix::net::bind(socket, &address)?;
    let ip = address.ip();
    log::warn!("this host does not have the address {ip}: {address} is unreachable until it has");
    Ok(())
}
