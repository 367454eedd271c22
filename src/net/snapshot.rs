//! The host's interfaces and addresses at one time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader as MessageHeader, LinkMessage,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use super::local::list_local;
use super::netlink::{Netlink, Reply, address, attributes, text};
use super::netns_cookie::netns_cookie;
use super::socket_ports::socket_ports;
use super::sysctl;
use crate::model::forwarding::HostStack;
use crate::model::host::{HostState, Link, LinkHeader, LinkPeer, Mac, Master, ReversePath};

/// Attributes of links and addresses (`linux/if_link.h`, `linux/if_addr.h`).
mod attribute {
    pub const IFLA_ADDRESS: u16 = 1;
    pub const IFLA_IFNAME: u16 = 3;
    pub const IFLA_MTU: u16 = 4;
    pub const IFLA_LINK: u16 = 5;
    pub const IFLA_QDISC: u16 = 6;
    pub const IFLA_MASTER: u16 = 10;
    pub const IFLA_LINKINFO: u16 = 18;
    pub const IFLA_AF_SPEC: u16 = 26;
    pub const IFLA_LINK_NETNSID: u16 = 37;
    pub const IFLA_CARRIER_UP_COUNT: u16 = 47;
    pub const IFLA_PROP_LIST: u16 = 52;
    /// Inside of `IFLA_LINKINFO`.
    pub const IFLA_INFO_KIND: u16 = 1;
    pub const IFLA_INFO_SLAVE_KIND: u16 = 4;
    /// Inside of `AF_INET` in `IFLA_AF_SPEC`: an array of numbers, of which one is the interface's `rp_filter`
    /// (`linux/ip.h`, `IPV4_DEVCONF_RP_FILTER`, which counts from 1).
    pub const IFLA_INET_CONF: u16 = 1;
    pub const RP_FILTER: usize = 8 - 1;
    /// Inside of `IFLA_PROP_LIST`.
    pub const IFLA_ALT_IFNAME: u16 = 53;
    pub const IFA_ADDRESS: u16 = 1;
    pub const IFA_LOCAL: u16 = 2;
    pub const IFA_FLAGS: u16 = 8;
}

/// `IFA_F_TEMPORARY`, `IFA_F_DADFAILED`, `IFA_F_DEPRECATED`, `IFA_F_TENTATIVE` (`linux/if_addr.h`).
const UNSTEADY: u32 = 0x01 | 0x08 | 0x20 | 0x40;

/// Link types (`linux/if_arp.h`).
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_IP6GRE: u16 = 823;

/// Bytes of `struct ifinfomsg` and `struct ifaddrmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
/// The offset of the interface's index in `struct ifaddrmsg`.
const ADDRESS_INDEX: std::ops::Range<usize> = 4..8;

/// The interfaces and addresses of the calling thread's network namespace, without its stack, which [`host_stack`] reads.
/// Needs no privilege; the MAC of a veth peer in another namespace does, and is `None` without.
///
/// [`host_stack`]: super::host_stack
pub fn snapshot() -> Result<HostState> {
    let mut rtnetlink = Netlink::route().context("open an rtnetlink socket")?;
    let mut links = list_links(&mut rtnetlink).context("list the host's interfaces")?;
    let addresses = list_addresses(&mut rtnetlink).context("list the host's addresses")?;
    for link in links.values_mut() {
        let own = addresses
            .iter()
            .filter(|found| found.ifindex == link.ifindex);
        for found in own {
            link.addresses.insert(found.address);
            if found.is_unsteady {
                link.unsteady.insert(found.address);
            }
        }
    }
    let addresses: BTreeSet<IpAddr> = addresses.iter().map(|own| own.address).collect();
    let mut local_prefixes = list_local().context("list the routes to the host itself")?;
    // The route of an address appears once nobody else has claimed it (RFC 4862, 5.4): no change of what the host receives.
    local_prefixes.retain(|prefix| {
        *prefix != IpNet::from(prefix.addr()) || !addresses.contains(&prefix.addr())
    });
    Ok(HostState {
        links,
        addresses,
        local_prefixes,
        stack: HostStack::default(),
        socket_ports: socket_ports(),
        announced: BTreeSet::new(),
        netns_cookie: netns_cookie().context("find out the network namespace")?,
    })
}

/// Whether the calling thread's network namespace has an interface with this index now.
pub fn is_there(ifindex: u32) -> bool {
    let name = any_socket().and_then(|socket| netdevice::index_to_name(socket, ifindex));
    name != Err(rustix::io::Errno::NODEV)
}

/// The index of the interface that has this name now in the calling thread's network namespace.
pub fn ifindex(name: &str) -> Option<u32> {
    let index = any_socket().and_then(|socket| netdevice::name_to_index(socket, name));
    index.ok()
}

/// Requests about interfaces need a socket of whatever kind.
fn any_socket() -> rustix::io::Result<OwnedFd> {
    let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
    socket_with(AddressFamily::INET, kind, flags, None)
}

/// The attributes of a link that are used.
#[derive(Default)]
struct LinkFacts {
    name: String,
    ifindex: u32,
    mac: Option<Mac>,
    mtu: u32,
    up: bool,
    has_carrier: bool,
    carrier_ups: Option<u32>,
    header: LinkHeader,
    is_veth: bool,
    /// The index of a veth's peer, or of what another interface is on.
    linked: Option<u32>,
    /// The id of that one's namespace in this one; `None`: the same namespace.
    linked_namespace: Option<i32>,
    /// The index of the interface that this one is a port of.
    master: Option<u32>,
    /// That one is a bridge.
    is_bridge_port: bool,
    rp_filter: u32,
    alternative_names: BTreeSet<String>,
    qdisc: String,
}

fn list_links(rtnetlink: &mut Netlink) -> Result<BTreeMap<String, Link>> {
    let replies = rtnetlink.dump(link_request(LinkMessage::default()))?;
    let facts: Vec<_> = replies.iter().filter_map(read_link).collect();
    let peers: BTreeMap<u32, PeerFacts> = facts
        .iter()
        .map(|facts| (facts.ifindex, peer_facts(facts)))
        .collect();
    let all_rp_filter = sysctl::read("ipv4/conf/all/rp_filter").unwrap_or_default();
    let link = |facts: LinkFacts| {
        let peer = find_peer(rtnetlink, &facts, &peers);
        let master = facts.master.map(|ifindex| Master {
            ifindex,
            is_bridge: facts.is_bridge_port,
        });
        let is_above = !facts.is_veth && facts.linked_namespace.is_none();
        let link = Link {
            ifindex: facts.ifindex,
            mac: facts.mac.unwrap_or_default(),
            mtu: facts.mtu,
            up: facts.up,
            carrier_ups: facts.carrier_ups.filter(|_| facts.has_carrier),
            header: facts.header,
            addresses: BTreeSet::new(),
            unsteady: BTreeSet::new(),
            peer,
            master,
            reverse_path: reverse_path(facts.rp_filter.max(all_rp_filter)),
            below: facts.linked.filter(|_| is_above),
            alternative_names: facts.alternative_names,
            renamed_from: None,
            qdisc: facts.qdisc,
        };
        (facts.name, link)
    };
    Ok(facts.into_iter().map(link).collect())
}

/// What is used of a link that is another's peer: its MAC, its MTU, and whether it is a port of a bridge.
type PeerFacts = (Option<Mac>, u32, bool);

fn peer_facts(facts: &LinkFacts) -> PeerFacts {
    (facts.mac, facts.mtu, facts.is_bridge_port)
}

fn find_peer(
    rtnetlink: &mut Netlink,
    facts: &LinkFacts,
    peers: &BTreeMap<u32, PeerFacts>,
) -> Option<LinkPeer> {
    let ifindex = facts.linked.filter(|_| facts.is_veth)?;
    let found = match facts.linked_namespace {
        None => peers.get(&ifindex).copied(),
        Some(namespace) => peer_in_namespace(rtnetlink, namespace, ifindex),
    };
    let (mac, mtu, is_bridge_port) = found.unwrap_or_default();
    Some(LinkPeer {
        ifindex,
        mac,
        mtu,
        same_namespace: facts.linked_namespace.is_none(),
        is_bridge_port,
    })
}

/// An interface in another namespace; `None` if it is gone, or the kernel refuses the request.
fn peer_in_namespace(rtnetlink: &mut Netlink, namespace: i32, ifindex: u32) -> Option<PeerFacts> {
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    request.attributes = vec![LinkAttribute::IfNetnsId(namespace)];
    match rtnetlink.get(link_request(request)) {
        Ok(reply) => read_link(&reply).as_ref().map(peer_facts),
        Err(error) => {
            log::debug!("get interface {ifindex} of namespace {namespace}: {error}");
            None
        }
    }
}

fn link_request(mut request: LinkMessage) -> RouteNetlinkMessage {
    // The statistics are most of each reply, and unused.
    let no_statistics = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    request.attributes.push(no_statistics);
    RouteNetlinkMessage::GetLink(request)
}

fn read_link(reply: &Reply) -> Option<LinkFacts> {
    let header = MessageHeader::parse(&reply.body).ok()?;
    let mut facts = LinkFacts {
        ifindex: header.index,
        up: header.flags.contains(LinkFlags::Up),
        has_carrier: header.flags.contains(LinkFlags::LowerUp),
        header: link_header(header.link_layer_type.into()),
        ..LinkFacts::default()
    };
    for (kind, value) in reply.attributes(LINK_HEADER) {
        match kind {
            attribute::IFLA_IFNAME => facts.name = text(value),
            attribute::IFLA_ADDRESS => facts.mac = value.try_into().ok(),
            attribute::IFLA_QDISC => facts.qdisc = text(value),
            attribute::IFLA_MTU => facts.mtu = number(value).unwrap_or_default(),
            attribute::IFLA_CARRIER_UP_COUNT => facts.carrier_ups = number(value),
            attribute::IFLA_MASTER => facts.master = number(value).filter(|ifindex| *ifindex != 0),
            attribute::IFLA_LINK => facts.linked = number(value).filter(|ifindex| *ifindex != 0),
            attribute::IFLA_LINK_NETNSID => {
                facts.linked_namespace = value.try_into().ok().map(i32::from_ne_bytes);
            }
            attribute::IFLA_PROP_LIST => {
                let names =
                    attributes(value).filter(|(kind, _)| *kind == attribute::IFLA_ALT_IFNAME);
                facts.alternative_names = names.map(|(_, value)| text(value)).collect();
            }
            attribute::IFLA_LINKINFO => read_kinds(value, &mut facts),
            attribute::IFLA_AF_SPEC => facts.rp_filter = rp_filter(value).unwrap_or_default(),
            _ => {}
        }
    }
    Some(facts)
}

/// The link types without a header are those of the kernel's `dev_is_mac_header_xmit` (`linux/if_arp.h`): to other ones it
/// sends packets with the header that they have.
fn link_header(kind: u16) -> LinkHeader {
    match kind {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => LinkHeader::Ethernet,
        libc::ARPHRD_TUNNEL
        | libc::ARPHRD_TUNNEL6
        | libc::ARPHRD_SIT
        | libc::ARPHRD_IPGRE
        | ARPHRD_IP6GRE
        | ARPHRD_RAWIP
        | libc::ARPHRD_PPP
        | libc::ARPHRD_NONE => LinkHeader::None,
        other => LinkHeader::Other(other),
    }
}

fn read_kinds(link_info: &[u8], facts: &mut LinkFacts) {
    for (kind, value) in attributes(link_info) {
        match kind {
            attribute::IFLA_INFO_KIND => facts.is_veth = text(value) == "veth",
            attribute::IFLA_INFO_SLAVE_KIND => facts.is_bridge_port = text(value) == "bridge",
            _ => {}
        }
    }
}

fn rp_filter(per_family: &[u8]) -> Option<u32> {
    let find = |bytes, wanted| {
        attributes(bytes)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let of_ipv4 = find(per_family, u16::try_from(libc::AF_INET).ok()?)?;
    let numbers = find(of_ipv4, attribute::IFLA_INET_CONF)?;
    let at = 4 * attribute::RP_FILTER;
    number(numbers.get(at..at + 4)?)
}

fn reverse_path(rp_filter: u32) -> ReversePath {
    match rp_filter {
        0 => ReversePath::Off,
        1 => ReversePath::Strict,
        _ => ReversePath::Loose,
    }
}

/// An address of the host on an interface.
struct OwnAddress {
    ifindex: u32,
    address: IpAddr,
    is_unsteady: bool,
}

fn list_addresses(rtnetlink: &mut Netlink) -> Result<Vec<OwnAddress>> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let replies = rtnetlink.dump(request)?;
    Ok(replies.iter().filter_map(read_address).collect())
}

/// The host's own address: on a point-to-point link `IFA_ADDRESS` is the other side's.
fn read_address(reply: &Reply) -> Option<OwnAddress> {
    let value_of = |wanted| {
        let mut attributes = reply.attributes(ADDRESS_HEADER);
        let found = attributes.find(|(kind, _)| *kind == wanted);
        found.map(|(_, value)| value)
    };
    let find = |wanted| value_of(wanted).and_then(address);
    let ifindex = number(reply.body.get(ADDRESS_INDEX)?)?;
    let address = find(attribute::IFA_LOCAL).or_else(|| find(attribute::IFA_ADDRESS))?;
    let flags = value_of(attribute::IFA_FLAGS).and_then(number);
    let is_ipv6 = address.is_ipv6(); // of IPv4 the first bit says that it is not the first of its subnet
    Some(OwnAddress {
        ifindex,
        address,
        is_unsteady: is_ipv6 && flags.unwrap_or_default() & UNSTEADY != 0,
    })
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_told_apart_by_what_their_packets_have_in_front() {
        // veth, lo; tun, ipip, sit, gre, ip6gre, PPP, a modem; IP over InfiniBand, a bare monitor of Wi-Fi.
        for (kinds, expected) in [
            (&[1, 772][..], Some(LinkHeader::Ethernet)),
            (
                &[0xfffe, 768, 769, 776, 778, 823, 512, 519],
                Some(LinkHeader::None),
            ),
            (&[32, 803], None),
        ] {
            for &kind in kinds {
                let expected = expected.unwrap_or(LinkHeader::Other(kind));
                assert_eq!(link_header(kind), expected, "link type {kind}");
            }
        }
    }
}
