//! The IP header of either family.

use std::net::{IpAddr, SocketAddr};

use super::checksum;
use super::ethertype;
use super::extension::Extension;

/// An IP header; a field of `None` is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// IPv6 alone.
    pub flow_label: u32,
    /// Identification; an IPv6 packet uses it once it is a fragment.
    pub id: u16,
    /// IPv4 alone, as the next two are.
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In bytes.
    pub offset: u16,
    /// IPv4 options, padded to words of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers in their order.
    pub extensions: Vec<Extension>,
    pub version: Option<u8>,
    /// IPv4 header length in words of four bytes.
    pub ihl: Option<u8>,
    /// IPv4's total length, IPv6's payload length.
    pub length: Option<u16>,
    /// The protocol, or the next header after the last extension.
    pub protocol: Option<u8>,
    pub checksum: Option<u16>,
}

impl Ip {
    pub(super) fn new(src: SocketAddr, dst: SocketAddr) -> Ip {
        assert_eq!(
            src.is_ipv4(),
            dst.is_ipv4(),
            "{src} and {dst} are of two families"
        );
        Ip {
            src: src.ip(),
            dst: dst.ip(),
            ttl: 64,
            tos: 0,
            flow_label: 0,
            id: 0,
            dont_fragment: false,
            more_fragments: false,
            offset: 0,
            options: Vec::new(),
            extensions: Vec::new(),
            version: None,
            ihl: None,
            length: None,
            protocol: None,
            checksum: None,
        }
    }

    pub fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }

    pub(super) fn ethertype(&self) -> u16 {
        if self.is_v4() {
            ethertype::IPV4
        } else {
            ethertype::IPV6
        }
    }

    /// The header with its extensions, in front of `length` bytes of `protocol`.
    pub(super) fn build(&self, protocol: u8, length: usize) -> Vec<u8> {
        let protocol = self.protocol.unwrap_or(protocol);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                self.build_v4(src.octets(), dst.octets(), protocol, length)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                self.build_v6(src.octets(), dst.octets(), protocol, length)
            }
            (src, dst) => panic!("{src} and {dst} are of two families"),
        }
    }

    fn build_v4(&self, src: [u8; 4], dst: [u8; 4], protocol: u8, length: usize) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let header = 20 + options.len();
        let ihl = self.ihl.unwrap_or((header / 4) as u8);
        let fragment = (u16::from(self.dont_fragment) << 14)
            | (u16::from(self.more_fragments) << 13)
            | (self.offset / 8);

        let mut bytes = vec![(self.version.unwrap_or(4) << 4) | (ihl & 0xf), self.tos];
        bytes.extend(
            self.length
                .unwrap_or((header + length) as u16)
                .to_be_bytes(),
        );
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([self.ttl, protocol, 0, 0]);
        bytes.extend(src);
        bytes.extend(dst);
        bytes.extend(options);
        let sum = self
            .checksum
            .unwrap_or_else(|| checksum::internet(&[&bytes]));
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn build_v6(&self, src: [u8; 16], dst: [u8; 16], protocol: u8, length: usize) -> Vec<u8> {
        let mut extensions = Vec::new();
        for (place, extension) in self.extensions.iter().enumerate() {
            let next = self
                .extensions
                .get(place + 1)
                .map_or(protocol, Extension::number);
            extensions.extend(extension.build(next));
        }
        let next = self.extensions.first().map_or(protocol, Extension::number);
        let version = self.version.unwrap_or(6);

        let word = (u32::from(version) << 28) | (u32::from(self.tos) << 20) | self.flow_label;
        let mut bytes = word.to_be_bytes().to_vec();
        bytes.extend(
            self.length
                .unwrap_or((extensions.len() + length) as u16)
                .to_be_bytes(),
        );
        bytes.extend([next, self.ttl]);
        bytes.extend(src);
        bytes.extend(dst);
        bytes.extend(extensions);
        bytes
    }
}
