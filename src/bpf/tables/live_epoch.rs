//! `dpd_live`: the epoch under which programs work, and their mark. One store of the epoch makes a generation live.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::bpf::sys::map;
use crate::bpf::sys::mapped_word::MappedWord;
use crate::bpf::sys::pins::Pins;

/// The name of the map.
pub const MAP: &str = "dpd_live";

/// The live epoch below a directory of pins; `None` if no generation was ever live there.
///
/// # Errors
/// If it can't be read: then packets may depend on it.
pub fn epoch_of(pins: &Pins) -> Result<Option<u64>> {
    let path = pins.map(MAP);
    if !path.exists() {
        return Ok(None);
    }
    let epoch = EpochView::of(map::open(&path)?).load()?;
    Ok((epoch != 0).then_some(epoch))
}

/// The mark of the programs below a directory of pins; 0: there is none.
///
/// # Errors
/// If it can't be read: then packets under way would lose their verdict.
pub fn mark_of(pins: &Pins) -> Result<u32> {
    let path = pins.map(MAP);
    if !path.exists() {
        return Ok(0);
    }
    EpochView::of(map::open(&path)?).mark()
}

/// The epoch and mark, for a process that may not write them: only a writable array can be mapped into memory (mm/mmap.c
/// takes `VM_SHARED` from other files, and kernel/bpf/syscall.c requires it).
#[derive(Debug)]
pub struct EpochView(MapHandle);

impl EpochView {
    pub fn of(map: MapHandle) -> EpochView {
        EpochView(map)
    }

    /// The epoch under which programs work.
    pub fn load(&self) -> Result<u64> {
        self.word(0)
    }

    /// What packets bear that a hook has judged and delivered; 0 if there is none.
    fn mark(&self) -> Result<u32> {
        match self.0.max_entries() {
            0..2 => Ok(0),
            _ => Ok(self.word(1)? as u32),
        }
    }

    fn word(&self, index: u32) -> Result<u64> {
        let value = self.0.lookup(&index.to_ne_bytes(), MapFlags::ANY);
        let value = value.with_context(|| format!("read {MAP}"))?;
        let word = value.as_deref().and_then(|value| value.first_chunk());
        let word = word.with_context(|| format!("read {MAP}: it has other values"))?;
        Ok(u64::from_ne_bytes(*word))
    }
}

impl AsFd for EpochView {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The mapped epoch and mark, to change.
#[derive(Debug)]
pub struct LiveEpoch(MappedWord);

impl LiveEpoch {
    pub fn map(array: impl AsFd) -> Result<LiveEpoch> {
        MappedWord::map(array, MAP).map(LiveEpoch)
    }

    /// The epoch under which programs work.
    pub fn load(&self) -> u64 {
        self.0.get().load(Ordering::Acquire)
    }

    /// What packets bear that a hook has judged and delivered.
    pub fn mark(&self) -> u32 {
        self.0.second().load(Ordering::Acquire) as u32
    }

    /// The commit: from the next packet on, programs use this epoch's tables.
    pub fn store(&self, epoch: u64) {
        self.0.get().store(epoch, Ordering::Release);
    }

    pub fn store_mark(&self, mark: u32) {
        self.0.second().store(mark.into(), Ordering::Release);
    }
}
