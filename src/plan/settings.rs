//! Settings: switches and durations in the form that programs read.

use std::time::Duration;

use crate::config::{Config, Interface};
use crate::model::conntrack::TableRooms;
use crate::model::host::HostState;
use crate::model::state::Settings;

use super::host_addresses;

pub fn compile(config: &Config, host: &HostState) -> Settings {
    let conntrack = &config.conntrack;
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
        node: host_addresses::of_node(config, host),
        snat_port_count: 0, // snat::compile
        netns_cookie: match config.host.services {
            true => host.netns_cookie,
            false => 0,
        },
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

/// Saturates at 584 years, the range of the kernel's clock: no connection outlives it.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::TestConfig;

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
