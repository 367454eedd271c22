//! Carrying a table of the programs over to its successor of another layout or size, while packets pass.
//!
//! Rows move: they are written there, and deleted here once no former program can be at work on them any more. So a
//! carrying that was broken off can go on, and what is left is what is still to do. A row that is there already is newer;
//! where rows are counts of each CPU, both are added.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::btf::Btf;
use super::layout::{Conversion, Layout};
use super::map::{self, Facts};

/// The former programs go on while the rows move, and a row may itself move to a table that was looked through already.
const ROUNDS: usize = 32;

/// How the records of a table are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    pub key: Layout,
    pub value: Layout,
}

/// Types by the kernel's numbers: most tables have the same.
#[derive(Debug, Default)]
pub struct KernelTypes(BTreeMap<u32, Btf>);

impl KernelTypes {
    /// The records of a map; `None` if it came without types.
    pub fn records(&mut self, facts: &Facts) -> Result<Option<Records>> {
        if facts.btf == 0 || facts.value_type == 0 {
            return Ok(None);
        }
        let types = match self.0.entry(facts.btf) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(Btf::of_kernel(facts.btf)?)
            }
        };
        Ok(Some(Records {
            key: types.layout(facts.key_type)?,
            value: types.layout(facts.value_type)?,
        }))
    }
}

/// How the rows of a former table get into its successor.
#[derive(Debug)]
pub struct Carry {
    pub name: String,
    pub before: MapHandle,
    key: Conversion,
    value: Conversion,
    /// Keys are the same bytes in both.
    pub has_same_keys: bool,
    /// The key of a row that is only right together with a row, by that one. Both are carried at once, so that hardly a
    /// packet finds one alone.
    companion: Option<Conversion>,
}

impl Carry {
    /// # Errors
    /// Why records of the one can't become records of the other.
    pub fn new(
        name: &str,
        before: MapHandle,
        was: &Records,
        is: &Records,
    ) -> Result<Carry, String> {
        let convert = |what: &str, was: &Layout, is: &Layout| {
            let conversion = was.convert_to(is);
            conversion.map_err(|changed| format!("{what} of {name}: {}", changed.join(", ")))
        };
        if !is.key.members.keys().eq(was.key.members.keys()) {
            return Err(format!("the keys of {name} have other members"));
        }
        Ok(Carry {
            name: name.to_owned(),
            before,
            key: convert("the keys", &was.key, &is.key)?,
            value: convert("the rows", &was.value, &is.value)?,
            has_same_keys: was.key == is.key,
            companion: None,
        })
    }

    /// With each row goes another.
    pub fn with_companion(mut self, companion: Option<Conversion>) -> Carry {
        self.companion = companion;
        self
    }
}

fn is_percpu(map_type: MapType) -> bool {
    matches!(
        map_type,
        MapType::PercpuHash | MapType::PercpuArray | MapType::LruPercpuHash
    )
}

/// A table whose rows are carried over, and what takes its place.
#[derive(Debug)]
pub struct Carried {
    pub carry: Carry,
    pub after: MapHandle,
}

/// Rows that move together.
const BATCH: usize = 4096;

/// Moves all rows of these tables, until none is left; answers how many. `wait` waits for the programs that have begun.
///
/// # Errors
/// If the kernel refuses, or rows keep coming.
pub fn carry(tables: &[Carried], wait: impl Fn() -> Result<()>) -> Result<u64> {
    let mut moved = 0;
    for _ in 0..ROUNDS {
        let mut round = 0;
        for table in tables {
            let done = table.carry(&wait);
            round += done.with_context(|| format!("carry {} over", table.carry.name))?;
        }
        if round == 0 {
            return Ok(moved);
        }
        moved += round;
    }
    bail!("rows of the former tables keep coming")
}

impl Carried {
    fn carry(&self, wait: impl Fn() -> Result<()>) -> Result<u64> {
        if is_percpu(self.carry.before.map_type()) {
            return self.carry_counts();
        }
        let mut moved = 0;
        for keys in map::keys(&self.carry.before)?.chunks(BATCH) {
            let mut written = BTreeSet::new();
            for key in keys {
                self.write_with_companion(key, &mut written)?;
            }
            if written.is_empty() {
                continue;
            }
            wait()?;
            moved += written.len() as u64;
            for key in written {
                // Gone in the meantime: a program has deleted it.
                let _ = self.carry.before.delete(&key);
            }
        }
        Ok(moved)
    }

    fn write_with_companion(&self, key: &[u8], written: &mut BTreeSet<Vec<u8>>) -> Result<()> {
        if written.contains(key) {
            return Ok(());
        }
        let Some(row) = self.write(key)? else {
            return Ok(());
        };
        written.insert(key.to_vec());
        if let Some(companion) = &self.carry.companion {
            let key = companion.convert(&row);
            if !written.contains(&key) && self.write(&key)?.is_some() {
                written.insert(key);
            }
        }
        Ok(())
    }

    /// Read as late as can be: packets change it. Answers with the row as it was.
    fn write(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(row) = self.carry.before.lookup(key, MapFlags::ANY)? else {
            return Ok(None);
        };
        let key_after = self.carry.key.convert(key);
        let row_after = self.carry.value.convert(&row);
        match self
            .after
            .update(&key_after, &row_after, MapFlags::NO_EXIST)
        {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::AlreadyExists => {
                Err(error).context("write a row")
            }
            _ => Ok(Some(row)),
        }
    }

    fn carry_counts(&self) -> Result<u64> {
        let mut moved = 0;
        for key in self.carry.before.keys() {
            let Some(before) = self.carry.before.lookup_percpu(&key, MapFlags::ANY)? else {
                continue;
            };
            if before.iter().flatten().all(|byte| *byte == 0) {
                continue;
            }
            let new_key = self.carry.key.convert(&key);
            let after = self
                .after
                .lookup_percpu(&new_key, MapFlags::ANY)
                .ok()
                .flatten();
            let sums = before.iter().enumerate().map(|(cpu, value)| {
                let value = self.carry.value.convert(value);
                let now = after.as_ref().and_then(|after| after.get(cpu));
                now.map_or(value.clone(), |now| add(&value, now))
            });
            let sums: Vec<Vec<u8>> = sums.collect();
            self.after
                .update_percpu(&new_key, &sums, MapFlags::ANY)
                .context("write counts")?;
            self.forget_counts(&key, &before)?;
            moved += 1;
        }
        Ok(moved)
    }

    /// A row of an array can't be deleted.
    fn forget_counts(&self, key: &[u8], counts: &[Vec<u8>]) -> Result<()> {
        if self.carry.before.map_type() != MapType::PercpuArray {
            let _ = self.carry.before.delete(key);
            return Ok(());
        }
        let zeroes: Vec<Vec<u8>> = counts.iter().map(|count| vec![0; count.len()]).collect();
        self.carry
            .before
            .update_percpu(key, &zeroes, MapFlags::ANY)
            .context("clear counts")
    }
}

/// Rows of counts are words of 64 bits.
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
    fn counts_are_added_word_by_word() {
        let words = |words: [u64; 2]| -> Vec<u8> { words.map(u64::to_ne_bytes).concat() };
        assert_eq!(add(&words([1, 2]), &words([10, 20])), words([11, 22]));
    }
}
