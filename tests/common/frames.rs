//! Whole frames, sent and captured at an interface of the caller's network namespace (AF_PACKET): packets as no socket of
//! another kind would send them.

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// A socket at one interface. It stays in the namespace in which it was opened.
pub struct FrameSocket {
    socket: OwnedFd,
}

impl FrameSocket {
    /// A socket that sends.
    pub fn sender(interface: &str) -> FrameSocket {
        FrameSocket::open(interface, 0)
    }

    /// A socket that receives what the interface receives and sends from now on.
    pub fn capture(interface: &str) -> FrameSocket {
        FrameSocket::open(interface, libc::ETH_P_ALL as u16)
    }

    fn open(interface: &str, ethertype: u16) -> FrameSocket {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = AddressFamily::PACKET;
        // It receives nothing before it is bound to its interface.
        let socket = rustix::net::socket_with(family, SocketType::RAW, flags, None);
        let socket = socket.expect("a packet socket, which needs root");
        let ifindex = rustix::net::netdevice::name_to_index(&socket, interface);
        let ifindex = ifindex.unwrap_or_else(|error| panic!("{interface}: {error}"));
        bind(&socket, ifindex, ethertype).unwrap_or_else(|error| panic!("{interface}: {error}"));
        FrameSocket { socket }
    }

    pub fn send(&self, frame: &[u8]) {
        let sent = rustix::net::send(&self.socket, frame, SendFlags::empty());
        assert_eq!(sent, Ok(frame.len()), "send a frame");
    }

    /// The next captured frame, if there is one.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65536];
        let received = rustix::net::recv(&self.socket, frame.as_mut_slice(), RecvFlags::empty());
        let (length, _) = received.ok()?;
        frame.truncate(length);
        Some(frame)
    }
}

fn bind(socket: &OwnedFd, ifindex: u32, ethertype: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the kernel reads a sockaddr_ll of this length, and keeps no pointer to it.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends an IP packet, with whatever addresses it has, by the host's routes; with this packet mark.
pub fn send_routed(packet: &[u8], to: SocketAddr, mark: u32) -> io::Result<()> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let raw = std::num::NonZeroU32::new(libc::IPPROTO_RAW as u32).map(Protocol::from_raw);
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::RAW, flags, raw)?;
    set_mark(&socket, mark)?;
    rustix::net::sendto(&socket, packet, SendFlags::empty(), &to)?;
    Ok(())
}

/// The mark of all packets that the socket sends.
pub fn set_mark(socket: &impl AsRawFd, mark: u32) -> io::Result<()> {
    // SAFETY: the kernel reads a number of this length, and keeps no pointer to it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            (&raw const mark).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
