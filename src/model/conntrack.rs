//! A connection as listings show it: both entries of the kernel's table put together.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConntrackState {
    /// No reply yet.
    Unreplied,
    /// One question, one answer (UDP).
    Replied,
    Established,
    /// Both sides sent FIN, or one RST.
    Closing,
}

impl ConntrackState {
    pub const ALL: [ConntrackState; 4] = [
        ConntrackState::Unreplied,
        ConntrackState::Replied,
        ConntrackState::Established,
        ConntrackState::Closing,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ConntrackState::Unreplied => "unreplied",
            ConntrackState::Replied => "replied",
            ConntrackState::Established => "established",
            ConntrackState::Closing => "closing",
        }
    }
}

/// One connection, seen from the side that opened it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol number.
    pub protocol: u8,
    pub state: ConntrackState,
    pub src: SocketAddr,
    /// Where the client sent to: the frontend, if a service was asked.
    pub dst: SocketAddr,
    /// Where it went; `None` if nothing was translated.
    pub backend: Option<SocketAddr>,
    /// The source that the backend sees; `None` if it was left alone.
    pub source_translation: Option<SocketAddr>,
    pub src_identity: u32,
    pub dst_identity: u32,
    /// Service number; 0: none.
    pub service: u32,
    pub backend_id: u32,
    pub egress_rule: u32,
    pub ingress_rule: u32,
    pub packets: u64,
    pub bytes: u64,
    pub reply_packets: u64,
    pub reply_bytes: u64,
    /// Nanoseconds until it is expired.
    pub remaining_ns: u64,
    /// Nanoseconds since it was made.
    pub age_ns: u64,
}

/// Who speaks to whom: connections that differ in the client's port alone, and meet the same fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowGroup {
    /// IP protocol number.
    pub protocol: u8,
    pub src: IpAddr,
    /// Where the client sends to: the frontend, if a service was asked. Port 0 for protocols without.
    pub dst: SocketAddr,
    /// Where that goes; `dst`, if nothing is translated.
    pub backend: SocketAddr,
    /// Service number; 0: none.
    pub service: u32,
    pub backend_id: u32,
}

impl FlowGroup {
    pub fn is_translated(&self) -> bool {
        self.dst != self.backend
    }
}

/// The connections that are open, as one walk over their tables finds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenConnections {
    pub groups: HashMap<FlowGroup, u64>,
    /// By the table's name.
    pub by_table: BTreeMap<&'static str, u64>,
}

/// What a walk over the tables of connections found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries by the table's name, two for each connection, the expired ones too.
    pub entries: BTreeMap<&'static str, u64>,
    /// Connections that are not expired, by IP protocol number and state.
    pub by_state: BTreeMap<(u8, ConntrackState), u64>,
    /// Connections through services that are not expired, by the service's and the backend's number.
    pub by_backend: BTreeMap<(u32, u32), u64>,
}
