//! Maps and programs in the kernel.

use anyhow::Result;

use super::facts::Facts;
use super::family::{Family, Page, gauge};
use crate::model::status::{MapStatus, ProgramStatus};

const ENTRIES: Family = gauge("dpd_map_entries", &["map"], "Entries in a map.");
const MAX_ENTRIES: Family = gauge(
    "dpd_map_max_entries",
    &["map"],
    "Entries that a map may have.",
);
const MEMORY: Family = gauge(
    "dpd_map_memory_bytes",
    &["map"],
    "Memory of a map, as reported by the kernel.",
);
const VERIFIED: Family = gauge(
    "dpd_program_verified_instructions",
    &["program"],
    "Instructions that the kernel's verifier processed for a program; its limit is a million.",
);
const JITED: Family = gauge(
    "dpd_program_jited_bytes",
    &["program"],
    "Size of a program's machine code; 0 if it is not JIT-compiled.",
);

pub(super) const FAMILIES: &[Family] = &[ENTRIES, MAX_ENTRIES, MEMORY, VERIFIED, JITED];

pub(super) fn write(page: &mut Page, facts: &Facts) -> Result<()> {
    if let Some(maps) = page.take("maps", &facts.maps) {
        write_maps(page, maps)?;
    }
    if let Some(programs) = page.take("programs", &facts.programs) {
        write_programs(page, programs)?;
    }
    Ok(())
}

fn write_maps(page: &mut Page, maps: &[MapStatus]) -> Result<()> {
    // Arrays and rings have no number of entries.
    let hashes = || maps.iter().filter_map(|map| Some((map, map.entries?)));
    let label = |map: &MapStatus| vec![map.name.clone()];
    let entries = hashes().map(|(map, entries)| (label(map), entries as f64));
    page.write(&ENTRIES, entries)?;
    let room = hashes().map(|(map, _)| (label(map), f64::from(map.max_entries)));
    page.write(&MAX_ENTRIES, room)?;
    let memory = maps.iter();
    page.write(
        &MEMORY,
        memory.map(|map| (label(map), map.memory_bytes as f64)),
    )
}

fn write_programs(page: &mut Page, programs: &[ProgramStatus]) -> Result<()> {
    let of = |value: fn(&ProgramStatus) -> u32| {
        let series = programs.iter();
        series.map(move |program| (vec![program.name.clone()], f64::from(value(program))))
    };
    page.write(&VERIFIED, of(|program| program.verified_instructions))?;
    page.write(&JITED, of(|program| program.jited_bytes))
}
