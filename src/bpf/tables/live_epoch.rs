//! `dpd_live`: the epoch under which programs work, and their mark. One store of the epoch makes a generation live.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use anyhow::Result;

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
    let epoch = EpochView::map(map::open(&path)?)?.load();
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
    Ok(EpochView::map(map::open(&path)?)?.mark())
}

/// The mapped epoch and mark, to read.
#[derive(Debug)]
pub struct EpochView(MappedWord);

impl EpochView {
    pub fn map(array: impl AsFd) -> Result<EpochView> {
        MappedWord::map_to_read(array, MAP).map(EpochView)
    }

    /// The epoch under which programs work.
    pub fn load(&self) -> u64 {
        self.0.get().load(Ordering::Acquire)
    }

    /// What packets bear that a hook has judged and delivered.
    pub fn mark(&self) -> u32 {
        self.0.second().load(Ordering::Acquire) as u32
    }
}

/// The mapped epoch and mark, to change.
#[derive(Debug)]
pub struct LiveEpoch(EpochView);

impl LiveEpoch {
    pub fn map(array: impl AsFd) -> Result<LiveEpoch> {
        let word = MappedWord::map(array, MAP)?;
        Ok(LiveEpoch(EpochView(word)))
    }

    pub fn load(&self) -> u64 {
        self.0.load()
    }

    pub fn mark(&self) -> u32 {
        self.0.mark()
    }

    /// The commit: from the next packet on, programs use this epoch's tables.
    pub fn store(&self, epoch: u64) {
        self.0.0.get().store(epoch, Ordering::Release);
    }

    pub fn store_mark(&self, mark: u32) {
        self.0.0.second().store(mark.into(), Ordering::Release);
    }
}
