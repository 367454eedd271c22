//! Memory of this process.

use anyhow::{Context, Result};
use mimalloc::MiMalloc;

/// A large file becomes very many small allocations: mimalloc is faster than glibc there, and returns more free memory to
/// the kernel.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Uses small pages only. Of huge pages a small configuration would use a tenth and hold all.
///
/// # Errors
/// If the kernel refuses.
pub fn use_small_pages() -> Result<()> {
    rustix::thread::disable_transparent_huge_pages(true).context("disable huge pages")
}

/// Returns the free memory of both heaps to the kernel. While a large configuration is read, compiled and written, there are
/// several copies of it; and libbpf, whose heap is glibc's, reads all of the kernel's types when it loads programs.
pub fn release_free() {
    // SAFETY: it only affects free memory, under the allocator's own locks.
    unsafe { libmimalloc_sys::mi_collect(true) };
    #[cfg(target_env = "gnu")]
    // SAFETY: the same.
    let _ = unsafe { libc::malloc_trim(0) };
}
