//! Is every length and every checksum of a packet right? In what it quotes, too.

use super::parse::{Parsed, ParsedIp, parse, parse_ip};
use super::{checksum, ethertype, protocol};

/// Shorter frames are padded to this (IEEE 802.3, without the frame check sequence).
const SHORTEST_FRAME: usize = 60;

/// Says what is wrong with a frame, if anything is.
pub fn verify(frame: &[u8]) -> Result<(), String> {
    let parsed = parse(frame);
    if let Some(header) = parsed.cut {
        return Err(format!("the bytes end within the {header}"));
    }
    match parsed.ethertype {
        ethertype::ARP => verify_arp(frame, &parsed),
        ethertype::IPV4 | ethertype::IPV6 => {
            let version = frame[parsed.ip_at] >> 4;
            let expected = if parsed.ethertype == ethertype::IPV4 {
                4
            } else {
                6
            };
            if version != expected {
                return Err(format!(
                    "IP version {version} under Ethernet type {:#06x}",
                    parsed.ethertype
                ));
            }
            let padded = frame.len() <= SHORTEST_FRAME;
            verify_ip(
                frame,
                &parsed,
                if padded { Room::Padded } else { Room::Exact },
            )
        }
        _ => Ok(()),
    }
}

/// How the IP packet fills the bytes that it lies in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Exact,
    /// There may be more bytes than the packet has.
    Padded,
    /// The packet may have more bytes than there are.
    Quoted,
}

fn verify_arp(frame: &[u8], parsed: &Parsed) -> Result<(), String> {
    let start = &frame[parsed.ip_at..][..6];
    if start != [0, 1, 8, 0, 6, 4] {
        return Err(format!("ARP is not for IPv4 over Ethernet: {start:02x?}"));
    }
    if !parsed.payload.is_empty() && frame.len() > SHORTEST_FRAME {
        return Err(format!(
            "{} bytes behind the ARP message",
            parsed.payload.len()
        ));
    }
    Ok(())
}

fn verify_ip(bytes: &[u8], parsed: &Parsed, room: Room) -> Result<(), String> {
    let Some(ip) = &parsed.ip else {
        return Err("there is no IP header".to_owned());
    };
    let there = bytes.len() - parsed.ip_at;
    let header = parsed.transport_at - parsed.ip_at;
    let stated = usize::from(ip.length) + if ip.is_v4() { 0 } else { 40 };
    if stated < header {
        return Err(format!(
            "the IP packet states {stated} bytes, its headers alone are {header}"
        ));
    }
    match room {
        _ if stated == there => {}
        Room::Padded if stated < there => {}
        Room::Quoted if stated > there => {}
        _ => {
            return Err(format!(
                "the IP packet states {stated} bytes, there are {there}"
            ));
        }
    }
    if ip.is_v4() && checksum::internet(&[&bytes[parsed.ip_at..parsed.transport_at]]) != 0 {
        return Err("the IPv4 header checksum is wrong".to_owned());
    }
    // A quote that is cut short, or a fragment, does not hold all that its checksum is over.
    if stated > there || ip.is_fragment() {
        return verify_part(parsed, ip);
    }
    verify_transport(&bytes[parsed.transport_at..parsed.end], parsed, ip)
}

fn verify_part(parsed: &Parsed, ip: &ParsedIp) -> Result<(), String> {
    let whole_units = parsed
        .end
        .saturating_sub(parsed.transport_at)
        .is_multiple_of(8);
    if parsed.cut.is_none() && ip.more_fragments && !whole_units {
        return Err("a fragment before the last is no multiple of 8 bytes".to_owned());
    }
    Ok(())
}

fn verify_transport(body: &[u8], parsed: &Parsed, ip: &ParsedIp) -> Result<(), String> {
    if let Some(header) = parsed.cut {
        return Err(format!("the IP packet ends within the {header}"));
    }
    let with_pseudo_header = || {
        let pseudo = checksum::pseudo_header(ip.src, ip.dst, ip.protocol, body.len());
        checksum::internet(&[&pseudo, body])
    };
    let sum = match ip.protocol {
        protocol::TCP => ("TCP", with_pseudo_header()),
        protocol::UDP => {
            let stated = usize::from(parsed.udp_length.unwrap_or(0));
            if stated != body.len() {
                return Err(format!(
                    "UDP states {stated} bytes, there are {}",
                    body.len()
                ));
            }
            match (parsed.checksum, ip.is_v4()) {
                (Some(0), true) => ("UDP", 0),
                (Some(0), false) => {
                    return Err("UDP over IPv6 has no checksum".to_owned());
                }
                _ => ("UDP", with_pseudo_header()),
            }
        }
        protocol::SCTP => {
            let zeroed = [&body[..8], &[0; 4], &body[12..]].concat();
            let right = checksum::crc32c(&zeroed) == body[8..12];
            ("SCTP", u16::from(!right))
        }
        protocol::ICMP => ("ICMP", checksum::internet(&[body])),
        protocol::ICMPV6 => ("ICMPv6", with_pseudo_header()),
        protocol::IGMP => ("IGMP", checksum::internet(&[body])),
        _ => ("", 0),
    };
    if sum.1 != 0 {
        return Err(format!("the {} checksum is wrong", sum.0));
    }
    verify_quoted(parsed)
}

fn verify_quoted(parsed: &Parsed) -> Result<(), String> {
    let quotes = parsed
        .icmp
        .as_ref()
        .is_some_and(|icmp| icmp.quoted.is_some());
    if !quotes {
        return Ok(());
    }
    let quoted = parse_ip(&parsed.payload);
    verify_ip(&parsed.payload, &quoted, Room::Quoted)
        .map_err(|error| format!("in the quoted packet: {error}"))
}
