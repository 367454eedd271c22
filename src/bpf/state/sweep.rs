//! Walks over the conntrack tables: tallies their entries, and deletes expired ones.
//!
//! A walk holds one batch of rows at a time: a full table would be hundreds of megabytes.

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};

use super::conntrack::{Tables, connection_state, expires_ns, is_reply, is_snat, reverse};
use super::counters;
use super::ct_table::CT_TABLES;
use super::endpoint_conns::{Open, count_open};
use crate::bpf::abi::{self, Plain};
use crate::bpf::sys::map;
use crate::bpf::tables::encode;
use crate::model::conntrack::{SnatPeer, Tally};
use crate::model::protocol::Protocol;
use crate::model::state::Settings;
use crate::model::status::ConntrackCounts;

/// How long an expired pair stays before it is swept, in nanoseconds.
const GRACE_NS: u64 = 10_000_000_000;

/// The unreplied first: a pair that moves to its protocol's table during the walk is seen twice then, instead of not at all.
const WALK: [usize; 3] = [2, 0, 1];

/// The result of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub tally: Tally,
    pub counts: ConntrackCounts,
    /// Expired entries that were deleted.
    pub deleted: u64,
}

/// An entry that may be deleted.
struct Due {
    table: usize,
    key: abi::flow_tuple,
    entry: abi::ct_entry,
}

/// Whether an entry expired long enough ago.
fn is_over(settings: &Settings, protocol: u8, entry: &abi::ct_entry, now: u64) -> bool {
    expires_ns(settings, protocol, entry).saturating_add(GRACE_NS) < now
}

impl Tables {
    fn walk(&self, mut take: impl FnMut(usize, abi::flow_tuple, abi::ct_entry)) -> Result<()> {
        for table in WALK {
            map::for_each(&self.maps[table], |key, entry| take(table, key, entry))
                .with_context(|| format!("read {}", CT_TABLES[table].name))?;
        }
        Ok(())
    }

    /// Tallies the tables at this time (CLOCK_MONOTONIC).
    pub fn tally(&self, settings: &Settings, now: u64) -> Result<(Tally, ConntrackCounts)> {
        let mut tally = Tally::default();
        let counts = self.counted(|| {
            self.walk(|table, key, entry| count(&mut tally, table, &key, &entry, settings, now))?;
            Ok(tally.entries.values().sum())
        })?;
        finish(&mut tally, settings);
        Ok((tally, counts))
    }

    /// The counters around a walk that counts what is present. What programs do meanwhile must not look like evictions: the
    /// inserted are read before the walk, the deleted after it.
    fn counted(&self, walk: impl FnOnce() -> Result<u64>) -> Result<ConntrackCounts> {
        let counter = |counter| counters::read(&self.counters, counter);
        let inserted = counter(abi::counter::COUNTER_CT_INSERTED)?;
        let present = walk()?;
        let deleted =
            counter(abi::counter::COUNTER_CT_DELETED)? + counter(abi::counter::COUNTER_CT_SWEPT)?;
        Ok(ConntrackCounts {
            inserted,
            deleted,
            present,
            evicted: inserted.saturating_sub(deleted).saturating_sub(present),
        })
    }

    /// How many entries were inserted so far.
    pub fn inserted(&self) -> Result<u64> {
        counters::read(&self.counters, abi::counter::COUNTER_CT_INSERTED)
    }

    /// Deletes pairs that expired ten seconds before this time (CLOCK_MONOTONIC), and corrects the endpoints' counts of
    /// connections.
    pub fn sweep(&self, settings: &Settings, now: u64) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut due = Vec::new();
        let mut open = Open::new();
        swept.counts = self.counted(|| {
            self.walk(|table, key, entry| {
                count(&mut swept.tally, table, &key, &entry, settings, now);
                if is_over(settings, key.protocol, &entry, now) {
                    due.push(Due { table, key, entry });
                } else {
                    count_open(&mut open, table, &entry);
                }
            })?;
            Ok(swept.tally.entries.values().sum())
        })?;
        finish(&mut swept.tally, settings);
        for due in due {
            if !self.is_reverse_over(&due, settings, now)? {
                count_open(&mut open, due.table, &due.entry);
            } else if self.delete_if_still_over(&due, settings, now)? {
                swept.deleted += 1;
            }
        }
        self.count_deleted(swept.deleted)?;
        self.set_endpoint_conns(&open)?;
        Ok(swept)
    }

    /// Whether the reverse entry is over too, or missing, or belongs to another connection.
    fn is_reverse_over(&self, due: &Due, settings: &Settings, now: u64) -> Result<bool> {
        let key = reverse(&due.entry.translated);
        for map in &self.maps {
            let found = map.lookup(key.as_bytes(), MapFlags::ANY)?;
            if let Some(found) = found.and_then(|found| abi::ct_entry::from_bytes(&found)) {
                let is_reverse = reverse(&found.translated).as_bytes() == due.key.as_bytes();
                return Ok(!is_reverse || is_over(settings, key.protocol, &found, now));
            }
        }
        Ok(true)
    }

    /// Looks it up again first: a packet may have renewed it since the table was read.
    fn delete_if_still_over(&self, due: &Due, settings: &Settings, now: u64) -> Result<bool> {
        let map = &self.maps[due.table];
        let Some(value) = map.lookup(due.key.as_bytes(), MapFlags::ANY)? else {
            return Ok(false);
        };
        let Some(value) = abi::ct_entry::from_bytes(&value) else {
            return Ok(false);
        };
        if !is_over(settings, value.translated.protocol, &value, now) {
            return Ok(false);
        }
        Ok(map.delete(due.key.as_bytes()).is_ok())
    }

    /// Deletes every connection; returns how many.
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
        self.reset_endpoint_conns()?;
        Ok(connections)
    }

    /// Adds to the daemon's own counter of deletions; programs count theirs.
    pub(in crate::bpf) fn count_deleted(&self, deleted: u64) -> Result<()> {
        counters::add(&self.counters, abi::counter::COUNTER_CT_SWEPT, deleted)
    }
}

fn finish(tally: &mut Tally, settings: &Settings) {
    tally.source_ports = settings.snat_port_count;
    tally.keep_busiest_snat();
}

/// Tallies an entry; that of the original direction counts the connection.
fn count(
    tally: &mut Tally,
    table: usize,
    key: &abi::flow_tuple,
    entry: &abi::ct_entry,
    settings: &Settings,
    now: u64,
) {
    *tally.entries.entry(CT_TABLES[table].name).or_default() += 1;
    if is_reply(entry) || expires_ns(settings, key.protocol, entry) <= now {
        return;
    }
    let state = connection_state(entry.state);
    *tally.by_state.entry((key.protocol, state)).or_default() += 1;
    if entry.service != 0 && state.is_open() {
        let backend = (entry.service, entry.backend);
        let by_backend = tally.by_backend.entry(backend).or_default();
        by_backend.add(key.protocol);
        if u32::from(entry.origin) == abi::party::PARTY_UPLINK.0 {
            let by_backend = tally.by_external_backend.entry(backend).or_default();
            by_backend.add(key.protocol);
        }
    }
    // SCTP keeps its ports: it takes none.
    if is_snat(entry) && key.protocol != Protocol::Sctp.number() {
        *tally.by_snat.entry(snat_peer(entry)).or_default() += 1;
    }
}

fn snat_peer(entry: &abi::ct_entry) -> SnatPeer {
    let to = &entry.translated;
    SnatPeer {
        protocol: to.protocol,
        source: encode::ip(&to.source),
        destination: encode::flow_socket(&to.destination, to.destination_port),
    }
}
