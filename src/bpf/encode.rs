//! The model in the kernel's bytes, and back.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::abi;
use crate::model::conntrack::ConntrackState;
use crate::model::policy::{Action, Direction};
use crate::model::protocol::Protocol;
use crate::model::service::{BackendState, Frontend};
use crate::model::state::{
    AddressScope, Aggregation, Backend, Delivery, Endpoint, Enforcement, IpcacheEntry, LutEntry,
    PolicyEntry, PolicyKey, ServiceEntry, Settings,
};

/// In whose name time exceeded is said where the node has no address (RFC 7600).
const NAMELESS_IPV4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 0, 8));
const NAMELESS_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// 16 bytes as they stand in a packet; IPv4 as `::ffff:a.b.c.d`.
pub fn address(ip: IpAddr) -> abi::address {
    let bytes = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let (high, low) = bytes.split_at(8);
    let word = |half: &[u8]| u64::from_ne_bytes(half.try_into().unwrap_or_default());
    abi::address {
        word: [word(high), word(low)],
    }
}

pub fn ip(address: &abi::address) -> IpAddr {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.word[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&address.word[1].to_ne_bytes());
    Ipv6Addr::from(bytes).to_canonical()
}

pub fn socket(address: &abi::address, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), u16::from_be(port))
}

pub fn settings(settings: &Settings) -> abi::settings {
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
        aggregation: match settings.aggregation {
            Aggregation::None => abi::aggregation::AGGREGATION_NONE.0,
            Aggregation::Low => abi::aggregation::AGGREGATION_LOW.0,
            Aggregation::Medium => abi::aggregation::AGGREGATION_MEDIUM.0,
        } as u8,
        strict: settings.strict.into(),
        audit: settings.audit.into(),
        allow_host: settings.allow_host.into(),
        jiffy_ns: jiffy_ns(),
        node_ipv4: address(settings.node_ipv4.map_or(NAMELESS_IPV4, IpAddr::V4)),
        node_ipv6: address(settings.node_ipv6.map_or(NAMELESS_IPV6, IpAddr::V6)),
    }
}

/// How long one of the kernel's jiffies is: its coarse clocks move once in each.
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
    let named = |address: &abi::address, nameless: IpAddr| {
        let known = ip(address);
        (known != nameless).then_some(known)
    };
    Settings {
        tcp_ns,
        tcp_syn_ns,
        tcp_close_ns,
        udp_ns,
        udp_once_ns,
        icmp_ns,
        per_endpoint: settings.connections_per_endpoint,
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
        node_ipv4: match named(&settings.node_ipv4, NAMELESS_IPV4) {
            Some(IpAddr::V4(v4)) => Some(v4),
            _ => None,
        },
        node_ipv6: match named(&settings.node_ipv6, NAMELESS_IPV6) {
            Some(IpAddr::V6(v6)) => Some(v6),
            _ => None,
        },
    }
}

pub fn frontend(frontend: &Frontend) -> abi::service_key {
    abi::service_key {
        address: address(frontend.address),
        port: frontend.port.to_be(),
        protocol: frontend.protocol.number(),
        ..Default::default()
    }
}

/// `None`: the row of an address alone.
pub fn decode_frontend(key: &abi::service_key) -> Option<Frontend> {
    Some(Frontend {
        address: ip(&key.address),
        port: u16::from_be(key.port),
        protocol: Protocol::from_number(key.protocol)?,
    })
}

/// The row that says "this address is some service's".
pub fn service_address(ip: IpAddr) -> abi::service_key {
    abi::service_key {
        address: address(ip),
        ..Default::default()
    }
}

pub fn service(entry: &ServiceEntry) -> abi::service {
    abi::service {
        id: entry.service,
        lut_first: entry.lut_first,
        lut_count: entry.lut_count,
    }
}

pub fn decode_service(service: &abi::service) -> ServiceEntry {
    ServiceEntry {
        service: service.id,
        lut_first: service.lut_first,
        lut_count: service.lut_count,
    }
}

pub fn slot(slot: &LutEntry) -> abi::backend_lut_entry {
    abi::backend_lut_entry {
        backend: slot.backend,
        alias: slot.alias,
        threshold: slot.threshold,
    }
}

pub fn decode_slot(slot: &abi::backend_lut_entry) -> LutEntry {
    LutEntry {
        backend: slot.backend,
        alias: slot.alias,
        threshold: slot.threshold,
    }
}

pub fn backend(backend: &Backend) -> abi::backend {
    abi::backend {
        address: address(backend.address.ip()),
        service: backend.service,
        port: backend.address.port().to_be(),
        weight: backend.weight,
        state: match backend.state {
            BackendState::Active => abi::backend_state::BACKEND_ACTIVE.0,
            BackendState::Draining => abi::backend_state::BACKEND_DRAINING.0,
            BackendState::Maintenance => abi::backend_state::BACKEND_MAINTENANCE.0,
        } as u8,
        ..Default::default()
    }
}

pub fn decode_backend(backend: &abi::backend) -> Backend {
    Backend {
        service: backend.service,
        address: socket(&backend.address, backend.port),
        state: match abi::backend_state(backend.state.into()) {
            abi::backend_state::BACKEND_DRAINING => BackendState::Draining,
            abi::backend_state::BACKEND_MAINTENANCE => BackendState::Maintenance,
            _ => BackendState::Active,
        },
        weight: backend.weight,
    }
}

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

pub fn endpoint(endpoint: &Endpoint) -> abi::endpoint {
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
        pad: 0,
        counters_index: endpoint.counters_index,
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
    }
}

/// An IPv4 prefix is one of mapped addresses: 96 bits longer.
pub fn prefix(prefix: &IpNet) -> abi::address_prefix_key {
    let (family, mapped_bits) = match prefix {
        IpNet::V4(_) => (4, 96),
        IpNet::V6(_) => (6, 0),
    };
    abi::address_prefix_key {
        prefix_length: FAMILY_BITS + mapped_bits + u32::from(prefix.prefix_len()),
        family,
        pad: [0; 3],
        address: address(prefix.network()),
    }
}

/// The family byte and its padding.
const FAMILY_BITS: u32 = abi::prefix_key_bits::PREFIX_KEY_FAMILY_BITS.0;

pub fn decode_prefix(key: &abi::address_prefix_key) -> Option<IpNet> {
    let mapped_bits = if key.family == 4 { 96 } else { 0 };
    let length = key.prefix_length.checked_sub(FAMILY_BITS + mapped_bits)?;
    IpNet::new(
        ip_of_family(&key.address, key.family),
        length.try_into().ok()?,
    )
    .ok()
}

/// `::/0` and `::ffff:0:0/96` look alike once their bytes are canonical; the family tells them apart.
fn ip_of_family(address: &abi::address, family: u8) -> IpAddr {
    match (ip(address), family) {
        (IpAddr::V4(v4), 6) => IpAddr::V6(v4.to_ipv6_mapped()),
        (known, _) => known,
    }
}

pub fn identity(entry: &IpcacheEntry) -> abi::ipcache_entry {
    let (scope, ifindex) = match entry.scope {
        AddressScope::Remote => (abi::address_scope::SCOPE_REMOTE, 0),
        AddressScope::Endpoint { ifindex } => (abi::address_scope::SCOPE_ENDPOINT, ifindex),
        AddressScope::Host => (abi::address_scope::SCOPE_HOST, 0),
        AddressScope::Pending => (abi::address_scope::SCOPE_PENDING, 0),
    };
    abi::ipcache_entry {
        id: entry.identity,
        class: entry.class,
        ifindex,
        scope: scope.0 as u8,
        is_world: entry.is_world.into(),
        pad: [0; 2],
    }
}

pub fn decode_identity(identity: &abi::ipcache_entry) -> IpcacheEntry {
    IpcacheEntry {
        identity: identity.id,
        class: identity.class,
        is_world: identity.is_world != 0,
        scope: match abi::address_scope(identity.scope.into()) {
            abi::address_scope::SCOPE_ENDPOINT => AddressScope::Endpoint {
                ifindex: identity.ifindex,
            },
            abi::address_scope::SCOPE_HOST => AddressScope::Host,
            abi::address_scope::SCOPE_PENDING => AddressScope::Pending,
            _ => AddressScope::Remote,
        },
    }
}

/// Subject, class, direction.
const POLICY_BITS: u32 = abi::policy_key_bits::POLICY_KEY_ALL_BITS.0;
const PROTOCOL_BITS: u32 = abi::policy_key_bits::POLICY_KEY_PROTOCOL_BITS.0 - POLICY_BITS;

pub fn direction(direction: Direction) -> u8 {
    let number = match direction {
        Direction::Ingress => abi::direction::DIRECTION_INGRESS,
        Direction::Egress => abi::direction::DIRECTION_EGRESS,
    };
    number.0 as u8
}

pub fn decode_direction(number: u8) -> Direction {
    match abi::direction(number.into()) {
        abi::direction::DIRECTION_EGRESS => Direction::Egress,
        _ => Direction::Ingress,
    }
}

pub fn policy_key(key: &PolicyKey) -> abi::policy_key {
    let bits = match key.protocol {
        None => 0,
        Some(_) => PROTOCOL_BITS + u32::from(key.port_bits),
    };
    abi::policy_key {
        prefix_length: POLICY_BITS + bits,
        subject: key.subject,
        class: key.class,
        direction: direction(key.direction),
        protocol: key.protocol.unwrap_or_default(),
        port: key.port.to_be(),
    }
}

pub fn decode_policy_key(key: &abi::policy_key) -> PolicyKey {
    let bits = key.prefix_length.saturating_sub(POLICY_BITS);
    PolicyKey {
        subject: key.subject,
        class: key.class,
        direction: decode_direction(key.direction),
        protocol: (bits >= PROTOCOL_BITS).then_some(key.protocol),
        port: u16::from_be(key.port),
        port_bits: bits.saturating_sub(PROTOCOL_BITS) as u8,
    }
}

pub fn policy(entry: &PolicyEntry) -> abi::policy {
    abi::policy {
        rule: entry.rule,
        deny: (entry.action == Action::Deny).into(),
        pad: [0; 3],
    }
}

pub fn decode_policy(policy: &abi::policy) -> PolicyEntry {
    PolicyEntry {
        action: if policy.deny != 0 {
            Action::Deny
        } else {
            Action::Allow
        },
        rule: policy.rule,
    }
}

pub fn connection_state(number: u8) -> ConntrackState {
    match abi::ct_state(number.into()) {
        abi::ct_state::CT_UNREPLIED => ConntrackState::Unreplied,
        abi::ct_state::CT_REPLIED => ConntrackState::Replied,
        abi::ct_state::CT_CLOSING => ConntrackState::Closing,
        _ => ConntrackState::Established,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::net::Ipv4Addr;

    use super::abi::Plain;
    use super::*;

    /// The same numbers in every run, spread over all bits (xorshift, Marsaglia 2003).
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        /// Small, great and in between, the ends of the range among them.
        fn u32(&mut self) -> u32 {
            match self.next() % 4 {
                0 => 0,
                1 => u32::MAX,
                _ => (self.next() >> (self.next() % 48)) as u32,
            }
        }

        fn u16(&mut self) -> u16 {
            self.u32() as u16
        }

        fn mac(&mut self) -> [u8; 6] {
            std::array::from_fn(|_| self.next() as u8)
        }

        fn of<T: Copy>(&mut self, values: &[T]) -> T {
            values[self.next() as usize % values.len()]
        }

        fn ip(&mut self) -> IpAddr {
            if self.next().is_multiple_of(2) {
                return Ipv4Addr::from(self.u32()).into();
            }
            let v6 = Ipv6Addr::from(u128::from(self.next()) << 64 | u128::from(self.next()));
            assert!(
                v6.to_ipv4_mapped().is_none(),
                "a mapped address is an IPv4 one"
            );
            v6.into()
        }

        fn socket(&mut self) -> SocketAddr {
            SocketAddr::new(self.ip(), self.u16())
        }
    }

    const ROUNDS: usize = 2000;

    /// Encoded, taken as bytes, read back and decoded, a value is what it was.
    fn comes_back<T: PartialEq + Debug, B: Plain>(
        mut make: impl FnMut(&mut Numbers) -> T,
        encode: impl Fn(&T) -> B,
        decode: impl Fn(&B) -> T,
    ) {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for _ in 0..ROUNDS {
            let value = make(&mut numbers);
            let bytes = encode(&value).as_bytes().to_vec();
            let read = B::from_bytes(&bytes).unwrap();
            assert_eq!(decode(&read), value);
            assert!(B::from_bytes(&bytes[1..]).is_none(), "a cut row is none");
        }
    }

    #[test]
    fn settings_come_back() {
        let make = |n: &mut Numbers| Settings {
            tcp_ns: n.next(),
            tcp_syn_ns: n.next(),
            tcp_close_ns: n.next(),
            udp_ns: n.next(),
            udp_once_ns: n.next(),
            icmp_ns: n.next(),
            per_endpoint: n.u32(),
            strict: n.of(&[false, true]),
            aggregation: n.of(&[Aggregation::None, Aggregation::Low, Aggregation::Medium]),
            interval_ns: n.next(),
            rate: n.u32(),
            audit: n.of(&[false, true]),
            allow_host: n.of(&[false, true]),
            node_ipv4: n.of(&[None, Some(Ipv4Addr::new(192, 0, 2, 1))]),
            node_ipv6: n.of(&[None, Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))]),
        };
        comes_back(make, settings, decode_settings);
    }

    #[test]
    fn lifetimes_lie_where_programs_look_for_them() {
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

    #[test]
    fn a_node_without_addresses_speaks_in_nobodys_name() {
        let encoded = settings(&Settings::default());
        assert_eq!(ip(&encoded.node_ipv4), NAMELESS_IPV4);
        assert_eq!(ip(&encoded.node_ipv6), NAMELESS_IPV6);
    }

    #[test]
    fn services_come_back() {
        let entry = |n: &mut Numbers| ServiceEntry {
            service: n.u32(),
            lut_first: n.u32(),
            lut_count: n.u32(),
        };
        comes_back(entry, service, decode_service);
        let column = |n: &mut Numbers| LutEntry {
            backend: n.u32(),
            alias: n.u32(),
            threshold: n.u32(),
        };
        comes_back(column, slot, decode_slot);
        let of_service = |n: &mut Numbers| Backend {
            service: n.u32(),
            address: n.socket(),
            state: n.of(&[
                BackendState::Active,
                BackendState::Draining,
                BackendState::Maintenance,
            ]),
            weight: n.u16(),
        };
        comes_back(of_service, backend, decode_backend);
        let front = |n: &mut Numbers| {
            Some(Frontend {
                address: n.ip(),
                port: n.u16(),
                protocol: n.of(&Protocol::ALL),
            })
        };
        let encode = |value: &Option<Frontend>| frontend(value.as_ref().unwrap());
        comes_back(front, encode, decode_frontend);
    }

    #[test]
    fn the_row_of_an_address_alone_is_no_frontend() {
        let mut numbers = Numbers(1);
        for _ in 0..ROUNDS {
            let address = numbers.ip();
            let key = service_address(address);
            assert_eq!(decode_frontend(&key), None);
            assert_eq!(ip(&key.address), address);
        }
    }

    #[test]
    fn endpoints_come_back() {
        const ENFORCEMENTS: [Enforcement; 3] =
            [Enforcement::Off, Enforcement::DenyOnly, Enforcement::On];
        let make = |n: &mut Numbers| Endpoint {
            identity: n.u32(),
            delivery: n.of(&[Delivery::Peer, Delivery::Direct, Delivery::Neighbour]),
            src_mac: n.mac(),
            dst_mac: n.mac(),
            ingress: n.of(&ENFORCEMENTS),
            egress: n.of(&ENFORCEMENTS),
            counters_index: n.u32(),
        };
        comes_back(make, endpoint, decode_endpoint);
    }

    #[test]
    fn identities_come_back() {
        let make = |n: &mut Numbers| {
            let ifindex = n.u32();
            IpcacheEntry {
                identity: n.u32(),
                class: n.u32(),
                is_world: n.of(&[true, false]),
                scope: n.of(&[
                    AddressScope::Endpoint { ifindex },
                    AddressScope::Pending,
                    AddressScope::Host,
                    AddressScope::Remote,
                ]),
            }
        };
        comes_back(make, identity, decode_identity);
    }

    #[test]
    fn policy_comes_back() {
        let key = |n: &mut Numbers| {
            let protocol = n.of(&[None, Some(1), Some(6), Some(17), Some(0), Some(255)]);
            let port_bits = match protocol {
                None => 0,
                Some(_) => (n.next() % 17) as u8,
            };
            // Bits behind the prefix are zero in a plan.
            let mask = u16::MAX.checked_shl(16 - u32::from(port_bits)).unwrap_or(0);
            PolicyKey {
                subject: n.u32(),
                class: n.u32(),
                direction: n.of(&[Direction::Ingress, Direction::Egress]),
                protocol,
                port: n.u16() & mask,
                port_bits,
            }
        };
        comes_back(key, policy_key, decode_policy_key);
        let entry = |n: &mut Numbers| PolicyEntry {
            action: n.of(&[Action::Allow, Action::Deny]),
            rule: n.u32(),
        };
        comes_back(entry, policy, decode_policy);
    }

    #[test]
    fn addresses_stand_as_in_a_packet() {
        let rows = [
            (
                "0.0.0.0",
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
            ),
            (
                "10.200.0.64",
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 200, 0, 64],
            ),
            (
                "255.255.255.255",
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 255, 255, 255, 255],
            ),
            ("::", [0; 16]),
            ("::1", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            (
                "fd00:200::64",
                [0xfd, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x64],
            ),
        ];
        for (text, bytes) in rows {
            let known: IpAddr = text.parse().unwrap();
            let key = abi::flow_tuple {
                source: address(known),
                source_port: 0x1234u16.to_be(),
                ..Default::default()
            };
            assert_eq!(key.as_bytes()[..16], bytes, "{text}");
            assert_eq!(ip(&key.source), known, "{text}");
            assert_eq!(
                socket(&key.source, key.source_port).port(),
                0x1234,
                "{text}"
            );
        }
    }

    #[test]
    fn prefixes_of_each_length_come_back() {
        let addresses = [
            "0.0.0.0",
            "10.200.3.77",
            "255.255.255.255",
            "::",
            "fd00:200::64",
            "ffff::ff",
        ];
        for address in addresses {
            let address: IpAddr = address.parse().unwrap();
            let longest = if address.is_ipv4() { 32 } else { 128 };
            for length in 0..=longest {
                let known = IpNet::new(address, length).unwrap().trunc();
                let key = prefix(&known);
                let read = abi::address_prefix_key::from_bytes(key.as_bytes()).unwrap();
                assert_eq!(decode_prefix(&read), Some(known), "{known}");
            }
        }
    }

    #[test]
    fn prefixes_at_the_ends() {
        // (prefix, family, bits of the key that count)
        let rows = [
            ("0.0.0.0/0", 4, 32 + 96),
            ("10.200.0.44/32", 4, 32 + 128),
            ("::/0", 6, 32),
            ("fd00:200::44/128", 6, 32 + 128),
            ("::ffff:0.0.0.0/96", 6, 32 + 96),
        ];
        for (text, family, bits) in rows {
            let known: IpNet = text.parse().unwrap();
            let key = prefix(&known);
            assert_eq!((key.family, key.prefix_length), (family, bits), "{text}");
            assert_eq!(key.pad, [0; 3], "{text}: the padding is part of the key");
            assert_eq!(decode_prefix(&key), Some(known), "{text}");
        }
    }

    #[test]
    fn no_prefix_is_another_family_s() {
        let keys = ["0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"];
        let keys = keys.map(|text| prefix(&text.parse().unwrap()).as_bytes().to_vec());
        for (number, key) in keys.iter().enumerate() {
            assert!(!keys[number + 1..].contains(key));
        }
    }

    #[test]
    fn a_key_that_is_no_prefix_is_none() {
        let whole = prefix(&"10.200.0.44/32".parse().unwrap());
        let rows = [
            (
                "shorter than its family",
                abi::address_prefix_key {
                    prefix_length: 8,
                    ..whole
                },
            ),
            (
                "IPv4, shorter than the mapped part",
                abi::address_prefix_key {
                    prefix_length: 32 + 95,
                    ..whole
                },
            ),
            (
                "longer than an address",
                abi::address_prefix_key {
                    prefix_length: 32 + 129,
                    ..whole
                },
            ),
            (
                "much longer",
                abi::address_prefix_key {
                    prefix_length: u32::MAX,
                    ..whole
                },
            ),
        ];
        for (sentence, key) in rows {
            assert_eq!(decode_prefix(&key), None, "{sentence}");
        }
    }

    #[test]
    fn states_of_connections_have_their_names() {
        let rows = [
            (abi::ct_state::CT_UNREPLIED, "unreplied"),
            (abi::ct_state::CT_REPLIED, "replied"),
            (abi::ct_state::CT_ESTABLISHED, "established"),
            (abi::ct_state::CT_CLOSING, "closing"),
        ];
        for (state, name) in rows {
            assert_eq!(connection_state(state.0 as u8).name(), name);
        }
    }
}
