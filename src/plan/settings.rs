//! Settings: switches and durations in the form that programs read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::config::{Config, Interface};
use crate::model::conntrack::TableRooms;
use crate::model::host::HostState;
use crate::model::state::Settings;

pub fn compile(config: &Config, host: &HostState) -> Settings {
    let conntrack = &config.conntrack;
    let (node_ipv4, node_ipv6) = node_addresses(config, host);
    Settings {
        tcp_ns: nanoseconds(conntrack.tcp),
        tcp_syn_ns: nanoseconds(conntrack.tcp_syn),
        tcp_close_ns: nanoseconds(conntrack.tcp_close),
        udp_ns: nanoseconds(conntrack.udp),
        udp_once_ns: nanoseconds(conntrack.udp_once),
        icmp_ns: nanoseconds(conntrack.icmp),
        per_endpoint: conntrack.per_endpoint.unwrap_or_default(),
        endpoint_share: endpoint_share(config),
        strict: conntrack.strict,
        aggregation: config.events.aggregation,
        interval_ns: nanoseconds(config.events.interval),
        rate: config.events.rate,
        audit: config.policy.audit,
        allow_host: config.policy.allow_host,
        node_ipv4,
        node_ipv6,
    }
}

/// Without a bound of the file, no workload, and nobody who connects to it, takes more than half of a table; one that is alone
/// harms nobody.
fn endpoint_share(config: &Config) -> TableRooms {
    let is_endpoint = |role: &&Interface| matches!(role, Interface::Endpoint { .. });
    let endpoints = config.interfaces.values().filter(is_endpoint).count();
    if config.conntrack.per_endpoint.is_some() || endpoints < 2 {
        return TableRooms::default();
    }
    TableRooms::of(config.conntrack.size).halved()
}

/// The source address of each family for what the node itself sends: the first of the file, else of the uplinks, else of the
/// host, of those that are routable beyond a link.
fn node_addresses(config: &Config, host: &HostState) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let named = config.node.addresses.iter().flatten();
    let uplinks = config
        .interfaces
        .iter()
        .filter(|(_, role)| matches!(role, Interface::Uplink { .. }))
        .filter_map(|(name, _)| host.links.get(name))
        .flat_map(|link| &link.addresses);
    let candidates = named.chain(uplinks).chain(&host.addresses);
    let candidates: Vec<IpAddr> = candidates.copied().collect();
    let ipv4 = candidates.iter().find_map(|address| match address {
        IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_link_local() => Some(*v4),
        _ => None,
    });
    let ipv6 = candidates.iter().find_map(|address| match address {
        IpAddr::V6(v6) if !v6.is_loopback() && !v6.is_unicast_link_local() => Some(*v6),
        _ => None,
    });
    (ipv4, ipv6)
}

/// Saturates at 584 years, the range of the kernel's clock: no connection outlives it.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::plan::testing::{TestConfig, ip};

    #[test]
    fn the_node_sends_from_the_address_that_the_network_knows() {
        let mut test = TestConfig::new().uplink("ens5", XdpMode::Auto);
        test.host.addresses = ["10.0.0.1", "127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"]
            .map(ip)
            .into();
        let ens5 = test.host.links.get_mut("ens5").unwrap();
        ens5.addresses = [ip("192.0.2.1"), ip("fe80::5")].into();
        let found = |test: &TestConfig| {
            let settings = compile(&test.config, &test.host);
            (settings.node_ipv4.map(IpAddr::from), settings.node_ipv6)
        };
        let ipv6 = "2001:db8::1".parse().ok();
        assert_eq!(found(&test), (Some(ip("192.0.2.1")), ipv6), "the uplink's");
        test.config.node.addresses = Some(vec![ip("198.51.100.1")]);
        assert_eq!(found(&test), (Some(ip("198.51.100.1")), ipv6), "the file's");
        test.config.node.addresses = None;
        test.config.interfaces.clear();
        assert_eq!(
            found(&test),
            (Some(ip("10.0.0.1")), ipv6),
            "the host's first"
        );
    }

    #[test]
    fn without_a_bound_nobody_takes_more_than_half() {
        let one = || TestConfig::new().endpoint("a", "web", "10.1.1.1");
        let two = || one().endpoint("b", "web", "10.1.1.2");
        let half = TableRooms {
            tcp: 500,
            other: 250,
            unreplied: 125,
        };
        let rows = [
            ("one alone", one(), None, (0, TableRooms::default())),
            ("two", two(), None, (0, half)),
            ("a bound", two(), Some(7), (7, TableRooms::default())),
            ("no bound", two(), Some(0), (0, TableRooms::default())),
        ];
        for (what, mut test, bound, expected) in rows {
            test.config.conntrack.size = 1000;
            test.config.conntrack.per_endpoint = bound;
            let settings = compile(&test.config, &test.host);
            let found = (settings.per_endpoint, settings.endpoint_share);
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn durations_are_nanoseconds_and_never_wrap() {
        let rows = [
            ("a second", Duration::from_secs(1), 1_000_000_000),
            ("a quarter", Duration::from_millis(250), 250_000_000),
            ("nothing", Duration::ZERO, 0),
            ("forever", Duration::MAX, u64::MAX),
        ];
        for (what, duration, expected) in rows {
            assert_eq!(nanoseconds(duration), expected, "{what}");
        }
    }
}
