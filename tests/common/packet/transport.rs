//! What IP carries: TCP, UDP, SCTP, ICMP of both families, and bytes of any protocol.

use super::address::SocketText;
use super::build::{Body, Packet};
use super::ip::Ip;
use super::{checksum, protocol};

/// A TCP header; a field of `None` is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
    pub ack: u32,
    /// The flag byte: FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
    pub flags: u8,
    pub window: u16,
    /// Padded to words of four bytes.
    pub options: Vec<u8>,
    /// Header length in words of four bytes.
    pub data_offset: Option<u8>,
    pub checksum: Option<u16>,
}

/// A UDP header; a field of `None` is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    pub src_port: u16,
    pub dst_port: u16,
    pub length: Option<u16>,
    pub checksum: Option<u16>,
}

/// An SCTP packet's common header; its payload is chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sctp {
    pub src_port: u16,
    pub dst_port: u16,
    pub tag: u32,
    pub checksum: Option<[u8; 4]>,
}

/// An ICMP or ICMPv6 message; by the family of the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    /// The four bytes after the checksum.
    pub rest: [u8; 4],
    /// The packet that an error quotes, and how many bytes of it; it comes before the payload.
    pub quote: Option<(Box<Packet>, usize)>,
    pub checksum: Option<u16>,
}

pub fn tcp(src: impl SocketText, dst: impl SocketText) -> Packet {
    let (src, dst) = (src.socket(), dst.socket());
    let body = Tcp {
        src_port: src.port(),
        dst_port: dst.port(),
        seq: 1, // of a connection whose SYN had 0
        ack: 0,
        flags: 0,
        window: 0xffff,
        options: Vec::new(),
        data_offset: None,
        checksum: None,
    };
    Packet::new(Some(Ip::new(src, dst)), Body::Tcp(body))
}

pub fn udp(src: impl SocketText, dst: impl SocketText) -> Packet {
    let (src, dst) = (src.socket(), dst.socket());
    let body = Udp {
        src_port: src.port(),
        dst_port: dst.port(),
        length: None,
        checksum: None,
    };
    Packet::new(Some(Ip::new(src, dst)), Body::Udp(body))
}

pub fn sctp(src: impl SocketText, dst: impl SocketText) -> Packet {
    let (src, dst) = (src.socket(), dst.socket());
    let body = Sctp {
        src_port: src.port(),
        dst_port: dst.port(),
        tag: 0,
        checksum: None,
    };
    Packet::new(Some(Ip::new(src, dst)), Body::Sctp(body))
}

/// A message of ICMP between IPv4 addresses, of ICMPv6 between IPv6 addresses.
pub fn icmp(
    src: impl SocketText,
    dst: impl SocketText,
    kind: u8,
    code: u8,
    rest: [u8; 4],
) -> Packet {
    let body = Icmp {
        kind,
        code,
        rest,
        quote: None,
        checksum: None,
    };
    Packet::new(Some(Ip::new(src.socket(), dst.socket())), Body::Icmp(body))
}

pub fn echo_request(src: impl SocketText, dst: impl SocketText, id: u16, seq: u16) -> Packet {
    echo(src, dst, (8, 128), id, seq)
}

pub fn echo_reply(src: impl SocketText, dst: impl SocketText, id: u16, seq: u16) -> Packet {
    echo(src, dst, (0, 129), id, seq)
}

fn echo(
    src: impl SocketText,
    dst: impl SocketText,
    (v4, v6): (u8, u8),
    id: u16,
    seq: u16,
) -> Packet {
    let src = src.socket();
    let kind = if src.is_ipv4() { v4 } else { v6 };
    let [a, b] = id.to_be_bytes();
    let [c, d] = seq.to_be_bytes();
    icmp(src, dst, kind, 0, [a, b, c, d])
}

/// Generic routing encapsulation without key or checksum (RFC 2784); the payload is what it carries.
pub fn gre(src: impl SocketText, dst: impl SocketText) -> Packet {
    raw(src, dst, protocol::GRE).payload(&[0, 0, 8, 0])
}

/// A packet of any protocol; its payload is all that follows the IP header.
pub fn raw(src: impl SocketText, dst: impl SocketText, protocol: u8) -> Packet {
    Packet::new(
        Some(Ip::new(src.socket(), dst.socket())),
        Body::Raw(protocol),
    )
}

impl Tcp {
    pub(super) fn build(&self, ip: &Ip, payload: &[u8]) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let words = self.data_offset.unwrap_or((20 + options.len()) as u8 / 4);

        let mut bytes = ports(self.src_port, self.dst_port);
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([words << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(options);
        bytes.extend(payload);
        let sum = self
            .checksum
            .unwrap_or_else(|| with_pseudo_header(ip, protocol::TCP, &bytes));
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

impl Udp {
    pub(super) fn build(&self, ip: &Ip, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ports(self.src_port, self.dst_port);
        bytes.extend(
            self.length
                .unwrap_or((8 + payload.len()) as u16)
                .to_be_bytes(),
        );
        bytes.extend([0; 2]);
        bytes.extend(payload);
        let sum = self.checksum.unwrap_or_else(|| {
            // A sum of 0 would say that there is none (RFC 768).
            match with_pseudo_header(ip, protocol::UDP, &bytes) {
                0 => 0xffff,
                sum => sum,
            }
        });
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

impl Sctp {
    pub(super) fn build(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ports(self.src_port, self.dst_port);
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        let sum = self.checksum.unwrap_or_else(|| checksum::crc32c(&bytes));
        bytes[8..12].copy_from_slice(&sum);
        bytes
    }
}

impl Icmp {
    pub(super) fn build(&self, ip: &Ip, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend(self.rest);
        if let Some((quoted, most)) = &self.quote {
            let quoted = quoted.ip_bytes();
            bytes.extend(&quoted[..quoted.len().min(*most)]);
        }
        bytes.extend(payload);
        let sum = self.checksum.unwrap_or_else(|| {
            if ip.is_v4() {
                checksum::internet(&[&bytes])
            } else {
                with_pseudo_header(ip, protocol::ICMPV6, &bytes)
            }
        });
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

fn ports(src: u16, dst: u16) -> Vec<u8> {
    [src.to_be_bytes(), dst.to_be_bytes()].concat()
}

fn with_pseudo_header(ip: &Ip, protocol: u8, bytes: &[u8]) -> u16 {
    let pseudo = checksum::pseudo_header(ip.src, ip.dst, protocol, bytes.len());
    checksum::internet(&[&pseudo, bytes])
}
