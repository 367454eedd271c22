//! Interfaces that have the programs and are no endpoints: those that become endpoints with the next commit, and those that
//! were endpoints before the last. The programs pass their packets untouched.

use std::collections::BTreeMap;

use anyhow::Result;
use libbpf_rs::{MapCore, MapFlags};

use crate::bpf::abi::Plain;
use crate::bpf::sys::call::call;
use crate::bpf::sys::map;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pins::Pins;

const MAP: &str = "dpd_unmanaged";

/// The epoch of an interface that is no endpoint any more.
pub const FOREVER: u64 = u64::MAX;

/// Marks these interfaces as unmanaged, each until an epoch is live, and no others. The map has a size: interfaces beyond
/// it drop their packets until they are endpoints or lose the programs.
///
/// # Errors
/// If the kernel refuses.
pub fn set(pins: &Pins, unmanaged: &BTreeMap<u32, u64>) -> Result<()> {
    let map = map::open(&pins.map(MAP))?;
    map::delete_rows(&map, MAP, |ifindex: u32| !unmanaged.contains_key(&ifindex))?;
    let most = map.max_entries() as usize;
    for (&ifindex, until) in unmanaged.iter().take(most) {
        call(Op::MarkUnmanaged { ifindex }, || {
            map.update(ifindex.as_bytes(), until.as_bytes(), MapFlags::ANY)
        })?;
    }
    Ok(())
}
