//! Walks over the tables of connections: what is in them, and which entries are due to go.
//!
//! A walk holds one batch of rows at a time. With a full table the whole would be hundreds of megabytes.

use std::collections::HashMap;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};

use super::abi::{self, Plain};
use super::conntrack::{TABLES, Tables, expires_ns, is_reply, now_ns, reverse};
use super::counters;
use super::encode;
use super::map;
use crate::model::conntrack::Tally;
use crate::model::state::Settings;
use crate::model::status::ConntrackCounts;

/// How long an expired pair stays before the sweeper takes it away, in nanoseconds.
const GRACE_NS: u64 = 10_000_000_000;

/// The unreplied first: a pair that is answered while we walk is met twice then, and not never.
const WALK: [usize; 3] = [2, 0, 1];

/// What a sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub tally: Tally,
    pub counts: ConntrackCounts,
    /// Entries that were expired and are gone now.
    pub deleted: u64,
}

/// An entry that may go.
struct Due {
    table: usize,
    key: abi::flow_tuple,
    entry: abi::ct_entry,
}

/// Whether an entry has been expired for long enough.
fn is_over(settings: &Settings, protocol: u8, entry: &abi::ct_entry, now: u64) -> bool {
    expires_ns(settings, protocol, entry).saturating_add(GRACE_NS) < now
}

impl Tables {
    fn walk(&self, mut take: impl FnMut(usize, abi::flow_tuple, abi::ct_entry)) -> Result<()> {
        for table in WALK {
            map::for_each(&self.maps[table], |key, entry| take(table, key, entry))
                .with_context(|| format!("read {}", TABLES[table]))?;
        }
        Ok(())
    }

    /// What is in the tables at this time of the kernel's monotonic clock.
    pub fn tally(&self, settings: &Settings, now: u64) -> Result<(Tally, ConntrackCounts)> {
        let mut tally = Tally::default();
        let counts = self.counted(|| {
            self.walk(|table, key, entry| count(&mut tally, table, &key, &entry, settings, now))?;
            Ok(tally.entries.values().sum())
        })?;
        Ok((tally, counts))
    }

    /// The counters around a walk that counts what is present. What programs do meanwhile must not look like entries
    /// that were pushed out: the inserted are read before the walk, the deleted after it.
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

    /// How many entries have been made so far.
    pub fn inserted(&self) -> Result<u64> {
        counters::read(&self.counters, abi::counter::COUNTER_CT_INSERTED)
    }

    /// What a walk over empty tables finds of the endpoints' counts: programs may trust them for another minute.
    pub fn note_that_none_is_open(&self) -> Result<()> {
        self.set_usage(&HashMap::new())
    }

    /// Deletes pairs that have been expired for ten seconds at this time of the kernel's monotonic clock, and sets the
    /// endpoints' counts of connections right.
    pub fn sweep(&self, settings: &Settings, now: u64) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut due = Vec::new();
        let mut open: HashMap<u32, u64> = HashMap::new();
        swept.counts = self.counted(|| {
            self.walk(|table, key, entry| {
                count(&mut swept.tally, table, &key, &entry, settings, now);
                if is_over(settings, key.protocol, &entry, now) {
                    due.push(Due { table, key, entry });
                } else {
                    count_open(&mut open, &entry);
                }
            })?;
            Ok(swept.tally.entries.values().sum())
        })?;
        for due in due {
            if !self.is_twin_over(&due, settings, now)? {
                count_open(&mut open, &due.entry);
            } else if self.delete_if_still_over(&due, settings, now)? {
                swept.deleted += 1;
            }
        }
        self.count_deleted(swept.deleted)?;
        self.set_usage(&open)?;
        Ok(swept)
    }

    /// Whether the other half of the pair is over too, or gone, or not the other half any more.
    fn is_twin_over(&self, due: &Due, settings: &Settings, now: u64) -> Result<bool> {
        let key = reverse(&due.entry.translated);
        for map in &self.maps {
            let twin = map.lookup(key.as_bytes(), MapFlags::ANY)?;
            if let Some(twin) = twin.and_then(|twin| abi::ct_entry::from_bytes(&twin)) {
                let is_twin = reverse(&twin.translated).as_bytes() == due.key.as_bytes();
                return Ok(!is_twin || is_over(settings, key.protocol, &twin, now));
            }
        }
        Ok(true)
    }

    /// Looks again first: a packet may have come since the table was read.
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

    /// Counts in the one counter that is the daemon's: the programs count what they delete themselves.
    pub(super) fn count_deleted(&self, deleted: u64) -> Result<()> {
        if deleted == 0 {
            return Ok(());
        }
        let key = abi::counter::COUNTER_CT_SWEPT.0.to_ne_bytes();
        let Some(mut values) = self.counters.lookup_percpu(&key, MapFlags::ANY)? else {
            return Ok(());
        };
        if let Some(first) = values.first_mut()
            && let Some(count) = u64::from_bytes(first)
        {
            *first = (count + deleted).to_ne_bytes().to_vec();
        }
        self.counters
            .update_percpu(&key, &values, MapFlags::ANY)
            .context("count the swept connections")
    }

    /// What evictions hid from the programs' counts is put right; programs trust the counts for a minute from then on.
    pub(super) fn set_usage(&self, open: &HashMap<u32, u64>) -> Result<()> {
        let rows: Vec<(u32, abi::conn_usage)> = map::read(&self.usage)?;
        for (ifindex, usage) in rows {
            let open = open.get(&ifindex).copied().unwrap_or_default();
            let opened = usage.opened.max(open);
            let exact = abi::conn_usage {
                opened,
                closed: opened - open,
                verified_ns: now_ns(),
            };
            // Gone in the meantime: then there is nothing to put right.
            let _ = self
                .usage
                .update(ifindex.as_bytes(), exact.as_bytes(), MapFlags::EXIST);
        }
        Ok(())
    }
}

/// Counts an entry; the half of the side that began stands for the connection.
fn count(
    tally: &mut Tally,
    table: usize,
    key: &abi::flow_tuple,
    entry: &abi::ct_entry,
    settings: &Settings,
    now: u64,
) {
    *tally.entries.entry(TABLES[table]).or_default() += 1;
    if is_reply(entry) || expires_ns(settings, key.protocol, entry) <= now {
        return;
    }
    let state = encode::connection_state(entry.state);
    *tally.by_state.entry((key.protocol, state)).or_default() += 1;
    if entry.service != 0 {
        let backend = (entry.service, entry.backend);
        *tally.by_backend.entry(backend).or_default() += 1;
    }
}

fn count_open(open: &mut HashMap<u32, u64>, entry: &abi::ct_entry) {
    if !is_reply(entry) && entry.origin_ifindex != 0 {
        *open.entry(entry.origin_ifindex).or_default() += 1;
    }
}
