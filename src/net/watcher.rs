//! Hears that interfaces or addresses have changed, or that filters were taken away, and says: look again.

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

/// News of traffic control that take nothing away: new qdiscs, classes, filters and chains, and classes that go. Where
/// others shape traffic there are many of them.
const NOTHING_GONE: [u16; 5] = [36, 40, 41, 44, 100];

/// Where a message of netlink has its kind (`struct nlmsghdr`).
const KIND: std::ops::Range<usize> = 4..6;

/// What comes within this time of a first message is one change with it: interfaces are made by the hundred.
const COALESCE: Duration = Duration::from_millis(20);

/// A burst of more messages than this is read in parts, so that a flood can't keep the news back.
const BURST: usize = 4096;

/// Follows the interfaces and addresses of a network namespace. Ends when dropped.
#[derive(Debug)]
pub struct Watcher {
    _worker: Worker,
}

impl Watcher {
    /// Sends `()` after each change of an interface or address in the calling thread's network namespace, of veth peers
    /// in other namespaces, and when a filter or a qdisc has gone. `wake` is a channel of one: a full one already says "look again".
    ///
    /// To miss nothing, start it before the first [`snapshot`](super::snapshot).
    pub fn start(wake: Sender<()>) -> Result<Watcher> {
        let socket = subscribe().context("subscribe to the kernel's news of interfaces")?;
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
            "listen to the news of other network namespaces: {error}: a workload that changes its MAC address is \
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

/// Takes what has come; answers whether that is a reason to look again. So is `ENOBUFS`, by which the kernel says that
/// there was too much of it.
fn drain(socket: &Socket, buffer: &mut [u8]) -> bool {
    let mut is_reason = false;
    for _ in 0..BURST {
        match socket.recv(&mut &mut *buffer, 0) {
            Ok(length) => is_reason |= may_concern(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return is_reason,
            Err(error) => {
                log::debug!("read the news of interfaces: {error}");
                is_reason = true;
            }
        }
    }
    is_reason
}

/// The kernel sends each piece of news by itself.
fn may_concern(message: &[u8]) -> bool {
    let kind = message.get(KIND).and_then(|bytes| bytes.try_into().ok());
    kind.is_none_or(|kind| !NOTHING_GONE.contains(&u16::from_ne_bytes(kind)))
}
