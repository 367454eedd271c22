//! Packets as text.

use crate::common::packet::{self, Extension, diff, hex, summary, text};

#[test]
fn a_packet_is_one_line() {
    let question = packet::udp("10.0.0.1:1000", "10.0.0.2:53").payload(b"question");
    let rows = [
        (
            question.clone(),
            "IP 10.0.0.1:1000 > 10.0.0.2:53: UDP, length 8, ttl 64",
        ),
        (
            question.clone().checksum(1),
            "IP 10.0.0.1:1000 > 10.0.0.2:53: UDP, length 8, ttl 64 [the UDP checksum is wrong]",
        ),
        (
            packet::tcp("[fd00::1]:1000", "[fd00::2]:80")
                .syn()
                .seq(9)
                .extension(Extension::HopByHop),
            "IP6 [fd00::1]:1000 > [fd00::2]:80: TCP [S], seq 9, ack 0, win 65535, length 0, ttl 64",
        ),
        (
            packet::unreachable("10.0.0.2", "10.0.0.1", 3, &question),
            "IP 10.0.0.2 > 10.0.0.1: unreachable code 3 about \
             (IP 10.0.0.1:1000 > 10.0.0.2:53: UDP, length 0, ttl 64), ttl 64",
        ),
        (
            packet::fragmentation_needed(
                "fd00::2",
                "fd00::1",
                1400,
                &packet::echo_request("fd00::1", "fd00::2", 7, 8),
            ),
            "IP6 fd00::2 > fd00::1: packet too big, mtu 1400 about \
             (IP6 fd00::1 > fd00::2: echo request id 7 seq 8, length 0, ttl 64), ttl 64",
        ),
        (
            question.clone().id(9).fragment(0, 8),
            "IP 10.0.0.1:1000 > 10.0.0.2:53: UDP, length 0, fragment 9@0+, ttl 64",
        ),
        (
            question.clone().vlan(5).truncate(44),
            "vlan 5 IP 10.0.0.1:1000 > 10.0.0.2:53: UDP, length 0, ttl 64, cut within the UDP header \
             [the bytes end within the UDP header]",
        ),
        (
            packet::arp_request([2; 6], "10.0.0.1", "10.0.0.2"),
            "ARP who-has 10.0.0.2 tell 10.0.0.1",
        ),
        (question.ethertype(0x88cc), "ethertype 0x88cc, 36 bytes"),
    ];
    for (packet, line) in rows {
        assert_eq!(summary(&packet.build()), line);
    }
}

#[test]
fn many_lines_name_every_field() {
    let text = text(
        &packet::tcp("10.0.0.1:1000", "10.0.0.2:80")
            .syn()
            .ack()
            .ttl(3)
            .build(),
    );
    for line in [
        "ip.ttl               3",
        "tcp.flags            S.",
        "dst_port             80",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
}

#[test]
fn a_difference_names_the_fields_and_marks_the_bytes() {
    let expected = packet::udp("10.0.0.1:1000", "10.0.0.2:53").build();
    let got = packet::udp("10.0.0.1:1000", "10.0.0.2:53").ttl(63).build();
    let difference = diff(&expected, &got);
    assert!(
        difference.contains("ip.ttl               expected 64, got 63"),
        "{difference}"
    );
    assert!(difference.contains("*40"), "{difference}");
    assert!(difference.contains("*3f"), "{difference}");
    assert!(!difference.contains("dst_port  "), "{difference}");
    assert_eq!(diff(&expected, &expected), "");
}

#[test]
fn a_quote_has_fields_of_its_own() {
    let quoted = packet::udp("10.0.0.1:1000", "10.0.0.2:53");
    let error = |quoted| packet::time_exceeded("10.0.0.9", "10.0.0.1", quoted).build();
    let difference = diff(&error(&quoted), &error(&quoted.clone().dst_port(54)));
    assert!(
        difference.contains("quoted dst_port      expected 53, got 54"),
        "{difference}"
    );
}

#[test]
fn bytes_are_printed_sixteen_a_line() {
    assert_eq!(
        hex(&[0xab; 17]),
        format!("    0000 {}\n    0010  ab", " ab".repeat(16))
    );
}
