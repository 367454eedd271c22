//! Takes packets apart, as far as their bytes go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::Mac;
use super::{ethertype, protocol};

/// A packet's fields. What is not there is `None`; where the bytes end too early, `cut` says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    pub src_mac: Mac,
    pub dst_mac: Mac,
    pub vlan: Option<u16>,
    pub ethertype: u16,
    pub arp: Option<ParsedArp>,
    pub ip: Option<ParsedIp>,
    /// 0 where there are no ports.
    pub src_port: u16,
    pub dst_port: u16,
    pub tcp: Option<ParsedTcp>,
    pub udp_length: Option<u16>,
    pub sctp_tag: Option<u32>,
    pub icmp: Option<ParsedIcmp>,
    /// The transport's checksum as it stands in the packet; for SCTP the whole 32 bits.
    pub checksum: Option<u32>,
    /// What follows the transport header; for an ICMP error what follows its eight bytes.
    pub payload: Vec<u8>,
    /// The header that the bytes end in.
    pub cut: Option<&'static str>,
    /// Offsets of the headers in the bytes that were parsed.
    pub ip_at: usize,
    pub transport_at: usize,
    /// Where the IP packet ends by its own word, or the bytes.
    pub end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedArp {
    /// 1 request, 2 reply.
    pub operation: u16,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedIp {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    pub tos: u8,
    pub flow_label: u32,
    /// Of IPv4, or of an IPv6 fragment header.
    pub id: u32,
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In bytes.
    pub offset: u16,
    /// IPv4 options.
    pub options: Vec<u8>,
    /// Numbers of the IPv6 extension headers.
    pub extensions: Vec<u8>,
    /// The protocol behind all of them.
    pub protocol: u8,
    /// IPv4's total length, IPv6's payload length.
    pub length: u16,
    /// IPv4 alone.
    pub checksum: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedTcp {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedIcmp {
    pub kind: u8,
    pub code: u8,
    pub rest: [u8; 4],
    /// The packet that an error quotes.
    pub quoted: Option<Box<Parsed>>,
}

impl ParsedIp {
    pub fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }

    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.offset > 0
    }
}

impl ParsedIcmp {
    /// Identifier and sequence number of an echo.
    pub fn echo(&self) -> (u16, u16) {
        let [a, b, c, d] = self.rest;
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }
}

/// Parses a frame.
pub fn parse(frame: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let Some(header) = frame.get(..14) else {
        parsed.cut = Some("Ethernet header");
        return parsed;
    };
    parsed.dst_mac.copy_from_slice(&header[..6]);
    parsed.src_mac.copy_from_slice(&header[6..12]);
    parsed.ethertype = be16(header, 12);
    parsed.ip_at = 14;
    if parsed.ethertype == ethertype::VLAN {
        let Some(tag) = frame.get(14..18) else {
            parsed.cut = Some("VLAN tag");
            return parsed;
        };
        parsed.vlan = Some(be16(tag, 0));
        parsed.ethertype = be16(tag, 2);
        parsed.ip_at = 18;
    }
    parsed.end = frame.len();
    let cut = match parsed.ethertype {
        ethertype::ARP => parse_arp(frame, &mut parsed),
        ethertype::IPV4 => parse_v4(frame, &mut parsed),
        ethertype::IPV6 => parse_v6(frame, &mut parsed),
        _ => {
            parsed.payload = frame[parsed.ip_at..].to_vec();
            Ok(())
        }
    };
    parsed.cut = cut.err();
    parsed
}

/// Parses what begins with an IP header, as an ICMP error's quote does.
pub fn parse_ip(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed {
        end: bytes.len(),
        ..Parsed::default()
    };
    let cut = match bytes.first().map(|byte| byte >> 4) {
        Some(6) => parse_v6(bytes, &mut parsed),
        _ => parse_v4(bytes, &mut parsed),
    };
    parsed.cut = cut.err();
    parsed
}

type Cut = Result<(), &'static str>;

fn parse_arp(bytes: &[u8], parsed: &mut Parsed) -> Cut {
    let message = bytes[parsed.ip_at..].get(..28).ok_or("ARP message")?;
    let mac = |at: usize| -> Mac { std::array::from_fn(|octet| message[at + octet]) };
    let address = |at: usize| -> Ipv4Addr { array::<4>(message, at).into() };
    parsed.arp = Some(ParsedArp {
        operation: be16(message, 6),
        sender_mac: mac(8),
        sender: address(14),
        target_mac: mac(18),
        target: address(24),
    });
    parsed.payload = bytes[parsed.ip_at + 28..].to_vec();
    Ok(())
}

fn parse_v4(bytes: &[u8], parsed: &mut Parsed) -> Cut {
    let packet = &bytes[parsed.ip_at..];
    let fixed = packet.get(..20).ok_or("IPv4 header")?;
    let header = usize::from(fixed[0] & 0xf) * 4;
    let fragment = be16(fixed, 6);
    let length = be16(fixed, 2);
    let mut ip = ParsedIp {
        src: Ipv4Addr::from(array::<4>(fixed, 12)).into(),
        dst: Ipv4Addr::from(array::<4>(fixed, 16)).into(),
        ttl: fixed[8],
        tos: fixed[1],
        flow_label: 0,
        id: be16(fixed, 4).into(),
        dont_fragment: fragment & 0x4000 != 0,
        more_fragments: fragment & 0x2000 != 0,
        offset: (fragment & 0x1fff) * 8,
        options: Vec::new(),
        extensions: Vec::new(),
        protocol: fixed[9],
        length,
        checksum: Some(be16(fixed, 10)),
    };
    parsed.end = bytes.len().min(parsed.ip_at + usize::from(length).max(20));
    let options = packet.get(20..header).map(<[u8]>::to_vec);
    let complete = options.is_some();
    ip.options = options.unwrap_or_default();
    parsed.ip = Some(ip.clone());
    if !complete {
        return Err("IPv4 header length");
    }
    parsed.transport_at = parsed.ip_at + header;
    parse_transport(bytes, parsed, &ip)
}

fn parse_v6(bytes: &[u8], parsed: &mut Parsed) -> Cut {
    let fixed = bytes[parsed.ip_at..].get(..40).ok_or("IPv6 header")?;
    let word = be32(fixed, 0);
    let length = be16(fixed, 4);
    let mut ip = ParsedIp {
        src: Ipv6Addr::from(array::<16>(fixed, 8)).into(),
        dst: Ipv6Addr::from(array::<16>(fixed, 24)).into(),
        ttl: fixed[7],
        tos: (word >> 20) as u8,
        flow_label: word & 0xf_ffff,
        id: 0,
        dont_fragment: false,
        more_fragments: false,
        offset: 0,
        options: Vec::new(),
        extensions: Vec::new(),
        protocol: fixed[6],
        length,
        checksum: None,
    };
    parsed.end = bytes.len().min(parsed.ip_at + 40 + usize::from(length));
    parsed.transport_at = parsed.ip_at + 40;
    let cut = parse_extensions(bytes, &mut parsed.transport_at, &mut ip);
    parsed.ip = Some(ip.clone());
    cut?;
    parse_transport(bytes, parsed, &ip)
}

fn parse_extensions(bytes: &[u8], at: &mut usize, ip: &mut ParsedIp) -> Cut {
    loop {
        let length = match ip.protocol {
            protocol::FRAGMENT => 8,
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => {
                let units = bytes.get(*at + 1).ok_or("IPv6 extension header")?;
                8 + usize::from(*units) * 8
            }
            _ => return Ok(()),
        };
        let header = bytes
            .get(*at..*at + length)
            .ok_or("IPv6 extension header")?;
        if ip.protocol == protocol::FRAGMENT {
            let fragment = be16(header, 2);
            ip.offset = fragment & !7;
            ip.more_fragments = fragment & 1 != 0;
            ip.id = be32(header, 4);
        }
        ip.extensions.push(ip.protocol);
        ip.protocol = header[0];
        *at += length;
        if ip.offset > 0 {
            return Ok(());
        }
    }
}

fn parse_transport(bytes: &[u8], parsed: &mut Parsed, ip: &ParsedIp) -> Cut {
    let at = parsed.transport_at.min(parsed.end);
    let body = &bytes[at..parsed.end];
    if ip.offset > 0 {
        parsed.payload = body.to_vec();
        return Ok(());
    }
    match ip.protocol {
        protocol::TCP => parse_tcp(body, parsed),
        protocol::UDP => {
            parse_ports(body, parsed)?;
            let header = body.get(..8).ok_or("UDP header")?;
            parsed.udp_length = Some(be16(header, 4));
            parsed.checksum = Some(be16(header, 6).into());
            parsed.payload = body[8..].to_vec();
            Ok(())
        }
        protocol::SCTP => {
            parse_ports(body, parsed)?;
            let header = body.get(..12).ok_or("SCTP header")?;
            parsed.sctp_tag = Some(be32(header, 4));
            parsed.checksum = Some(be32(header, 8));
            parsed.payload = body[12..].to_vec();
            Ok(())
        }
        protocol::ICMP | protocol::ICMPV6 => parse_icmp(body, parsed, ip.protocol),
        _ => {
            parsed.payload = body.to_vec();
            Ok(())
        }
    }
}

/// The ports come first, and all that is sure of a quote is its first eight bytes.
fn parse_ports(body: &[u8], parsed: &mut Parsed) -> Cut {
    let ports = body.get(..4).ok_or("ports")?;
    parsed.src_port = be16(ports, 0);
    parsed.dst_port = be16(ports, 2);
    Ok(())
}

fn parse_tcp(body: &[u8], parsed: &mut Parsed) -> Cut {
    parse_ports(body, parsed)?;
    let fixed = body.get(..20).ok_or("TCP header")?;
    let header = usize::from(fixed[12] >> 4) * 4;
    let options = body.get(20..header).map(<[u8]>::to_vec);
    let complete = options.is_some();
    parsed.checksum = Some(be16(fixed, 16).into());
    parsed.tcp = Some(ParsedTcp {
        seq: be32(fixed, 4),
        ack: be32(fixed, 8),
        flags: fixed[13],
        window: be16(fixed, 14),
        options: options.unwrap_or_default(),
    });
    if !complete {
        return Err("TCP header length");
    }
    parsed.payload = body[header..].to_vec();
    Ok(())
}

fn parse_icmp(body: &[u8], parsed: &mut Parsed, number: u8) -> Cut {
    let header = body.get(..8).ok_or("ICMP header")?;
    let kind = header[0];
    let is_error = match number {
        protocol::ICMP => matches!(kind, 3 | 5 | 11 | 12),
        _ => kind < 128,
    };
    parsed.checksum = Some(be16(header, 2).into());
    parsed.payload = body[8..].to_vec();
    parsed.icmp = Some(ParsedIcmp {
        kind,
        code: header[1],
        rest: array(header, 4),
        quoted: is_error.then(|| Box::new(parse_ip(&body[8..]))),
    });
    Ok(())
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|place| bytes[at + place])
}
