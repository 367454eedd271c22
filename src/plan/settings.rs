//! Settings: switches and durations as programs read them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::config::{Config, Interface};
use crate::model::host::HostState;
use crate::model::state::Settings;

pub fn compile(config: &Config, world: &HostState) -> Settings {
    let conntrack = &config.conntrack;
    let (node_ipv4, node_ipv6) = node_addresses(config, world);
    Settings {
        tcp_ns: nanoseconds(conntrack.tcp),
        tcp_syn_ns: nanoseconds(conntrack.tcp_syn),
        tcp_close_ns: nanoseconds(conntrack.tcp_close),
        udp_ns: nanoseconds(conntrack.udp),
        udp_once_ns: nanoseconds(conntrack.udp_once),
        icmp_ns: nanoseconds(conntrack.icmp),
        per_endpoint: conntrack.per_endpoint,
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

/// One address of each family in whose name the node speaks: the file's first, else the uplinks' first, else the
/// host's first that means something beyond a link.
fn node_addresses(config: &Config, world: &HostState) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let named = config.node.addresses.iter().flatten();
    let uplinks = config
        .interfaces
        .iter()
        .filter(|(_, role)| matches!(role, Interface::Uplink { .. }))
        .filter_map(|(name, _)| world.links.get(name))
        .flat_map(|link| &link.addresses);
    let candidates = named.chain(uplinks).chain(&world.addresses);
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

/// 584 years is as long as the kernel's clock: what is longer never ends either.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::plan::testing::{Lab, ip};

    #[test]
    fn the_node_speaks_in_the_name_that_the_network_knows() {
        let mut lab = Lab::new().uplink("ens5", XdpMode::Auto);
        lab.world.addresses = ["10.0.0.1", "127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"]
            .map(ip)
            .into();
        let ens5 = lab.world.links.get_mut("ens5").unwrap();
        ens5.addresses = [ip("192.0.2.1"), ip("fe80::5")].into();
        let found = |lab: &Lab| {
            let settings = compile(&lab.config, &lab.world);
            (settings.node_ipv4.map(IpAddr::from), settings.node_ipv6)
        };
        let ipv6 = "2001:db8::1".parse().ok();
        assert_eq!(found(&lab), (Some(ip("192.0.2.1")), ipv6), "the uplink's");
        lab.config.node.addresses = Some(vec![ip("198.51.100.1")]);
        assert_eq!(found(&lab), (Some(ip("198.51.100.1")), ipv6), "the file's");
        lab.config.node.addresses = None;
        lab.config.interfaces.clear();
        assert_eq!(
            found(&lab),
            (Some(ip("10.0.0.1")), ipv6),
            "the host's first"
        );
    }

    #[test]
    fn durations_are_nanoseconds_and_never_wrap() {
        let rows = [
            ("a second", Duration::from_secs(1), 1_000_000_000),
            ("a quarter", Duration::from_millis(250), 250_000_000),
            ("nothing", Duration::ZERO, 0),
            ("for ever", Duration::MAX, u64::MAX),
        ];
        for (what, duration, expected) in rows {
            assert_eq!(nanoseconds(duration), expected, "{what}");
        }
    }
}
