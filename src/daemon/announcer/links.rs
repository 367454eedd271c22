//! The sockets on the links that announce.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::claim::Message;
use super::claims::Outgoing;
use crate::model::announce::AnnouncingLink;
use crate::net::neighbour::{Groups, Heard, LinkSocket, announcement, probe};

/// Frames of one socket that are read before what is due is sent.
const BURST: usize = 256;

#[derive(Default)]
pub struct Links {
    wanted: Vec<AnnouncingLink>,
    open: BTreeMap<u32, Sockets>,
    groups: Groups,
    /// Why links have no sockets, and since when.
    refused: Vec<String>,
    refused_at: Option<Instant>,
    /// Why a group is not joined.
    group_error: Option<String>,
}

/// Of one link.
struct Sockets {
    arp: LinkSocket,
    neighbour_discovery: LinkSocket,
}

impl Sockets {
    fn open(ifindex: u32) -> Result<Sockets> {
        Ok(Sockets {
            arp: LinkSocket::arp(ifindex)?,
            neighbour_discovery: LinkSocket::neighbour_discovery(ifindex)?,
        })
    }
}

impl Links {
    /// Opens the sockets of these links, `None`: of the same as before, and closes all others. Returns the links that
    /// have them: what can't be probed is not announced.
    pub fn open(
        &mut self,
        wanted: Option<Vec<AnnouncingLink>>,
        now: Instant,
    ) -> Vec<AnnouncingLink> {
        if let Some(wanted) = wanted {
            self.wanted = wanted;
        }
        self.refused.clear();
        let mut before = std::mem::take(&mut self.open);
        for link in &self.wanted {
            let sockets = before.remove(&link.ifindex);
            match sockets.map_or_else(|| Sockets::open(link.ifindex), Ok) {
                Ok(sockets) => {
                    self.open.insert(link.ifindex, sockets);
                }
                Err(error) => self.refused.push(format!(
                    "uplink {} announces nothing: {error:#}: l2_announce needs CAP_NET_RAW",
                    link.interface
                )),
            }
        }
        self.refused_at = (!self.refused.is_empty()).then_some(now);
        let links = self.wanted.iter();
        let open = links.filter(|link| self.open.contains_key(&link.ifindex));
        open.cloned().collect()
    }

    /// Joins the groups at which the link asks for these addresses.
    pub fn join(&mut self, addresses: impl Iterator<Item = (u32, IpAddr)>) {
        let of_ipv6 = addresses.filter_map(|(ifindex, address)| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some((ifindex, v6)),
        });
        let joined = self.groups.follow(of_ipv6);
        self.group_error = joined.err().map(|error| {
            format!("join the multicast group of an announced address: {error}: network cards may not hear who asks for it")
        });
    }

    pub fn is_retry_due(&self, now: Instant, interval: Duration) -> bool {
        self.retry(interval).is_some_and(|due| due <= now)
    }

    /// When refused links are to be tried again.
    pub fn retry(&self, interval: Duration) -> Option<Instant> {
        self.refused_at.map(|at| at + interval)
    }

    pub fn warnings(&self) -> Vec<String> {
        self.refused
            .iter()
            .chain(&self.group_error)
            .cloned()
            .collect()
    }

    pub fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let sockets = self.open.values();
        sockets.flat_map(|of_link| [of_link.arp.as_fd(), of_link.neighbour_discovery.as_fd()])
    }

    /// What is heard now, by the ifindex of the link.
    pub fn receive(&self) -> Vec<(u32, Heard)> {
        let mut heard = Vec::new();
        for (ifindex, of_link) in &self.open {
            for socket in [&of_link.arp, &of_link.neighbour_discovery] {
                let frames = std::iter::from_fn(|| socket.receive()).take(BURST);
                let read = frames.filter_map(|frame| Heard::read(&frame));
                heard.extend(read.map(|read| (*ifindex, read)));
            }
        }
        heard
    }

    /// A frame that is lost is like one that the link loses.
    pub fn send(&self, outgoing: &Outgoing) {
        let (on_link, own) = (outgoing.on_link, outgoing.own);
        let Some(sockets) = self.open.get(&on_link.ifindex) else {
            return;
        };
        let frame = match outgoing.message {
            Message::Probe => probe(on_link.address, own),
            Message::Announcement => announcement(on_link.address, own),
        };
        let socket = match on_link.address {
            IpAddr::V4(_) => &sockets.arp,
            IpAddr::V6(_) => &sockets.neighbour_discovery,
        };
        if let Err(error) = socket.send(&frame) {
            log::debug!("send to interface {}: {error}", on_link.ifindex);
        }
    }
}
