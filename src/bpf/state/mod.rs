//! What programs write: connections, counters and events. The daemon reads it, and deletes expired connections.

pub mod affinity;
pub mod conntrack;
pub mod counters;
pub mod ct_table;
mod endpoint_conns;
pub mod events;
pub mod socket_peers;
pub mod suppressed;
pub mod sweep;
