//! Wakes the daemon after a netlink message: interfaces or addresses have changed, filters were removed, or the stack's
//! chains and policies have changed.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Sender, TrySendError};
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM};

use crate::worker::{Sleeper, Wake, Worker};

/// Multicast groups of rtnetlink (`linux/rtnetlink.h`).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_TC: u32 = 4;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// Messages of traffic control that remove no filter of dpd: new qdiscs, classes, filters and chains, and removed
/// classes. Where traffic is shaped there are many of them.
const IGNORED: [u16; 5] = [36, 40, 41, 44, 100];

/// Groups of nfnetlink and XFRM (`linux/netfilter/nfnetlink.h`, `linux/xfrm.h`).
const NFNLGRP_NFTABLES: u32 = 7;
const XFRMNLGRP_POLICY: u32 = 4;

/// Messages of nftables that are about tables, chains and rules. Sets change with every packet on some hosts.
const CHAIN_MESSAGES: [u16; 6] = [0x0a00, 0x0a02, 0x0a03, 0x0a05, 0x0a06, 0x0a08];

/// Offsets in `struct nlmsghdr`.
const LENGTH: std::ops::Range<usize> = 0..4;
const TYPE: std::ops::Range<usize> = 4..6;

/// Messages within this time after the first wake once: interfaces are created by the hundred.
const COALESCE: Duration = Duration::from_millis(20);

/// Messages that are read before waking, so that a flood can't delay it for ever.
const BURST: usize = 4096;

/// Whether messages of a kind are a reason to look.
type Concerns = fn(u16) -> bool;

/// Follows a network namespace: its interfaces and addresses, or its stack. Ends when dropped.
#[derive(Debug)]
pub struct Watcher {
    _workers: Vec<Worker>,
}

impl Watcher {
    /// Sends `()` after each change of an interface or address in the calling thread's network namespace, of a veth peer
    /// in another namespace, and when a filter or a qdisc is removed. `wake` is a channel of one: a full one already
    /// means "look again".
    ///
    /// To miss no change, start it before the first [`snapshot`](super::snapshot).
    ///
    /// # Errors
    /// If netlink refuses the subscription, or no thread can be started.
    pub fn start(wake: Sender<()>) -> Result<Watcher> {
        let socket = subscribe().context("subscribe to rtnetlink's messages")?;
        let worker = Worker::spawn("dpd-net", move |sleeper| {
            follow(&sleeper, &socket, may_concern_interfaces, &wake);
        })?;
        Ok(Watcher {
            _workers: vec![worker],
        })
    }

    /// Sends `()` after each change of nftables' chains and rules, and of XFRM policies, in the calling thread's network
    /// namespace. A kernel without one of them sends nothing about it; iptables-legacy sends nothing at all.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start_for_stack(wake: &Sender<()>) -> Result<Watcher> {
        let sources: [(&str, isize, u32, Concerns); 2] = [
            (
                "dpd-netfilter",
                NETLINK_NETFILTER,
                NFNLGRP_NFTABLES,
                is_of_chains,
            ),
            ("dpd-xfrm", NETLINK_XFRM, XFRMNLGRP_POLICY, |_| true),
        ];
        let mut workers = Vec::new();
        for (name, protocol, group, concerns) in sources {
            let socket = match subscribe_to(protocol, group) {
                Ok(socket) => socket,
                Err(error) => {
                    log::debug!("{name}: subscribe to netlink's messages: {error}");
                    continue;
                }
            };
            let wake = wake.clone();
            workers.push(Worker::spawn(name, move |sleeper| {
                follow(&sleeper, &socket, concerns, &wake);
            })?);
        }
        Ok(Watcher { _workers: workers })
    }
}

fn subscribe_to(protocol: isize, group: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    socket.add_membership(group)?;
    Ok(socket)
}

fn subscribe() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    if let Err(error) = socket.set_listen_all_namespaces(true) {
        log::warn!(
            "subscribe to messages of other network namespaces: {error}: a workload that changes its MAC address is \
             noticed late; give dpd CAP_NET_BROADCAST"
        );
    }
    for group in [
        RTNLGRP_LINK,
        RTNLGRP_TC,
        RTNLGRP_IPV4_IFADDR,
        RTNLGRP_IPV6_IFADDR,
    ] {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

/// Wakes after messages of the kinds that `concerns` says.
fn follow(sleeper: &Sleeper, socket: &Socket, concerns: Concerns, wake: &Sender<()>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if sleeper.sleep(Some(socket.as_fd()), None) == Wake::Stopped
            || sleeper.sleep(None, Some(COALESCE)) == Wake::Stopped
        {
            return;
        }
        if !drain(socket, &mut buffer, concerns) {
            continue;
        }
        if let Err(TrySendError::Disconnected(())) = wake.try_send(()) {
            return;
        }
    }
}

/// Reads the queued messages; returns whether to look again. So does `ENOBUFS`: the kernel has dropped messages.
fn drain(socket: &Socket, buffer: &mut [u8], concerns: Concerns) -> bool {
    let mut is_reason = false;
    for _ in 0..BURST {
        match socket.recv(&mut &mut *buffer, 0) {
            Ok(length) => is_reason |= may_concern(&buffer[..length], concerns),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return is_reason,
            Err(error) => {
                log::debug!("read netlink's messages: {error}");
                is_reason = true;
            }
        }
    }
    is_reason
}

/// rtnetlink sends each message in a datagram of its own, nftables those of a transaction together.
fn may_concern(datagram: &[u8], concerns: Concerns) -> bool {
    let mut rest = datagram;
    while !rest.is_empty() {
        let length = rest.get(LENGTH).and_then(|bytes| bytes.try_into().ok());
        let kind = rest.get(TYPE).and_then(|bytes| bytes.try_into().ok());
        let (Some(length), Some(kind)) = (length, kind) else {
            return true;
        };
        if concerns(u16::from_ne_bytes(kind)) {
            return true;
        }
        // Messages begin at multiples of four bytes.
        let length = (u32::from_ne_bytes(length) as usize).next_multiple_of(4);
        rest = rest.get(length.max(TYPE.end)..).unwrap_or_default();
    }
    false
}

fn may_concern_interfaces(kind: u16) -> bool {
    !IGNORED.contains(&kind)
}

fn is_of_chains(kind: u16) -> bool {
    CHAIN_MESSAGES.contains(&kind)
}
