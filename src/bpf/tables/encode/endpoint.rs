//! Endpoints.

use super::address::{decode_host_addresses, host_addresses};
use super::ipcache::{decode_ipcache_entry, ipcache_entry};
use crate::bpf::abi;
use crate::model::state::{Delivery, Endpoint, Enforcement};

fn enforcement(enforcement: Enforcement) -> u8 {
    let number = match enforcement {
        Enforcement::Off => abi::enforcement::ENFORCEMENT_OFF,
        Enforcement::DenyOnly => abi::enforcement::ENFORCEMENT_DENY_ONLY,
        Enforcement::On => abi::enforcement::ENFORCEMENT_ON,
    };
    number.0 as u8
}

fn decode_enforcement(number: u8) -> Enforcement {
    match abi::enforcement(number.into()) {
        abi::enforcement::ENFORCEMENT_OFF => Enforcement::Off,
        abi::enforcement::ENFORCEMENT_DENY_ONLY => Enforcement::DenyOnly,
        _ => Enforcement::On,
    }
}

const MULTICAST: u8 = abi::endpoint_flags::ENDPOINT_MULTICAST.0 as u8;
const NAMES_LINK_LOCAL: u8 = abi::endpoint_flags::ENDPOINT_NAMES_LINK_LOCAL.0 as u8;

fn flags(endpoint: &Endpoint) -> u8 {
    let of = |is_set, flag| if is_set { flag } else { 0 };
    of(endpoint.multicast, MULTICAST) | of(endpoint.names_link_local, NAMES_LINK_LOCAL)
}

pub fn endpoint(endpoint: &Endpoint) -> abi::endpoint {
    let (host_ipv4, host_ipv6) = host_addresses(&endpoint.host);
    abi::endpoint {
        identity: endpoint.identity,
        dst_mac: endpoint.dst_mac,
        src_mac: endpoint.src_mac,
        delivery: match endpoint.delivery {
            Delivery::Peer => abi::delivery::DELIVERY_PEER.0,
            Delivery::Direct => abi::delivery::DELIVERY_DIRECT.0,
            Delivery::Neighbour => abi::delivery::DELIVERY_NEIGHBOUR.0,
        } as u8,
        ingress: enforcement(endpoint.ingress),
        egress: enforcement(endpoint.egress),
        flags: flags(endpoint),
        counters_index: endpoint.counters_index,
        link_ifindex: endpoint.link_ifindex,
        mtu: endpoint.mtu,
        host_ipv4,
        host_ipv6,
        link_local: ipcache_entry(&endpoint.link_local),
    }
}

pub fn decode_endpoint(endpoint: &abi::endpoint) -> Endpoint {
    Endpoint {
        identity: endpoint.identity,
        delivery: match abi::delivery(endpoint.delivery.into()) {
            abi::delivery::DELIVERY_DIRECT => Delivery::Direct,
            abi::delivery::DELIVERY_NEIGHBOUR => Delivery::Neighbour,
            _ => Delivery::Peer,
        },
        src_mac: endpoint.src_mac,
        dst_mac: endpoint.dst_mac,
        ingress: decode_enforcement(endpoint.ingress),
        egress: decode_enforcement(endpoint.egress),
        counters_index: endpoint.counters_index,
        link_ifindex: endpoint.link_ifindex,
        mtu: endpoint.mtu,
        host: decode_host_addresses(&endpoint.host_ipv4, &endpoint.host_ipv6),
        multicast: endpoint.flags & MULTICAST != 0,
        names_link_local: endpoint.flags & NAMES_LINK_LOCAL != 0,
        link_local: decode_ipcache_entry(&endpoint.link_local),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, assert_round_trip};
    use super::*;
    use crate::model::state::{AddressScope, IpcacheEntry};

    #[test]
    fn endpoints_are_decoded_to_what_they_were() {
        const ENFORCEMENTS: [Enforcement; 3] =
            [Enforcement::Off, Enforcement::DenyOnly, Enforcement::On];
        let make = |n: &mut Rng| Endpoint {
            identity: n.u32(),
            delivery: n.of(&[Delivery::Peer, Delivery::Direct, Delivery::Neighbour]),
            src_mac: n.mac(),
            dst_mac: n.mac(),
            ingress: n.of(&ENFORCEMENTS),
            egress: n.of(&ENFORCEMENTS),
            counters_index: n.u32(),
            link_ifindex: n.u32(),
            mtu: n.u32(),
            host: n.host_addresses(),
            multicast: n.of(&[false, true]),
            names_link_local: n.of(&[false, true]),
            link_local: IpcacheEntry {
                identity: n.u32(),
                class: n.u32(),
                is_world: false,
                snat: Default::default(),
                external_frontend: Default::default(),
                scope: AddressScope::Endpoint { ifindex: n.u32() },
            },
        };
        assert_round_trip(make, endpoint, decode_endpoint);
    }
}
