//! The node that the tables speak of: its workloads, services and policies, and what dpd's own packets look like.

use std::net::{IpAddr, SocketAddr};

use crate::common::packet::{self, Packet, parse};
use crate::common::runner::host_mac;

pub const CLIENT: &str = "lxc-client";
pub const DNS: &str = "lxc-coredns";
pub const INTRUDER: &str = "lxc-intruder";
pub const WEB: &str = "lxc-web";
pub const WEB_2: &str = "lxc-web-2";

/// Everything in both families. `kube-dns` alone is protected. Few connections, since each test has tables of its own.
pub const CONFIG: &str = r#"
[node]
name = "node-a"
addresses = ["192.0.2.1", "2001:db8::1"]

[interfaces.lxc-client]
role = "endpoint"
addresses = ["10.200.0.64", "fd00:200::64"]
identity = "client"

[interfaces.lxc-coredns]
role = "endpoint"
addresses = ["10.200.0.44", "fd00:200::44"]
identity = "kube-dns"

[interfaces.lxc-intruder]
role = "endpoint"
addresses = ["10.200.0.65", "fd00:200::65"]
identity = "intruder"

[interfaces.lxc-web]
role = "endpoint"
addresses = ["10.200.0.45", "fd00:200::45"]
identity = "web"

[interfaces.lxc-web-2]
role = "endpoint"
addresses = ["10.200.0.46", "fd00:200::46"]
identity = "web"

[identities]
client = { id = 20001, labels = ["app=client"] }
kube-dns = { id = 18203, labels = ["k8s-app=kube-dns"] }
intruder = { id = 20002, labels = ["app=intruder"] }
web = { id = 20003, labels = ["app=web"] }

[services.kube-dns]
frontends = ["10.32.0.10:53/udp", "10.32.0.10:53/tcp", "[fd00:32::10]:53/udp", "[fd00:32::10]:53/tcp"]
backends = ["10.200.0.44:53", "[fd00:200::44]:53"]

[services.web]
frontends = ["10.32.0.20:80/udp", "10.32.0.20:80/tcp", "[fd00:32::20]:80/udp", "[fd00:32::20]:80/tcp"]
backends = ["10.200.0.45:8080", "[fd00:200::45]:8080"]

[services.diameter]
frontends = ["10.32.0.20:3868/sctp", "[fd00:32::20]:3868/sctp"]
backends = ["10.200.0.45:3868", "[fd00:200::45]:3868"]

[services.other-name]
frontends = ["10.32.0.21:80/udp", "10.32.0.21:80/tcp", "[fd00:32::21]:80/udp", "[fd00:32::21]:80/tcp"]
backends = ["10.200.0.45:8080", "[fd00:200::45]:8080"]

[services.asleep]
frontends = ["10.32.0.30:80/udp", "10.32.0.30:80/tcp", "[fd00:32::30]:80/udp", "[fd00:32::30]:80/tcp"]
backends = [
    { address = "10.200.0.45:8080", state = "maintenance" },
    { address = "[fd00:200::45]:8080", state = "maintenance" },
]

[policies.dns-clients]
subject = "kube-dns"
ingress = [{ from = ["client"], ports = ["53/udp", "53/tcp"] }]

[conntrack]
size = 4096

[events]
aggregation = "medium"
"#;

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    pub client: IpAddr,
    pub dns: IpAddr,
    pub intruder: IpAddr,
    pub web: IpAddr,
    pub web_2: IpAddr,
    /// The node's own.
    pub host: IpAddr,
    /// Somewhere out there.
    pub world: IpAddr,
    /// Services.
    pub dns_service: IpAddr,
    pub web_service: IpAddr,
    /// Another service with the same backend.
    pub other_name: IpAddr,
    /// A service whose backends are all under maintenance.
    pub asleep: IpAddr,
    /// What a workload that reaches itself sees as the source.
    pub hairpin: IpAddr,
    pub port_unreachable: u8,
    /// Its own protocol of control messages, as the file names it.
    pub icmp: &'static str,
}

/// Both families, for a table that holds in each.
pub fn families() -> [Family; 2] {
    let v4 = Family {
        name: "IPv4",
        client: ip("10.200.0.64"),
        dns: ip("10.200.0.44"),
        intruder: ip("10.200.0.65"),
        web: ip("10.200.0.45"),
        web_2: ip("10.200.0.46"),
        host: ip("192.0.2.1"),
        world: ip("198.51.100.7"),
        dns_service: ip("10.32.0.10"),
        web_service: ip("10.32.0.20"),
        other_name: ip("10.32.0.21"),
        asleep: ip("10.32.0.30"),
        hairpin: ip("169.254.42.1"),
        port_unreachable: 3,
        icmp: "icmp",
    };
    let v6 = Family {
        name: "IPv6",
        client: ip("fd00:200::64"),
        dns: ip("fd00:200::44"),
        intruder: ip("fd00:200::65"),
        web: ip("fd00:200::45"),
        web_2: ip("fd00:200::46"),
        host: ip("2001:db8::1"),
        world: ip("2001:db8:ffff::7"),
        dns_service: ip("fd00:32::10"),
        web_service: ip("fd00:32::20"),
        other_name: ip("fd00:32::21"),
        asleep: ip("fd00:32::30"),
        hairpin: ip("fe80::1"),
        port_unreachable: 4,
        icmp: "icmpv6",
    };
    [v4, v6]
}

impl Family {
    pub fn is_v4(&self) -> bool {
        self.client.is_ipv4()
    }

    /// A question to the DNS service from this port of the client.
    pub fn question(&self, port: u16) -> Packet {
        packet::udp(at(self.client, port), at(self.dns_service, 53))
            .id(7)
            .payload(b"who is kubernetes?")
    }

    /// The DNS server's answer to it, as the server sends it.
    pub fn reply(&self, port: u16) -> Packet {
        packet::udp(at(self.dns, 53), at(self.client, port))
            .id(8)
            .payload(b"10.32.0.1 is")
    }

    pub fn syn(&self, port: u16, to: SocketAddr) -> Packet {
        packet::tcp(at(self.client, port), to).syn().seq(1000)
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no address"))
}

pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// The configuration with one passage changed.
pub fn changed(config: &str, from: &str, to: &str) -> String {
    assert!(
        config.contains(from),
        "the configuration has no {from:?} to change"
    );
    config.replace(from, to)
}

// What dpd sends of its own accord.

/// What dpd answers to a question for a port where nothing is: in the name of the address that was asked.
pub fn port_unreachable(family: &Family, asked: &Packet) -> Packet {
    let (src, dst) = ends(asked);
    quote(packet::unreachable(
        dst,
        src,
        family.port_unreachable,
        asked,
    ))
}

/// What the node says of a packet that dies here.
pub fn time_exceeded_here(family: &Family, dying: &Packet) -> Packet {
    let (src, _) = ends(dying);
    quote(packet::time_exceeded(family.host, src, dying))
}

/// With as much of the packet as fits into 576 bytes, or into IPv6's smallest MTU (RFC 1812 4.3.2.3, RFC 4443 2.4), and
/// marked as control traffic where IPv4 asks for it (RFC 1812 4.3.2.5).
pub fn quote(error: Packet) -> Packet {
    if error.ip().is_some_and(packet::Ip::is_v4) {
        error.quote_at_most(576 - 28).tos(0xc0)
    } else {
        error.quote_at_most(1280 - 48)
    }
}

/// The reset that closes a connection whose segment this is (RFC 9293 3.10.7.1).
pub fn reset(segment: &Packet) -> Packet {
    let parsed = parse(&segment.build());
    let (src, dst) = ends(segment);
    let tcp = parsed.tcp.expect("a reset answers TCP");
    let back = packet::tcp(at(dst, parsed.dst_port), at(src, parsed.src_port))
        .rst()
        .window(0)
        .dont_fragment();
    if tcp.flags & 16 != 0 {
        return back.seq(tcp.ack);
    }
    let flags = u32::from(tcp.flags & 1) + u32::from(tcp.flags >> 1 & 1);
    let length = parsed.payload.len() as u32 + flags;
    back.ack().ack_number(tcp.seq.wrapping_add(length))
}

/// The host side of the sender's link answers for any neighbour: solicited, overriding.
pub fn advertisement(interface: &str, from: IpAddr, to: IpAddr) -> Packet {
    packet::neighbour_advertisement(from, to, 0x60, from, host_mac(interface))
}

fn ends(packet: &Packet) -> (IpAddr, IpAddr) {
    let ip = packet.ip().expect("it is an IP packet");
    (ip.src, ip.dst)
}
