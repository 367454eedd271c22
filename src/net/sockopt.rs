//! `getsockopt` with a buffer of bytes, for the options that rustix has no call for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Reads an option into `buffer`, whose bytes some options take as their argument. Returns the length of the value.
///
/// # Errors
/// The kernel's error.
pub fn get(socket: impl AsFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes at most `length` bytes, which is the
    // buffer's length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(length as usize),
        _ => Err(io::Error::last_os_error()),
    }
}
