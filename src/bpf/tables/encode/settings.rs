//! The settings.

use super::address::{decode_host_addresses, host_addresses};
use crate::bpf::abi;
use crate::model::conntrack::TableRooms;
use crate::model::state::{Aggregation, Settings};

pub fn settings(settings: &Settings) -> abi::settings {
    let (node_ipv4, node_ipv6) = host_addresses(&settings.node);
    abi::settings {
        lifetime_ns: [
            settings.tcp_ns,
            settings.tcp_syn_ns,
            settings.tcp_close_ns,
            settings.udp_ns,
            settings.udp_once_ns,
            settings.icmp_ns,
        ],
        report_interval_ns: settings.interval_ns,
        event_rate: settings.rate,
        connections_per_endpoint: settings.per_endpoint,
        endpoint_share: std::array::from_fn(|table| settings.endpoint_share.at(table)),
        aggregation: match settings.aggregation {
            Aggregation::None => abi::aggregation::AGGREGATION_NONE.0,
            Aggregation::Low => abi::aggregation::AGGREGATION_LOW.0,
            Aggregation::Medium => abi::aggregation::AGGREGATION_MEDIUM.0,
        } as u8,
        strict: settings.strict.into(),
        audit: settings.audit.into(),
        allow_host: settings.allow_host.into(),
        jiffy_ns: jiffy_ns(),
        snat_port_count: settings.snat_port_count,
        node_ipv4,
        node_ipv6,
        netns_cookie: settings.netns_cookie,
    }
}

/// A row of the table of source ports.
pub fn snat_port(port: u16) -> abi::snat_port {
    abi::snat_port {
        port: port.to_be(),
        ..Default::default()
    }
}

/// The length of a jiffy: the kernel's coarse clocks advance once in each.
fn jiffy_ns() -> u32 {
    use rustix::time::{ClockId, clock_getres};
    clock_getres(ClockId::MonotonicCoarse)
        .tv_nsec
        .try_into()
        .unwrap_or_default()
}

pub fn decode_settings(settings: &abi::settings) -> Settings {
    let [
        tcp_ns,
        tcp_syn_ns,
        tcp_close_ns,
        udp_ns,
        udp_once_ns,
        icmp_ns,
    ] = settings.lifetime_ns;
    let [tcp, other, unreplied] = settings.endpoint_share;
    Settings {
        tcp_ns,
        tcp_syn_ns,
        tcp_close_ns,
        udp_ns,
        udp_once_ns,
        icmp_ns,
        per_endpoint: settings.connections_per_endpoint,
        endpoint_share: TableRooms {
            tcp,
            other,
            unreplied,
        },
        strict: settings.strict != 0,
        aggregation: match abi::aggregation(settings.aggregation.into()) {
            abi::aggregation::AGGREGATION_NONE => Aggregation::None,
            abi::aggregation::AGGREGATION_LOW => Aggregation::Low,
            _ => Aggregation::Medium,
        },
        interval_ns: settings.report_interval_ns,
        rate: settings.event_rate,
        audit: settings.audit != 0,
        allow_host: settings.allow_host != 0,
        node: decode_host_addresses(&settings.node_ipv4, &settings.node_ipv6),
        snat_port_count: settings.snat_port_count,
        netns_cookie: settings.netns_cookie,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, assert_round_trip};
    use super::*;

    #[test]
    fn settings_are_decoded_to_what_they_were() {
        let make = |n: &mut Rng| Settings {
            tcp_ns: n.next(),
            tcp_syn_ns: n.next(),
            tcp_close_ns: n.next(),
            udp_ns: n.next(),
            udp_once_ns: n.next(),
            icmp_ns: n.next(),
            per_endpoint: n.u32(),
            endpoint_share: TableRooms {
                tcp: n.u32(),
                other: n.u32(),
                unreplied: n.u32(),
            },
            strict: n.of(&[false, true]),
            aggregation: n.of(&[Aggregation::None, Aggregation::Low, Aggregation::Medium]),
            interval_ns: n.next(),
            rate: n.u32(),
            audit: n.of(&[false, true]),
            allow_host: n.of(&[false, true]),
            node: n.host_addresses(),
            snat_port_count: n.u32(),
            netns_cookie: n.next(),
        };
        assert_round_trip(make, settings, decode_settings);
    }

    #[test]
    fn lifetimes_have_the_index_that_programs_use() {
        let encoded = settings(&Settings {
            tcp_ns: 1,
            tcp_syn_ns: 2,
            tcp_close_ns: 3,
            udp_ns: 4,
            udp_once_ns: 5,
            icmp_ns: 6,
            ..Settings::default()
        });
        let rows = [
            (abi::lifetime::LIFETIME_TCP, 1),
            (abi::lifetime::LIFETIME_TCP_SYN, 2),
            (abi::lifetime::LIFETIME_TCP_CLOSE, 3),
            (abi::lifetime::LIFETIME_UDP, 4),
            (abi::lifetime::LIFETIME_UDP_ONCE, 5),
            (abi::lifetime::LIFETIME_ICMP, 6),
        ];
        assert_eq!(rows.len(), encoded.lifetime_ns.len());
        for (place, lifetime) in rows {
            assert_eq!(encoded.lifetime_ns[place.0 as usize], lifetime, "{place:?}");
        }
    }
}
