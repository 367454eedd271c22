//! Memory of this process.

use anyhow::{Context, Result};
use mimalloc::MiMalloc;

/// A large file is read into very many small pieces, which this gives and takes faster than glibc, and gives back to the
/// kernel more of what is free among those that stay.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Takes memory from the kernel in small pages only. Of huge ones a small configuration would touch a tenth, and keep all.
///
/// # Errors
/// If the kernel refuses.
pub fn in_small_pages() -> Result<()> {
    rustix::thread::disable_transparent_huge_pages(true).context("do without huge pages")
}

/// Gives back to the kernel what is free of both heaps. While a large configuration is read, compiled and written, it is there
/// several times over; and libbpf, whose heap is glibc's, reads all of the kernel's types when it loads programs.
pub fn give_back() {
    // SAFETY: it touches nothing but free memory, under the allocator's own locks.
    unsafe { libmimalloc_sys::mi_collect(true) };
    #[cfg(target_env = "gnu")]
    // SAFETY: the same.
    let _ = unsafe { libc::malloc_trim(0) };
}
