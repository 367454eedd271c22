//! Connections as listings show them: both conntrack entries of a connection as one.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use super::protocol::Protocol;
use super::service::BackendState;

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConntrackState {
    /// No reply yet.
    Unreplied,
    /// One request, one reply (UDP).
    Replied,
    Established,
    /// Both sides sent FIN, or one RST.
    Closing,
    /// Policy allows it no more: its packets are dropped.
    Refused,
}

impl ConntrackState {
    pub const ALL: [ConntrackState; 5] = [
        ConntrackState::Unreplied,
        ConntrackState::Replied,
        ConntrackState::Established,
        ConntrackState::Closing,
        ConntrackState::Refused,
    ];

    /// Whether packets of both sides may follow: neither closed nor refused.
    pub fn is_open(self) -> bool {
        !matches!(self, ConntrackState::Closing | ConntrackState::Refused)
    }

    pub fn name(self) -> &'static str {
        match self {
            ConntrackState::Unreplied => "unreplied",
            ConntrackState::Replied => "replied",
            ConntrackState::Established => "established",
            ConntrackState::Closing => "closing",
            ConntrackState::Refused => "refused",
        }
    }
}

/// One connection, seen from its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol number.
    pub protocol: u8,
    pub state: ConntrackState,
    pub src: SocketAddr,
    /// The destination of the client: the frontend, for a connection through a service.
    pub dst: SocketAddr,
    /// The destination after DNAT; `None` without DNAT.
    pub backend: Option<SocketAddr>,
    /// The source after SNAT; `None` without SNAT.
    pub source_translation: Option<SocketAddr>,
    pub src_identity: u32,
    pub dst_identity: u32,
    /// Service number; 0: none.
    pub service: u32,
    pub backend_id: u32,
    pub egress_rule: u32,
    pub ingress_rule: u32,
    /// Its packets pass dpd, which counts them; else it is a socket of the host whose packets do not, and what follows is 0.
    pub is_tracked: bool,
    pub packets: u64,
    pub bytes: u64,
    pub reply_packets: u64,
    pub reply_bytes: u64,
    /// Nanoseconds until it expires.
    pub remaining_ns: u64,
    /// Nanoseconds since it was created.
    pub age_ns: u64,
}

/// Numbers of connections, one for each conntrack table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRooms {
    pub tcp: u32,
    /// Of other protocols.
    pub other: u32,
    /// Of all protocols, that nobody has replied to.
    pub unreplied: u32,
}

impl TableRooms {
    /// The rooms of tables for so many connections: TCP may fill the whole, other protocols half of it, unreplied flows a
    /// quarter.
    pub fn of(size: u32) -> TableRooms {
        TableRooms {
            tcp: size,
            other: size / 2,
            unreplied: size / 4,
        }
    }

    /// Half of each.
    pub fn halved(self) -> TableRooms {
        TableRooms {
            tcp: self.tcp / 2,
            other: self.other / 2,
            unreplied: self.unreplied / 2,
        }
    }

    /// In the order of the tables' numbers; 0 beyond the last.
    pub fn at(self, table: usize) -> u32 {
        let rooms = [self.tcp, self.other, self.unreplied];
        rooms.get(table).copied().unwrap_or_default()
    }
}

/// Connections that differ only in the client's port, so that a change has the same effect on all of them. Link-local addresses
/// have their link (`model::link_local`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowGroup {
    /// IP protocol number.
    pub protocol: u8,
    pub src: IpAddr,
    /// The destination of the client: the frontend, for connections through a service. Port 0 for protocols without ports.
    pub dst: SocketAddr,
    /// The destination after DNAT; `dst` without DNAT.
    pub backend: SocketAddr,
    /// The interfaces of `src` and `backend`, where their link-local addresses are a workload's; else 0.
    pub link_local_of: [u32; 2],
    /// Service number; 0: none.
    pub service: u32,
    pub backend_id: u32,
    /// A socket of the host was translated to the backend: `dst` is that, not the frontend.
    pub is_of_socket: bool,
    /// The address of the host that SNAT has given to the client, and the uplink's ifindex.
    pub snat: Option<(IpAddr, u32)>,
}

impl FlowGroup {
    pub fn is_translated(&self) -> bool {
        self.dst != self.backend
    }
}

/// The open connections, from one walk over the conntrack tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenConnections {
    /// Connections by flow group.
    pub groups: HashMap<FlowGroup, u64>,
    /// Connections by the table's name.
    pub by_table: BTreeMap<&'static str, u64>,
}

/// The counts of one walk over the conntrack tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries by the table's name, two for each connection, including expired ones.
    pub entries: BTreeMap<&'static str, u64>,
    /// Connections that are not expired, by IP protocol number and state.
    pub by_state: BTreeMap<(u8, ConntrackState), u64>,
    /// Connections through services that are open, by the service's and the backend's number.
    pub by_backend: BTreeMap<(u32, u32), BackendConnections>,
    /// Of these, those that the network opened.
    pub by_external_backend: BTreeMap<(u32, u32), BackendConnections>,
    /// The source ports that SNAT has.
    pub source_ports: u32,
    /// Those in use, by address and destination; once the tally is complete, only where most are.
    pub by_snat: HashMap<SnatPeer, u64>,
    pub affinity: AffinityCounts,
}

/// Open entries of a backend's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendConnections {
    pub tcp: u64,
    /// Of other protocols.
    pub other: u64,
}

impl BackendConnections {
    /// Adds one of this IP protocol number.
    pub fn add(&mut self, protocol: u8) {
        match protocol == Protocol::Tcp.number() {
            true => self.tcp += 1,
            false => self.other += 1,
        }
    }

    /// Those that a backend of this state keeps. The others end with their next packet, and are not open any more.
    pub fn kept(self, state: BackendState) -> u64 {
        let count = |protocol, count| match state.keeps(protocol) {
            true => count,
            false => 0,
        };
        count(Protocol::Tcp, self.tcp) + count(Protocol::Udp, self.other)
    }
}

/// The clients that keep a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AffinityCounts {
    pub present: u64,
    /// Removed by the kernel before their time was over, since their table was full.
    pub evicted: u64,
}

/// An address of the host and a destination, between which each connection with SNAT has a source port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnatPeer {
    /// IP protocol number.
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: SocketAddr,
}

impl Tally {
    /// Where most source ports are in use, and how many.
    pub fn busiest_snat(&self) -> Option<(SnatPeer, u64)> {
        let busiest = self
            .by_snat
            .iter()
            .max_by_key(|(peer, used)| (**used, **peer));
        busiest.map(|(peer, used)| (*peer, *used))
    }

    /// The free ones there; all, if no connection has one. Ports of before a change of the range count as used, too.
    pub fn free_source_ports(&self) -> u64 {
        let used = self.busiest_snat().map_or(0, |(_, used)| used);
        u64::from(self.source_ports).saturating_sub(used)
    }

    /// Forgets the others: there may be as many as connections.
    pub fn keep_busiest_snat(&mut self) {
        self.by_snat = self.busiest_snat().into_iter().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_with_the_fewest_free_source_ports_is_kept() {
        let to = |port| SnatPeer {
            protocol: 6,
            source: [192, 0, 2, 1].into(),
            destination: ([203, 0, 113, 9], port).into(),
        };
        let mut tally = Tally {
            source_ports: 100,
            ..Tally::default()
        };
        assert_eq!(tally.busiest_snat(), None);
        assert_eq!(tally.free_source_ports(), 100);
        tally.by_snat = [(to(1), 3), (to(2), 75), (to(3), 40)].into();
        assert_eq!(tally.busiest_snat(), Some((to(2), 75)));
        assert_eq!(tally.free_source_ports(), 25);
        tally.keep_busiest_snat();
        assert_eq!(tally.by_snat, [(to(2), 75)].into());
        tally.source_ports = 10;
        assert_eq!(tally.free_source_ports(), 0, "the range has become smaller");
    }
}
