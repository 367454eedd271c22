//! The host's interfaces and addresses at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkMessage,
};

use super::rtnetlink::{Answer, Rtnetlink, address, attributes};
use crate::model::host::{HostState, Link, LinkPeer, Mac};

/// Attributes of links and addresses (`linux/if_link.h`, `linux/if_addr.h`).
mod attribute {
    pub const IFLA_ADDRESS: u16 = 1;
    pub const IFLA_IFNAME: u16 = 3;
    pub const IFLA_MTU: u16 = 4;
    pub const IFLA_LINK: u16 = 5;
    pub const IFLA_LINKINFO: u16 = 18;
    pub const IFLA_LINK_NETNSID: u16 = 37;
    /// Inside of `IFLA_LINKINFO`.
    pub const IFLA_INFO_KIND: u16 = 1;
    pub const IFA_ADDRESS: u16 = 1;
    pub const IFA_LOCAL: u16 = 2;
}

/// Bytes of `struct ifinfomsg` and `struct ifaddrmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
/// Where `struct ifaddrmsg` has the index of the interface.
const ADDRESS_INDEX: std::ops::Range<usize> = 4..8;

/// The interfaces and addresses of the calling thread's network namespace. Needs no privilege; the MAC of a veth
/// peer in another namespace does, and is `None` without.
pub fn snapshot() -> Result<HostState> {
    let mut rtnetlink = Rtnetlink::open().context("open an rtnetlink socket")?;
    let mut links = list_links(&mut rtnetlink).context("list the host's interfaces")?;
    let addresses = list_addresses(&mut rtnetlink).context("list the host's addresses")?;
    for link in links.values_mut() {
        let own = addresses
            .iter()
            .filter(|(ifindex, _)| *ifindex == link.ifindex);
        link.addresses = own.map(|(_, address)| *address).collect();
    }
    let addresses = addresses.into_iter().map(|(_, address)| address).collect();
    Ok(HostState { links, addresses })
}

/// Whether the calling thread's network namespace has an interface of this number now.
pub fn is_there(ifindex: u32) -> bool {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let name = socket.and_then(|socket| netdevice::index_to_name(socket, ifindex));
    name != Err(rustix::io::Errno::NODEV)
}

/// A link as one message tells it.
#[derive(Default)]
struct LinkFacts {
    name: String,
    ifindex: u32,
    mac: Option<Mac>,
    mtu: u32,
    up: bool,
    is_veth: bool,
    /// What a veth is linked to: its peer.
    peer: Option<u32>,
    /// The kernel's number here for the namespace that the peer is in; `None`: this one.
    peer_namespace: Option<i32>,
}

fn list_links(rtnetlink: &mut Rtnetlink) -> Result<BTreeMap<String, Link>> {
    let answers = rtnetlink.dump(link_question(LinkMessage::default()))?;
    let facts: Vec<_> = answers.iter().filter_map(read_link).collect();
    let macs: BTreeMap<u32, Option<Mac>> = facts.iter().map(|f| (f.ifindex, f.mac)).collect();
    let link = |facts: LinkFacts| {
        let peer = find_peer(rtnetlink, &facts, &macs);
        let link = Link {
            ifindex: facts.ifindex,
            mac: facts.mac.unwrap_or_default(),
            mtu: facts.mtu,
            up: facts.up,
            addresses: BTreeSet::new(),
            peer,
        };
        (facts.name, link)
    };
    Ok(facts.into_iter().map(link).collect())
}

fn find_peer(
    rtnetlink: &mut Rtnetlink,
    facts: &LinkFacts,
    macs: &BTreeMap<u32, Option<Mac>>,
) -> Option<LinkPeer> {
    let ifindex = facts.peer.filter(|_| facts.is_veth)?;
    let mac = match facts.peer_namespace {
        None => macs.get(&ifindex).copied().flatten(),
        Some(namespace) => peer_mac(rtnetlink, namespace, ifindex),
    };
    Some(LinkPeer {
        ifindex,
        mac,
        same_namespace: facts.peer_namespace.is_none(),
    })
}

/// The MAC of an interface of another namespace; `None` if it has gone or if the kernel refuses to tell.
fn peer_mac(rtnetlink: &mut Rtnetlink, namespace: i32, ifindex: u32) -> Option<Mac> {
    let mut question = LinkMessage::default();
    question.header.index = ifindex;
    question.attributes = vec![LinkAttribute::IfNetnsId(namespace)];
    match rtnetlink.get(link_question(question)) {
        Ok(answer) => read_link(&answer)?.mac,
        Err(error) => {
            log::debug!("ask for interface {ifindex} of namespace {namespace}: {error}");
            None
        }
    }
}

fn link_question(mut question: LinkMessage) -> RouteNetlinkMessage {
    // The statistics are the greater part of each answer, and nobody reads them here.
    let no_statistics = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    question.attributes.push(no_statistics);
    RouteNetlinkMessage::GetLink(question)
}

fn read_link(answer: &Answer) -> Option<LinkFacts> {
    let header = LinkHeader::parse(&answer.body).ok()?;
    let mut facts = LinkFacts {
        ifindex: header.index,
        up: header.flags.contains(LinkFlags::Up),
        ..LinkFacts::default()
    };
    for (kind, value) in answer.attributes(LINK_HEADER) {
        match kind {
            attribute::IFLA_IFNAME => facts.name = text(value),
            attribute::IFLA_ADDRESS => facts.mac = value.try_into().ok(),
            attribute::IFLA_MTU => facts.mtu = number(value).unwrap_or_default(),
            attribute::IFLA_LINK => facts.peer = number(value).filter(|ifindex| *ifindex != 0),
            attribute::IFLA_LINK_NETNSID => {
                facts.peer_namespace = value.try_into().ok().map(i32::from_ne_bytes);
            }
            attribute::IFLA_LINKINFO => {
                facts.is_veth = attributes(value).any(|(kind, value)| {
                    kind == attribute::IFLA_INFO_KIND && text(value) == "veth"
                });
            }
            _ => {}
        }
    }
    Some(facts)
}

/// The host's addresses, each with the index of its interface.
fn list_addresses(rtnetlink: &mut Rtnetlink) -> Result<Vec<(u32, IpAddr)>> {
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answers = rtnetlink.dump(question)?;
    Ok(answers.iter().filter_map(read_address).collect())
}

/// The host's own address: on a point-to-point link `IFA_ADDRESS` is the other side's.
fn read_address(answer: &Answer) -> Option<(u32, IpAddr)> {
    let find = |wanted| {
        answer
            .attributes(ADDRESS_HEADER)
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, value)| address(value))
    };
    let ifindex = number(answer.body.get(ADDRESS_INDEX)?)?;
    let address = find(attribute::IFA_LOCAL).or_else(|| find(attribute::IFA_ADDRESS))?;
    Some((ifindex, address))
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// A string of the kernel's, which ends at its zero byte.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}
