//! Which network namespace this is, as programs of sockets see it.

use std::io;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{sockopt, sysctl};

/// The option that has the cookie (`asm-generic/socket.h`; Linux 5.14). libc has no name for it.
const SO_NETNS_COOKIE: i32 = 71;

/// A sysctl of the whole kernel, which it shows in the initial network namespace alone (`net/core/sysctl_net_core.c`).
const OF_INITIAL_NETNS: &str = "core/netdev_budget";

/// The cookie of the calling thread's network namespace: `bpf_get_netns_cookie()` gives the same for its sockets. It is never
/// reused while the kernel runs, and never 0. Needs no privilege.
///
/// # Errors
/// If the kernel refuses a socket, or is older than 5.14.
pub fn netns_cookie() -> io::Result<u64> {
    let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
    let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    let mut cookie = [0; 8];
    sockopt::get(&socket, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut cookie)?;
    Ok(u64::from_ne_bytes(cookie))
}

/// Whether the calling thread is in the network namespace that the machine has booted with, and no container's.
pub fn is_initial_netns() -> bool {
    sysctl::is_known(OF_INITIAL_NETNS)
}
