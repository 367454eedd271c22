//! Words that programs read and one store changes: the first values of an array that is mapped into memory.

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result};
use rustix::mm::{MapFlags, ProtFlags};

/// The mapped page of such an array.
#[derive(Debug)]
pub struct MappedWord {
    page: NonNull<AtomicU64>,
    length: usize,
}

// SAFETY: the page is only ever read and written through an atomic.
unsafe impl Send for MappedWord {}
// SAFETY: as above.
unsafe impl Sync for MappedWord {}

impl MappedWord {
    /// Maps the array, which is `BPF_F_MMAPABLE`.
    pub fn map(array: impl AsFd, name: &str) -> Result<MappedWord> {
        let length = rustix::param::page_size();
        // SAFETY: a new mapping at an address of the kernel's choice overlaps no other.
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
        Ok(MappedWord { page, length })
    }

    /// The array's first value.
    pub fn get(&self) -> &AtomicU64 {
        // SAFETY: the mapping lives as long as `self`, is aligned to a page, and holds the array's first value, 8 bytes.
        unsafe { self.page.as_ref() }
    }

    /// Its second value; 0 if it has one alone, for the rest of the page is zero.
    pub fn second(&self) -> &AtomicU64 {
        // SAFETY: as above; 16 bytes are within the page.
        unsafe { self.page.add(1).as_ref() }
    }
}

impl Drop for MappedWord {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference into it is left. A failure leaks one page.
        let _ = unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), self.length) };
    }
}
