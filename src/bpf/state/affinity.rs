//! The backends that clients keep: rows whose time is over are deleted, and the rest counted.

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::counters;
use crate::bpf::abi::{self, Plain};
use crate::bpf::sys::map;
use crate::bpf::sys::pins::Pins;
use crate::model::conntrack::AffinityCounts;

/// The table, and the counters of its rows.
pub struct Affinity {
    table: MapHandle,
    counters: MapHandle,
}

impl Affinity {
    /// # Errors
    /// If there is no datapath, or no permission.
    pub fn open(pins: &Pins) -> Result<Affinity> {
        Ok(Affinity {
            table: map::open(&pins.map("dpd_affinity"))?,
            counters: map::open(&pins.map("dpd_counters"))?,
        })
    }

    /// Deletes the rows that are over at this time (CLOCK_MONOTONIC), and counts the rest.
    ///
    /// # Errors
    /// If the table can't be read or written.
    pub fn sweep(&self, now: u64) -> Result<AffinityCounts> {
        let counter = |counter| counters::read(&self.counters, counter);
        let inserted = counter(abi::counter::COUNTER_AFFINITY_INSERTED)?;
        if inserted == 0 {
            return Ok(AffinityCounts::default()); // nothing to walk for on a host without affinity
        }
        let (mut present, mut over) = (0, Vec::new());
        map::for_each(
            &self.table,
            |key: abi::affinity_key, row: abi::affinity| match row
                .last_seen_ns
                .saturating_add(row.lifetime_ns)
                < now
            {
                true => over.push(key),
                false => present += 1,
            },
        )
        .context("read dpd_affinity")?;
        let mut deleted = 0;
        for key in over {
            deleted += u64::from(self.delete(&key, now)?);
        }
        counters::add(
            &self.counters,
            abi::counter::COUNTER_AFFINITY_SWEPT,
            deleted,
        )?;
        let swept = counter(abi::counter::COUNTER_AFFINITY_SWEPT)?;
        Ok(AffinityCounts {
            present,
            evicted: inserted.saturating_sub(swept).saturating_sub(present),
        })
    }

    /// Unless a packet has renewed it meanwhile.
    fn delete(&self, key: &abi::affinity_key, now: u64) -> Result<bool> {
        let Some(row) = self.table.lookup(key.as_bytes(), MapFlags::ANY)? else {
            return Ok(false); // evicted
        };
        let row = abi::affinity::from_bytes(&row).unwrap_or_default();
        let is_over = row.last_seen_ns.saturating_add(row.lifetime_ns) < now;
        Ok(is_over && self.table.delete(key.as_bytes()).is_ok())
    }
}
