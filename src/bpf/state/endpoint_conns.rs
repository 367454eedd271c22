//! `dpd_endpoint_conns`: how many connections each endpoint has open, which programs hold against
//! `conntrack.per_endpoint`.

use std::collections::HashMap;

use anyhow::Result;
use libbpf_rs::{MapCore, MapFlags};

use super::conntrack::{Tables, is_reply, now_ns};
use crate::bpf::abi::{self, Plain};
use crate::bpf::sys::map;

/// Counts the connection of an entry for the endpoint that opened it.
pub(super) fn count_open(open: &mut HashMap<u32, u64>, entry: &abi::ct_entry) {
    if !is_reply(entry) && entry.origin_ifindex != 0 {
        *open.entry(entry.origin_ifindex).or_default() += 1;
    }
}

impl Tables {
    /// Corrects the programs' counts, which don't see evictions. Programs trust a count for a minute from then on.
    pub(super) fn set_endpoint_conns(&self, open: &HashMap<u32, u64>) -> Result<()> {
        let rows: Vec<(u32, abi::conn_usage)> = map::read(&self.endpoint_conns)?;
        for (ifindex, usage) in rows {
            let open = open.get(&ifindex).copied().unwrap_or_default();
            let opened = usage.opened.max(open);
            let exact = abi::conn_usage {
                opened,
                closed: opened - open,
                verified_ns: now_ns(),
            };
            // Deleted in the meantime: then there is nothing to correct.
            let _ =
                self.endpoint_conns
                    .update(ifindex.as_bytes(), exact.as_bytes(), MapFlags::EXIST);
        }
        Ok(())
    }

    /// After a sweep of empty tables: no endpoint has a connection open.
    pub fn reset_endpoint_conns(&self) -> Result<()> {
        self.set_endpoint_conns(&HashMap::new())
    }
}
