//! Frames with priority tags (VLAN id 0), which the kernel reads as untagged: they are judged as the same without tags.

use super::seat::{END, Inbox, Seat, at, families, ip, wait_for_drops};
use crate::common::packet::{Packet, udp};
use crate::lab::NetnsLab;

const PRIORITY: u16 = 3 << 13;

/// The same packet without a tag, with one and with two.
fn tagged(packet: &Packet) -> [(&'static str, Packet); 5] {
    let packet = || packet.clone();
    [
        ("untagged", packet()),
        ("802.1Q", packet().vlan(PRIORITY)),
        ("802.1ad", packet().service_vlan(0)),
        ("802.1Q in 802.1ad", packet().service_vlan(0).vlan(PRIORITY)),
        ("802.1Q in 802.1Q", packet().vlan(0).vlan(PRIORITY)),
    ]
}

fn send_all(seat: &Seat, says: &str, packet: &Packet) -> u64 {
    let packets = tagged(packet);
    for (tags, packet) in &packets {
        seat.send(&packet.clone().payload(format!("{says}, {tags}").as_bytes()));
    }
    packets.len() as u64
}

const DENIED: [&str; 2] = ["203.0.113.66", "2001:db8:3::66"];

#[test]
fn priority_tags_pass_no_prefilter() {
    let (a, _b) = NetnsLab::hosts_laid(1500);
    let prefixes = DENIED.join("\", \"");
    a.drop_in(
        "attacks",
        &format!("[prefilter.attacks]\ndeny = [\"{prefixes}\"]\n"),
    );
    a.start();
    let network = Seat::network(&a);
    let mut denied = 0;
    for (family, sender) in std::iter::zip(families(), DENIED) {
        let to_host = at(family.node_a, 5555);
        let host = Inbox::open(&a, "node-a", to_host);
        let from = at(ip(sender), 4444);
        denied += send_all(&network, "a denied sender", &udp(from, to_host));
        let router = udp(at(family.router, 4444), to_host);
        send_all(&network, "the router", &router);
        network.send(&router.payload(END));
        let expected = tagged(&udp(from, to_host)).map(|(tags, _)| format!("the router, {tags}"));
        assert_eq!(host.until_end(), expected, "{}", family.name);
    }
    wait_for_drops(&a, "prefilter", denied);
}

#[test]
fn priority_tags_pass_no_source_check_and_no_policy() {
    let (a, _b) = NetnsLab::hosts(1500);
    let (network, intruder) = (Seat::network(&a), Seat::workload(&a, "intruder"));
    let (mut spoofed, mut denied) = (0, 0);
    for family in families() {
        let server = at(family.server, 5201);
        let inbox = Inbox::open(&a, "coredns-a", server);
        let from = |address| udp(at(address, 4444), server);
        let far_client = match family.client.is_ipv4() {
            true => ip("10.200.1.64"),
            false => ip("fd00:201::64"),
        };
        spoofed += send_all(&network, "network as the client", &from(family.client));
        spoofed += send_all(&network, "network as the host", &from(family.node_a));
        spoofed += send_all(&network, "network as the server", &from(family.server));
        denied += send_all(&network, "the router", &from(family.router));
        spoofed += send_all(&intruder, "intruder as the client", &from(family.client));
        spoofed += send_all(&intruder, "intruder as the far client", &from(far_client));
        denied += send_all(&intruder, "intruder", &from(family.intruder));
        send_all(&network, "a client", &from(far_client));
        network.send(&from(far_client).payload(END));
        let expected = tagged(&from(far_client)).map(|(tags, _)| format!("a client, {tags}"));
        assert_eq!(inbox.until_end(), expected, "{}", family.name);
    }
    wait_for_drops(&a, "invalid source", spoofed);
    wait_for_drops(&a, "policy denied: no rule", denied);
}
