//! Generations: complete sets of tables, made live by one store.
//!
//! Each table is an outer map of two slots. The next generation is written to the slot that is not live; then its epoch,
//! whose lowest bit is the slot, is stored. A table without a change puts its live inner map into the other slot too.
//!
//! An inner map is frozen once it is filled: user space can't write it any more. What can drift is which map a slot holds,
//! and the epoch, and both are checked in a time that does not depend on the size of the tables.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::contents;
use super::live_epoch::{self, LiveEpoch};
use super::staged::Staged;
use super::table::TABLES;
use crate::bpf::abi;
use crate::bpf::sys::call::call;
use crate::bpf::sys::map;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pins::Pins;
use crate::model::state::State;

/// A foreign epoch that is farther ahead than this is never reached.
const REACHABLE: u64 = 1 << 32;

/// The outer maps and the live epoch.
#[derive(Debug)]
pub struct Generations {
    pub(super) pins: Pins,
    live: LiveEpoch,
    /// The epoch under which packets are served until the first commit: that of the datapath which is taken over; 0: none.
    pub(super) epoch_before: u64,
    pub(super) outer: Vec<MapHandle>,
    /// The inner maps of the live generation, in the order of `TABLES`.
    pub(super) inner: Vec<MapHandle>,
    /// The epoch of the last commit. Another one in the kernel was stored by somebody else.
    epoch: u64,
    /// The mark of packets that a hook has judged.
    mark: u32,
    /// The highest epoch that somebody else stored: connections may bear it, so it is never used.
    poisoned_epoch: u64,
    /// Every program that read an epoch before the last commit has ended.
    readers_drained: AtomicBool,
}

const MARK_ROW_BITS: u32 = abi::mark::MARK_ROW_BITS.0;
const MARK_MASK: u32 = u32::MAX << MARK_ROW_BITS;

/// Never 0, which is no mark; the lowest bits are for the row of a packet that waits.
fn random_mark() -> Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("get a random number")?;
    Ok((u32::from_ne_bytes(bytes) & MARK_MASK).max(1 << MARK_ROW_BITS))
}

impl Generations {
    /// Opens the pinned outer maps and, if one is live, the generation's inner maps.
    pub fn open(pins: &Pins) -> Result<Generations> {
        Generations::open_after(pins, 0, 0)
    }

    /// The same, continuing after an epoch of another datapath, whose mark is kept: packets under way bear it. Without one the
    /// mark is random, so that nobody else can know it.
    pub fn open_after(pins: &Pins, epoch_before: u64, mark_before: u32) -> Result<Generations> {
        let live = LiveEpoch::map(map::open(&pins.map(live_epoch::MAP))?)?;
        if live.mark() == 0 {
            live.store_mark(match mark_before & MARK_MASK {
                0 => random_mark()?,
                mark => mark,
            });
        }
        let outer = TABLES
            .iter()
            .map(|table| map::open(&pins.map(table.outer)))
            .collect::<Result<_>>()?;
        let dir = pins.generation(live.load());
        let inner = TABLES
            .iter()
            .map(|table| {
                let map = map::open(&dir.join(table.kind.name))?;
                map::freeze(&map, table.kind.name)?;
                Ok(map)
            })
            .collect::<Result<_>>()
            .unwrap_or_default(); // before the first generation, or with pins deleted: the next one shares no table
        Ok(Generations {
            pins: pins.clone(),
            epoch: live.load(),
            mark: live.mark(),
            poisoned_epoch: 0,
            readers_drained: AtomicBool::new(false),
            live,
            epoch_before,
            outer,
            inner,
        })
    }

    /// The epoch under which packets are to be served; 0 before the first.
    pub fn epoch(&self) -> u64 {
        match self.epoch {
            0 => self.epoch_before,
            epoch => epoch,
        }
    }

    /// Whether packets meet these tables, not none yet or those of the datapath that is taken over.
    pub fn is_live(&self) -> bool {
        self.epoch != 0
    }

    /// The pins were moved to another directory.
    pub fn set_pins(&mut self, pins: &Pins) {
        self.pins = pins.clone();
    }

    /// Whether somebody else stored another epoch.
    pub fn has_other_epoch(&self) -> bool {
        self.live.load() != self.epoch
    }

    /// Whether somebody else stored another mark.
    pub fn has_other_mark(&self) -> bool {
        self.live.mark() != self.mark
    }

    /// Stores our mark again, if somebody else has stored another; whether that was so.
    pub fn restore_mark(&self) -> bool {
        let is_other = self.has_other_mark();
        if is_other {
            self.live.store_mark(self.mark);
        }
        is_other
    }

    /// Stores our epoch again. Returns the one that somebody else had stored, if any. If later generations would reach it, it
    /// is never used: connections may bear it.
    pub fn restore_epoch(&mut self) -> Option<u64> {
        let other = self.live.load();
        if other == self.epoch {
            return None;
        }
        self.store_epoch(self.epoch);
        if other - self.epoch.min(other) < REACHABLE {
            self.poisoned_epoch = self.poisoned_epoch.max(other);
        }
        Some(other)
    }

    /// Whether connections may bear an epoch that is still to come.
    pub fn is_epoch_poisoned(&self) -> bool {
        self.poisoned_epoch > self.epoch
    }

    /// The next epoch that no connection bears and whose slot is not the live one.
    pub(super) fn next_epoch(&self) -> u64 {
        let next = self.epoch().max(self.poisoned_epoch) + 1;
        next + u64::from(next & 1 == self.epoch() & 1)
    }

    /// The tables whose live slot does not hold what it should.
    pub fn lost_slots(&self) -> Vec<&'static str> {
        self.lost_from(self.epoch, &self.inner)
    }

    /// The tables that are not in the slot of this epoch.
    pub(super) fn lost_from(&self, epoch: u64, inner: &[MapHandle]) -> Vec<&'static str> {
        let slot = (epoch as u32 & 1).to_ne_bytes();
        let is_lost = |index: &usize| {
            let (Some(map), Some(outer)) = (inner.get(*index), self.outer.get(*index)) else {
                return false;
            };
            let held = outer.lookup(&slot, MapFlags::ANY).ok().flatten();
            let wanted = map.info().map(|info| info.info.id.to_ne_bytes().to_vec());
            wanted.is_ok_and(|wanted| held != Some(wanted))
        };
        (0..TABLES.len())
            .filter(is_lost)
            .map(|index| TABLES[index].kind.name)
            .collect()
    }

    /// Puts the tables back into the live slot; returns those that were not there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn restore_slots(&self) -> Result<Vec<&'static str>> {
        let lost = self.lost_slots();
        for (index, map) in self.inner.iter().enumerate() {
            if lost.contains(&TABLES[index].kind.name) {
                self.fill_slot(index, (self.epoch & 1) as u32, map)?;
            }
        }
        Ok(lost)
    }

    /// The live generation as the kernel holds it; `None` before the first, or if its pins are gone.
    pub fn read(&self) -> Result<Option<State>> {
        let epoch = self.live.load();
        if epoch == 0 || self.inner.is_empty() {
            return Ok(None);
        }
        contents::read(&self.pins, epoch).map(Some)
    }

    /// Makes the staged generation live from the next packet on: one store, which can't fail. Returns its epoch.
    pub fn commit(&mut self, staged: Staged) -> u64 {
        self.store_epoch(staged.epoch);
        self.epoch = staged.epoch;
        self.inner = staged.inner;
        staged.epoch
    }

    /// Reverts the commit of the first generation, which no program uses any more. It can't fail. Connections may bear its
    /// epoch, so this daemon never uses that again.
    pub fn revert_first(&mut self) {
        let epoch = std::mem::take(&mut self.epoch);
        self.poisoned_epoch = self.poisoned_epoch.max(epoch);
        self.store_epoch(0);
        self.inner.clear();
        self.discard(epoch);
    }

    pub(super) fn fill_slot(&self, index: usize, slot: u32, map: &MapHandle) -> Result<()> {
        let table = TABLES[index].kind.name;
        call(Op::FillSlot { table, slot }, || {
            map::put(&self.outer[index], slot, map)
        })
    }

    fn store_epoch(&mut self, epoch: u64) {
        self.live.store(epoch);
        *self.readers_drained.get_mut() = false;
    }

    /// A program that read the epoch before the last commit may still use the slot that is written next: waits until there is
    /// none, once after each commit.
    ///
    /// # Errors
    /// As `wait_for_programs`.
    pub fn wait_for_readers(&self) -> Result<()> {
        if self.readers_drained.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.wait_for_programs()
    }

    /// Waits until every program that is running now has ended. An update of an outer map returns after a grace period
    /// (kernel/bpf/syscall.c, maybe_wait_bpf_programs), so the live map is put once more where it already is.
    ///
    /// # Errors
    /// If the kernel refuses the update.
    pub fn wait_for_programs(&self) -> Result<()> {
        if let Some(map) = self.inner.first() {
            self.fill_slot(0, (self.epoch() & 1) as u32, map)?;
            self.readers_drained.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Unpins the generations that are not live, staged ones included. Their maps live on while a slot holds them. Returns
    /// whether none of them is left.
    pub fn forget_old(&self) -> bool {
        let epoch = self.epoch();
        let mut is_done = true;
        for old in Pins::numbers(&self.pins.generations()) {
            if old != epoch
                && let Err(error) = Pins::remove(&self.pins.generation(old))
            {
                log::warn!("generation {old} stays pinned: {error:#}");
                is_done = false;
            }
        }
        is_done
    }
}
