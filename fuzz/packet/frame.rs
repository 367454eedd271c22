//! What the oracle reads of a frame by itself, whatever is wrong with the frame: the fixed headers, by their offsets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::common::packet::{ethertype, protocol};

const ETHERNET: usize = 14;
const SERVICE_VLAN: u16 = 0x88a8;
/// Behind more the kernel looks for nothing.
const TAGS_MAX: usize = 2;
/// Where a solicitation has its message, behind a fixed IPv6 header.
const SOLICITATION: u8 = 135;

/// The network header of a frame, behind priority tags.
#[derive(Clone, Debug)]
pub struct Network {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Behind IPv6's extension headers, where they are whole.
    pub protocol: u8,
    /// Of the transport header in the frame.
    pub transport: usize,
    pub is_fragment: bool,
    /// Has no transport header.
    pub is_later_fragment: bool,
    pub hop_limit: u8,
    /// Whether its lengths agree with the frame's.
    pub is_consistent: bool,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([two[0], two[1]]))
}

/// Ethernet type and offset of what follows, behind tags with the id 0; `None` with another id.
pub fn ethernet(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = ETHERNET - 2;
    let mut kind = be16(frame, at)?;
    for _ in 0..TAGS_MAX {
        if kind != ethertype::VLAN && kind != SERVICE_VLAN {
            break;
        }
        let tag = be16(frame, at + 2)?;
        if tag & 0xfff != 0 {
            return None;
        }
        at += 4;
        kind = be16(frame, at)?;
    }
    Some((kind, at + 2))
}

pub fn network(frame: &[u8]) -> Option<Network> {
    let (kind, at) = ethernet(frame)?;
    let bytes = frame.get(at..)?;
    match kind {
        ethertype::IPV4 => network_v4(bytes, at),
        ethertype::IPV6 => network_v6(bytes, at),
        _ => None,
    }
}

fn network_v4(bytes: &[u8], at: usize) -> Option<Network> {
    let header: [u8; 20] = bytes.get(..20)?.try_into().ok()?;
    let length = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(be16(&header, 2)?);
    let fragment = be16(&header, 6)?;
    let address = |at: usize| -> IpAddr {
        Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into()
    };
    Some(Network {
        src: address(12),
        dst: address(16),
        protocol: header[9],
        transport: at + length,
        is_fragment: fragment & 0x3fff != 0,
        is_later_fragment: fragment & 0x1fff != 0,
        hop_limit: header[8],
        is_consistent: header[0] >> 4 == 4
            && length >= 20
            && total >= length
            && total <= bytes.len(),
    })
}

fn network_v6(bytes: &[u8], at: usize) -> Option<Network> {
    let header: [u8; 40] = bytes.get(..40)?.try_into().ok()?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = header[at..at + 16].try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    let mut network = Network {
        src: address(8)?,
        dst: address(24)?,
        protocol: header[6],
        transport: at + 40,
        is_fragment: false,
        is_later_fragment: false,
        hop_limit: header[7],
        is_consistent: header[0] >> 4 == 6 && 40 + usize::from(be16(&header, 4)?) <= bytes.len(),
    };
    skip_extensions(bytes, at, &mut network);
    Some(network)
}

fn skip_extensions(bytes: &[u8], start: usize, network: &mut Network) {
    while let Some(header) = bytes
        .get(network.transport - start..)
        .and_then(|b| b.get(..8))
    {
        let length = match network.protocol {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => {
                (usize::from(header[1]) + 1) * 8
            }
            protocol::FRAGMENT => {
                let offset = u16::from_be_bytes([header[2], header[3]]);
                network.is_fragment = true;
                network.is_later_fragment |= offset & !7 != 0;
                8
            }
            _ => return,
        };
        network.protocol = header[0];
        network.transport += length;
        if network.is_later_fragment {
            return;
        }
    }
}

impl Network {
    fn is_icmp(&self) -> bool {
        let own = if self.src.is_ipv4() {
            protocol::ICMP
        } else {
            protocol::ICMPV6
        };
        self.protocol == own && !self.is_later_fragment
    }

    /// The type of its ICMP message.
    fn icmp_type(&self, frame: &[u8]) -> Option<u8> {
        frame
            .get(self.transport)
            .copied()
            .filter(|_| self.is_icmp())
    }

    pub fn is_icmp_error(&self, frame: &[u8]) -> bool {
        self.icmp_type(frame).is_some_and(|kind| match self.src {
            IpAddr::V4(_) => matches!(kind, 3 | 11 | 12),
            IpAddr::V6(_) => (1..=4).contains(&kind),
        })
    }

    /// Neighbour discovery, which a router forwards nowhere.
    pub fn is_discovery(&self, frame: &[u8]) -> bool {
        let is_of_link = self.src.is_ipv6() && self.hop_limit == 255;
        is_of_link
            && self
                .icmp_type(frame)
                .is_some_and(|kind| (133..=137).contains(&kind))
    }

    pub fn is_solicitation(&self, frame: &[u8]) -> bool {
        self.is_discovery(frame) && self.icmp_type(frame) == Some(SOLICITATION)
    }

    /// What a workload's link needs: group membership, discovery, addresses.
    pub fn is_of_link(&self, frame: &[u8]) -> bool {
        let is_membership = match self.src {
            IpAddr::V4(_) => self.protocol == protocol::IGMP,
            IpAddr::V6(_) => matches!(self.icmp_type(frame), Some(130..=132 | 143)),
        };
        let is_dhcp = self.protocol == protocol::UDP
            && matches!(self.ports(frame), Some((68, 67) | (546, 547)));
        is_membership || is_dhcp || self.is_discovery(frame)
    }

    pub fn ports(&self, frame: &[u8]) -> Option<(u16, u16)> {
        let has_ports = matches!(
            self.protocol,
            protocol::TCP | protocol::UDP | protocol::SCTP
        );
        if !has_ports || self.is_later_fragment {
            return None;
        }
        be16(frame, self.transport).zip(be16(frame, self.transport + 2))
    }
}

/// The packet with its ends swapped, as an answer to it has them: `None` if it is no IP packet. Sums over swapped parts stay
/// right.
pub fn reversed(frame: &[u8]) -> Option<Vec<u8>> {
    let network = network(frame)?;
    let (_, at) = ethernet(frame)?;
    let mut frame = frame.to_vec();
    let mut swap = |first: usize, second: usize, length: usize| {
        for offset in 0..length {
            frame.swap(first + offset, second + offset);
        }
    };
    swap(0, 6, 6);
    match network.src {
        IpAddr::V4(_) => swap(at + 12, at + 16, 4),
        IpAddr::V6(_) => swap(at + 8, at + 24, 16),
    }
    if network.ports(&frame).is_some() {
        for offset in 0..2 {
            frame.swap(network.transport + offset, network.transport + 2 + offset);
        }
    } else {
        answer_echo(&mut frame, &network);
    }
    Some(frame)
}

/// A request becomes a reply.
fn answer_echo(frame: &mut [u8], network: &Network) {
    let reply = match network.icmp_type(frame) {
        Some(8) if network.src.is_ipv4() => 0,
        Some(128) if network.src.is_ipv6() => 129,
        _ => return,
    };
    let Some(header) = frame.get_mut(network.transport..network.transport + 4) else {
        return;
    };
    // RFC 1624: HC' = ~(~HC + ~m + m')
    let old = u32::from(header[0]) << 8;
    let sum = u32::from(!u16::from_be_bytes([header[2], header[3]]));
    let sum = sum + (!old & 0xffff) + (u32::from(reply) << 8);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[0] = reply;
    header[2..4].copy_from_slice(&sum.to_be_bytes());
}
