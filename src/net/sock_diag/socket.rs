//! A socket as sock_diag shows it.

use std::net::SocketAddr;

use crate::model::protocol::Protocol;

/// Bytes of `struct inet_diag_sockid` (`linux/inet_diag.h`).
pub const ID: usize = 48;

/// A connected socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    pub protocol: Protocol,
    /// v4-mapped addresses are IPv4.
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// As the kernel numbers them (`net/tcp_states.h`). 1 is established; a UDP socket with a peer is.
    pub state: u8,
    /// The socket's own number: `bpf_get_socket_cookie()`.
    pub cookie: u64,
    /// 0: no process has it open any more.
    pub inode: u32,
    pub uid: u32,
    /// The value that the map has for it. Always `None` of UDP: the kernel sends no storage of its sockets
    /// (`inet_sk_diag_fill()`), up to Linux 6.18 at least.
    pub storage: Option<Vec<u8>>,
    pub(super) id: SocketId,
}

impl Socket {
    /// Whether both sides have ended their half of the connection.
    pub fn is_closing(&self) -> bool {
        /// `TCP_LAST_ACK`, `TCP_CLOSING` (`net/tcp_states.h`).
        const ENDED: [u8; 2] = [9, 11];
        ENDED.contains(&self.state)
    }
}

/// What the kernel finds a socket by: family, addresses, ports, interface and cookie, as it has sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketId {
    pub(super) family: u8,
    pub(super) bytes: [u8; ID],
}
