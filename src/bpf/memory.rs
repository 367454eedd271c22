//! Memory of this process that writing tables has taken.

/// Gives back to the kernel what is free of the heap. While a large configuration is read, compiled and written, it is there
/// several times over; glibc keeps what is freed then, in pieces, and would keep it for good.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing but free memory, under the allocator's own locks.
    let _ = unsafe { libc::malloc_trim(0) };
}
