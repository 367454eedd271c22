//! Words that programs read and one store changes: each is the one value of an array that is mapped into memory.

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapHandle, Program};
use rustix::mm::{MapFlags, ProtFlags};

use super::map;
use super::pins::{self, Pins};
use super::program;

/// The name of the map.
pub const MAP: &str = "dpd_live";

/// The epoch that is live in a folder of pins; `None` if it was never switched to one.
///
/// # Errors
/// If there is one and it can't be read: then nobody knows whether packets depend on it.
pub fn epoch_of(pins: &Pins) -> Result<Option<u64>> {
    let path = pins.map(MAP);
    if !path.exists() {
        return Ok(None);
    }
    let epoch = Live::map(map::open(&path)?)?.epoch();
    Ok((epoch != 0).then_some(epoch))
}

/// Pins the switch of a folder again, if it is not pinned any more and programs that are pinned there still read it:
/// packets are served under its epoch, and a new one would begin with epochs that connections bear already.
///
/// # Errors
/// If it can't be pinned.
pub fn recover(pins: &Pins) -> Result<()> {
    if pins.map(MAP).exists() {
        return Ok(());
    }
    let Some((map, epoch)) = find(pins) else {
        return Ok(());
    };
    pins.prepare()?;
    map::pin(&map, &pins.map(MAP))?;
    log::warn!(
        "{} was not pinned any more, and is again: the datapath goes on from revision {epoch}",
        pins.map(MAP).display()
    );
    Ok(())
}

/// The switch and its epoch, by the programs of a folder.
fn find(pins: &Pins) -> Option<(MapHandle, u64)> {
    let loads = Pins::numbers(&pins.loads()).into_iter();
    let folders = loads.map(|number| pins.load(number));
    let paths = folders.flat_map(|folder| {
        let names = pins::names(&folder).into_iter();
        names.map(move |name| folder.join(name))
    });
    // The rest there are maps.
    let programs = paths.filter_map(|path| Program::fd_from_pinned_path(path).ok());
    programs
        .flat_map(|program| program::map_ids(&program).unwrap_or_default())
        .filter_map(|id| MapHandle::from_map_id(id).ok())
        .filter(|map| map.name() == MAP)
        .find_map(|map| {
            let epoch = Live::map(&map).ok()?.epoch();
            (epoch != 0).then_some((map, epoch))
        })
}

/// The page of such an array.
#[derive(Debug)]
struct Word {
    page: NonNull<AtomicU64>,
    length: usize,
}

// SAFETY: the page is only ever read and written through an atomic.
unsafe impl Send for Word {}
// SAFETY: as above.
unsafe impl Sync for Word {}

impl Word {
    /// Maps the array, which is `BPF_F_MMAPABLE`.
    fn map(array: impl AsFd, name: &str) -> Result<Word> {
        let length = rustix::param::page_size();
        // SAFETY: a new mapping at an address of the kernel's choice disturbs none that exists.
        let page = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                array.as_fd(),
                0,
            )
        }
        .with_context(|| format!("map {name} into memory"))?;
        let page = NonNull::new(page.cast());
        let page = page.with_context(|| format!("map {name} into memory: at address 0"))?;
        Ok(Word { page, length })
    }

    fn get(&self) -> &AtomicU64 {
        // SAFETY: the mapping is as long as `self`, starts at a page and so is aligned, and holds the array's first
        // value, 8 bytes.
        unsafe { self.page.as_ref() }
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody has a reference into it any more. That it fails can't be helped.
        let _ = unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), self.length) };
    }
}

/// `dpd_live`: the live epoch.
#[derive(Debug)]
pub struct Live(Word);

impl Live {
    pub fn map(array: impl AsFd) -> Result<Live> {
        Word::map(array, MAP).map(Live)
    }

    /// The epoch that programs work under.
    pub fn epoch(&self) -> u64 {
        self.0.get().load(Ordering::Acquire)
    }

    /// The switch: from the next packet on, this epoch's tables count.
    pub fn switch(&self, epoch: u64) {
        self.0.get().store(epoch, Ordering::Release);
    }
}

/// `dpd_reader`: whether the reader of events is awake.
#[derive(Debug)]
pub struct Awake(Word);

impl Awake {
    pub fn map(array: impl AsFd) -> Result<Awake> {
        Word::map(array, "dpd_reader").map(Awake)
    }

    /// While it is awake no event wakes it.
    pub fn set(&self, is_awake: bool) {
        self.0.get().store(is_awake.into(), Ordering::SeqCst);
    }
}
