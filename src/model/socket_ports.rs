//! The ports that the host's own sockets get by themselves, which SNAT leaves to them.

use std::ops::RangeInclusive;

/// Two sysctls of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPorts {
    /// `net.ipv4.ip_local_port_range`, for IPv6 as well.
    pub range: RangeInclusive<u16>,
    /// `net.ipv4.ip_local_reserved_ports`: for services, never chosen.
    pub reserved: Vec<RangeInclusive<u16>>,
}

impl Default for SocketPorts {
    /// The kernel's (`ip-sysctl.rst`).
    fn default() -> SocketPorts {
        SocketPorts {
            range: 32768..=60999,
            reserved: Vec::new(),
        }
    }
}

impl SocketPorts {
    pub fn is_reserved(&self, port: u16) -> bool {
        self.reserved.iter().any(|range| range.contains(&port))
    }
}

/// `1024-32767 61000-65535`, of ports in ascending order.
pub fn ranges(ports: &[u16]) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    let texts = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_a_row_are_a_range() {
        for (ports, text) in [
            (&[][..], ""),
            (&[7], "7"),
            (&[7, 8, 9, 11, 65534, 65535], "7-9 11 65534-65535"),
        ] {
            assert_eq!(ranges(ports), text);
        }
    }
}
