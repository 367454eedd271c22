//! The prefixes that the host's stack receives packets for: its routes of the types local, broadcast and anycast.
//!
//! They are in the table `local`, as a rule: an address of an interface, the subnet of an address of `lo`, the broadcast
//! addresses of a subnet, the anycast address of a subnet's routers, a prefix that somebody has added (AnyIP). Another
//! table counts if an `ip rule` without a mark leads to it: what a transparent proxy has marked is received too, and its
//! table may have everything.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{Netlink, Reply, address};

/// The types of routes whose packets the host receives, except multicast.
pub const TYPES: [RouteType; 3] = [RouteType::Local, RouteType::Broadcast, RouteType::Anycast];

/// Bytes of `struct rtmsg`, and its attributes (`linux/rtnetlink.h`).
const ROUTE_HEADER: usize = 12;
const RTA_DST: u16 = 1;
const RTA_TABLE: u16 = 15;

/// Bytes of `struct fib_rule_hdr`, its members, and its attributes (`linux/fib_rules.h`).
const RULE_HEADER: usize = 12;
const RULE_TABLE: usize = 4;
const RULE_ACTION: usize = 7;
const RULE_FLAGS: std::ops::Range<usize> = 8..12;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;

/// The tables local, main and default: those of a kernel without rules.
const TABLES: [u32; 3] = [255, 254, 253];

/// The prefixes that the calling thread's network namespace receives packets for. Needs no privilege.
///
/// # Errors
/// If netlink fails.
pub fn list_local() -> io::Result<BTreeSet<IpNet>> {
    let mut rtnetlink = Netlink::strict_route()?;
    let mut local = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let tables = unmarked_tables(&mut rtnetlink, family);
        for kind in TYPES {
            // The kernel leaves out the others, of which a router has a million.
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.kind = kind;
            let replies = rtnetlink.dump(RouteNetlinkMessage::GetRoute(request))?;
            let routes = replies.iter().filter_map(read_route);
            let routes = routes.filter(|(table, _)| tables.contains(table));
            local.extend(routes.map(|(_, prefix)| prefix));
        }
    }
    Ok(local)
}

/// The tables of a family that rules without a mark lead to.
fn unmarked_tables(rtnetlink: &mut Netlink, family: AddressFamily) -> BTreeSet<u32> {
    let mut request = RuleMessage::default();
    request.header.family = family;
    match rtnetlink.dump(RouteNetlinkMessage::GetRule(request)) {
        Ok(replies) => replies.iter().filter_map(read_rule).collect(),
        Err(error) => {
            log::debug!("list the rules of routing: {error}");
            TABLES.into()
        }
    }
}

/// The table that a rule leads to without a mark.
fn read_rule(reply: &Reply) -> Option<u32> {
    let has = |wanted| move |(kind, _): &(u16, &[u8])| *kind == wanted;
    let flags = number(reply.body.get(RULE_FLAGS)?)?;
    let is_marked = reply.attributes(RULE_HEADER).any(|a| has(FRA_FWMARK)(&a));
    if *reply.body.get(RULE_ACTION)? != FR_ACT_TO_TBL || (is_marked && flags & FIB_RULE_INVERT == 0)
    {
        return None;
    }
    let table = reply.attributes(RULE_HEADER).find(has(FRA_TABLE));
    table
        .and_then(|(_, value)| number(value))
        .or_else(|| Some(u32::from(*reply.body.get(RULE_TABLE)?)))
}

/// The table of a route, and its prefix. `None` for a route of another type, and for one of everything: that is a
/// transparent proxy's, and the world stays the world.
fn read_route(reply: &Reply) -> Option<(u32, IpNet)> {
    let header = RouteHeader::parse(&reply.body).ok()?;
    if !TYPES.contains(&header.kind) || header.destination_prefix_length == 0 {
        return None;
    }
    let find = |wanted| {
        let mut attributes = reply.attributes(ROUTE_HEADER);
        attributes
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let table = find(RTA_TABLE).and_then(number);
    let zero = match header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let destination = find(RTA_DST).and_then(address).unwrap_or(zero);
    let prefix = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some((table.unwrap_or(u32::from(header.table)), prefix.trunc()))
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}
