//! The messages of sock_diag: requests to bytes, and bytes to sockets (`linux/inet_diag.h`, `linux/sock_diag.h`).

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::socket::{ID, Socket, SocketId};
use crate::model::protocol::Protocol;
use crate::net::netlink::{Reply, address, attributes};

pub const AF_INET: u8 = libc::AF_INET as u8;
pub const AF_INET6: u8 = libc::AF_INET6 as u8;

/// Attributes of a request.
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;

/// Attributes of a reply.
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;

/// The instruction that compares a socket's peer.
const INET_DIAG_BC_D_COND: u8 = 8;

/// The states of a socket with a peer, as bits (`net/tcp_states.h`): established, SYN sent, FIN wait 1 and 2, close wait, last
/// ACK, closing. Half-open ones are the servers', and those in time wait have no storage any more.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Offsets in `struct inet_diag_msg`, and its size.
mod offset {
    use std::ops::Range;

    pub const FAMILY: usize = 0;
    pub const STATE: usize = 1;
    pub const ID: Range<usize> = 4..52;
    pub const UID: Range<usize> = 64..68;
    pub const INODE: Range<usize> = 68..72;
    pub const END: usize = 72;

    /// In `struct inet_diag_sockid`.
    pub mod id {
        use std::ops::Range;

        pub const LOCAL_PORT: Range<usize> = 0..2;
        pub const PEER_PORT: Range<usize> = 2..4;
        pub const LOCAL: usize = 4;
        pub const PEER: usize = 20;
        pub const COOKIE_LOW: Range<usize> = 40..44;
        pub const COOKIE_HIGH: Range<usize> = 44..48;
    }
}

/// The body of a request for the connected sockets of a family, with their values in the map that this process has open by this
/// number.
pub fn list(family: u8, protocol: Protocol, map: u32, peer: Option<SocketAddr>) -> Vec<u8> {
    let mut body = header(family, protocol, CONNECTED, &[0; ID]);
    if let Some(peer) = peer {
        put(&mut body, INET_DIAG_REQ_BYTECODE, &is_connected_to(peer));
    }
    let mut storages = Vec::new();
    let of_map = SK_DIAG_BPF_STORAGE_REQ_MAP_FD;
    put(&mut storages, of_map, &map.to_ne_bytes());
    put(&mut body, INET_DIAG_REQ_SK_BPF_STORAGES, &storages);
    body
}

/// The body of a request to end a socket.
pub fn destroy(protocol: Protocol, id: &SocketId) -> Vec<u8> {
    header(id.family, protocol, CONNECTED, &id.bytes)
}

/// `struct inet_diag_req_v2`.
fn header(family: u8, protocol: Protocol, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut header = vec![family, protocol.number(), 0, 0];
    header.extend_from_slice(&states.to_ne_bytes());
    header.extend_from_slice(id);
    header
}

/// Appends an attribute, padded to four bytes.
fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// A filter of one `struct inet_diag_bc_op`, with `struct inet_diag_hostcond` as its argument. The jump to four bytes past the
/// end means no.
fn is_connected_to(peer: SocketAddr) -> Vec<u8> {
    let (family, address) = match peer.ip() {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    let length = (12 + address.len()) as u8;
    let mut filter = vec![INET_DIAG_BC_D_COND, length];
    filter.extend_from_slice(&u16::from(length + 4).to_ne_bytes());
    filter.extend_from_slice(&[family, 8 * address.len() as u8, 0, 0]);
    filter.extend_from_slice(&i32::from(peer.port()).to_ne_bytes());
    filter.extend_from_slice(&address);
    filter
}

/// `None`: the reply is cut.
pub fn read(protocol: Protocol, reply: &Reply) -> Option<Socket> {
    let body = &reply.body;
    let storage = reply
        .attributes(offset::END)
        .find(|(kind, _)| *kind == INET_DIAG_SK_BPF_STORAGES)
        .and_then(|(_, storages)| find(storages, SK_DIAG_BPF_STORAGE))
        .and_then(|storage| find(storage, SK_DIAG_BPF_STORAGE_MAP_VALUE));
    let id = SocketId {
        family: *body.get(offset::FAMILY)?,
        bytes: body.get(offset::ID)?.try_into().ok()?,
    };
    Some(Socket {
        protocol,
        local: id.address(offset::id::LOCAL, offset::id::LOCAL_PORT)?,
        peer: id.address(offset::id::PEER, offset::id::PEER_PORT)?,
        state: *body.get(offset::STATE)?,
        cookie: id.cookie()?,
        inode: number(body, offset::INODE)?,
        uid: number(body, offset::UID)?,
        storage: storage.map(<[u8]>::to_vec),
        id,
    })
}

impl SocketId {
    fn address(&self, at: usize, port: Range<usize>) -> Option<SocketAddr> {
        let length = if self.family == AF_INET { 4 } else { 16 };
        let address: IpAddr = address(self.bytes.get(at..at + length)?)?;
        let port = self.bytes.get(port)?.try_into().ok()?;
        Some(SocketAddr::new(
            address.to_canonical(),
            u16::from_be_bytes(port),
        ))
    }

    /// Two words, the lower one first (`sock_diag_save_cookie()`).
    fn cookie(&self) -> Option<u64> {
        let low = number(&self.bytes, offset::id::COOKIE_LOW)?;
        let high = number(&self.bytes, offset::id::COOKIE_HIGH)?;
        Some(u64::from(high) << 32 | u64::from(low))
    }
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

fn number(bytes: &[u8], at: Range<usize>) -> Option<u32> {
    bytes.get(at)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NLA_F_NESTED` of `linux/netlink.h`, which the kernel sets.
    const NESTED: u16 = 1 << 15;

    /// A reply about a socket with these addresses, and attributes.
    fn reply(family: u8, local: &[u8], peer: &[u8], more: &[u8]) -> Reply {
        let mut id = Vec::new();
        id.extend_from_slice(&40000_u16.to_be_bytes());
        id.extend_from_slice(&443_u16.to_be_bytes());
        for address in [local, peer] {
            id.extend_from_slice(address);
            id.resize(id.len() + 16 - address.len(), 0);
        }
        for number in [7_u32, 0x89ab_cdef, 0x0123_4567] {
            id.extend_from_slice(&number.to_ne_bytes());
        }
        assert_eq!(id.len(), ID);
        let mut body = vec![family, 1, 0, 0];
        body.extend_from_slice(&id);
        for number in [0_u32, 0, 0, 1000, 7101] {
            body.extend_from_slice(&number.to_ne_bytes());
        }
        assert_eq!(body.len(), offset::END);
        body.extend_from_slice(more);
        Reply { body }
    }

    /// As the kernel sends the value of a map.
    fn storages(value: &[u8]) -> Vec<u8> {
        let (mut storage, mut storages, mut all) = (Vec::new(), Vec::new(), Vec::new());
        put(&mut storage, 2, &9_u32.to_ne_bytes()); // the map's id
        put(&mut storage, 1, &[]); // padding
        put(&mut storage, SK_DIAG_BPF_STORAGE_MAP_VALUE, value);
        put(&mut storages, SK_DIAG_BPF_STORAGE | NESTED, &storage);
        put(&mut all, 8, &[0]); // another attribute: what was shut down
        put(&mut all, INET_DIAG_SK_BPF_STORAGES | NESTED, &storages);
        all
    }

    #[test]
    fn a_socket_is_read_with_its_storage() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
        let mut ipv6 = [0; 16];
        ipv6[0] = 0x20;
        let rows: [(&str, u8, &[u8], &str, &str); 3] = [
            (
                "IPv4",
                AF_INET,
                &[192, 0, 2, 1],
                "192.0.2.1:40000",
                "192.0.2.1:443",
            ),
            (
                "v4-mapped",
                AF_INET6,
                &mapped,
                "192.0.2.1:40000",
                "192.0.2.1:443",
            ),
            ("IPv6", AF_INET6, &ipv6, "[2000::]:40000", "[2000::]:443"),
        ];
        for (what, family, address, local, peer) in rows {
            let reply = reply(family, address, address, &storages(b"value"));
            let socket = read(Protocol::Tcp, &reply).expect(what);
            assert_eq!(socket.local.to_string(), local, "{what}");
            assert_eq!(socket.peer.to_string(), peer, "{what}");
            assert_eq!((socket.state, socket.uid, socket.inode), (1, 1000, 7101));
            assert_eq!(socket.cookie, 0x0123_4567_89ab_cdef, "{what}");
            assert_eq!(socket.storage.as_deref(), Some(&b"value"[..]), "{what}");
            let destroy = destroy(Protocol::Tcp, &socket.id);
            assert_eq!(destroy[..2], [family, 6], "{what}");
            assert_eq!(
                destroy[8..],
                reply.body[offset::ID],
                "{what}: all of its id"
            );
        }
    }

    #[test]
    fn a_socket_without_storage_has_none_and_what_is_cut_is_none() {
        let mut other = Vec::new();
        put(&mut other, 8, &[0]);
        let address = [192, 0, 2, 1];
        let whole = reply(AF_INET, &address, &address, &storages(b"value"));
        let cut = |length: usize| Reply {
            body: whole.body[..length].to_vec(),
        };
        let rows = [
            (
                "no attribute",
                reply(AF_INET, &address, &address, &[]),
                true,
            ),
            (
                "another one",
                reply(AF_INET, &address, &address, &other),
                true,
            ),
            ("cut in its storage", cut(whole.body.len() - 4), true),
            ("cut in its head", cut(offset::END - 1), false),
            ("cut in its addresses", cut(20), false),
            ("nothing", cut(0), false),
        ];
        for (what, reply, is_read) in rows {
            let socket = read(Protocol::Udp, &reply);
            assert_eq!(socket.is_some(), is_read, "{what}");
            assert_eq!(socket.and_then(|socket| socket.storage), None, "{what}");
        }
    }

    #[test]
    fn a_request_has_the_map_and_the_peer() {
        let without = list(AF_INET, Protocol::Udp, 5, None);
        assert_eq!(without[..4], [AF_INET, 17, 0, 0]);
        assert_eq!(without[4..8], CONNECTED.to_ne_bytes());
        assert_eq!(without[8..56], [0; ID]);
        let map = [
            &8_u16.to_ne_bytes()[..],
            &1_u16.to_ne_bytes(),
            &5_u32.to_ne_bytes(),
        ]
        .concat();
        let map = [&12_u16.to_ne_bytes()[..], &2_u16.to_ne_bytes(), &map].concat();
        assert_eq!(without[56..], map);
        for (peer, length) in [("192.0.2.1:80", 16_u8), ("[2001:db8::1]:80", 28)] {
            let with = list(AF_INET6, Protocol::Tcp, 5, Some(peer.parse().unwrap()));
            let filter = &with[60..60 + usize::from(length)];
            assert_eq!(filter[..2], [INET_DIAG_BC_D_COND, length], "{peer}");
            assert_eq!(filter[2..4], u16::from(length + 4).to_ne_bytes(), "{peer}");
            assert_eq!(filter[8..12], 80_i32.to_ne_bytes(), "{peer}");
            assert_eq!(with[60 + usize::from(length)..], map, "{peer}");
        }
    }
}
