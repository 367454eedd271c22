//! The connected sockets of the host that services have translated: those that the kernel lists, with their translations.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::bpf::attach::socket;
use crate::bpf::state::conntrack::Tables;
use crate::bpf::state::socket_peers::SocketPeers;
use crate::bpf::sys::pins::Pins;
use crate::model::conntrack::BackendConnections;
use crate::model::protocol::Protocol;
use crate::model::service::SocketPeer;
use crate::net::sock_diag::{SockDiag, Socket};

/// A connected socket of the host with its translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSocket {
    pub socket: Socket,
    pub translated: SocketPeer,
}

/// Adds the sockets whose packets pass no hook, as those to backends on other hosts, to the open connections by the service's and
/// the backend's number.
///
/// # Errors
/// As `list`, or if the conntrack tables can't be read.
pub fn count_untracked(
    pins: &Pins,
    by_backend: &mut BTreeMap<(u32, u32), BackendConnections>,
) -> Result<()> {
    if !socket::is_held(pins) {
        return Ok(());
    }
    let tables = Tables::open(pins)?;
    let sockets = list(&mut SockDiag::open()?, &SocketPeers::open(pins)?)?;
    for HostSocket { socket, translated } in sockets {
        if !socket.is_closing() && !tables.is_tracked(socket.protocol, socket.local, socket.peer)? {
            let backend = (translated.service, translated.backend_number);
            let by_backend = by_backend.entry(backend).or_default();
            by_backend.add(socket.protocol.number());
        }
    }
    Ok(())
}

/// The translated sockets of the calling thread's network namespace. One that connects or closes meanwhile may be missing.
///
/// # Errors
/// Without CAP_BPF, or if the kernel does not list sockets.
pub fn list(diag: &mut SockDiag, peers: &SocketPeers) -> Result<Vec<HostSocket>> {
    let mut sockets: Vec<HostSocket> = Vec::new();
    let mut error = None;
    diag.list(peers.storage(), None, |socket| {
        let translated = match (socket.protocol, &socket.storage) {
            (_, Some(value)) => Ok(SocketPeers::of_storage(value)),
            (Protocol::Udp, None) => peers.of_flow(socket.cookie, socket.peer),
            _ => Ok(None),
        };
        match translated {
            Ok(translated) => {
                let translated = translated.filter(|peer| peer.backend == socket.peer);
                sockets.extend(translated.map(|translated| HostSocket { socket, translated }));
            }
            Err(failed) => error = Some(failed),
        }
    })?;
    error.map_or(Ok(sockets), Err)
}
