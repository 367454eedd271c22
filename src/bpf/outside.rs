//! Interfaces that have the programs and are no endpoints: those that become some with the next switch, and those that were
//! some before the last. The programs pass their packets.

use std::collections::BTreeMap;

use anyhow::Result;
use libbpf_rs::{MapCore, MapFlags};

use super::abi::Plain;
use super::gate;
use super::map;
use super::pins::Pins;

const MAP: &str = "dpd_unmanaged";

/// Of an interface that is no endpoint any more.
pub const FOR_GOOD: u64 = u64::MAX;

/// Says of these interfaces until which epoch each is no endpoint, and of no other. Of more than the map holds the last are
/// cut off meanwhile.
///
/// # Errors
/// If the kernel refuses.
pub fn restate(pins: &Pins, outside: &BTreeMap<u32, u64>) -> Result<()> {
    let map = map::open(&pins.map(MAP))?;
    // Deleting the key that a walk stands at would start the walk again.
    let keys: Vec<Vec<u8>> = map.keys().collect();
    for key in keys {
        let is_wanted = u32::from_bytes(&key).is_some_and(|key| outside.contains_key(&key));
        if !is_wanted {
            gate::pass(format_args!("delete a row of {MAP}"), || map.delete(&key))?;
        }
    }
    let most = map.max_entries() as usize;
    for (ifindex, until) in outside.iter().take(most) {
        gate::pass(format_args!("announce interface {ifindex}"), || {
            map.update(ifindex.as_bytes(), until.as_bytes(), MapFlags::ANY)
        })?;
    }
    Ok(())
}
