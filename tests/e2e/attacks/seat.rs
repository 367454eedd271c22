//! Where an attacker sits, what it forges there, and who receives it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::common::frames::FrameSocket;
use crate::common::packet::{Mac, Packet, mac};
use crate::lab::{NetnsLab, eventually};

/// The addresses of both topologies, of one address family. Those of the nodes are of one or two hosts.
pub struct Family {
    pub name: &'static str,
    pub client: IpAddr,
    pub intruder: IpAddr,
    /// The server on the client's host.
    pub server: IpAddr,
    /// The server on the other host.
    pub far: IpAddr,
    pub node: IpAddr,
    pub node_a: IpAddr,
    /// The gateway on the host's side of each workload's interface.
    pub gateway: IpAddr,
    pub router: IpAddr,
    /// Frontends of the tests' services: `web-a` and `bulk` of two hosts, and this number of the same prefix.
    frontends: &'static str,
}

impl Family {
    pub fn frontend(&self, number: &str, port: u16) -> SocketAddr {
        at(ip(&format!("{}{number}", self.frontends)), port)
    }
}

pub fn families() -> [Family; 2] {
    [
        Family {
            name: "IPv4",
            client: ip("10.200.0.64"),
            intruder: ip("10.200.0.65"),
            server: ip("10.200.0.44"),
            far: ip("10.200.1.44"),
            node: ip("10.200.0.1"),
            node_a: ip("192.0.2.1"),
            gateway: ip("169.254.1.1"),
            router: ip("192.0.2.254"),
            frontends: "10.32.0.",
        },
        Family {
            name: "IPv6",
            client: ip("fd00:200::64"),
            intruder: ip("fd00:200::65"),
            server: ip("fd00:200::44"),
            far: ip("fd00:201::44"),
            node: ip("fd00:200::1"),
            node_a: ip("2001:db8:1::1"),
            gateway: ip("fe80::1:1"),
            router: ip("2001:db8:1::254"),
            frontends: "fd00:32::",
        },
    ]
}

pub fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// An attacker's interface, and the one at the other end of its link.
pub struct Seat {
    link: FrameSocket,
    pub own: Mac,
    pub other: Mac,
}

impl Seat {
    /// At a workload's own interface.
    pub fn workload(lab: &NetnsLab, place: &str) -> Seat {
        Seat::at(lab, (place, "eth0"), &format!("lxc-{place}"))
    }

    /// On the network, at the router's end of a node's uplink.
    pub fn network(lab: &NetnsLab) -> Seat {
        let interface = format!("to-{}", lab.node());
        Seat::at(lab, ("router", &interface), "uplink0")
    }

    fn at(lab: &NetnsLab, (place, interface): (&str, &str), of_node: &str) -> Seat {
        Seat {
            link: lab.within(place, || FrameSocket::sender(interface)),
            own: mac_of(lab, place, interface),
            other: mac_of(lab, lab.node(), of_node),
        }
    }

    /// Sends the packet to the other end of the link.
    pub fn send(&self, packet: &Packet) {
        let packet = packet.clone().macs(self.own, self.other);
        self.link.send(&packet.build());
    }

    /// Sends the packet with the MAC addresses that it has.
    pub fn send_as_built(&self, packet: &Packet) {
        self.link.send(&packet.build());
    }
}

pub fn mac_of(lab: &NetnsLab, place: &str, interface: &str) -> Mac {
    let line = lab.ok(place, &format!("ip -brief link show dev {interface}"));
    mac(line.split_whitespace().nth(2).expect("a MAC address"))
}

/// The last datagram of a test, which every path allows: what was sent before has been received or dropped.
pub const END: &[u8] = b"end";

/// A UDP server that keeps what it receives.
pub struct Inbox {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Inbox {
    pub fn open(lab: &NetnsLab, place: &str, address: SocketAddr) -> Inbox {
        let socket = lab.within(place, || UdpSocket::bind(address));
        let socket = socket.unwrap_or_else(|error| panic!("{place}: {address}: {error}"));
        socket.set_nonblocking(true).expect("not to block");
        Inbox { socket, address }
    }

    /// The next datagram, if there is one, and who sent it.
    pub fn next(&self) -> Option<(String, SocketAddr)> {
        let mut datagram = [0; 2048];
        let (length, from) = self.socket.recv_from(&mut datagram).ok()?;
        let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
        Some((text, from))
    }

    /// All that is received until the end.
    pub fn until_end(&self) -> Vec<String> {
        let mut received = Vec::new();
        eventually(&format!("{}: the end is received", self.address), || {
            while let Some((text, _)) = self.next() {
                if text.as_bytes() == END {
                    return Ok(());
                }
                received.push(text);
            }
            Err(received.clone())
        });
        received
    }

    pub fn reply(&self, bytes: &[u8], to: SocketAddr) {
        let sent = self.socket.send_to(bytes, to);
        assert_eq!(sent.expect("send a reply"), bytes.len());
    }
}

/// Sends a datagram from a namespace by a socket of its own.
pub fn send_udp(lab: &NetnsLab, place: &str, bytes: &[u8], to: SocketAddr) {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sent = lab.within(place, || UdpSocket::bind(any)?.send_to(bytes, to));
    assert_eq!(sent.expect("send a datagram"), bytes.len(), "{place}: {to}");
}

/// Waits until so many packets have been dropped for this reason.
pub fn wait_for_drops(lab: &NetnsLab, reason: &str, packets: u64) {
    eventually(&format!("{packets} are dropped as {reason:?}"), || {
        let now = lab.dropped(reason);
        match now >= packets {
            true => Ok(()),
            false => Err((now, lab.drops())),
        }
    });
}
