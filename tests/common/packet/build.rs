//! The builder: a packet as its parts, changed part by part, then put together.

use super::address::{Mac, SocketText};
use super::extension::Extension;
use super::ip::Ip;
use super::transport::{Icmp, Sctp, Tcp, Udp};
use super::{ethertype, protocol};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// What stands behind the IP header, or behind the Ethernet header where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp(Tcp),
    Udp(Udp),
    Sctp(Sctp),
    Icmp(Icmp),
    /// The payload is all of this protocol.
    Raw(u8),
    Arp(Vec<u8>),
}

/// A packet to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    src_mac: Mac,
    dst_mac: Mac,
    /// Ethernet type and control information of each VLAN tag.
    tags: Vec<(u16, u16)>,
    ethertype: Option<u16>,
    ip: Option<Ip>,
    body: Body,
    payload: Vec<u8>,
    /// The range of the IP payload that this fragment carries.
    fragment: Option<(usize, usize)>,
    /// Bytes of the frame that are kept.
    keep: Option<usize>,
    padding: usize,
}

impl Packet {
    pub(super) fn new(ip: Option<Ip>, body: Body) -> Packet {
        Packet {
            src_mac: [2, 0, 0, 0, 0, 1],
            dst_mac: [2, 0, 0, 0, 0, 2],
            tags: Vec::new(),
            ethertype: None,
            ip,
            body,
            payload: Vec::new(),
            fragment: None,
            keep: None,
            padding: 0,
        }
    }

    // Ethernet

    pub fn macs(mut self, src: Mac, dst: Mac) -> Packet {
        (self.src_mac, self.dst_mac) = (src, dst);
        self
    }

    /// Adds an 802.1Q tag behind those that are there. The upper four bits are its priority.
    pub fn vlan(mut self, id: u16) -> Packet {
        self.tags.push((ethertype::VLAN, id));
        self
    }

    /// The same of 802.1ad, as providers' networks have them.
    pub fn service_vlan(mut self, id: u16) -> Packet {
        self.tags.push((ethertype::SERVICE_VLAN, id));
        self
    }

    /// The Ethernet type, whatever follows.
    pub fn ethertype(mut self, number: u16) -> Packet {
        self.ethertype = Some(number);
        self
    }

    /// Cuts the frame after so many bytes, Ethernet header included.
    pub fn truncate(mut self, bytes: usize) -> Packet {
        self.keep = Some(bytes);
        self
    }

    /// Bytes behind the end of the IP packet, as Ethernet pads short frames.
    pub fn pad(mut self, bytes: usize) -> Packet {
        self.padding = bytes;
        self
    }

    // IP

    /// The IP header, for what has no word of its own here.
    pub fn with_ip(mut self, change: impl FnOnce(&mut Ip)) -> Packet {
        match &mut self.ip {
            Some(ip) => change(ip),
            None => panic!("this packet has no IP header"),
        }
        self
    }

    /// Another source; the port stays unless one is given.
    pub fn src(self, src: impl SocketText) -> Packet {
        let src = src.socket();
        let packet = self.with_ip(|ip| ip.src = src.ip());
        if src.port() == 0 {
            packet
        } else {
            packet.src_port(src.port())
        }
    }

    /// Another destination; the port stays unless one is given.
    pub fn dst(self, dst: impl SocketText) -> Packet {
        let dst = dst.socket();
        let packet = self.with_ip(|ip| ip.dst = dst.ip());
        if dst.port() == 0 {
            packet
        } else {
            packet.dst_port(dst.port())
        }
    }

    /// TTL or hop limit; 64 if not given.
    pub fn ttl(self, ttl: u8) -> Packet {
        self.with_ip(|ip| ip.ttl = ttl)
    }

    pub fn tos(self, tos: u8) -> Packet {
        self.with_ip(|ip| ip.tos = tos)
    }

    pub fn flow_label(self, label: u32) -> Packet {
        self.with_ip(|ip| ip.flow_label = label)
    }

    pub fn id(self, id: u16) -> Packet {
        self.with_ip(|ip| ip.id = id)
    }

    pub fn dont_fragment(self) -> Packet {
        self.with_ip(|ip| ip.dont_fragment = true)
    }

    pub fn ip_options(self, options: &[u8]) -> Packet {
        self.with_ip(|ip| ip.options = options.to_vec())
    }

    /// Adds an IPv6 extension header behind those that are there.
    pub fn extension(self, extension: Extension) -> Packet {
        self.with_ip(|ip| ip.extensions.push(extension))
    }

    /// A wrong version.
    pub fn version(self, version: u8) -> Packet {
        self.with_ip(|ip| ip.version = Some(version))
    }

    /// A wrong IPv4 header length, in words of four bytes.
    pub fn ihl(self, words: u8) -> Packet {
        self.with_ip(|ip| ip.ihl = Some(words))
    }

    /// A wrong IPv4 total length or IPv6 payload length.
    pub fn ip_length(self, bytes: u16) -> Packet {
        self.with_ip(|ip| ip.length = Some(bytes))
    }

    /// A wrong IPv4 header checksum.
    pub fn ip_checksum(self, checksum: u16) -> Packet {
        self.with_ip(|ip| ip.checksum = Some(checksum))
    }

    /// A wrong protocol or next header.
    pub fn protocol(self, number: u8) -> Packet {
        self.with_ip(|ip| ip.protocol = Some(number))
    }

    /// Only these bytes of the IP payload, as a fragment of the whole.
    pub fn fragment(mut self, first: usize, end: usize) -> Packet {
        assert_eq!(first % 8, 0, "a fragment begins at a multiple of 8 bytes");
        self.fragment = Some((first, end));
        self
    }

    // TCP

    /// The first segment of its direction: its number is 0.
    pub fn syn(self) -> Packet {
        self.flag(SYN).seq(0)
    }

    /// Acknowledges a SYN, and nothing after it.
    pub fn ack(self) -> Packet {
        self.flag(ACK).ack_number(1)
    }

    pub fn fin(self) -> Packet {
        self.flag(FIN)
    }

    pub fn rst(self) -> Packet {
        self.flag(RST)
    }

    pub fn psh(self) -> Packet {
        self.flag(PSH)
    }

    fn flag(self, flag: u8) -> Packet {
        self.with_tcp(|tcp| tcp.flags |= flag)
    }

    /// Sequence number.
    pub fn seq(self, seq: u32) -> Packet {
        self.with_tcp(|tcp| tcp.seq = seq)
    }

    /// Acknowledgement number; the flag is `ack()`.
    pub fn ack_number(self, ack: u32) -> Packet {
        self.with_tcp(|tcp| tcp.ack = ack)
    }

    pub fn window(self, window: u16) -> Packet {
        self.with_tcp(|tcp| tcp.window = window)
    }

    pub fn tcp_options(self, options: &[u8]) -> Packet {
        self.with_tcp(|tcp| tcp.options = options.to_vec())
    }

    /// A wrong TCP header length, in words of four bytes.
    pub fn data_offset(self, words: u8) -> Packet {
        self.with_tcp(|tcp| tcp.data_offset = Some(words))
    }

    fn with_tcp(mut self, change: impl FnOnce(&mut Tcp)) -> Packet {
        match &mut self.body {
            Body::Tcp(tcp) => change(tcp),
            other => panic!("this is no TCP packet but {other:?}"),
        }
        self
    }

    // UDP, ICMP and what they share

    /// UDP without a checksum.
    pub fn no_checksum(self) -> Packet {
        match self.body {
            Body::Udp(_) => self.checksum(0),
            other => panic!("this is no UDP packet but {other:?}"),
        }
    }

    /// A wrong UDP length.
    pub fn udp_length(mut self, bytes: u16) -> Packet {
        match &mut self.body {
            Body::Udp(udp) => udp.length = Some(bytes),
            other => panic!("this is no UDP packet but {other:?}"),
        }
        self
    }

    /// A wrong transport checksum.
    pub fn checksum(mut self, sum: u16) -> Packet {
        match &mut self.body {
            Body::Tcp(tcp) => tcp.checksum = Some(sum),
            Body::Udp(udp) => udp.checksum = Some(sum),
            Body::Icmp(icmp) => icmp.checksum = Some(sum),
            other => panic!("{other:?} has no 16-bit checksum"),
        }
        self
    }

    pub fn src_port(mut self, port: u16) -> Packet {
        match &mut self.body {
            Body::Tcp(tcp) => tcp.src_port = port,
            Body::Udp(udp) => udp.src_port = port,
            Body::Sctp(sctp) => sctp.src_port = port,
            other => panic!("{other:?} has no ports"),
        }
        self
    }

    pub fn dst_port(mut self, port: u16) -> Packet {
        match &mut self.body {
            Body::Tcp(tcp) => tcp.dst_port = port,
            Body::Udp(udp) => udp.dst_port = port,
            Body::Sctp(sctp) => sctp.dst_port = port,
            other => panic!("{other:?} has no ports"),
        }
        self
    }

    /// An SCTP packet's verification tag.
    pub fn tag(mut self, tag: u32) -> Packet {
        match &mut self.body {
            Body::Sctp(sctp) => sctp.tag = tag,
            other => panic!("this is no SCTP packet but {other:?}"),
        }
        self
    }

    /// How many bytes an ICMP error quotes at most, from the quoted IP header on.
    pub fn quote_at_most(mut self, bytes: usize) -> Packet {
        match &mut self.body {
            Body::Icmp(Icmp {
                quote: Some((_, most)),
                ..
            }) => *most = bytes,
            other => panic!("this is no ICMP error but {other:?}"),
        }
        self
    }

    /// Adds bytes behind what is there.
    pub fn payload(mut self, bytes: &[u8]) -> Packet {
        self.payload.extend(bytes);
        self
    }

    // Reading

    pub fn ip(&self) -> Option<&Ip> {
        self.ip.as_ref()
    }

    pub(super) fn body_mut(&mut self) -> &mut Body {
        &mut self.body
    }

    // Building

    /// The whole frame.
    pub fn build(&self) -> Vec<u8> {
        let inner = match (&self.ip, &self.body) {
            (Some(ip), _) => ip.ethertype(),
            (None, _) => ethertype::ARP,
        };
        let mut bytes = [self.dst_mac, self.src_mac].concat();
        for (ethertype, id) in &self.tags {
            bytes.extend(ethertype.to_be_bytes());
            bytes.extend(id.to_be_bytes());
        }
        bytes.extend(self.ethertype.unwrap_or(inner).to_be_bytes());
        bytes.extend(self.ip_bytes());
        bytes.resize(bytes.len() + self.padding, 0);
        if let Some(keep) = self.keep {
            assert!(
                keep <= bytes.len(),
                "there are only {} bytes to cut from",
                bytes.len()
            );
            bytes.truncate(keep);
        }
        bytes
    }

    /// The packet from its network header on.
    pub fn ip_bytes(&self) -> Vec<u8> {
        let Some(ip) = &self.ip else {
            return match &self.body {
                Body::Arp(bytes) => [bytes.as_slice(), &self.payload].concat(),
                _ => self.payload.clone(),
            };
        };
        let (number, mut carried) = self.transport(ip);
        let mut ip = ip.clone();
        if let Some((first, end)) = self.fragment {
            let end = end.min(carried.len());
            mark_fragment(&mut ip, first, end < carried.len());
            carried = carried[first..end].to_vec();
        }
        let mut bytes = ip.build(number, carried.len());
        bytes.extend(carried);
        bytes
    }

    fn transport(&self, ip: &Ip) -> (u8, Vec<u8>) {
        match &self.body {
            Body::Tcp(tcp) => (protocol::TCP, tcp.build(ip, &self.payload)),
            Body::Udp(udp) => (protocol::UDP, udp.build(ip, &self.payload)),
            Body::Sctp(sctp) => (protocol::SCTP, sctp.build(&self.payload)),
            Body::Icmp(icmp) => {
                let number = if ip.is_v4() {
                    protocol::ICMP
                } else {
                    protocol::ICMPV6
                };
                (number, icmp.build(ip, &self.payload))
            }
            Body::Raw(number) => (*number, self.payload.clone()),
            Body::Arp(_) => panic!("ARP does not travel in IP"),
        }
    }
}

/// IPv6 marks a fragment by a header of its own, which takes the `id` of the packet.
fn mark_fragment(ip: &mut Ip, offset: usize, more: bool) {
    let offset = offset as u16;
    if ip.is_v4() {
        (ip.offset, ip.more_fragments) = (offset, more);
    } else {
        let id = u32::from(ip.id);
        ip.extensions.push(Extension::Fragment { offset, more, id });
    }
}
