//! The memory of maps, computed as the kernel counts it: no map is created, and no privilege needed.
//!
//! The object declares the pinned maps, `tables::table` those of a generation.

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use libbpf_rs::{MapType, ObjectBuilder};

use super::map_policy;
use crate::bpf::abi;
use crate::bpf::state::ct_table::Sizes;
use crate::bpf::sys::libbpf_log;
use crate::bpf::sys::map::Kind;
use crate::bpf::tables::{catalog, table};
use crate::model::budget::{Budget, MapBudget};
use crate::model::drop_reason::REASONS;
use crate::model::state::State;

/// Sizes of the kernel's own structs (6.18, 64 bit). They differ by some bytes between kernels, which only shows in maps
/// of few entries.
const HASH: u64 = 832; // struct bpf_htab
const HASH_BUCKET: u64 = 16; // struct bucket
const HASH_ELEMENT: u64 = 48; // struct htab_elem
const ARRAY: u64 = 312; // struct bpf_array
const TRIE_NODE: u64 = 24; // struct lpm_trie_node; 40 before 6.13
const RING: u64 = 304; // struct bpf_ringbuf_map
const RING_OWN_PAGES: u64 = 3; // of struct bpf_ringbuf, before the data
const POINTER: u64 = 8;
const PAGE: u64 = 4096;

/// Copies of a table: the live one, the one before, which stays in its slot until the next change, and the staged one.
const TABLE_COPIES: u32 = 3;
/// Copies of the catalog, which has no slot.
const CATALOG_COPIES: u32 = 2;

/// The memory of all maps with this state, made for so many connections.
pub fn budget(sizes: Sizes, state: &State) -> Result<Budget> {
    let cpus = libbpf_rs::num_possible_cpus().context("count this host's CPUs")?;
    let cpus = u32::try_from(cpus).context("count this host's CPUs")?;
    let mut maps = pinned_maps(sizes, state, cpus)?;
    for (kind, fill, copies) in generation_tables(state)? {
        maps.push(map_budget(&kind, fill, copies, cpus));
    }
    let sum = |of: fn(&MapBudget) -> u64| maps.iter().map(of).sum();
    Ok(Budget {
        cpus,
        bytes: sum(|map| map.bytes),
        peak_bytes: sum(|map| map.peak_bytes),
        maps,
    })
}

/// The maps of the object.
fn pinned_maps(sizes: Sizes, state: &State, cpus: u32) -> Result<Vec<MapBudget>> {
    libbpf_log::to_log();
    let mut open = ObjectBuilder::default()
        .name("dpd")
        .context("name the eBPF object")?
        .open_memory(abi::OBJECT)
        .context("open the eBPF object")?;
    let mut maps = Vec::new();
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if map_policy::scope(&map_policy::DATAPATH, &name).is_none() {
            continue;
        }
        sizes.set(&mut map, &name)?;
        let kind = Kind {
            name: "",
            map_type: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            flags: map.map_flags(),
        };
        let room = u64::from(map.max_entries());
        let entries = if kind.flags & BPF_F_NO_PREALLOC != 0 {
            room.min(most_entries(&name, state))
        } else {
            room
        };
        maps.push(MapBudget {
            name,
            ..map_budget(&kind, Fill { room, entries }, 1, cpus)
        });
    }
    maps.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(maps)
}

/// The entries that a configuration can make a map have that grows with them.
fn most_entries(name: &str, state: &State) -> u64 {
    let interfaces = state.catalog.interfaces().count();
    let entries = match name {
        "dpd_rule_hits" => state.catalog.rules.len(),
        "dpd_prefilter_hits" => state.prefilter.len(),
        // What it opens, and what is opened to it.
        "dpd_endpoint_conns" => state.catalog.endpoints.len() * 2,
        "dpd_unmanaged" => interfaces,
        // Every reason, both ways.
        "dpd_drop_counts" => interfaces * REASONS.len() * 2,
        _ => usize::MAX,
    };
    entries as u64
}

fn generation_tables(state: &State) -> Result<Vec<(Kind, Fill, u32)>> {
    let full = |entries: u32| Fill {
        // A map has room for one entry at least.
        room: u64::from(entries.max(1)),
        entries: u64::from(entries),
    };
    let mut tables: Vec<(Kind, Fill, u32)> = table::sizes(state)
        .map(|(kind, entries)| (kind, full(entries), TABLE_COPIES))
        .collect();
    let (kind, chunks) = catalog::size(&state.catalog)?;
    tables.push((kind, full(chunks), CATALOG_COPIES));
    Ok(tables)
}

fn map_budget(kind: &Kind, fill: Fill, copies: u32, cpus: u32) -> MapBudget {
    let bytes = bytes(kind, fill, cpus);
    MapBudget {
        name: kind.name.to_owned(),
        kind: format!("{:?}", kind.map_type),
        entries: fill.entries,
        key_size: kind.key_size,
        value_size: kind.value_size,
        bytes,
        copies,
        peak_bytes: bytes * u64::from(copies),
    }
}

/// The entries that a map has room for, and those in it, which count where memory is allocated for each.
#[derive(Clone, Copy)]
struct Fill {
    room: u64,
    entries: u64,
}

/// The memory that the kernel counts for a map (`map_mem_usage` in kernel/bpf, the `memlock` of its fdinfo).
fn bytes(kind: &Kind, Fill { room, entries }: Fill, cpus: u32) -> u64 {
    let cpus = u64::from(cpus);
    let key = u64::from(kind.key_size).next_multiple_of(8);
    let value = u64::from(kind.value_size).next_multiple_of(8);
    let buckets = HASH + HASH_BUCKET * room.next_power_of_two();
    match kind.map_type {
        MapType::PercpuHash => {
            let own = HASH_ELEMENT + key + POINTER + value * cpus;
            // An element and the pointer to its values, both on a list of the allocator.
            let lists = 3 * POINTER;
            buckets + (own + lists) * entries
        }
        MapType::LruHash => buckets + (HASH_ELEMENT + key + value) * room,
        MapType::Hash if kind.flags & BPF_F_NO_PREALLOC != 0 => {
            buckets + (HASH_ELEMENT + key + value + POINTER) * entries
        }
        // Each CPU has a spare element, and a pointer to it.
        MapType::Hash => buckets + (HASH_ELEMENT + key + value) * (room + cpus) + POINTER * cpus,
        MapType::LpmTrie => {
            let data = u64::from(kind.key_size) - 4; // less the prefix's length
            (TRIE_NODE + data + u64::from(kind.value_size)) * entries
        }
        MapType::PercpuArray => ARRAY + (POINTER + value * cpus) * room,
        MapType::RingBuf => {
            let data = room / PAGE;
            // The data is mapped twice, one after the other.
            RING + (RING_OWN_PAGES + data) * PAGE + (RING_OWN_PAGES + 2 * data) * POINTER
        }
        _ if kind.flags & BPF_F_MMAPABLE != 0 => {
            ARRAY.next_multiple_of(PAGE) + (value * room).next_multiple_of(PAGE)
        }
        _ => ARRAY + value * room, // arrays of values, of maps and of programs
    }
}
