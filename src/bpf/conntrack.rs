//! The tables of connections: their sizes, and their entries as connections.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapHandle, OpenMapMut};

use super::abi::{self, Plain};
use super::encode;
use super::map;
use super::pins::Pins;
use crate::model::conntrack::{Connection, ConntrackState, FlowGroup, OpenConnections};
use crate::model::protocol::Protocol;
use crate::model::state::Settings;

/// In the order of [`Tables::maps`].
pub(super) const TABLES: [&str; 3] = ["dpd_ct_tcp", "dpd_ct_other", "dpd_ct_unreplied"];

/// How many connections the tables are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// `conntrack.size`
    pub connections: u32,
}

impl Sizes {
    /// Two entries a connection. TCP may fill the whole size, other protocols half of it, what nobody has answered a
    /// quarter.
    fn entries(self, name: &str) -> Option<u32> {
        match name {
            "dpd_ct_tcp" => Some(self.connections * 2),
            "dpd_ct_other" => Some(self.connections),
            "dpd_ct_unreplied" => Some(self.connections / 2),
            _ => None,
        }
    }

    /// Of so many connections by the table's name, those that there is no room for; if their halves fall apart or a
    /// table makes room early, as the kernel's do, more go.
    pub fn excess(self, by_table: &BTreeMap<&'static str, u64>) -> u64 {
        let excess = |(name, connections): (&&str, &u64)| {
            let room = self.entries(name).unwrap_or_default() / 2;
            connections.saturating_sub(room.into())
        };
        by_table.iter().map(excess).sum()
    }

    pub(super) fn is_conntrack(name: &str) -> bool {
        TABLES.contains(&name)
    }

    pub(super) fn set(self, map: &mut OpenMapMut<'_>, name: &str) -> Result<()> {
        match self.entries(name) {
            Some(entries) => map
                .set_max_entries(entries)
                .with_context(|| format!("size map {name} for {entries} entries")),
            None => Ok(()),
        }
    }

    /// By the first of the tables, as it is.
    pub(super) fn of(tcp: &MapHandle) -> Sizes {
        Sizes {
            connections: tcp.max_entries() / 2,
        }
    }
}

/// Where programs look for the former table of this name while it is carried over.
pub(super) fn prev_ct_index(name: &str) -> Option<abi::prev_ct> {
    match name {
        "dpd_ct_tcp" => Some(abi::prev_ct::PREV_CT_TCP),
        "dpd_ct_other" => Some(abi::prev_ct::PREV_CT_OTHER),
        "dpd_ct_unreplied" => Some(abi::prev_ct::PREV_CT_UNREPLIED),
        _ => None,
    }
}

/// The member of an entry that becomes one of its twin's key: the key is what it rewrites to, turned round.
pub(super) fn twin_member(of_key: &str) -> String {
    const TURNED: [(&str, &str); 4] = [
        ("source.", "destination."),
        ("destination.", "source."),
        ("source_port", "destination_port"),
        ("destination_port", "source_port"),
    ];
    let turned = TURNED.iter().find_map(|(from, to)| {
        let rest = of_key.strip_prefix(from)?;
        Some(format!("{to}{rest}"))
    });
    format!("translated.{}", turned.unwrap_or_else(|| of_key.to_owned()))
}

/// The pinned tables.
#[derive(Debug)]
pub struct Tables {
    pub(super) maps: [MapHandle; 3],
    pub(super) usage: MapHandle,
    pub(super) counters: MapHandle,
}

/// One direction's entry where it was found.
struct Entry {
    table: usize,
    value: abi::ct_entry,
}

/// The kernel's monotonic clock as programs read it, in nanoseconds.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub(super) fn reverse(tuple: &abi::flow_tuple) -> abi::flow_tuple {
    abi::flow_tuple {
        source: tuple.destination,
        destination: tuple.source,
        source_port: tuple.destination_port,
        destination_port: tuple.source_port,
        ..*tuple
    }
}

fn lifetime_ns(settings: &Settings, protocol: u8, state: u8) -> u64 {
    const TCP: u8 = 6;
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;
    let state = abi::ct_state(state.into());
    match (protocol, state) {
        (TCP, abi::ct_state::CT_CLOSING) => settings.tcp_close_ns,
        (TCP, abi::ct_state::CT_UNREPLIED) => settings.tcp_syn_ns,
        (TCP, _) => settings.tcp_ns,
        (ICMP | ICMPV6, _) => settings.icmp_ns,
        (_, abi::ct_state::CT_REPLIED) => settings.udp_once_ns,
        _ => settings.udp_ns,
    }
}

/// When an entry is expired, on the kernel's monotonic clock.
pub(super) fn expires_ns(settings: &Settings, protocol: u8, entry: &abi::ct_entry) -> u64 {
    entry
        .last_seen_ns
        .saturating_add(lifetime_ns(settings, protocol, entry.state))
}

/// The other half of a pair, unless another connection has taken its place.
fn find_twin<'a>(
    entries: &'a HashMap<Vec<u8>, Entry>,
    key: &[u8],
    entry: &abi::ct_entry,
) -> Option<&'a Entry> {
    entries
        .get(reverse(&entry.translated).as_bytes())
        .filter(|twin| reverse(&twin.value.translated).as_bytes() == key)
}

pub(super) fn is_reply(entry: &abi::ct_entry) -> bool {
    u32::from(entry.flags) & abi::ct_flags::CT_REPLY.0 != 0
}

impl Tables {
    pub fn open(pins: &Pins) -> Result<Tables> {
        let [tcp, other, unreplied] = TABLES.map(|name| map::open(&pins.map(name)));
        Ok(Tables {
            maps: [tcp?, other?, unreplied?],
            usage: map::open(&pins.map("dpd_endpoint_conns"))?,
            counters: map::open(&pins.map("dpd_counters"))?,
        })
    }

    fn entries(&self) -> Result<HashMap<Vec<u8>, Entry>> {
        let mut entries = HashMap::new();
        for (table, map) in self.maps.iter().enumerate() {
            let rows: Vec<(abi::flow_tuple, abi::ct_entry)> =
                map::read(map).with_context(|| format!("read {}", TABLES[table]))?;
            for (key, value) in rows {
                entries.insert(key.as_bytes().to_vec(), Entry { table, value });
            }
        }
        Ok(entries)
    }

    /// The connections that are not expired, each once.
    pub fn connections(&self, settings: &Settings) -> Result<Vec<Connection>> {
        let now = now_ns();
        let entries = self.entries()?;
        let mut connections = Vec::new();
        for (key, entry) in &entries {
            let Some(tuple) = abi::flow_tuple::from_bytes(key) else {
                continue;
            };
            let twin = find_twin(&entries, key, &entry.value);
            // A reply that has lost its twin stands for the connection alone.
            if is_reply(&entry.value) && twin.is_some() {
                continue;
            }
            let mut expires = expires_ns(settings, tuple.protocol, &entry.value);
            if let Some(twin) = twin {
                expires = expires.max(expires_ns(settings, tuple.protocol, &twin.value));
            }
            if expires > now {
                connections.push(connection(&tuple, &entry.value, twin, now, expires - now));
            }
        }
        connections.sort_by_key(|c| (c.protocol, c.src, c.dst, c.backend));
        Ok(connections)
    }

    /// The connections that are open; closing ones are over. One pass, and memory for the conversations alone: the half of
    /// the side that began speaks for both, since what renews one half renews the other.
    pub fn open_connections(&self, settings: &Settings) -> Result<OpenConnections> {
        let now = now_ns();
        let mut open = OpenConnections::default();
        for (map, name) in self.maps.iter().zip(TABLES) {
            let take = |tuple: abi::flow_tuple, entry: abi::ct_entry| {
                let is_closing = encode::connection_state(entry.state) == ConntrackState::Closing;
                let is_live = expires_ns(settings, tuple.protocol, &entry) > now && !is_closing;
                if is_live && !is_reply(&entry) {
                    let conversation = conversation(&tuple, &entry);
                    *open.groups.entry(conversation).or_default() += 1;
                    *open.by_table.entry(name).or_default() += 1;
                }
            };
            map::for_each(map, take).with_context(|| format!("read {name}"))?;
        }
        Ok(open)
    }

    pub fn sizes(&self) -> Sizes {
        Sizes::of(&self.maps[0])
    }

    /// Forgets every connection; answers how many entries there were in all tables.
    pub fn flush(&self) -> Result<u64> {
        let mut connections = 0;
        let mut deleted = 0;
        for (key, entry) in self.entries()? {
            if self.maps[entry.table].delete(&key).is_ok() {
                deleted += 1;
                connections += u64::from(!is_reply(&entry.value));
            }
        }
        self.count_deleted(deleted)?;
        self.set_usage(&HashMap::new())?;
        Ok(connections)
    }
}

/// Of the entry of the side that began.
fn conversation(tuple: &abi::flow_tuple, entry: &abi::ct_entry) -> FlowGroup {
    let has_ports = Protocol::from_number(tuple.protocol).is_some_and(Protocol::has_ports);
    let port = |port| if has_ports { port } else { 0 };
    let to = &entry.translated;
    FlowGroup {
        protocol: tuple.protocol,
        src: encode::socket(&tuple.source, 0).ip(),
        dst: encode::socket(&tuple.destination, port(tuple.destination_port)),
        backend: encode::socket(&to.destination, port(to.destination_port)),
        service: entry.service,
        backend_id: entry.backend,
    }
}

fn connection(
    tuple: &abi::flow_tuple,
    entry: &abi::ct_entry,
    twin: Option<&Entry>,
    now: u64,
    remaining_ns: u64,
) -> Connection {
    // A reply that is alone: its rewrite tells the client's side.
    let alone = is_reply(entry);
    let (forward, key) = if alone {
        (reverse(&entry.translated), reverse(tuple))
    } else {
        (*tuple, entry.translated)
    };
    let source = |tuple: &abi::flow_tuple| encode::socket(&tuple.source, tuple.source_port);
    let destination =
        |tuple: &abi::flow_tuple| encode::socket(&tuple.destination, tuple.destination_port);
    let changed = |before: SocketAddr, after: SocketAddr| (before != after).then_some(after);
    let (ours, theirs) = if alone {
        (None, Some(entry))
    } else {
        (Some(entry), twin.map(|twin| &twin.value))
    };
    Connection {
        protocol: tuple.protocol,
        state: encode::connection_state(entry.state),
        src: source(&forward),
        dst: destination(&forward),
        backend: changed(destination(&forward), destination(&key)),
        source_translation: changed(source(&forward), source(&key)),
        src_identity: entry.source_identity,
        dst_identity: entry.destination_identity,
        service: entry.service,
        backend_id: entry.backend,
        egress_rule: entry.egress_rule,
        ingress_rule: entry.ingress_rule,
        packets: ours.map_or(0, |half| half.packets),
        bytes: ours.map_or(0, |half| half.bytes),
        reply_packets: theirs.map_or(0, |half| half.packets),
        reply_bytes: theirs.map_or(0, |half| half.bytes),
        remaining_ns,
        age_ns: now.saturating_sub(entry.created_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_told_by_each_table_for_itself() {
        let sizes = Sizes { connections: 1024 };
        let rows = [
            ("nothing", [0, 0, 0], 0),
            ("all are full", [1024, 512, 256], 0),
            ("room in one is none in another", [0, 0, 300], 44),
            ("two are too small", [1030, 500, 300], 6 + 44),
        ];
        for (sentence, counts, excess) in rows {
            let by_table = TABLES.into_iter().zip(counts).collect();
            assert_eq!(sizes.excess(&by_table), excess, "{sentence}");
        }
    }
}
