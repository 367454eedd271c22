//! The host's connected sockets by netlink (sock_diag), with what programs have stored with them: listing them, and ending one.

mod message;
mod socket;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::netlink::{Netlink, Request};
use crate::model::protocol::Protocol;

pub use self::socket::Socket;

/// `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// Why sockets can't be listed or ended.
#[derive(Debug)]
pub enum SockDiagError {
    /// The kernel is built without it: the option that is missing.
    Unsupported(&'static str),
    /// What was done, and the kernel's error.
    Refused(String, io::Error),
}

impl fmt::Display for SockDiagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SockDiagError::Unsupported(option) => {
                write!(f, "this kernel is built without {option}")
            }
            SockDiagError::Refused(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for SockDiagError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SockDiagError::Unsupported(_) => None,
            SockDiagError::Refused(_, error) => Some(error),
        }
    }
}

/// Requests about the sockets of one network namespace.
pub struct SockDiag(Netlink);

impl SockDiag {
    /// Opens it for the network namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn open() -> Result<SockDiag, SockDiagError> {
        let netlink = Netlink::open(NETLINK_SOCK_DIAG);
        let netlink = netlink.map_err(|error| refused("open a sock_diag socket", error))?;
        Ok(SockDiag(netlink))
    }

    /// Passes to `visit` each connected TCP socket that has a value in `map`, which is of type `BPF_MAP_TYPE_SK_STORAGE`, and
    /// each connected UDP socket; with `peer`, only those that are connected to it. One that connects or closes meanwhile may be
    /// missing, and one that changes its state may come twice.
    ///
    /// The kernel sends the TCP sockets without a value as well. None is kept.
    ///
    /// # Errors
    /// Without CAP_BPF, if the map is of another type, or if the kernel does not list sockets of a protocol.
    pub fn list(
        &mut self,
        map: impl AsFd,
        peer: Option<SocketAddr>,
        mut visit: impl FnMut(Socket),
    ) -> Result<(), SockDiagError> {
        let map = map.as_fd().as_raw_fd().cast_unsigned();
        for (protocol, option) in [
            (Protocol::Tcp, "CONFIG_INET_TCP_DIAG"),
            (Protocol::Udp, "CONFIG_INET_UDP_DIAG"),
        ] {
            for family in families(peer) {
                let request = Request {
                    kind: SOCK_DIAG_BY_FAMILY,
                    body: message::list(family, protocol, map, peer),
                };
                let listed = self.0.visit(request, |reply| {
                    let socket = message::read(protocol, &reply);
                    let is_wanted =
                        |socket: &Socket| protocol == Protocol::Udp || socket.storage.is_some();
                    if let Some(socket) = socket.filter(is_wanted) {
                        visit(socket);
                    }
                });
                listed.map_err(|error| match error.raw_os_error() {
                    // There is no handler for the protocol (inet_diag_lock_handler()).
                    Some(libc::ENOENT) => SockDiagError::Unsupported(option),
                    _ => refused(&format!("list the host's sockets of {protocol}"), error),
                })?;
            }
        }
        Ok(())
    }

    /// Ends a socket: a program that waits for it gets ECONNABORTED, and a TCP peer a reset. Returns whether it was there. Another
    /// socket that has its addresses meanwhile is left alone.
    ///
    /// # Errors
    /// If the kernel can't end sockets, or without CAP_NET_ADMIN.
    pub fn destroy(&mut self, socket: &Socket) -> Result<bool, SockDiagError> {
        let request = Request {
            kind: SOCK_DESTROY,
            body: message::destroy(socket.protocol, &socket.id),
        };
        match self.0.act(request) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => Ok(false),
                Some(libc::EOPNOTSUPP) => {
                    Err(SockDiagError::Unsupported("CONFIG_INET_DIAG_DESTROY"))
                }
                _ => {
                    let (local, peer) = (socket.local, socket.peer);
                    Err(refused(&format!("end the socket {local} → {peer}"), error))
                }
            },
        }
    }
}

/// The families of sockets that may be connected to this peer: a socket of IPv6 may be to an address of IPv4.
fn families(peer: Option<SocketAddr>) -> impl Iterator<Item = u8> {
    let has_ipv6 = matches!(peer.map(|peer| peer.ip()), Some(IpAddr::V6(_)));
    let ipv4 = (!has_ipv6).then_some(message::AF_INET);
    ipv4.into_iter().chain([message::AF_INET6])
}

fn refused(what: &str, error: io::Error) -> SockDiagError {
    SockDiagError::Refused(what.to_owned(), error)
}
