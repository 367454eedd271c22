//! The open connections of backends.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::bpf::reader::Reader;
use crate::host_sockets;

/// Connections by the service's and the backend's number.
pub type OpenByBackend = BTreeMap<(u32, u32), u64>;

/// Counts them in the conntrack tables, and among the host's own sockets.
///
/// # Errors
/// If the tables or the sockets can't be read.
pub fn open(reader: &Reader) -> Result<OpenByBackend> {
    let (tally, _) = reader.conntrack()?;
    let mut open = tally.by_backend;
    if !reader.socket_attachments().is_empty() {
        let (tables, peers) = (reader.conntrack_tables()?, reader.socket_peers()?);
        host_sockets::count_untracked(&tables, &peers, &mut open)?;
    }
    Ok(open)
}
