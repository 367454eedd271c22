//! Wakes the daemon after a netlink message: interfaces, addresses or routes to the host itself have changed, filters were
//! removed, or the stack's chains and policies have changed.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Sender, TrySendError};
use netlink_packet_route::route::RouteType;
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::local::TYPES;
use crate::worker::{Sleeper, Wake, Worker};

/// Multicast groups of rtnetlink (`linux/rtnetlink.h`).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_TC: u32 = 4;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
/// Changes of `rp_filter`.
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV4_RULE: u32 = 8;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTNLGRP_IPV6_RULE: u32 = 19;

/// Messages about routes, and the offset of the route's type in what follows the header (`linux/rtnetlink.h`).
const ROUTE_MESSAGES: [u16; 2] = [24, 25];
const ROUTE_TYPE: usize = 7;

/// The queue of messages about routes: a router that starts sends a million.
const ROUTES_BUFFER: usize = 4 << 20;

/// Messages of traffic control that remove no filter of dpd: new qdiscs, classes, filters and chains, and removed
/// classes. Where traffic is shaped there are many of them.
const IGNORED: [u16; 5] = [36, 40, 41, 44, 100];

/// Groups of nfnetlink and XFRM (`linux/netfilter/nfnetlink.h`, `linux/xfrm.h`).
const NFNLGRP_NFTABLES: u32 = 7;
const XFRMNLGRP_POLICY: u32 = 4;

/// Messages of nftables that are about tables, chains and rules. Sets change with every packet on some hosts.
const CHAIN_MESSAGES: [u16; 6] = [0x0a00, 0x0a02, 0x0a03, 0x0a05, 0x0a06, 0x0a08];

/// Bytes of `struct nlmsghdr`, and offsets in it.
const HEADER: usize = 16;
const LENGTH: std::ops::Range<usize> = 0..4;
const TYPE: std::ops::Range<usize> = 4..6;

/// Messages within this time after the first wake once: interfaces are created by the hundred.
const COALESCE: Duration = Duration::from_millis(20);

/// After lost messages about routes, most of which concern nobody here, this much later.
const LOSS_PAUSE: Duration = Duration::from_secs(1);

/// Messages that are read before waking, so that a flood can't delay it for ever.
const BURST: usize = 4096;

/// Whether a message is a reason to look: by its kind, and by what follows its header.
type Concerns = fn(u16, &[u8]) -> bool;

/// Messages to follow.
struct Source {
    socket: Socket,
    concerns: Concerns,
    /// The time between a loss of messages and the wake.
    loss_pause: Duration,
}

/// Follows a network namespace: its interfaces and addresses, or its stack. Ends when dropped.
#[derive(Debug)]
pub struct Watcher {
    _workers: Vec<Worker>,
}

impl Watcher {
    /// Sends `()` after each change of an interface, an address, or a route to the host itself in the calling thread's
    /// network namespace, of its reverse path filter, of a veth peer in another namespace, and when a filter or a qdisc is removed.
    /// `wake` is a channel of one: a full one already means "look again".
    ///
    /// To miss no change, start it before the first [`snapshot`](super::snapshot).
    ///
    /// # Errors
    /// If netlink refuses the subscription, or no thread can be started.
    pub fn start(wake: Sender<()>) -> Result<Watcher> {
        let interfaces = Source {
            socket: subscribe().context("subscribe to rtnetlink's messages")?,
            concerns: may_concern_interfaces,
            loss_pause: COALESCE,
        };
        let routes = Source {
            socket: subscribe_to_routes().context("subscribe to messages about routes")?,
            concerns: may_concern_local,
            loss_pause: LOSS_PAUSE,
        };
        let mut workers = Vec::new();
        for (name, source) in [("dpd-net", interfaces), ("dpd-routes", routes)] {
            let wake = wake.clone();
            workers.push(Worker::spawn(name, move |sleeper| {
                follow(&sleeper, &source, &wake);
            })?);
        }
        Ok(Watcher { _workers: workers })
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
            ("dpd-xfrm", NETLINK_XFRM, XFRMNLGRP_POLICY, |_, _| true),
        ];
        let mut workers = Vec::new();
        for (name, protocol, group, concerns) in sources {
            let source = match subscribe_to(protocol, &[group]) {
                Ok(socket) => Source {
                    socket,
                    concerns,
                    loss_pause: COALESCE,
                },
                Err(error) => {
                    log::debug!("{name}: subscribe to netlink's messages: {error}");
                    continue;
                }
            };
            let wake = wake.clone();
            workers.push(Worker::spawn(name, move |sleeper| {
                follow(&sleeper, &source, &wake);
            })?);
        }
        Ok(Watcher { _workers: workers })
    }
}

fn subscribe_to(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    Ok(socket)
}

fn subscribe_to_routes() -> io::Result<Socket> {
    let groups = [
        RTNLGRP_IPV4_ROUTE,
        RTNLGRP_IPV6_ROUTE,
        RTNLGRP_IPV4_RULE,
        RTNLGRP_IPV6_RULE,
    ];
    let socket = subscribe_to(NETLINK_ROUTE, &groups)?;
    if let Err(error) = set_socket_recv_buffer_size_force(&socket, ROUTES_BUFFER) {
        log::debug!("enlarge the queue of messages about routes: {error}");
    }
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
        RTNLGRP_IPV4_NETCONF,
    ] {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

/// Wakes after the messages that concern somebody.
fn follow(sleeper: &Sleeper, source: &Source, wake: &Sender<()>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if sleeper.sleep(Some(source.socket.as_fd()), None) == Wake::Stopped
            || sleeper.sleep(None, Some(COALESCE)) == Wake::Stopped
        {
            return;
        }
        match drain(source, &mut buffer) {
            Drained::Nothing => continue,
            Drained::Reason => {}
            Drained::Loss => {
                if sleeper.sleep(None, Some(source.loss_pause)) == Wake::Stopped {
                    return;
                }
                // The look that follows sees all of these.
                drain(source, &mut buffer);
            }
        }
        if let Err(TrySendError::Disconnected(())) = wake.try_send(()) {
            return;
        }
    }
}

/// What was in a queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Drained {
    /// Nothing that concerns anybody.
    Nothing,
    Reason,
    /// The kernel has dropped messages (`ENOBUFS`), which is a reason too.
    Loss,
}

/// Reads the queued messages.
fn drain(source: &Source, buffer: &mut [u8]) -> Drained {
    let mut drained = Drained::Nothing;
    for _ in 0..BURST {
        match source.socket.recv(&mut &mut *buffer, 0) {
            Ok(length) if may_concern(&buffer[..length], source.concerns) => {
                drained = drained.max(Drained::Reason);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return drained,
            Err(error) => {
                log::debug!("read netlink's messages: {error}");
                drained = Drained::Loss;
            }
        }
    }
    drained
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
        if concerns(
            u16::from_ne_bytes(kind),
            rest.get(HEADER..).unwrap_or_default(),
        ) {
            return true;
        }
        // Messages begin at multiples of four bytes.
        let length = (u32::from_ne_bytes(length) as usize).next_multiple_of(4);
        rest = rest.get(length.max(HEADER)..).unwrap_or_default();
    }
    false
}

fn may_concern_interfaces(kind: u16, _: &[u8]) -> bool {
    !IGNORED.contains(&kind)
}

/// Rules change rarely, and routes to other hosts by the thousand.
fn may_concern_local(kind: u16, body: &[u8]) -> bool {
    let of_route = |kind: &u8| TYPES.contains(&RouteType::from(*kind));
    !ROUTE_MESSAGES.contains(&kind) || body.get(ROUTE_TYPE).is_none_or(of_route)
}

fn is_of_chains(kind: u16, _: &[u8]) -> bool {
    CHAIN_MESSAGES.contains(&kind)
}
