//! Addresses, sockets and prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::bpf::abi;
use crate::model::link_local;
use crate::model::state::HostAddresses;

/// Sources of ICMP errors of a node without an address of the family (RFC 7600).
const UNNUMBERED_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
const UNNUMBERED_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// 16 bytes in the order of a packet; IPv4 as `::ffff:a.b.c.d`.
pub fn address(ip: IpAddr) -> abi::address {
    let bytes = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let (high, low) = bytes.split_at(8);
    let word = |half: &[u8]| u64::from_ne_bytes(half.try_into().unwrap_or_default());
    abi::address {
        word: [word(high), word(low)],
    }
}

/// The address as tables have it: with the link of a link-local one, where they need it.
pub fn ip(address: &abi::address) -> IpAddr {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.word[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&address.word[1].to_ne_bytes());
    Ipv6Addr::from(bytes).to_canonical()
}

/// The sources of errors of both families.
pub fn host_addresses(host: &HostAddresses) -> (abi::address, abi::address) {
    let ipv4 = host.ipv4.unwrap_or(UNNUMBERED_IPV4);
    let ipv6 = host.ipv6.unwrap_or(UNNUMBERED_IPV6);
    (address(ipv4.into()), address(ipv6.into()))
}

pub fn decode_host_addresses(ipv4: &abi::address, ipv6: &abi::address) -> HostAddresses {
    HostAddresses {
        ipv4: match ip(ipv4) {
            IpAddr::V4(v4) if v4 != UNNUMBERED_IPV4 => Some(v4),
            _ => None,
        },
        ipv6: match ip(ipv6) {
            IpAddr::V6(v6) if v6 != UNNUMBERED_IPV6 => Some(v6),
            _ => None,
        },
    }
}

pub fn socket(address: &abi::address, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), u16::from_be(port))
}

/// The side of a flow as its packets have it: a link-local address without its link.
pub fn flow_socket(address: &abi::address, port: u16) -> SocketAddr {
    SocketAddr::new(link_local::unscope(ip(address)), u16::from_be(port))
}

/// An IPv4 prefix is one of mapped addresses: 96 bits longer.
pub fn prefix(prefix: &IpNet) -> abi::address_prefix_key {
    let (family, mapped_bits) = match prefix {
        IpNet::V4(_) => (4, 96),
        IpNet::V6(_) => (6, 0),
    };
    abi::address_prefix_key {
        prefix_length: FAMILY_BITS + mapped_bits + u32::from(prefix.prefix_len()),
        family,
        pad: [0; 3],
        address: address(prefix.network()),
    }
}

/// The family byte and its padding.
pub const FAMILY_BITS: u32 = abi::prefix_key_bits::PREFIX_KEY_FAMILY_BITS.0;

pub fn decode_prefix(key: &abi::address_prefix_key) -> Option<IpNet> {
    let mapped_bits = if key.family == 4 { 96 } else { 0 };
    let length = key.prefix_length.checked_sub(FAMILY_BITS + mapped_bits)?;
    IpNet::new(
        ip_of_family(&key.address, key.family),
        length.try_into().ok()?,
    )
    .ok()
}

/// `::/0` and `::ffff:0:0/96` have the same canonical address; the family distinguishes them.
fn ip_of_family(address: &abi::address, family: u8) -> IpAddr {
    match (ip(address), family) {
        (IpAddr::V4(v4), 6) => IpAddr::V6(v4.to_ipv6_mapped()),
        (known, _) => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::abi::Plain;

    #[test]
    fn a_node_without_addresses_is_unnumbered() {
        let (ipv4, ipv6) = host_addresses(&HostAddresses::default());
        assert_eq!(ip(&ipv4), UNNUMBERED_IPV4);
        assert_eq!(ip(&ipv6), UNNUMBERED_IPV6);
    }

    #[test]
    fn addresses_have_the_byte_order_of_a_packet() {
        let rows = [
            (
                "0.0.0.0",
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
            ),
            (
                "10.200.0.64",
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 200, 0, 64],
            ),
            (
                "255.255.255.255",
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 255, 255, 255, 255],
            ),
            ("::", [0; 16]),
            ("::1", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            (
                "fd00:200::64",
                [0xfd, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x64],
            ),
        ];
        for (text, bytes) in rows {
            let known: IpAddr = text.parse().unwrap();
            let key = abi::flow_tuple {
                source: address(known),
                source_port: 0x1234u16.to_be(),
                ..Default::default()
            };
            assert_eq!(key.as_bytes()[..16], bytes, "{text}");
            assert_eq!(ip(&key.source), known, "{text}");
            assert_eq!(
                socket(&key.source, key.source_port).port(),
                0x1234,
                "{text}"
            );
        }
    }

    #[test]
    fn prefixes_of_each_length_are_decoded_to_what_they_were() {
        let addresses = [
            "0.0.0.0",
            "10.200.3.77",
            "255.255.255.255",
            "::",
            "fd00:200::64",
            "ffff::ff",
        ];
        for address in addresses {
            let address: IpAddr = address.parse().unwrap();
            let longest = if address.is_ipv4() { 32 } else { 128 };
            for length in 0..=longest {
                let known = IpNet::new(address, length).unwrap().trunc();
                let key = prefix(&known);
                let read = abi::address_prefix_key::from_bytes(key.as_bytes()).unwrap();
                assert_eq!(decode_prefix(&read), Some(known), "{known}");
            }
        }
    }

    #[test]
    fn prefixes_at_the_ends() {
        // (prefix, family, bits of the key that count)
        let rows = [
            ("0.0.0.0/0", 4, 32 + 96),
            ("10.200.0.44/32", 4, 32 + 128),
            ("::/0", 6, 32),
            ("fd00:200::44/128", 6, 32 + 128),
            ("::ffff:0.0.0.0/96", 6, 32 + 96),
        ];
        for (text, family, bits) in rows {
            let known: IpNet = text.parse().unwrap();
            let key = prefix(&known);
            assert_eq!((key.family, key.prefix_length), (family, bits), "{text}");
            assert_eq!(key.pad, [0; 3], "{text}: the padding is part of the key");
            assert_eq!(decode_prefix(&key), Some(known), "{text}");
        }
    }

    #[test]
    fn prefixes_of_the_families_differ() {
        let keys = ["0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"];
        let keys = keys.map(|text| prefix(&text.parse().unwrap()).as_bytes().to_vec());
        for (number, key) in keys.iter().enumerate() {
            assert!(!keys[number + 1..].contains(key));
        }
    }

    #[test]
    fn an_invalid_prefix_key_is_not_decoded() {
        let whole = prefix(&"10.200.0.44/32".parse().unwrap());
        let rows = [
            (
                "shorter than its family",
                abi::address_prefix_key {
                    prefix_length: 8,
                    ..whole
                },
            ),
            (
                "IPv4, shorter than the mapped part",
                abi::address_prefix_key {
                    prefix_length: 32 + 95,
                    ..whole
                },
            ),
            (
                "longer than an address",
                abi::address_prefix_key {
                    prefix_length: 32 + 129,
                    ..whole
                },
            ),
            (
                "much longer",
                abi::address_prefix_key {
                    prefix_length: u32::MAX,
                    ..whole
                },
            ),
        ];
        for (sentence, key) in rows {
            assert_eq!(decode_prefix(&key), None, "{sentence}");
        }
    }
}
