//! The open connections of backends.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::bpf::reader::Reader;
use crate::host_sockets;
use crate::model::conntrack::BackendConnections;

/// Connections by the service's and the backend's number.
pub type OpenByBackend = BTreeMap<(u32, u32), BackendConnections>;

/// Those in the conntrack tables.
///
/// # Errors
/// If the tables can't be read.
pub fn tracked(reader: &Reader) -> Result<OpenByBackend> {
    let (tally, _) = reader.conntrack()?;
    Ok(tally.by_backend)
}

/// Adds those of the host's own sockets that are in no table.
///
/// # Errors
/// If the kernel does not list sockets, or the tables can't be read.
pub fn add_host_sockets(reader: &Reader, open: &mut OpenByBackend) -> Result<()> {
    if reader.socket_attachments().is_empty() {
        return Ok(());
    }
    let (tables, peers) = (reader.conntrack_tables()?, reader.socket_peers()?);
    host_sockets::count_untracked(&tables, &peers, open)
}
