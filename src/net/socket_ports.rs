//! The sysctls of the ports of the host's own sockets.

use std::fs;
use std::ops::RangeInclusive;

use crate::model::socket_ports::SocketPorts;

/// Of the calling thread's network namespace; the kernel's default where a sysctl can't be read.
pub fn socket_ports() -> SocketPorts {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let range = read("ip_local_port_range").and_then(|text| parse_range(&text));
    let reserved = read("ip_local_reserved_ports").unwrap_or_default();
    SocketPorts {
        range: range.unwrap_or(SocketPorts::default().range),
        reserved: parse_reserved(&reserved),
    }
}

/// Two numbers with a tab between them.
fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// `8080,9000-9003`
fn parse_reserved(text: &str) -> Vec<RangeInclusive<u16>> {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_writes_ranges_so() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(parse_range("\n"), None);
        assert_eq!(parse_reserved("\n"), []);
        assert_eq!(
            parse_reserved("80,9000-9003,65535\n"),
            [80..=80, 9000..=9003, 65535..=65535]
        );
    }
}
