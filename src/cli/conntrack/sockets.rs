//! The host's own sockets among the connections: services translate them before there is a packet.

use std::collections::HashMap;

use anyhow::Result;

use crate::bpf::reader::Reader;
use crate::host_sockets::{self, HostSocket};
use crate::model::conntrack::{Connection, ConntrackState};
use crate::model::policy::reserved;
use crate::model::state::State;
use crate::net::sock_diag::SockDiag;
use crate::plan::ipcache;

/// `TCP_SYN_SENT` (`net/tcp_states.h`).
const SYN_SENT: u8 = 2;

/// The translated sockets of this host; none where no programs are for them.
pub(super) fn of_host(reader: &Reader) -> Result<Vec<HostSocket>> {
    if reader.socket_attachments().is_empty() {
        return Ok(Vec::new());
    }
    host_sockets::list(&mut SockDiag::open()?, &reader.socket_peers()?)
}

/// Adds the sockets to the connections, each with its frontend. One whose packets pass a hook, as those to a workload of
/// the host do, is there already; all that is known of another is its socket.
pub(super) fn join(connections: &mut Vec<Connection>, sockets: &[HostSocket], state: &State) {
    if sockets.is_empty() {
        return;
    }
    let tracked = connections.iter().enumerate();
    let tracked: HashMap<_, usize> = tracked
        .map(|(at, found)| ((found.protocol, found.src, found.dst), at))
        .collect();
    for HostSocket { socket, translated } in sockets {
        let key = (socket.protocol.number(), socket.local, socket.peer);
        if let Some(at) = tracked.get(&key) {
            connections[*at].dst = translated.frontend;
            connections[*at].backend = Some(translated.backend);
            continue;
        }
        let receiver = ipcache::find(state, translated.backend.ip());
        connections.push(Connection {
            protocol: socket.protocol.number(),
            state: match socket.state {
                SYN_SENT => ConntrackState::Unreplied,
                _ if socket.is_closing() => ConntrackState::Closing,
                _ => ConntrackState::Established,
            },
            src: socket.local,
            dst: translated.frontend,
            backend: Some(translated.backend),
            source_translation: None,
            src_identity: reserved::HOST,
            dst_identity: receiver.map_or(reserved::WORLD, |entry| entry.identity),
            service: translated.service,
            backend_id: translated.backend_number,
            egress_rule: 0,
            ingress_rule: 0,
            is_tracked: false,
            packets: 0,
            bytes: 0,
            reply_packets: 0,
            reply_bytes: 0,
            remaining_ns: 0,
            age_ns: 0,
        });
    }
}
