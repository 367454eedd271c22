//! The live epoch: one 64-bit word that programs read and one store switches.

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rustix::mm::{MapFlags, ProtFlags};

use super::map;
use super::pins::Pins;

/// The name of the map.
pub const MAP: &str = "dpd_live";

/// The epoch that is live in a folder of pins; `None` before the first.
pub fn epoch_of(pins: &Pins) -> Option<u64> {
    let array = map::open(&pins.map(MAP)).ok()?;
    let epoch = Live::map(array).ok()?.epoch();
    (epoch != 0).then_some(epoch)
}

/// Whether a folder of pins surely is no datapath that runs: it has no epoch, or one that was never switched to.
pub fn is_idle(pins: &Pins) -> bool {
    let path = pins.map(MAP);
    let epoch = map::open(&path).and_then(Live::map);
    epoch.map_or_else(|_| !path.exists(), |live| live.epoch() == 0)
}

/// The page of `dpd_live`.
#[derive(Debug)]
pub struct Live {
    page: NonNull<AtomicU64>,
    length: usize,
}

// SAFETY: the page is only ever read and written through an atomic.
unsafe impl Send for Live {}
// SAFETY: as above.
unsafe impl Sync for Live {}

impl Live {
    /// Maps the array `dpd_live`, which is `BPF_F_MMAPABLE`.
    pub fn map(array: impl AsFd) -> Result<Live> {
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
        .context("map dpd_live into memory")?;
        let page = NonNull::new(page.cast()).context("map dpd_live into memory: at address 0")?;
        Ok(Live { page, length })
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: the mapping is as long as `self`, starts at a page and so is aligned, and holds the array's first
        // value, 8 bytes.
        unsafe { self.page.as_ref() }
    }

    /// The epoch that programs work under.
    pub fn epoch(&self) -> u64 {
        self.word().load(Ordering::Acquire)
    }

    /// The switch: from the next packet on, this epoch's tables count.
    pub fn switch(&self, epoch: u64) {
        self.word().store(epoch, Ordering::Release);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody has a reference into it any more. That it fails can't be helped.
        let _ = unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), self.length) };
    }
}
