//! A node with an uplink and a service of many backends, all of them addresses behind `lxc-web`.

use std::net::{IpAddr, SocketAddr};

use crate::common::packet::{Packet, parse};
use crate::common::runner::{Node, Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::uplink;

/// The frontends of the service, in TOML.
pub const FRONTENDS: &str =
    r#"["10.32.0.50:80/udp", "10.32.0.50:80/tcp", "[fd00:32::50]:80/udp", "[fd00:32::50]:80/tcp"]"#;

/// The node with services whose backends are among `10.200.5.0/24` and `fd00:200:5::/64`.
pub fn config_of(services: &str) -> String {
    let own = r#"addresses = ["10.200.0.45", "fd00:200::45"]"#;
    let more = r#"addresses = ["10.200.0.45", "fd00:200::45", "10.200.5.0/24", "fd00:200:5::/64"]"#;
    let config = changed(&uplink::config(), own, more);
    // A test opens more connections than a workload may have in tables of this size.
    let end = format!("{services}\n[conntrack]\nper_endpoint = 0");
    changed(&config, "\n[conntrack]", &end)
}

pub fn frontend(family: &Family) -> SocketAddr {
    at(
        ip(if family.is_v4() {
            "10.32.0.50"
        } else {
            "fd00:32::50"
        }),
        80,
    )
}

/// The backend that the client's packet is sent to.
pub fn pick(node: &Node, packet: &Packet) -> SocketAddr {
    let macs = (workload_mac(CLIENT), host_mac(CLIENT));
    let frame = packet.clone().macs(macs.0, macs.1).build();
    let answer = node.from_container(CLIENT, &frame);
    assert_eq!(answer.verdict, Verdict::Redirect, "{:?}", answer.drops);
    destination(&answer.packet)
}

pub fn destination(frame: &[u8]) -> SocketAddr {
    let parsed = parse(frame);
    at(parsed.ip.expect("an IP packet").dst, parsed.dst_port)
}

/// The last byte of a backend's address.
pub fn number(backend: SocketAddr) -> u8 {
    match backend.ip() {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    }
}
