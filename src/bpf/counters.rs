//! The counters: those that belong to no interface are read, and those of what is no more forgotten.
//!
//! Most numbers are never given twice, so nobody else would clear what was counted under them. A row of `dpd_endpoint_counters` is
//! given again: it is cleared before its new owner's first packet.

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};

use super::abi::{self, Plain};
use super::gate;
use super::map;
use super::pins::Pins;

/// Deletes the hits of rules and of the prefilter's prefixes, and what was counted for interfaces, that are not known any
/// more. Packets that are on
/// their way under the configuration before may still count; the next call forgets that too.
pub fn forget(
    pins: &Pins,
    is_rule: impl Fn(u32) -> bool,
    is_prefix: impl Fn(u32) -> bool,
    is_interface: impl Fn(u32) -> bool,
) -> Result<()> {
    // Interface 0 stands for what belongs to none.
    let is_interface = |ifindex: u32| ifindex == 0 || is_interface(ifindex);
    forget_rows(pins, "dpd_rule_hits", |rule: u32| is_rule(rule))?;
    forget_rows(pins, "dpd_prefilter_hits", |prefix: u32| is_prefix(prefix))?;
    forget_rows(pins, "dpd_endpoint_conns", is_interface)?;
    forget_rows(pins, "dpd_drop_counts", |key: abi::drop_count_key| {
        is_interface(key.ifindex)
    })
}

/// Clears rows of `dpd_endpoint_counters`, which nobody may have in the live configuration.
pub fn clear_traffic(pins: &Pins, rows: impl IntoIterator<Item = u32>) -> Result<()> {
    let map = map::open(&pins.map("dpd_endpoint_counters"))?;
    let cpus = libbpf_rs::num_possible_cpus().context("ask for the number of CPUs")?;
    let nothing = vec![abi::endpoint_counters::default().as_bytes().to_vec(); cpus];
    for row in rows {
        gate::pass(
            format_args!("clear row {row} of dpd_endpoint_counters"),
            || map.update_percpu(row.as_bytes(), &nothing, MapFlags::EXIST),
        )?;
    }
    Ok(())
}

fn forget_rows<K: Plain>(pins: &Pins, name: &str, is_known: impl Fn(K) -> bool) -> Result<()> {
    let map = map::open(&pins.map(name))?;
    // Deleting the key that a walk stands at would start the walk again.
    let keys: Vec<Vec<u8>> = map.keys().collect();
    for key in keys {
        if K::from_bytes(&key).is_some_and(|key| !is_known(key)) {
            gate::pass(format_args!("delete a row of {name}"), || map.delete(&key))?;
        }
    }
    Ok(())
}

/// One of `dpd_counters`, over all CPUs.
pub fn read(counters: &impl MapCore, counter: abi::counter) -> Result<u64> {
    let values = counters
        .lookup_percpu(&counter.0.to_ne_bytes(), MapFlags::ANY)
        .context("read a counter")?
        .unwrap_or_default();
    Ok(values
        .iter()
        .filter_map(|value| u64::from_bytes(value))
        .sum())
}
