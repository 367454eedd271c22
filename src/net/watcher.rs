//! Wakes the daemon after a netlink message: interfaces or addresses have changed, or filters were removed.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Sender, TrySendError};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::worker::{Sleeper, Wake, Worker};

/// Multicast groups of rtnetlink (`linux/rtnetlink.h`).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_TC: u32 = 4;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// Messages of traffic control that remove no filter of dpd: new qdiscs, classes, filters and chains, and removed
/// classes. Where traffic is shaped there are many of them.
const IGNORED: [u16; 5] = [36, 40, 41, 44, 100];

/// The offset of a message's type in `struct nlmsghdr`.
const TYPE: std::ops::Range<usize> = 4..6;

/// Messages within this time after the first wake once: interfaces are created by the hundred.
const COALESCE: Duration = Duration::from_millis(20);

/// Messages that are read before waking, so that a flood can't delay it for ever.
const BURST: usize = 4096;

/// Follows the interfaces and addresses of a network namespace. Ends when dropped.
#[derive(Debug)]
pub struct Watcher {
    _worker: Worker,
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
        let worker = Worker::spawn("dpd-net", move |sleeper| follow(&sleeper, &socket, &wake))?;
        Ok(Watcher { _worker: worker })
    }
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

fn follow(sleeper: &Sleeper, socket: &Socket, wake: &Sender<()>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if sleeper.sleep(Some(socket.as_fd()), None) == Wake::Stopped
            || sleeper.sleep(None, Some(COALESCE)) == Wake::Stopped
        {
            return;
        }
        if !drain(socket, &mut buffer) {
            continue;
        }
        if let Err(TrySendError::Disconnected(())) = wake.try_send(()) {
            return;
        }
    }
}

/// Reads the queued messages; returns whether to look again. So does `ENOBUFS`: the kernel has dropped messages.
fn drain(socket: &Socket, buffer: &mut [u8]) -> bool {
    let mut is_reason = false;
    for _ in 0..BURST {
        match socket.recv(&mut &mut *buffer, 0) {
            Ok(length) => is_reason |= may_concern(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return is_reason,
            Err(error) => {
                log::debug!("read rtnetlink's messages: {error}");
                is_reason = true;
            }
        }
    }
    is_reason
}

/// The kernel sends each message in a datagram of its own.
fn may_concern(message: &[u8]) -> bool {
    let kind = message.get(TYPE).and_then(|bytes| bytes.try_into().ok());
    kind.is_none_or(|kind| !IGNORED.contains(&u16::from_ne_bytes(kind)))
}
