//! What a kernel that lacks a part of the stack replies to questions about it.

use std::io;

/// Whether the error means that this kernel lacks what was asked.
pub fn is_unsupported(error: &io::Error) -> bool {
    // EINVAL: nfnetlink knows no subsystem of this number.
    let unsupported = [
        libc::EPROTONOSUPPORT,
        libc::EAFNOSUPPORT,
        libc::EOPNOTSUPP,
        libc::ENOPROTOOPT,
        libc::EINVAL,
    ];
    error
        .raw_os_error()
        .is_some_and(|number| unsupported.contains(&number))
}
