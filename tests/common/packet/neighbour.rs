//! What a workload needs to live on a link: neighbour and router discovery, and group membership.

use std::net::{IpAddr, Ipv6Addr};

use super::address::{Mac, SocketText};
use super::build::Packet;
use super::extension::Extension;
use super::transport::{icmp, raw};
use super::{checksum, protocol};

/// Who has `target`? From `src_mac`, asked of the target's solicited-node group (RFC 4861 4.3).
pub fn neighbour_solicitation(
    src_mac: Mac,
    src: impl SocketText,
    target: impl SocketText,
) -> Packet {
    let (src, target) = (src.socket().ip(), v6(target));
    let octets = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(octets[13]),
        u16::from_be_bytes([octets[14], octets[15]]),
    );
    let packet = icmp(src, group, 135, 0, [0; 4])
        .payload(&octets)
        .ttl(255)
        .macs(src_mac, group_mac(group));
    // Duplicate detection comes from nowhere and says no link-layer address.
    if src.is_unspecified() {
        packet
    } else {
        packet.payload(&link_layer(1, src_mac))
    }
}

/// `target` is at `target_mac`; the flags are router 128, solicited 64, override 32.
pub fn neighbour_advertisement(
    src: impl SocketText,
    dst: impl SocketText,
    flags: u8,
    target: impl SocketText,
    target_mac: Mac,
) -> Packet {
    icmp(src, dst, 136, 0, [flags, 0, 0, 0])
        .payload(&v6(target).octets())
        .payload(&link_layer(2, target_mac))
        .ttl(255)
}

pub fn router_solicitation(src_mac: Mac, src: impl SocketText) -> Packet {
    let all_routers = "ff02::2";
    icmp(src, all_routers, 133, 0, [0; 4])
        .payload(&link_layer(1, src_mac))
        .ttl(255)
        .macs(src_mac, group_mac(v6(all_routers)))
}

/// A router's own word, which a workload has no business to say.
pub fn router_advertisement(src: impl SocketText) -> Packet {
    let all_nodes = "ff02::1";
    icmp(src, all_nodes, 134, 0, [64, 0, 7, 8])
        .payload(&[0; 8])
        .ttl(255)
}

/// A report of MLD version 2 with one group joined (RFC 3810 5.2).
pub fn mld_report(src: impl SocketText, group: impl SocketText) -> Packet {
    let all_listeners = "ff02::16";
    icmp(src, all_listeners, 143, 0, [0, 0, 0, 1])
        .payload(&[4, 0, 0, 0])
        .payload(&v6(group).octets())
        .extension(Extension::RouterAlert)
        .ttl(1)
}

/// A report of IGMP version 3 with one record (4: joined, 3: left; RFC 3376 4.2), with the router alert option.
pub fn igmp_report(src: impl SocketText, record: u8, group: impl SocketText) -> Packet {
    let group = match group.socket().ip() {
        IpAddr::V4(group) => group.octets(),
        IpAddr::V6(group) => panic!("IGMP does not speak of {group}"),
    };
    let mut bytes = vec![0x22, 0, 0, 0, 0, 0, 0, 1, record, 0, 0, 0];
    bytes.extend(group);
    let sum = checksum::internet(&[&bytes]);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    raw(src, "224.0.0.22", protocol::IGMP)
        .payload(&bytes)
        .ip_options(&[0x94, 4, 0, 0])
        .ttl(1)
}

fn link_layer(kind: u8, mac: Mac) -> [u8; 8] {
    [kind, 1, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]]
}

/// The MAC of an IPv6 group (RFC 2464 7).
fn group_mac(group: Ipv6Addr) -> Mac {
    let o = group.octets();
    [0x33, 0x33, o[12], o[13], o[14], o[15]]
}

fn v6(address: impl SocketText) -> Ipv6Addr {
    match address.socket().ip() {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => panic!("ICMPv6 does not speak of {address}"),
    }
}
