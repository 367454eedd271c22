//! Numbers of the RFCs, and what the builder makes besides the packets that were captured.

use crate::common::packet::{self, Extension, Packet, checksum, parse, protocol, verify};

#[test]
fn checksums_are_those_of_the_rfcs() {
    let rfc_1071 = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(
        checksum::internet(&[&rfc_1071]),
        !0xddf2,
        "the example of RFC 1071 section 3"
    );
    assert_eq!(
        checksum::internet(&[&[0x01]]),
        !0x0100,
        "an odd byte is padded behind"
    );
    assert_eq!(checksum::internet(&[]), 0xffff, "nothing sums to nothing");
    assert_eq!(
        checksum::crc32c(b"123456789"),
        0xe306_9283_u32.to_le_bytes(),
        "the check value"
    );
    let zeros = [0; 32];
    assert_eq!(
        checksum::crc32c(&zeros),
        [0xaa, 0x36, 0x91, 0x8a],
        "RFC 3720 B.4, zeros"
    );
    let ones = [0xff; 32];
    assert_eq!(
        checksum::crc32c(&ones),
        [0x43, 0xab, 0xa8, 0x62],
        "RFC 3720 B.4, ones"
    );
}

/// A packet of each kind in each family.
pub fn every_kind() -> Vec<(&'static str, Packet)> {
    let mut kinds = Vec::new();
    for (client, server) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let (src, dst) = match client {
            "10.0.0.1" => ("10.0.0.1:1000", "10.0.0.2:80"),
            _ => ("[fd00::1]:1000", "[fd00::2]:80"),
        };
        let question = packet::udp(src, dst).payload(b"question");
        kinds.extend([
            ("TCP", packet::tcp(src, dst).psh().ack().payload(b"odd")),
            ("UDP", question.clone()),
            (
                "SCTP",
                packet::sctp(src, dst).tag(7).payload(&[10, 0, 0, 4]),
            ),
            ("GRE", packet::gre(client, server).payload(b"inside")),
            (
                "an echo reply",
                packet::echo_reply(client, server, 7, 1).payload(b"ping"),
            ),
            (
                "unreachable",
                packet::unreachable(server, client, 1, &question),
            ),
            (
                "time exceeded",
                packet::time_exceeded(server, client, &question),
            ),
            (
                "fragmentation needed",
                packet::fragmentation_needed(server, client, 1400, &question),
            ),
            (
                "a parameter problem",
                packet::parameter_problem(server, client, 6, &question),
            ),
            ("a tagged packet", question.vlan(7)),
        ]);
    }
    let v6 = packet::udp("[fd00::1]:1000", "[fd00::2]:80").payload(b"question");
    kinds.extend([
        (
            "UDP without checksum",
            packet::udp("10.0.0.1:1", "10.0.0.2:2").no_checksum(),
        ),
        (
            "IPv4 options",
            packet::udp("10.0.0.1:1", "10.0.0.2:2").ip_options(&[7, 4, 4, 0, 1]),
        ),
        (
            "hop-by-hop options",
            v6.clone().extension(Extension::HopByHop),
        ),
        (
            "a routing header",
            v6.clone().extension(Extension::Routing(4)),
        ),
        (
            "destination options",
            v6.clone().extension(Extension::Destination(40)),
        ),
        (
            "three extension headers",
            v6.extension(Extension::HopByHop)
                .extension(Extension::Routing(0))
                .extension(Extension::Destination(1)),
        ),
        ("an MLD report", packet::mld_report("fe80::1", "ff02::fb")),
        (
            "an IGMP report",
            packet::igmp_report("10.0.0.1", 4, "239.0.0.1"),
        ),
        (
            "a router advertisement",
            packet::router_advertisement("fe80::1"),
        ),
        (
            "an ARP request",
            packet::arp_request([2; 6], "10.0.0.1", "10.0.0.2"),
        ),
        (
            "padding",
            packet::arp_request([2; 6], "10.0.0.1", "10.0.0.2").pad(18),
        ),
    ]);
    kinds
}

#[test]
fn every_kind_is_right_by_default() {
    for (says, packet) in every_kind() {
        let frame = packet.build();
        assert_eq!(verify(&frame), Ok(()), "{says}\n{}", packet::text(&frame));
    }
}

#[test]
fn a_udp_sum_of_zero_is_sent_as_ones() {
    let sums_to_zero =
        |last: u16| packet::udp("10.0.0.1:1", "10.0.0.2:2").payload(&last.to_be_bytes());
    let found =
        (0..=u16::MAX).find(|last| parse(&sums_to_zero(*last).build()).checksum == Some(0xffff));
    let last = found.expect("one of the values sums to zero");
    assert_eq!(verify(&sums_to_zero(last).build()), Ok(()));
}

#[test]
fn fragments_are_parts_of_the_whole() {
    for (src, dst) in [
        ("10.0.0.1:1000", "10.0.0.2:80"),
        ("[fd00::1]:1000", "[fd00::2]:80"),
    ] {
        let whole = packet::udp(src, dst).id(9).payload(&[5; 100]);
        let first = parse(&whole.clone().fragment(0, 64).build());
        let last = parse(&whole.clone().fragment(64, 108).build());
        let (first_ip, last_ip) = (
            first.ip.expect("an IP header"),
            last.ip.expect("an IP header"),
        );

        assert_eq!(
            (first_ip.offset, first_ip.more_fragments, first_ip.id),
            (0, true, 9),
            "{src}"
        );
        assert_eq!(
            (last_ip.offset, last_ip.more_fragments, last_ip.id),
            (64, false, 9),
            "{src}"
        );
        assert_eq!(first.src_port, 1000, "the first has the ports");
        assert_eq!(last.src_port, 0, "a later one has none");
        assert_eq!(
            first.checksum,
            parse(&whole.build()).checksum,
            "the sum is over the whole"
        );
        assert_eq!(first.payload.len() + last.payload.len(), 100);
    }
}

#[test]
fn an_error_quotes_as_much_as_its_family_asks() {
    let long = packet::udp("10.0.0.1:1", "10.0.0.2:2").payload(&[0; 2000]);
    let error = packet::unreachable("10.0.0.2", "10.0.0.1", 3, &long);
    assert_eq!(
        error.ip_bytes().len(),
        20 + 8 + 28,
        "IPv4: header and eight bytes"
    );
    let long = packet::udp("[fd00::1]:1", "[fd00::2]:2").payload(&[0; 2000]);
    let error = packet::unreachable("fd00::2", "fd00::1", 4, &long);
    assert_eq!(error.ip_bytes().len(), 1280, "IPv6: up to the smallest MTU");
    assert_eq!(verify(&error.build()), Ok(()));
}

#[test]
fn what_was_built_is_parsed_again() {
    let frame = packet::tcp("[fd00::1]:1000", "[fd00::2]:80")
        .syn()
        .seq(5)
        .ttl(3)
        .vlan(12)
        .extension(Extension::HopByHop)
        .payload(b"data")
        .build();
    let parsed = parse(&frame);
    let ip = parsed.ip.expect("an IP header");
    let tcp = parsed.tcp.expect("a TCP header");
    assert_eq!(ip.src.to_string(), "fd00::1");
    assert_eq!((ip.ttl, ip.protocol), (3, protocol::TCP));
    assert_eq!(ip.extensions, [protocol::HOP_BY_HOP]);
    assert_eq!((parsed.src_port, parsed.dst_port), (1000, 80));
    assert_eq!((tcp.seq, tcp.flags), (5, 2));
    assert_eq!(parsed.vlan, Some(12));
    assert_eq!(parsed.payload, b"data");
    assert_eq!(parsed.cut, None);
}

#[test]
fn a_packet_cut_anywhere_is_parsed_as_far_as_it_goes() {
    for (says, packet) in every_kind() {
        let whole = packet.build();
        for bytes in 0..whole.len() {
            let frame = packet.clone().truncate(bytes).build();
            assert_eq!(frame.len(), bytes, "{says}");
            let _ = packet::text(&frame);
        }
    }
}
