//! The conntrack tables, read as connections.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::ct_table::{CT_TABLES, Sizes};
use crate::bpf::abi::{self, Plain};
pub use crate::bpf::sys::clock::now_ns;
use crate::bpf::sys::map;
use crate::bpf::sys::pins::Pins;
use crate::bpf::tables::encode;
use crate::model::conntrack::{Connection, ConntrackState, FlowGroup, OpenConnections};
use crate::model::link_local;
use crate::model::protocol::Protocol;
use crate::model::state::Settings;

/// The member of an entry from which a member of its reverse entry's key is taken: that key is the translated tuple,
/// reversed.
pub(in crate::bpf) fn reverse_key_member(of_key: &str) -> String {
    const REVERSED: [(&str, &str); 4] = [
        ("source.", "destination."),
        ("destination.", "source."),
        ("source_port", "destination_port"),
        ("destination_port", "source_port"),
    ];
    let reversed = REVERSED.iter().find_map(|(from, to)| {
        let rest = of_key.strip_prefix(from)?;
        Some(format!("{to}{rest}"))
    });
    format!(
        "translated.{}",
        reversed.unwrap_or_else(|| of_key.to_owned())
    )
}

/// The pinned tables, with the counters about them.
#[derive(Debug)]
pub struct Tables {
    /// In the order of `CT_TABLES`.
    pub(in crate::bpf) maps: [MapHandle; 3],
    pub(in crate::bpf) endpoint_conns: MapHandle,
    pub(in crate::bpf) counters: MapHandle,
}

/// The entry of one direction, and the table that has it.
pub(super) struct Entry {
    pub(super) table: usize,
    pub(super) value: abi::ct_entry,
}

pub(in crate::bpf) fn reverse(tuple: &abi::flow_tuple) -> abi::flow_tuple {
    abi::flow_tuple {
        source: tuple.destination,
        destination: tuple.source,
        source_port: tuple.destination_port,
        destination_port: tuple.source_port,
        ..*tuple
    }
}

fn lifetime_ns(settings: &Settings, protocol: u8, entry: &abi::ct_entry) -> u64 {
    const TCP: u8 = 6;
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;
    let state = abi::ct_state(entry.state.into());
    let is_assured = u32::from(entry.flags) & abi::ct_flags::CT_ASSURED.0 != 0;
    match (protocol, state) {
        (TCP, abi::ct_state::CT_CLOSING) => settings.tcp_close_ns,
        (TCP, _) if !is_assured => settings.tcp_syn_ns,
        (TCP, _) => settings.tcp_ns,
        (ICMP | ICMPV6, _) => settings.icmp_ns,
        (_, abi::ct_state::CT_REPLIED) => settings.udp_once_ns,
        _ => settings.udp_ns,
    }
}

/// When an entry expires (CLOCK_MONOTONIC).
pub(in crate::bpf) fn expires_ns(settings: &Settings, protocol: u8, entry: &abi::ct_entry) -> u64 {
    entry
        .last_seen_ns
        .saturating_add(lifetime_ns(settings, protocol, entry))
}

/// The reverse entry, unless its key belongs to another connection by now.
fn find_reverse<'a>(
    entries: &'a HashMap<Vec<u8>, Entry>,
    key: &[u8],
    entry: &abi::ct_entry,
) -> Option<&'a Entry> {
    entries
        .get(reverse(&entry.translated).as_bytes())
        .filter(|found| reverse(&found.value.translated).as_bytes() == key)
}

pub(in crate::bpf) fn is_reply(entry: &abi::ct_entry) -> bool {
    u32::from(entry.flags) & abi::ct_flags::CT_REPLY.0 != 0
}

/// Whether the client has an address of the host, by SNAT.
pub(in crate::bpf) fn is_snat(entry: &abi::ct_entry) -> bool {
    u32::from(entry.flags) & abi::ct_flags::CT_SNAT.0 != 0
}

impl Tables {
    pub fn open(pins: &Pins) -> Result<Tables> {
        let [tcp, other, unreplied] = CT_TABLES.map(|table| map::open(&pins.map(table.name)));
        Ok(Tables {
            maps: [tcp?, other?, unreplied?],
            endpoint_conns: map::open(&pins.map("dpd_endpoint_conns"))?,
            counters: map::open(&pins.map("dpd_counters"))?,
        })
    }

    pub(super) fn entries(&self) -> Result<HashMap<Vec<u8>, Entry>> {
        let mut entries = HashMap::new();
        for (table, map) in self.maps.iter().enumerate() {
            let rows: Vec<(abi::flow_tuple, abi::ct_entry)> =
                map::read(map).with_context(|| format!("read {}", CT_TABLES[table].name))?;
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
            let reply = find_reverse(&entries, key, &entry.value);
            // A reply entry without its reverse represents the connection alone.
            if is_reply(&entry.value) && reply.is_some() {
                continue;
            }
            let mut expires = expires_ns(settings, tuple.protocol, &entry.value);
            if let Some(reply) = reply {
                expires = expires.max(expires_ns(settings, tuple.protocol, &reply.value));
            }
            if expires > now {
                connections.push(connection(&tuple, &entry.value, reply, now, expires - now));
            }
        }
        connections.sort_by_key(|c| (c.protocol, c.src, c.dst, c.backend));
        Ok(connections)
    }

    /// The connections that are open, without closing ones. One pass, with memory for the flow groups alone: the original
    /// direction's entry is counted for both, since packets of either direction renew both.
    pub fn open_connections(&self, settings: &Settings) -> Result<OpenConnections> {
        let now = now_ns();
        let mut open = OpenConnections::default();
        for (map, table) in self.maps.iter().zip(CT_TABLES) {
            let take = |tuple: abi::flow_tuple, entry: abi::ct_entry| {
                let is_closing = connection_state(entry.state) == ConntrackState::Closing;
                let is_live = expires_ns(settings, tuple.protocol, &entry) > now && !is_closing;
                if is_live && !is_reply(&entry) {
                    let group = flow_group(&tuple, &entry);
                    *open.groups.entry(group).or_default() += 1;
                    *open.by_table.entry(table.name).or_default() += 1;
                }
            };
            map::for_each(map, take).with_context(|| format!("read {}", table.name))?;
        }
        Ok(open)
    }

    /// Whether there is an entry of what `source` sends to `destination`.
    ///
    /// # Errors
    /// If the tables can't be read.
    pub fn is_tracked(
        &self,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<bool> {
        let key = abi::flow_tuple {
            source: encode::address(source.ip()),
            destination: encode::address(destination.ip()),
            source_port: source.port().to_be(),
            destination_port: destination.port().to_be(),
            protocol: protocol.number(),
            ..Default::default()
        };
        for map in &self.maps {
            if map.lookup(key.as_bytes(), MapFlags::ANY)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub fn sizes(&self) -> Sizes {
        Sizes::of(&self.maps[0])
    }
}

/// The group of an entry of the original direction.
fn flow_group(tuple: &abi::flow_tuple, entry: &abi::ct_entry) -> FlowGroup {
    let has_ports = Protocol::from_number(tuple.protocol).is_some_and(Protocol::has_ports);
    let port = |port| if has_ports { u16::from_be(port) } else { 0 };
    let socket = |address, number| SocketAddr::new(encode::ip(address), port(number));
    let of_link = |address, ifindex| match link_local::is_link_local(encode::ip(address)) {
        true => ifindex,
        false => 0,
    };
    let to = &entry.translated;
    FlowGroup {
        protocol: tuple.protocol,
        src: encode::ip(&tuple.source),
        dst: socket(&tuple.destination, tuple.destination_port),
        backend: socket(&to.destination, to.destination_port),
        link_local_of: [
            of_link(&tuple.source, entry.origin_ifindex),
            of_link(&to.destination, entry.target_ifindex),
        ],
        service: entry.service,
        backend_id: entry.backend,
        is_of_socket: u32::from(entry.flags) & abi::ct_flags::CT_SOCKET.0 != 0,
        snat: is_snat(entry).then(|| (encode::ip(&to.source), entry.snat_ifindex)),
    }
}

fn connection(
    tuple: &abi::flow_tuple,
    entry: &abi::ct_entry,
    reply: Option<&Entry>,
    now: u64,
    remaining_ns: u64,
) -> Connection {
    // A reply entry alone: its translated tuple has the client's side.
    let alone = is_reply(entry);
    let (forward, key) = if alone {
        (reverse(&entry.translated), reverse(tuple))
    } else {
        (*tuple, entry.translated)
    };
    let source = |tuple: &abi::flow_tuple| encode::flow_socket(&tuple.source, tuple.source_port);
    let destination =
        |tuple: &abi::flow_tuple| encode::flow_socket(&tuple.destination, tuple.destination_port);
    let changed = |before: SocketAddr, after: SocketAddr| (before != after).then_some(after);
    let (original, reply) = if alone {
        (None, Some(entry))
    } else {
        (Some(entry), reply.map(|reply| &reply.value))
    };
    Connection {
        protocol: tuple.protocol,
        state: connection_state(entry.state),
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
        is_tracked: true,
        packets: original.map_or(0, |entry| entry.packets),
        bytes: original.map_or(0, |entry| entry.bytes),
        reply_packets: reply.map_or(0, |entry| entry.packets),
        reply_bytes: reply.map_or(0, |entry| entry.bytes),
        remaining_ns,
        age_ns: now.saturating_sub(entry.created_ns),
    }
}

pub fn connection_state(number: u8) -> ConntrackState {
    match abi::ct_state(number.into()) {
        abi::ct_state::CT_UNREPLIED => ConntrackState::Unreplied,
        abi::ct_state::CT_REPLIED => ConntrackState::Replied,
        abi::ct_state::CT_CLOSING => ConntrackState::Closing,
        abi::ct_state::CT_REFUSED => ConntrackState::Refused,
        _ => ConntrackState::Established,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_name() {
        let rows = [
            (abi::ct_state::CT_UNREPLIED, "unreplied"),
            (abi::ct_state::CT_REPLIED, "replied"),
            (abi::ct_state::CT_ESTABLISHED, "established"),
            (abi::ct_state::CT_CLOSING, "closing"),
            (abi::ct_state::CT_REFUSED, "refused"),
        ];
        for (state, name) in rows {
            assert_eq!(connection_state(state.0 as u8).name(), name);
        }
    }
}
