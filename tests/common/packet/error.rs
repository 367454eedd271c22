//! ICMP errors, each quoting the packet that it complains about.

use super::address::SocketText;
use super::build::{Body, Packet};
use super::transport::icmp;

/// What RFC 792 asks to quote: the IP header and eight bytes.
const V4_QUOTE_BEHIND_HEADER: usize = 8;
/// As much as fits into the smallest MTU of IPv6 (RFC 4443 2.4).
const V6_QUOTE: usize = 1280 - 40 - 8;

/// Destination unreachable; the code is the family's own (port: 3 in ICMP, 4 in ICMPv6).
pub fn unreachable(
    src: impl SocketText,
    dst: impl SocketText,
    code: u8,
    quoted: &Packet,
) -> Packet {
    error(src, dst, (3, 1), code, 0, quoted)
}

/// Time exceeded on the way.
pub fn time_exceeded(src: impl SocketText, dst: impl SocketText, quoted: &Packet) -> Packet {
    error(src, dst, (11, 3), 0, 0, quoted)
}

/// Fragmentation needed, or packet too big, with the MTU of the next hop.
pub fn fragmentation_needed(
    src: impl SocketText,
    dst: impl SocketText,
    mtu: u16,
    quoted: &Packet,
) -> Packet {
    let src = src.socket();
    let code = if src.is_ipv4() { 4 } else { 0 };
    error(src, dst, (3, 2), code, u32::from(mtu), quoted)
}

/// Parameter problem; the pointer is the byte in the quoted packet that was not understood.
pub fn parameter_problem(
    src: impl SocketText,
    dst: impl SocketText,
    pointer: u8,
    quoted: &Packet,
) -> Packet {
    let src = src.socket();
    let pointer = u32::from(pointer);
    let rest = if src.is_ipv4() {
        pointer << 24
    } else {
        pointer
    };
    error(src, dst, (12, 4), 0, rest, quoted)
}

fn error(
    src: impl SocketText,
    dst: impl SocketText,
    (v4, v6): (u8, u8),
    code: u8,
    rest: u32,
    quoted: &Packet,
) -> Packet {
    let src = src.socket();
    let (kind, most) = if src.is_ipv4() {
        let options = quoted
            .ip()
            .map_or(0, |ip| ip.options.len().next_multiple_of(4));
        (v4, 20 + options + V4_QUOTE_BEHIND_HEADER)
    } else {
        (v6, V6_QUOTE)
    };
    let mut packet = icmp(src, dst, kind, code, rest.to_be_bytes());
    if let Body::Icmp(message) = packet.body_mut() {
        message.quote = Some((Box::new(quoted.clone()), most));
    }
    packet
}
