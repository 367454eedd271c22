//! `verify` finds every fault that it is there to find.

use crate::built::every_kind;
use crate::captured;
use crate::common::packet::{self, Packet, parse, protocol, summary, verify};

#[test]
fn wrong_packets_are_refused_with_the_reason() {
    let v4 = || packet::udp("10.0.0.1:1000", "10.0.0.2:53").payload(b"question");
    let v6 = || packet::udp("[fd00::1]:1000", "[fd00::2]:53").payload(b"question");
    let tcp = || packet::tcp("10.0.0.1:1000", "10.0.0.2:80").syn();
    let error =
        |quoted: &Packet| packet::unreachable("10.0.0.2", "10.0.0.1", 3, quoted).quote_at_most(548);
    let rows = [
        (
            "an IPv4 sum",
            v4().ip_checksum(1),
            "the IPv4 header checksum is wrong",
        ),
        ("a UDP sum", v4().checksum(1), "the UDP checksum is wrong"),
        ("a TCP sum", tcp().checksum(1), "the TCP checksum is wrong"),
        (
            "no UDP sum in IPv6",
            v6().no_checksum(),
            "UDP over IPv6 has no checksum",
        ),
        (
            "a UDP length",
            v4().udp_length(9),
            "UDP states 9 bytes, there are 16",
        ),
        (
            "a total length that is too long",
            v4().ip_length(99),
            "the IP packet states 99 bytes, there are 36",
        ),
        (
            "a payload length that is too long",
            v6().ip_length(99),
            "the IP packet states 139 bytes, there are 56",
        ),
        (
            "a total length that is too short",
            v4().ip_length(22),
            "the bytes end within the ports",
        ),
        (
            "a header length below five",
            v4().ihl(4),
            "the bytes end within the IPv4 header length",
        ),
        (
            "a TCP header length below five",
            tcp().data_offset(4),
            "the bytes end within the TCP header length",
        ),
        (
            "a version",
            v4().version(5),
            "IP version 5 under Ethernet type 0x0800",
        ),
        (
            "bytes behind a long packet",
            v4().payload(&[0; 40]).pad(3),
            "the IP packet states 76 bytes, there are 79",
        ),
        (
            "a cut",
            v4().truncate(30),
            "the bytes end within the IPv4 header",
        ),
        (
            "an ICMP sum",
            error(&v4()).checksum(1),
            "the ICMP checksum is wrong",
        ),
        (
            "a quoted IPv4 sum",
            error(&v4().ip_checksum(1)),
            "in the quoted packet: the IPv4 header checksum is wrong",
        ),
        (
            "a quoted UDP sum",
            error(&v4().checksum(1)),
            "in the quoted packet: the UDP checksum is wrong",
        ),
    ];
    for (says, packet, problem) in rows {
        let frame = packet.build();
        assert_eq!(
            verify(&frame),
            Err(problem.to_owned()),
            "{says}: {}",
            summary(&frame)
        );
    }
}

#[test]
fn a_wrong_sum_that_is_not_wholly_quoted_is_none_of_its_business() {
    let quoted = packet::udp("10.0.0.1:1000", "10.0.0.2:53")
        .payload(b"question")
        .checksum(1);
    let error = packet::unreachable("10.0.0.2", "10.0.0.1", 3, &quoted);
    assert_eq!(verify(&error.build()), Ok(()));
}

/// Whether a checksum or a check covers this byte of an IP packet. IPv6 has no sum over its own headers; addresses
/// are in the pseudo header, but SCTP's CRC has none.
fn is_covered(parsed: &packet::Parsed, at: usize) -> bool {
    let Some(ip) = &parsed.ip else { return false };
    let in_header = at
        .checked_sub(parsed.ip_at)
        .filter(|_| at < parsed.transport_at);
    match (ip.is_v4(), in_header) {
        (false, Some(4..6)) => true,
        (false, Some(8..40)) => ip.protocol != protocol::SCTP,
        (false, Some(_)) => false,
        _ => true,
    }
}

#[test]
fn every_flipped_bit_is_found() {
    for row in captured::rows() {
        flip_every_bit(row.says, &row.frame);
    }
    for (says, packet) in every_kind() {
        let frame = packet.build();
        let parsed = parse(&frame);
        let without_sum = parsed.checksum == Some(0) || parsed.checksum.is_none();
        let extended = parsed
            .ip
            .as_ref()
            .is_some_and(|ip| !ip.extensions.is_empty());
        if !without_sum && !extended {
            flip_every_bit(says, &frame);
        }
    }
}

fn flip_every_bit(says: &str, frame: &[u8]) {
    let parsed = parse(frame);
    for at in (0..frame.len()).filter(|at| is_covered(&parsed, *at) && *at >= parsed.ip_at) {
        for bit in 0..8 {
            let mut wrong = frame.to_vec();
            wrong[at] ^= 1 << bit;
            assert!(
                verify(&wrong).is_err(),
                "{says}: bit {bit} of byte {at} may be turned: {}",
                summary(&wrong)
            );
        }
    }
}

#[test]
fn each_flipped_byte_of_a_checksum_is_found() {
    for row in captured::rows() {
        for at in checksum_bytes(&row.frame) {
            for flip in 1..=255 {
                let mut wrong = row.frame.clone();
                wrong[at] ^= flip;
                assert!(
                    verify(&wrong).is_err(),
                    "{}: byte {at} xor {flip:#04x}",
                    row.says
                );
            }
        }
    }
}

/// Where the checksums of a frame lie, IPv4's own and the transport's.
fn checksum_bytes(frame: &[u8]) -> Vec<usize> {
    let parsed = parse(frame);
    let Some(ip) = &parsed.ip else {
        return Vec::new();
    };
    let mut places = Vec::new();
    if ip.is_v4() {
        places.extend([parsed.ip_at + 10, parsed.ip_at + 11]);
    }
    let field = match ip.protocol {
        protocol::TCP => 16..18,
        protocol::UDP => 6..8,
        protocol::SCTP => 8..12,
        protocol::ICMP | protocol::ICMPV6 | protocol::IGMP => 2..4,
        _ => 0..0,
    };
    places.extend(field.map(|byte| parsed.transport_at + byte));
    places
}
