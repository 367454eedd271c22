//! Packets for tests: built, taken apart, checked and printed, without a line of the datapath's own code.
//!
//! ```text
//! tcp("10.0.0.1:1000", "10.0.0.2:80").syn().ttl(3).build()
//! ```
//!
//! One builder serves both families; the addresses choose. Lengths and checksums are right unless a row makes
//! them wrong. Checksums are summed over the whole packet as RFC 1071 says, never carried forward.

mod address;
mod arp;
mod build;
pub mod checksum;
mod error;
mod extension;
mod ip;
mod neighbour;
mod parse;
mod text;
mod transport;
mod verify;

pub use address::{Mac, SocketText, mac};
pub use arp::{arp_reply, arp_request};
pub use build::{Body, Packet};
pub use error::{fragmentation_needed, parameter_problem, time_exceeded, unreachable};
pub use extension::Extension;
pub use ip::Ip;
pub use neighbour::{
    igmp_report, mld_report, neighbour_advertisement, neighbour_solicitation, router_advertisement,
    router_solicitation,
};
pub use parse::{Parsed, ParsedArp, ParsedIcmp, ParsedIp, ParsedTcp, parse, parse_ip};
pub use text::{diff, hex, summary, text};
pub use transport::{
    Icmp, Sctp, Tcp, Udp, echo_reply, echo_request, gre, icmp, raw, sctp, tcp, udp,
};
pub use verify::verify;

/// The Ethernet types that the tests speak of (IANA, IEEE 802 Numbers).
pub mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
    pub const SERVICE_VLAN: u16 = 0x88a8;
    pub const LLDP: u16 = 0x88cc;
}

/// IP protocol numbers (IANA, Protocol Numbers).
pub mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const GRE: u8 = 47;
    pub const ICMPV6: u8 = 58;
    pub const NO_NEXT: u8 = 59;
    pub const DESTINATION: u8 = 60;
    pub const SCTP: u8 = 132;
}
