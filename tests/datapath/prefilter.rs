//! The prefilter: denied senders are dropped at XDP; all else goes on as it came.

use crate::common::packet::{self, Packet};
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

const DENIED: u8 = 221;

fn config() -> String {
    let prefilter = r#"
[interfaces.ens5]
role = "uplink"

[prefilter.abusers]
deny = ["198.51.100.66", "203.0.113.0/24", "2001:db8:bad::/48"]

[conntrack]"#;
    changed(CONFIG, "\n[conntrack]", prefilter)
}

fn from_to(source: &str, host: &str) -> Packet {
    packet::udp(at(ip(source), 5), at(ip(host), 6)).payload(b"flood")
}

#[test]
fn denied_senders_are_dropped_whoever_they_speak_to() {
    let mut walk = Walk::new("both", &config());
    let rows = [
        ("an address", "198.51.100.66", "192.0.2.1", true),
        ("to a workload", "198.51.100.66", "10.200.0.45", true),
        ("to somebody else", "198.51.100.66", "10.9.9.9", true),
        ("its neighbour", "198.51.100.67", "192.0.2.1", false),
        ("the first of a prefix", "203.0.113.0", "192.0.2.1", true),
        ("the last of it", "203.0.113.255", "192.0.2.1", true),
        ("one further", "203.0.114.0", "192.0.2.1", false),
        ("to one of them", "198.51.100.7", "203.0.113.1", false),
        ("IPv6", "2001:db8:bad::1", "2001:db8::1", true),
        (
            "its last",
            "2001:db8:bad:ffff:ffff:ffff:ffff:ffff",
            "2001:db8::1",
            true,
        ),
        ("the next", "2001:db8:bae::1", "2001:db8::1", false),
        (
            "in IPv4's name",
            "::ffff:198.51.100.66",
            "2001:db8::1",
            false,
        ),
    ];
    for (says, source, host, denied) in rows {
        let frame = from_to(source, host).build();
        let expect = if denied { Dropped(DENIED) } else { Passed };
        walk.wire(says, &frame, expect);
    }
    walk.end();
}

#[test]
fn of_many_drops_one_is_reported() {
    let mut walk = Walk::new("IPv4", &config());
    let frame = from_to("198.51.100.66", "10.200.0.45").build();
    let answer = walk.wire("the first", &frame, Dropped(DENIED));
    walk.reported("the first", &answer, &["dropped 221 world -> web"]);
    for _ in 0..5 {
        let answer = walk.wire("another", &frame, Dropped(DENIED));
        walk.reported("another", &answer, &[]);
    }
    let other = from_to("203.0.113.9", "10.200.0.45").build();
    let answer = walk.wire("another sender's", &other, Dropped(DENIED));
    walk.reported("another sender's", &answer, &["dropped 221 world -> web"]);
    let asked = packet::tcp("203.0.113.77:4000", "10.200.0.45:80").syn();
    let answer = walk.wire("a third", &asked.build(), Dropped(DENIED));
    let seen: Vec<_> = answer
        .events
        .iter()
        .map(|flow| (flow.src.port, flow.dst.port, flow.tcp_flags))
        .collect();
    walk.check(
        "the report has the ports of its packet",
        seen == [(4000, 80, 2)],
        &seen,
    );
    let reply = walk
        .node()
        .suppressed_drops(std::time::Duration::from_secs(5));
    let repeats: Vec<u32> = reply.iter().map(|flow| flow.repeats).collect();
    walk.check(
        "suppressed ones are reported with their count",
        repeats == [5],
        repeats,
    );
    walk.end();
}

/// What is wrong with it, tc and the kernel say; here it is counted.
#[test]
fn malformed_frames_are_counted_and_pass() {
    let mut walk = Walk::new("both", &config());
    for (source, host, header) in [
        ("198.51.100.66", "192.0.2.1", 20),
        ("2001:db8:bad::1", "2001:db8::1", 40),
    ] {
        let whole = from_to(source, host).build();
        for length in 14..14 + header {
            malformed(&mut walk, &format!("{length} bytes"), &whole[..length]);
        }
        malformed(&mut walk, "cut behind its header", &whole[..14 + header]);
        let long = from_to(source, host).ip_length(4000).build();
        malformed(&mut walk, "longer than its frame", &long);
        let version = from_to(source, host).version(5).build();
        malformed(&mut walk, "of another version", &version);
        let padded = from_to(source, host).pad(9).build();
        walk.wire("padding is no fault", &padded, Dropped(DENIED));
    }
    let short = from_to("198.51.100.66", "192.0.2.1");
    let rows = [
        ("a header of 16 bytes", short.clone().ihl(4)),
        ("a header of none", short.clone().ihl(0)),
        ("shorter than its header", short.clone().ip_length(19)),
        ("shorter than its options", short.ihl(15).ip_length(59)),
    ];
    for (says, packet) in rows {
        malformed(&mut walk, says, &packet.build());
    }
    walk.end();
}

/// One such frame; nothing else is counted for it.
fn malformed(walk: &mut Walk, says: &str, frame: &[u8]) {
    let before = walk.node().xdp_malformed();
    walk.wire(says, frame, Passed);
    let counted = walk.node().xdp_malformed() - before;
    walk.check(&format!("{says}: counted once"), counted == 1, counted);
}

#[test]
fn what_is_no_ip_passes() {
    let mut walk = Walk::new("both", &config());
    let arp = packet::arp_request([2, 0, 0, 0, 0, 9], "198.51.100.66", "192.0.2.1");
    walk.wire("ARP", &arp.build(), Passed);
    let tagged = from_to("198.51.100.66", "192.0.2.1").vlan(100).build();
    walk.wire("in a VLAN", &tagged, Passed);
    let other = from_to("198.51.100.67", "192.0.2.1").build();
    walk.wire("from nobody's prefix", &other, Passed);
    let counted = walk.node().xdp_malformed();
    walk.check("nothing is wrong with them", counted == 0, counted);
    walk.end();
}

/// A tag with the id 0 is none for the kernel: who puts one before his packet is denied all the same.
#[test]
fn priority_tags_hide_nobody() {
    let mut walk = Walk::new("both", &config());
    for (source, host) in [
        ("198.51.100.66", "192.0.2.1"),
        ("2001:db8:bad::1", "2001:db8::1"),
    ] {
        let packet = || from_to(source, host);
        let rows = [
            ("a priority tag", packet().vlan(0x6000), Dropped(DENIED)),
            ("of 802.1ad", packet().service_vlan(0), Dropped(DENIED)),
            ("two", packet().vlan(0).vlan(0x2000), Dropped(DENIED)),
            (
                "one of each",
                packet().service_vlan(0x6000).vlan(0),
                Dropped(DENIED),
            ),
            ("a VLAN behind one", packet().vlan(0).vlan(7), Passed),
            ("a VLAN before one", packet().vlan(7).vlan(0), Passed),
            ("a VLAN with a priority", packet().vlan(0x6007), Passed),
        ];
        for (says, packet, expect) in rows {
            walk.wire(says, &packet.build(), expect);
        }
        let cut = packet().vlan(0).vlan(0).truncate(14 + 3);
        malformed(&mut walk, "cut within a tag", &cut.build());
        let cut = packet().vlan(0).vlan(0).truncate(14 + 8 + 19);
        malformed(&mut walk, "cut behind the tags", &cut.build());
        let long = packet().vlan(0).vlan(0).ip_length(60).pad(3);
        malformed(&mut walk, "longer than what the tags leave", &long.build());
    }
    walk.end();
}

#[test]
fn the_prefilter_follows_the_file() {
    let mut walk = Walk::new("IPv4", &config());
    let frame = from_to("198.51.100.66", "192.0.2.1").build();
    walk.wire("denied", &frame, Dropped(DENIED));
    walk.reload(&changed(&config(), "\"198.51.100.66\", ", ""));
    walk.wire("let off", &frame, Passed);
    walk.reload(&config());
    walk.wire("denied again", &frame, Dropped(DENIED));
    walk.end();
}
