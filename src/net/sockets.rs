//! The sockets of the host that wait for anybody: TCP listeners, and UDP sockets without a peer.
//!
//! They are read from `/proc/net`: a kernel may be built without the netlink protocol that lists sockets.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::protocol::Protocol;
use crate::model::service::Frontend;

/// The tables, and the state of the sockets that wait for anybody (`net/tcp_states.h`): a UDP socket without a peer counts as
/// closed.
const TABLES: [(&str, Protocol, &str); 4] = [
    ("tcp", Protocol::Tcp, "0A"),
    ("tcp6", Protocol::Tcp, "0A"),
    ("udp", Protocol::Udp, "07"),
    ("udp6", Protocol::Udp, "07"),
];

/// A socket that waits for anybody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    pub protocol: Protocol,
    /// Unspecified: every address of the host, of IPv6 usually those of IPv4 too.
    pub address: IpAddr,
    pub port: u16,
    /// The socket's number, by which the processes that have it are found.
    pub inode: u64,
}

impl Listener {
    /// Whether it receives what is sent to an address of the host.
    pub fn receives(&self, frontend: &Frontend) -> bool {
        let is_address = match self.address {
            address if !address.is_unspecified() => address == frontend.address,
            IpAddr::V4(_) => frontend.address.is_ipv4(),
            IpAddr::V6(_) => true,
        };
        is_address && self.port == frontend.port && self.protocol == frontend.protocol
    }
}

/// The sockets of the calling thread's network namespace. Needs no privilege. A table that this kernel does not have is empty.
pub fn list_listeners() -> BTreeSet<Listener> {
    let mut listeners = BTreeSet::new();
    for (table, protocol, state) in TABLES {
        let path = format!("/proc/thread-self/net/{table}");
        let read = File::open(&path).and_then(|file| read(BufReader::new(file), protocol, state));
        match read {
            Ok(found) => listeners.extend(found),
            Err(error) => log::debug!("read {path}: {error}"),
        }
    }
    listeners
}

/// The sockets of a table in this state. Those of TCP come first: connections, of which there may be a million, are not read.
fn read(table: impl BufRead, protocol: Protocol, state: &str) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for line in table.lines().skip(1) {
        let line = line?;
        let mut words = line.split_whitespace();
        let (local, of, inode) = (words.nth(1), words.nth(1), words.nth(5));
        if of == Some(state) {
            let local = local.and_then(socket_address);
            let inode = inode.and_then(|inode| inode.parse().ok());
            listeners.extend(local.map(|(address, port)| Listener {
                protocol,
                address,
                port,
                inode: inode.unwrap_or_default(),
            }));
        } else if protocol == Protocol::Tcp {
            break;
        }
    }
    Ok(listeners)
}

/// `0100007F:0035`: words of 32 bits in the CPU's byte order, then the port.
fn socket_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = address.get(at..at + 8)?;
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    };
    let address = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        _ => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        }
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn sockets_are_read_up_to_the_first_connection() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7101 1\n\
                     1: 010200C0:1F90 020200C0:C350 01 00000000:00000000 00:00000000 00000000     0        0 7102 1\n\
                     2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7103 1\n";
        let found = |protocol, state| {
            let found = read(table.as_bytes(), protocol, state).unwrap();
            let text = |l: &Listener| format!("{} {} {}", l.address, l.port, l.inode);
            found.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(found(Protocol::Tcp, "0A"), ["127.0.0.1 53 7101"]);
        assert_eq!(
            found(Protocol::Udp, "0A"),
            ["127.0.0.1 53 7101", "0.0.0.0 22 7103"]
        );
        let rows = [
            ("00000000:0050", Some("0.0.0.0 80")),
            ("00000000000000000000000000000000:01BB", Some(":: 443")),
            (
                "B80D0120000000000000000001000000:0050",
                Some("2001:db8::1 80"),
            ),
            (
                "0000000000000000FFFF0000010200C0:0050",
                Some("192.0.2.1 80"),
            ),
            ("0000:0050", None),
            ("00000000", None),
        ];
        for (text, expected) in rows {
            let found = socket_address(text).map(|(address, port)| format!("{address} {port}"));
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
