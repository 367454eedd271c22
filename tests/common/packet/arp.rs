//! ARP over Ethernet for IPv4 (RFC 826).

use std::net::IpAddr;

use super::address::{Mac, SocketText};
use super::build::{Body, Packet};

const BROADCAST: Mac = [0xff; 6];

/// Who has `target`? Asked by broadcast.
pub fn arp_request(sender_mac: Mac, sender: impl SocketText, target: impl SocketText) -> Packet {
    message(1, (sender_mac, sender), ([0; 6], target)).macs(sender_mac, BROADCAST)
}

/// `sender` is at `sender_mac`, sent to `target`.
pub fn arp_reply(
    sender_mac: Mac,
    sender: impl SocketText,
    target_mac: Mac,
    target: impl SocketText,
) -> Packet {
    message(2, (sender_mac, sender), (target_mac, target)).macs(sender_mac, target_mac)
}

fn message(
    operation: u16,
    (sender_mac, sender): (Mac, impl SocketText),
    (target_mac, target): (Mac, impl SocketText),
) -> Packet {
    let mut bytes = vec![0, 1, 8, 0, 6, 4];
    bytes.extend(operation.to_be_bytes());
    bytes.extend(sender_mac);
    bytes.extend(ipv4(sender));
    bytes.extend(target_mac);
    bytes.extend(ipv4(target));
    Packet::new(None, Body::Arp(bytes))
}

fn ipv4(address: impl SocketText) -> [u8; 4] {
    match address.socket().ip() {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => panic!("ARP does not speak of {address}"),
    }
}
