//! Migration of a map that programs write to one of another layout or size, while packets pass.
//!
//! Steps for each batch of rows: they are written to the target; a grace period passes, after which the previous programs
//! find them there; they are deleted from the source. So a migration that was interrupted continues with the rows that are
//! left. A row that the target has already is newer and stays; of per-CPU counters the sum is written.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::layouts::Records;
use crate::bpf::sys::map;
use crate::bpf::sys::record_layout::{Conversion, Layout};

/// Walks over all tables: the previous programs continue meanwhile, and may move an entry to a table that was walked already.
const ROUNDS: usize = 32;

/// The map that is migrated, and how its rows are converted.
#[derive(Debug)]
pub struct MigrationPlan {
    pub name: String,
    pub source: MapHandle,
    key: Conversion,
    value: Conversion,
    /// Keys are the same bytes in both.
    pub has_same_keys: bool,
    /// From a conntrack entry to the key of its reverse entry. Both are migrated together, so that few packets find only one.
    reverse_key: Option<Conversion>,
}

impl MigrationPlan {
    /// # Errors
    /// Why records of the one can't be converted to the other.
    pub fn new(
        name: &str,
        source: MapHandle,
        old: &Records,
        new: &Records,
    ) -> Result<MigrationPlan, String> {
        let convert = |what: &str, old: &Layout, new: &Layout| {
            let conversion = old.convert_to(new);
            conversion.map_err(|changed| format!("{what} of {name}: {}", changed.join(", ")))
        };
        if !new.key.members.keys().eq(old.key.members.keys()) {
            return Err(format!("the keys of {name} have other members"));
        }
        Ok(MigrationPlan {
            name: name.to_owned(),
            source,
            key: convert("the keys", &old.key, &new.key)?,
            value: convert("the rows", &old.value, &new.value)?,
            has_same_keys: old.key == new.key,
            reverse_key: None,
        })
    }

    /// Each entry is migrated with its reverse entry.
    pub fn with_reverse(mut self, reverse_key: Option<Conversion>) -> MigrationPlan {
        self.reverse_key = reverse_key;
        self
    }
}

fn is_percpu(map_type: MapType) -> bool {
    matches!(
        map_type,
        MapType::PercpuHash | MapType::PercpuArray | MapType::LruPercpuHash
    )
}

/// A migration and the map that takes the rows.
#[derive(Debug)]
pub struct Migration {
    pub plan: MigrationPlan,
    pub target: MapHandle,
}

/// Rows that share a grace period.
const BATCH: usize = 4096;

/// Migrates all rows of these maps, until none is left; returns how many. `wait` waits for the programs that are running.
///
/// # Errors
/// If the kernel refuses, or rows are inserted faster than they are migrated.
pub fn migrate(maps: &[Migration], wait: impl Fn() -> Result<()>) -> Result<u64> {
    let mut moved = 0;
    for _ in 0..ROUNDS {
        let mut round = 0;
        for map in maps {
            let done = map.migrate(&wait);
            round += done.with_context(|| format!("migrate {}", map.plan.name))?;
        }
        if round == 0 {
            return Ok(moved);
        }
        moved += round;
    }
    bail!("rows are inserted into the previous tables faster than they are migrated")
}

impl Migration {
    fn migrate(&self, wait: impl Fn() -> Result<()>) -> Result<u64> {
        if is_percpu(self.plan.source.map_type()) {
            return self.migrate_counters();
        }
        let mut moved = 0;
        for keys in map::keys(&self.plan.source)?.chunks(BATCH) {
            let mut written = BTreeSet::new();
            for key in keys {
                self.write_with_reverse(key, &mut written)?;
            }
            if written.is_empty() {
                continue;
            }
            wait()?;
            moved += written.len() as u64;
            for key in written {
                // It fails if a program has deleted the row meanwhile.
                let _ = self.plan.source.delete(&key);
            }
        }
        Ok(moved)
    }

    fn write_with_reverse(&self, key: &[u8], written: &mut BTreeSet<Vec<u8>>) -> Result<()> {
        if written.contains(key) {
            return Ok(());
        }
        let Some(row) = self.write(key)? else {
            return Ok(());
        };
        written.insert(key.to_vec());
        if let Some(reverse_key) = &self.plan.reverse_key {
            let key = reverse_key.convert(&row);
            if !written.contains(&key) && self.write(&key)?.is_some() {
                written.insert(key);
            }
        }
        Ok(())
    }

    /// Writes a row as it is now: packets change it. Returns it in the old layout.
    fn write(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(row) = self.plan.source.lookup(key, MapFlags::ANY)? else {
            return Ok(None);
        };
        let new_key = self.plan.key.convert(key);
        let new_row = self.plan.value.convert(&row);
        match self.target.update(&new_key, &new_row, MapFlags::NO_EXIST) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::AlreadyExists => {
                Err(error).context("write a row")
            }
            _ => Ok(Some(row)),
        }
    }

    fn migrate_counters(&self) -> Result<u64> {
        let mut moved = 0;
        for key in self.plan.source.keys() {
            let Some(old) = self.plan.source.lookup_percpu(&key, MapFlags::ANY)? else {
                continue;
            };
            if old.iter().flatten().all(|byte| *byte == 0) {
                continue;
            }
            let new_key = self.plan.key.convert(&key);
            let there = self
                .target
                .lookup_percpu(&new_key, MapFlags::ANY)
                .ok()
                .flatten();
            let sums = old.iter().enumerate().map(|(cpu, value)| {
                let value = self.plan.value.convert(value);
                let now = there.as_ref().and_then(|there| there.get(cpu));
                now.map_or(value.clone(), |now| add(&value, now))
            });
            let sums: Vec<Vec<u8>> = sums.collect();
            self.target
                .update_percpu(&new_key, &sums, MapFlags::ANY)
                .context("write counters")?;
            self.clear_counters(&key, &old)?;
            moved += 1;
        }
        Ok(moved)
    }

    /// A row of an array can't be deleted.
    fn clear_counters(&self, key: &[u8], counts: &[Vec<u8>]) -> Result<()> {
        if self.plan.source.map_type() != MapType::PercpuArray {
            let _ = self.plan.source.delete(key);
            return Ok(());
        }
        let zeroes: Vec<Vec<u8>> = counts.iter().map(|count| vec![0; count.len()]).collect();
        self.plan
            .source
            .update_percpu(key, &zeroes, MapFlags::ANY)
            .context("clear counters")
    }
}

/// Rows of counters are words of 64 bits.
fn add(a: &[u8], b: &[u8]) -> Vec<u8> {
    const WORD: usize = size_of::<u64>();
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default();
    a.chunks(WORD)
        .zip(b.chunks(WORD))
        .flat_map(|(a, b)| word(a).wrapping_add(word(b)).to_ne_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_added_word_by_word() {
        let words = |words: [u64; 2]| -> Vec<u8> { words.map(u64::to_ne_bytes).concat() };
        assert_eq!(add(&words([1, 2]), &words([10, 20])), words([11, 22]));
    }
}
