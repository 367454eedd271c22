//! `dpd_endpoint_conns`: how many connections each endpoint has open, which programs hold against
//! `conntrack.per_endpoint`.

use std::collections::HashMap;

use anyhow::Result;
use libbpf_rs::{MapCore, MapFlags};

use super::conntrack::{Tables, is_reply, now_ns};
use super::ct_table::CT_TABLES;
use crate::bpf::abi::{self, Plain};
use crate::bpf::sys::map;

/// For whom a connection counts: the endpoint's interface, and who opened it (`enum conn_opener`).
type Owner = (u32, u32);

/// Open connections of each owner in each table.
pub(super) type Open = HashMap<Owner, [u64; CT_TABLES.len()]>;

/// Counts the connection of an entry: for the workload that opened it, else for the one that it was opened to.
pub(super) fn count_open(open: &mut Open, table: usize, entry: &abi::ct_entry) {
    if is_reply(entry) {
        return;
    }
    let owner = match entry.origin_ifindex {
        0 => (entry.target_ifindex, abi::conn_opener::OPENER_OTHERS.0),
        opener => (opener, abi::conn_opener::OPENER_WORKLOAD.0),
    };
    open.entry(owner).or_default()[table] += 1;
}

impl Tables {
    /// Corrects the programs' counts, which don't see evictions. Programs trust a count for a minute from then on.
    pub(super) fn set_endpoint_conns(&self, open: &Open) -> Result<()> {
        let rows: Vec<(abi::conn_usage_key, abi::conn_usage)> = map::read(&self.endpoint_conns)?;
        for (key, usage) in rows {
            let open = open.get(&(key.ifindex, key.opener));
            let open = open.copied().unwrap_or_default();
            let mut exact = abi::conn_usage {
                verified_ns: now_ns(),
                ..usage
            };
            for (table, open) in open.into_iter().enumerate() {
                exact.opened[table] = usage.opened[table].max(open);
                exact.closed[table] = exact.opened[table] - open;
            }
            // Deleted in the meantime: then there is nothing to correct.
            let _ = self
                .endpoint_conns
                .update(key.as_bytes(), exact.as_bytes(), MapFlags::EXIST);
        }
        Ok(())
    }

    /// After a sweep of empty tables: no endpoint has a connection open.
    pub fn reset_endpoint_conns(&self) -> Result<()> {
        self.set_endpoint_conns(&Open::new())
    }
}
