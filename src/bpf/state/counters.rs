//! Counters: those of rules, prefixes and interfaces that are gone are deleted.
//!
//! Most ids are never reused, so stale counters would stay forever. Rows of `dpd_endpoint_counters` are reused: one is cleared
//! before its new endpoint's first packet.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};

use crate::bpf::abi::{self, Plain};
use crate::bpf::sys::call::call;
use crate::bpf::sys::map;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pins::Pins;

/// Deletes the hits of rules and prefilter prefixes, and the counters of interfaces, that are not known any more. Packets
/// that are processed under the previous configuration may still count; the next call deletes that too.
pub fn forget(
    pins: &Pins,
    is_rule: impl Fn(u32) -> bool,
    is_prefix: impl Fn(u32) -> bool,
    is_interface: impl Fn(u32) -> bool,
) -> Result<()> {
    // Interface 0 stands for packets of no interface.
    let is_interface = |ifindex: u32| ifindex == 0 || is_interface(ifindex);
    delete_unknown(pins, "dpd_rule_hits", is_rule)?;
    delete_unknown(pins, "dpd_prefilter_hits", is_prefix)?;
    delete_unknown(pins, "dpd_endpoint_conns", |key: abi::conn_usage_key| {
        is_interface(key.ifindex)
    })?;
    delete_unknown(pins, "dpd_drop_counts", |key: abi::drop_count_key| {
        is_interface(key.ifindex)
    })
}

/// Clears rows of `dpd_endpoint_counters` that no endpoint of the live configuration has.
pub fn clear_endpoints(pins: &Pins, rows: impl IntoIterator<Item = u32>) -> Result<()> {
    let map = map::open(&pins.map("dpd_endpoint_counters"))?;
    let cpus = libbpf_rs::num_possible_cpus().context("count the possible CPUs")?;
    let zeroes = vec![abi::endpoint_counters::default().as_bytes().to_vec(); cpus];
    for row in rows {
        call(Op::ClearCounters { row }, || {
            map.update_percpu(row.as_bytes(), &zeroes, MapFlags::EXIST)
        })?;
    }
    Ok(())
}

fn delete_unknown<K: Plain>(pins: &Pins, name: &str, is_known: impl Fn(K) -> bool) -> Result<()> {
    let map = map::open(&pins.map(name))?;
    map::delete_rows(&map, name, |key| !is_known(key))
}

/// A counter of `dpd_counters`, over all CPUs.
pub fn read(counters: &impl MapCore, counter: abi::counter) -> Result<u64> {
    let values: Vec<u64> = map::lookup_percpu(counters, &counter.0).context("read a counter")?;
    Ok(values.iter().sum())
}

/// Adds to a counter of `dpd_counters` whose only writer is the daemon.
pub fn add(counters: &impl MapCore, counter: abi::counter, amount: u64) -> Result<()> {
    if amount == 0 {
        return Ok(());
    }
    let key = counter.0.to_ne_bytes();
    let Some(mut values) = counters.lookup_percpu(&key, MapFlags::ANY)? else {
        return Ok(());
    };
    if let Some(first) = values.first_mut()
        && let Some(count) = u64::from_bytes(first)
    {
        *first = (count + amount).to_ne_bytes().to_vec();
    }
    counters
        .update_percpu(&key, &values, MapFlags::ANY)
        .context("write a counter")
}

/// Hits by id, over all CPUs.
pub fn read_hits(hits: &impl MapCore) -> Result<BTreeMap<u32, u64>> {
    let rows: Vec<(u32, Vec<u64>)> = map::read_percpu(hits)?;
    let rows = rows.into_iter();
    Ok(rows.map(|(id, hits)| (id, hits.iter().sum())).collect())
}
