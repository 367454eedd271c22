//! A packet socket that sees the ARP or the neighbour discovery of one link, and nothing else. rustix has neither its
//! addresses nor filters of sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};

use super::message::{ADVERTISEMENT, ARP, ICMPV6, IPV6, SOLICITATION};

/// The longest message with its options is shorter.
const FRAME: usize = 256;

/// A socket of one protocol on one link.
#[derive(Debug)]
pub struct LinkSocket(OwnedFd);

impl LinkSocket {
    /// Hears ARP.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or if the link is gone.
    pub fn arp(ifindex: u32) -> Result<LinkSocket> {
        LinkSocket::open(ifindex, ARP, &[])
    }

    /// Hears neighbour solicitations and advertisements.
    ///
    /// # Errors
    /// As `arp`.
    pub fn neighbour_discovery(ifindex: u32) -> Result<LinkSocket> {
        LinkSocket::open(ifindex, IPV6, &NEIGHBOUR_DISCOVERY)
    }

    /// It hears nothing before it has its filter: without a protocol it is on no link's list.
    fn open(ifindex: u32, ethertype: u16, filter: &[libc::sock_filter]) -> Result<LinkSocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
            .context("open a packet socket")?;
        if !filter.is_empty() {
            attach(&socket, filter).context("filter a packet socket")?;
        }
        bind(&socket, ifindex, ethertype).context("bind a packet socket")?;
        Ok(LinkSocket(socket))
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// If the link is down, or its queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.0, frame, SendFlags::empty())?;
        Ok(())
    }

    /// The next frame in the queue, as far as it is of interest; `None`: there is none.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; FRAME];
        loop {
            match rustix::net::recv(&self.0, &mut frame[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    frame.truncate(length);
                    return Some(frame);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(error) => {
                    log::debug!("read a packet socket: {error}"); // ENETDOWN: once, when its link goes down
                    return None;
                }
            }
        }
    }
}

impl AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A statement of the classic BPF that filters sockets (`linux/bpf_common.h`, `linux/filter.h`).
const fn statement(code: u32, value: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: if_true,
        jf: if_false,
        k: value,
    }
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Offsets in a frame: of the next header, and of ICMPv6's type behind the fixed header.
const NEXT_HEADER: u32 = 14 + 6;
const TYPE: u32 = 14 + 40;

const NEIGHBOUR_DISCOVERY: [libc::sock_filter; 7] = [
    statement(LOAD_BYTE, NEXT_HEADER, 0, 0),
    statement(EQUALS, ICMPV6 as u32, 0, 4),
    statement(LOAD_BYTE, TYPE, 0, 0),
    statement(EQUALS, SOLICITATION as u32, 1, 0),
    statement(EQUALS, ADVERTISEMENT as u32, 0, 1),
    statement(RETURN, FRAME as u32, 0, 0),
    statement(RETURN, 0, 0, 0),
];

fn attach(socket: &OwnedFd, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the filter, and writes neither it nor the struct that names it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn bind(socket: &OwnedFd, ifindex: u32, ethertype: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(ifindex).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the kernel reads a socket address of this type and length.
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
