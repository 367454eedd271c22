//! What sockets of the host were translated to. The kernel lists the sockets; what they mean to services lies here.

use std::net::SocketAddr;

use anyhow::Result;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::bpf::abi::{self, Plain};
use crate::bpf::sys::map;
use crate::bpf::sys::pins::Pins;
use crate::bpf::tables::encode;
use crate::model::service::SocketPeer;

/// The maps of translations.
pub struct SocketPeers {
    /// Of connected sockets, in the sockets themselves.
    peers: MapHandle,
    /// Of UDP.
    flows: MapHandle,
}

impl SocketPeers {
    /// # Errors
    /// If there is no datapath, or no permission.
    pub fn open(pins: &Pins) -> Result<SocketPeers> {
        Ok(SocketPeers {
            peers: map::open(&pins.map("dpd_socket_peers"))?,
            flows: map::open(&pins.map("dpd_socket_flows"))?,
        })
    }

    /// The map whose values the kernel lists with the sockets that have one.
    pub fn storage(&self) -> &MapHandle {
        &self.peers
    }

    /// The translation in a socket's own value; `None`: it has none of its own.
    pub fn of_storage(value: &[u8]) -> Option<SocketPeer> {
        decode(value)
    }

    /// The translation of a UDP socket that is connected to this address.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn of_flow(&self, cookie: u64, connected_to: SocketAddr) -> Result<Option<SocketPeer>> {
        let key = abi::socket_flow_key {
            cookie,
            address: encode::address(connected_to.ip()),
            port: connected_to.port().to_be(),
            side: abi::socket_side::SOCKET_SIDE_BACKEND.0 as u8,
            ..Default::default()
        };
        let row = self.flows.lookup(key.as_bytes(), MapFlags::ANY)?;
        Ok(row.as_deref().and_then(decode))
    }
}

/// An empty value is of a socket that has flows alone.
fn decode(value: &[u8]) -> Option<SocketPeer> {
    let peer = abi::socket_peer::from_bytes(value.get(..size_of::<abi::socket_peer>())?)?;
    (peer.service != 0).then(|| SocketPeer {
        frontend: encode::socket(&peer.frontend, peer.frontend_port),
        backend: encode::socket(&peer.backend, peer.backend_port),
        service: peer.service,
        backend_number: peer.backend_number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_decoded_unless_it_is_empty() {
        let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
        let peer = abi::socket_peer {
            frontend: encode::address(socket("10.32.0.80:80").ip()),
            frontend_port: 80u16.to_be(),
            backend: encode::address(socket("[fd00::44]:8080").ip()),
            backend_port: 8080u16.to_be(),
            service: 3,
            backend_number: 7,
            ..Default::default()
        };
        let expected = SocketPeer {
            frontend: socket("10.32.0.80:80"),
            backend: socket("[fd00::44]:8080"),
            service: 3,
            backend_number: 7,
        };
        assert_eq!(SocketPeers::of_storage(peer.as_bytes()), Some(expected));
        let empty = abi::socket_peer::default();
        assert_eq!(SocketPeers::of_storage(empty.as_bytes()), None);
        assert_eq!(SocketPeers::of_storage(&peer.as_bytes()[1..]), None);
    }
}
