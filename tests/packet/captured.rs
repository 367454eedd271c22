//! Packets that Linux sent, and the same built here: byte for byte.

use crate::common::packet::{self, Extension, Packet, diff, hex, mac, verify};

const A: &str = "3a:37:71:c8:82:5a";
const B: &str = "6a:22:d1:78:9e:aa";

/// The frame of a row, from its hexadecimal text.
pub fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hexadecimal digits are text");
        u8::from_str_radix(pair, 16).expect("two hexadecimal digits")
    };
    digits.chunks(2).map(byte).collect()
}

/// What was sent, how it is built, and its bytes.
pub struct Captured {
    pub says: &'static str,
    pub packet: Packet,
    pub frame: Vec<u8>,
}

fn captured(says: &'static str, packet: Packet, frame: &str) -> Captured {
    Captured {
        says,
        packet,
        frame: bytes(frame),
    }
}

fn udp_v4() -> Packet {
    packet::udp("10.9.0.1:40906", "10.9.0.2:4000")
        .id(31539)
        .dont_fragment()
        .payload(b"hello!!")
        .macs(mac(A), mac(B))
}

fn udp_v6() -> Packet {
    packet::udp("[fd09::1]:40043", "[fd09::2]:4000")
        .flow_label(0x8da14)
        .payload(b"hello!!")
        .macs(mac(A), mac(B))
}

/// Time stamp and filling of a ping with 16 bytes.
fn ping_data(microseconds: [u8; 2]) -> [u8; 16] {
    let [low, high] = microseconds;
    [
        0x49, 0x11, 0x03, 0x6b, 0, 0, 0, 0, low, high, 6, 0, 0, 0, 0, 0,
    ]
}

pub fn rows() -> Vec<Captured> {
    [arp_rows(), icmp_rows(), group_rows(), transport_rows()]
        .into_iter()
        .flatten()
        .collect()
}

fn arp_rows() -> Vec<Captured> {
    vec![
        captured(
            "an ARP request",
            packet::arp_request(mac(A), "10.9.0.1", "10.9.0.2"),
            "ffffffffffff3a3771c8825a0806 00010800060400013a3771c8825a0a0900010000000000000a090002",
        ),
        captured(
            "its answer",
            packet::arp_reply(mac(B), "10.9.0.2", mac(A), "10.9.0.1"),
            "3a3771c8825a6a22d1789eaa0806 00010800060400026a22d1789eaa0a0900023a3771c8825a0a090001",
        ),
    ]
}

fn icmp_rows() -> Vec<Captured> {
    vec![
        captured(
            "an echo request",
            packet::echo_request("10.9.0.1", "10.9.0.2", 13439, 1)
                .payload(&ping_data([0x96, 0x56]))
                .id(31014)
                .dont_fragment()
                .macs(mac(A), mac(B)),
            "6a22d1789eaa3a3771c8825a0800 4500002c792640004001ad960a0900010a090002
             0800daac347f0001 4911036b000000009656060000000000",
        ),
        captured(
            "an echo request over IPv6",
            packet::echo_request("fd09::1", "fd09::2", 13440, 1)
                .payload(&ping_data([0, 0x6a]))
                .flow_label(0x39af2)
                .macs(mac(A), mac(B)),
            "6a22d1789eaa3a3771c8825a86dd 60039af200183a40
             fd090000000000000000000000000001 fd090000000000000000000000000002
             8000fe2e34800001 4911036b00000000006a060000000000",
        ),
        captured(
            "port unreachable, with the whole question quoted",
            packet::unreachable("10.9.0.2", "10.9.0.1", 3, &udp_v4())
                .quote_at_most(548)
                .tos(0xc0)
                .id(35337)
                .macs(mac(B), mac(A)),
            "3a3771c8825a6a22d1789eaa0800 45c0003f8a0900004001dbe00a0900020a090001
             0303113200000000 450000237b3340004011ab820a0900010a0900029fca0fa0000fd75d68656c6c6f2121",
        ),
        captured(
            "port unreachable over IPv6",
            packet::unreachable("fd09::2", "fd09::1", 4, &udp_v6())
                .flow_label(0x17efe)
                .macs(mac(B), mac(A)),
            "3a3771c8825a6a22d1789eaa86dd 60017efe003f3a40
             fd090000000000000000000000000002 fd090000000000000000000000000001
             0104b91f00000000 6008da14000f1140
             fd090000000000000000000000000001 fd090000000000000000000000000002
             9c6b0fa0000ff4ba68656c6c6f2121",
        ),
        captured(
            "a neighbour solicitation",
            packet::neighbour_solicitation(mac(A), "fd09::1", "fd09::2"),
            "3333ff0000023a3771c8825a86dd 6000000000203aff
             fd090000000000000000000000000001 ff0200000000000000000001ff000002
             8700512c00000000 fd090000000000000000000000000002 01013a3771c8825a",
        ),
        captured(
            "a neighbour advertisement, solicited and overriding",
            packet::neighbour_advertisement("fd09::2", "fd09::1", 0x60, "fd09::2", mac(B))
                .macs(mac(B), mac(A)),
            "3a3771c8825a6a22d1789eaa86dd 6000000000203aff
             fd090000000000000000000000000002 fd090000000000000000000000000001
             8800443b60000000 fd090000000000000000000000000002 02016a22d1789eaa",
        ),
        captured(
            "a router solicitation",
            packet::router_solicitation(mac(A), "fe80::3837:71ff:fec8:825a"),
            "3333000000023a3771c8825a86dd 6000000000103aff
             fe80000000000000383771fffec8825a ff020000000000000000000000000002
             8500227a00000000 01013a3771c8825a",
        ),
    ]
}

fn group_rows() -> Vec<Captured> {
    let records = bytes(
        "04000000 ff0200000000000000000001ff789eaa 04000000 ff0200000000000000000001ff000002",
    );
    vec![
        captured(
            "an MLD report of two groups, behind a router alert",
            packet::icmp("::", "ff02::16", 143, 0, [0, 0, 0, 2])
                .payload(&records)
                .extension(Extension::RouterAlert)
                .ttl(1)
                .macs(mac(B), mac("33:33:00:00:00:16")),
            "3333000000166a22d1789eaa86dd 6000000000380001
             00000000000000000000000000000000 ff020000000000000000000000000016
             3a00050200000100 8f00ce4b00000002
             04000000ff0200000000000000000001ff789eaa 04000000ff0200000000000000000001ff000002",
        ),
        captured(
            "an IGMP report, with the router alert option",
            packet::igmp_report("10.9.0.1", 3, "239.1.2.3")
                .tos(0xc0)
                .dont_fragment()
                .macs(mac(A), mac("01:00:5e:00:00:16")),
            "01005e0000163a3771c8825a0800 46c00028000040000102f9ef0a090001e0000016 94040000
             2200e9f900000001 03000000ef010203",
        ),
    ]
}

fn transport_rows() -> Vec<Captured> {
    vec![
        captured(
            "UDP with an odd number of bytes",
            udp_v4(),
            "6a22d1789eaa3a3771c8825a0800 450000237b3340004011ab820a0900010a090002
             9fca0fa0000fd75d68656c6c6f2121",
        ),
        captured(
            "UDP over IPv6",
            udp_v6(),
            "6a22d1789eaa3a3771c8825a86dd 6008da14000f1140
             fd090000000000000000000000000001 fd090000000000000000000000000002
             9c6b0fa0000ff4ba68656c6c6f2121",
        ),
        captured(
            "a SYN with its options",
            packet::tcp("10.9.0.1:44676", "10.9.0.2:5000")
                .syn()
                .seq(0xb740_bea0)
                .window(64240)
                .tcp_options(&bytes("020405b40402080ac2ca6091000000000103030a"))
                .id(54495)
                .dont_fragment()
                .macs(mac(A), mac(B)),
            "6a22d1789eaa3a3771c8825a0800 4500003cd4df4000400651c80a0900010a090002
             ae841388b740bea000000000a002faf0ddad0000 020405b40402080ac2ca6091000000000103030a",
        ),
        captured(
            "a SYN with its ACK over IPv6",
            packet::tcp("[fd09::2]:5000", "[fd09::1]:54810")
                .syn()
                .ack()
                .seq(0x906a_4b0d)
                .ack_number(0x2343_c09b)
                .window(64260)
                .tcp_options(&bytes("020405a00402080a371b6f7b6db65f2c0103030a"))
                .flow_label(0xf76fe)
                .macs(mac(B), mac(A)),
            "3a3771c8825a6a22d1789eaa86dd 600f76fe00280640
             fd090000000000000000000000000002 fd090000000000000000000000000001
             1388d61a906a4b0d2343c09ba012fb0436730000 020405a00402080a371b6f7b6db65f2c0103030a",
        ),
    ]
}

#[test]
fn the_builder_makes_what_linux_makes() {
    for row in rows() {
        let built = row.packet.build();
        assert!(
            built == row.frame,
            "{}\n{}",
            row.says,
            diff(&row.frame, &built)
        );
    }
}

#[test]
fn what_linux_sent_is_right() {
    for row in rows() {
        assert_eq!(
            verify(&row.frame),
            Ok(()),
            "{}\n{}",
            row.says,
            hex(&row.frame)
        );
    }
}
