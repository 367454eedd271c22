//! Writing a generation without making it live, and discarding one.

use std::thread;

use anyhow::{Context, Result, anyhow};
use libbpf_rs::MapHandle;

use super::catalog;
use super::generation::Generations;
use super::staged::{Staged, pinned};
use super::table::TABLES;
use crate::bpf::sys::call::{call, inherit_context};
use crate::bpf::sys::map;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pins::Pins;
use crate::model::state::State;

impl Generations {
    /// Writes `state` as the next generation. `live` is what the live tables hold, where that is known: unchanged tables are
    /// shared. Packets meet nothing of it before the commit.
    ///
    /// # Errors
    /// If the kernel refuses a step; then nothing of it is left.
    pub fn stage(&self, state: &State, live: Option<&State>) -> Result<Staged> {
        let epoch = self.next_epoch();
        match self.write(state, live, epoch) {
            Ok(inner) => Ok(Staged {
                epoch,
                inner,
                pins: pinned(&self.pins.generation(epoch)),
            }),
            Err(error) => {
                self.discard(epoch);
                Err(error).with_context(|| format!("write generation {epoch}"))
            }
        }
    }

    /// Whether a generation that was staged some time ago can still be committed: it is the next, and its slots and pins are
    /// unchanged.
    pub fn can_commit(&self, staged: &Staged) -> bool {
        staged.epoch == self.next_epoch()
            && self.lost_from(staged.epoch, &staged.inner).is_empty()
            && staged.pins == pinned(&self.pins.generation(staged.epoch))
    }

    /// Frees the tables of a generation that was staged, in whole or in part, and not committed.
    pub fn discard(&self, epoch: u64) {
        match self.wait_for_readers() {
            Ok(()) => thread::scope(|scope| {
                for index in 0..TABLES.len() {
                    scope.spawn(inherit_context(move || self.free_slot(index, epoch)));
                }
            }),
            Err(error) => log::warn!("the memory of these tables is not freed: {error:#}"),
        }
        if let Err(error) = Pins::remove(&self.pins.generation(epoch)) {
            log::warn!(
                "tables of generation {epoch}, which was not committed, stay pinned: {error:#}"
            );
        }
    }

    fn write(&self, state: &State, live: Option<&State>, epoch: u64) -> Result<Vec<MapHandle>> {
        let dir = self.pins.generation(epoch);
        // There may be one that was staged ahead for another change.
        Pins::remove(&dir)?;
        Pins::make_dir(&dir)?;
        self.wait_for_readers()?;
        // A write to an outer slot waits for a grace period: in threads, the tables wait for the same one.
        thread::scope(|scope| {
            let catalog = scope.spawn(inherit_context(|| {
                catalog::write(&state.catalog, &dir.join(catalog::NAME))
            }));
            let writers: Vec<_> = (0..TABLES.len())
                .map(|index| {
                    scope.spawn(inherit_context(move || {
                        self.write_table(index, state, live, epoch)
                    }))
                })
                .collect();
            let panicked = |_| Err(anyhow!("a writer of tables panicked"));
            let tables: Result<Vec<MapHandle>> = writers
                .into_iter()
                .map(|writer| writer.join().unwrap_or_else(panicked))
                .collect();
            let written = catalog.join();
            written.unwrap_or_else(|_| Err(anyhow!("the writer of the catalog panicked")))?;
            tables
        })
    }

    fn write_table(
        &self,
        index: usize,
        state: &State,
        live: Option<&State>,
        epoch: u64,
    ) -> Result<MapHandle> {
        let map = self.table(index, state, live)?;
        let path = self.pins.generation(epoch).join(TABLES[index].kind.name);
        map::pin_map(&map, &path)?;
        let slot = (epoch & 1) as u32;
        self.fill_slot(index, slot, &map)?;
        if self.epoch_before != 0 && !self.is_live() {
            // During a takeover the new programs run before the commit, under epoch 0: both slots must be filled.
            self.fill_slot(index, slot ^ 1, &map)?;
        }
        Ok(map)
    }

    /// The inner map of a table: the live one if nothing changed, else a new one, filled.
    fn table(&self, index: usize, state: &State, live: Option<&State>) -> Result<MapHandle> {
        let table = &TABLES[index];
        if let (Some(live), Some(map)) = (live, self.inner.get(index))
            && (table.same)(live, state)
        {
            return MapHandle::try_from(map)
                .with_context(|| format!("table {}: share it", table.kind.name));
        }
        let rows = (table.rows)(state);
        let map = map::create(&table.kind, rows.count)?;
        map::write(&map, table.kind.name, &rows)?;
        map::freeze(&map, table.kind.name)?;
        Ok(map)
    }

    /// Removes a discarded table from its slot, which holds the live one then, if there is one.
    fn free_slot(&self, index: usize, epoch: u64) {
        let slot = (epoch & 1) as u32;
        let table = TABLES[index].kind.name;
        let freed = match self.inner.get(index) {
            Some(map) => self.fill_slot(index, slot, map),
            None => call(Op::ClearSlot { table, slot }, || {
                map::clear(&self.outer[index], slot)
            }),
        };
        if let Err(error) = freed {
            log::warn!("the memory of a table that was not committed is not freed: {error:#}");
        }
    }
}
