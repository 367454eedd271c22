//! Frames of ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861, RFC 4862): probes and announcements of an
//! address, and what others say of one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::groups::solicited_node;
use crate::model::host::Mac;

/// Ethertypes (`linux/if_ether.h`).
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;

const ETHERNET: usize = 14;
const BROADCAST: Mac = [0xff; 6];

/// Of ARP: Ethernet, IPv4, the lengths of their addresses; then a request or a reply.
const ARP_HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_LENGTH: usize = 28;
const ARP_REQUEST: u16 = 1;

const IPV6_HEADER: usize = 40;
pub(super) const ICMPV6: u8 = 58;
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;
/// What shows that no router has forwarded a message.
const HOP_LIMIT: u8 = 255;
const OVERRIDE: u8 = 0x20;
const OPTION_TARGET: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What somebody on the link says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub address: IpAddr,
    /// Of who says it.
    pub mac: Mac,
    pub kind: HeardKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeardKind {
    /// That it has the address.
    Claim,
    /// It asks whether anybody has it, to take it.
    Probe,
}

/// Asks whether anybody has an address, in nobody's name (RFC 5227, 2.1.1; RFC 4862, 5.4.2).
pub fn probe(address: IpAddr, own: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp_request(own, Ipv4Addr::UNSPECIFIED, v4),
        IpAddr::V6(v6) => {
            let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            message.extend(v6.octets());
            icmpv6(own, Ipv6Addr::UNSPECIFIED, solicited_node(v6), message)
        }
    }
}

/// Says that this host has an address (RFC 5227, 2.3; RFC 4861, 7.2.6).
pub fn announcement(address: IpAddr, own: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp_request(own, v4, v4),
        IpAddr::V6(v6) => {
            let mut message = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
            message.extend(v6.octets());
            message.extend([OPTION_TARGET, 1]);
            message.extend(own);
            icmpv6(own, v6, ALL_NODES, message)
        }
    }
}

fn ethernet(to: Mac, own: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + IPV6_HEADER + 32);
    frame.extend(to);
    frame.extend(own);
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn arp_request(own: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, own, ARP);
    frame.extend(ARP_HEADER);
    frame.extend(ARP_REQUEST.to_be_bytes());
    frame.extend(own);
    frame.extend(sender.octets());
    frame.extend(Mac::default());
    frame.extend(target.octets());
    frame
}

/// To a group; `message` has no checksum yet.
fn icmpv6(own: Mac, source: Ipv6Addr, group: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let [.., a, b, c, d] = group.octets();
    let mut frame = ethernet([0x33, 0x33, a, b, c, d], own, IPV6);
    let length = u16::try_from(message.len()).unwrap_or_default();
    let checksum = checksum(source, group, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([ICMPV6, HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

/// RFC 4443, 2.3: over a pseudo header, too. The message's length is even.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let words = bytes.chunks(2).map(|pair| match *pair {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            _ => 0,
        });
        words.sum()
    };
    let length = u32::try_from(message.len()).unwrap_or_default();
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(message);
    sum += length + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Heard {
    /// What a frame says; `None`: nothing of interest.
    pub fn read(frame: &[u8]) -> Option<Heard> {
        let source = mac(frame, 6)?;
        match u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]) {
            ARP => read_arp(frame.get(ETHERNET..)?),
            IPV6 => read_icmpv6(source, frame.get(ETHERNET..)?),
            _ => None,
        }
    }
}

fn read_arp(arp: &[u8]) -> Option<Heard> {
    if arp.len() < ARP_LENGTH || !arp.starts_with(&ARP_HEADER) {
        return None;
    }
    let (sender, target) = (v4(arp, 14)?, v4(arp, 24)?);
    let is_request = arp[6..8] == ARP_REQUEST.to_be_bytes();
    let (address, kind) = match sender.is_unspecified() {
        false => (sender, HeardKind::Claim),
        true if is_request => (target, HeardKind::Probe),
        true => return None,
    };
    Some(Heard {
        address: address.into(),
        mac: mac(arp, 8)?,
        kind,
    })
}

fn read_icmpv6(source: Mac, packet: &[u8]) -> Option<Heard> {
    let message = packet.get(IPV6_HEADER..)?;
    if packet[6] != ICMPV6 || packet[7] != HOP_LIMIT || *message.get(1)? != 0 {
        return None;
    }
    let from = v6(packet, 8)?;
    let (kind, mac) = match message[0] {
        SOLICITATION if from.is_unspecified() => (HeardKind::Probe, source),
        ADVERTISEMENT => (HeardKind::Claim, target_mac(message).unwrap_or(source)),
        _ => return None,
    };
    Some(Heard {
        address: v6(message, 8)?.into(),
        mac,
        kind,
    })
}

/// The first option of an advertisement is mostly the only one.
fn target_mac(message: &[u8]) -> Option<Mac> {
    let option = message.get(24..32)?;
    (option[..2] == [OPTION_TARGET, 1]).then(|| mac(option, 2))?
}

fn mac(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..at + 6)?.try_into().ok()
}

fn v4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn v6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 0xa];
    const OTHER: Mac = [2, 0, 0, 0, 0, 0xb];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn frames_to_the_last_byte() {
        let rows = [
            (
                "a probe",
                probe(ip("203.0.113.10"), OWN),
                "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a 00000000 000000000000 cb00710a",
            ),
            (
                "an announcement",
                announcement(ip("203.0.113.10"), OWN),
                "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a cb00710a 000000000000 cb00710a",
            ),
            (
                "a probe of IPv6",
                probe(ip("2001:db8::10:a"), OWN),
                "3333ff10000a 02000000000a 86dd 60000000 0018 3a ff 00000000000000000000000000000000 \
                 ff0200000000000000000001ff10000a 87 00 4cbb 00000000 20010db800000000000000000010000a",
            ),
            (
                "an announcement of IPv6",
                announcement(ip("2001:db8::10:a"), OWN),
                "333300000001 02000000000a 86dd 60000000 0020 3a ff 20010db800000000000000000010000a \
                 ff020000000000000000000000000001 88 00 f8ef 20000000 20010db800000000000000000010000a 02 01 02000000000a",
            ),
        ];
        for (what, frame, expected) in rows {
            assert_eq!(hex(&frame), expected.replace(' ', ""), "{what}");
        }
    }

    #[test]
    fn what_is_heard_of_an_address() {
        let address = ip("203.0.113.10");
        let of_ipv6 = ip("2001:db8::10");
        let heard = |address, kind| {
            Some(Heard {
                address,
                mac: OTHER,
                kind,
            })
        };
        let arp = |sender: &str, operation: u8| {
            let mut frame = match ip(sender) {
                IpAddr::V4(v4) => arp_request(OTHER, v4, Ipv4Addr::new(203, 0, 113, 10)),
                IpAddr::V6(_) => Vec::new(),
            };
            frame[ETHERNET + 7] = operation;
            frame
        };
        let mut routed = announcement(of_ipv6, OTHER);
        routed[ETHERNET + 7] = 254;
        let mut request = probe(of_ipv6, OTHER);
        request[ETHERNET + 23] = 1; // from ::1
        let mut cut = announcement(of_ipv6, OTHER);
        cut.truncate(ETHERNET + IPV6_HEADER + 20);
        let rows = [
            (
                "its probe",
                probe(address, OTHER),
                heard(address, HeardKind::Probe),
            ),
            (
                "its announcement",
                announcement(address, OTHER),
                heard(address, HeardKind::Claim),
            ),
            (
                "a request from it",
                arp("192.0.2.7", 1),
                heard(ip("192.0.2.7"), HeardKind::Claim),
            ),
            (
                "a reply from it",
                arp("192.0.2.7", 2),
                heard(ip("192.0.2.7"), HeardKind::Claim),
            ),
            ("a reply in nobody's name", arp("0.0.0.0", 2), None),
            (
                "a probe of IPv6",
                probe(of_ipv6, OTHER),
                heard(of_ipv6, HeardKind::Probe),
            ),
            (
                "an advertisement",
                announcement(of_ipv6, OTHER),
                heard(of_ipv6, HeardKind::Claim),
            ),
            ("one that a router has forwarded", routed, None),
            ("a request of somebody with an address", request, None),
            ("one that is cut short", cut, None),
            ("nothing", Vec::new(), None),
        ];
        for (what, frame, expected) in rows {
            assert_eq!(Heard::read(&frame), expected, "{what}");
        }
    }
}
