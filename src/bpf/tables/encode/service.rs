//! Services, backend tables and backends.

use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{FAMILY_BITS, address, decode_prefix, ip, prefix, socket};
use crate::bpf::abi;
use crate::model::protocol::Protocol;
use crate::model::service::{BackendState, Frontend};
use crate::model::state::{Backend, LutEntry, ServiceEntry};

pub fn frontend(frontend: &Frontend) -> abi::service_key {
    abi::service_key {
        address: address(frontend.address),
        port: frontend.port.to_be(),
        protocol: frontend.protocol.number(),
        ..Default::default()
    }
}

/// `None`: the row of an address without a port.
pub fn decode_frontend(key: &abi::service_key) -> Option<Frontend> {
    Some(Frontend {
        address: ip(&key.address),
        port: u16::from_be(key.port),
        protocol: Protocol::from_number(key.protocol)?,
    })
}

/// A prefix of those who may reach a service.
pub fn service_source(service: u32, source: &IpNet) -> abi::service_source_key {
    let prefix = prefix(source);
    abi::service_source_key {
        prefix_length: prefix.prefix_length - FAMILY_BITS + SOURCE_BITS,
        service,
        family: prefix.family,
        pad: [0; 7],
        address: prefix.address,
    }
}

pub fn decode_service_source(key: &abi::service_source_key) -> Option<(u32, IpNet)> {
    let source = decode_prefix(&abi::address_prefix_key {
        prefix_length: (key.prefix_length + FAMILY_BITS).checked_sub(SOURCE_BITS)?,
        family: key.family,
        pad: [0; 3],
        address: key.address,
    })?;
    Some((key.service, source))
}

/// What stands before the address in the key of a source.
const SOURCE_BITS: u32 = abi::service_source_key_bits::SERVICE_SOURCE_KEY_BITS.0;

/// The row of an address that some service has, whatever the port.
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
        flags: flags(entry),
        maglev_first: entry.maglev_first,
        maglev_size: entry.maglev_size,
        affinity_ns: entry.affinity_ns,
    }
}

fn flags(entry: &ServiceEntry) -> u32 {
    let flags = [
        (entry.is_external, abi::service_flags::SERVICE_EXTERNAL),
        (entry.has_sources, abi::service_flags::SERVICE_HAS_SOURCES),
    ];
    let set = flags.iter().filter(|(is_set, _)| *is_set);
    set.fold(0, |all, (_, flag)| all | flag.0)
}

pub fn decode_service(service: &abi::service) -> ServiceEntry {
    ServiceEntry {
        service: service.id,
        lut_first: service.lut_first,
        lut_count: service.lut_count,
        is_external: service.flags & abi::service_flags::SERVICE_EXTERNAL.0 != 0,
        has_sources: service.flags & abi::service_flags::SERVICE_HAS_SOURCES.0 != 0,
        maglev_first: service.maglev_first,
        maglev_size: service.maglev_size,
        affinity_ns: service.affinity_ns,
    }
}

pub fn lut_entry(entry: &LutEntry) -> abi::backend_lut_entry {
    abi::backend_lut_entry {
        backend: entry.backend,
        alias: entry.alias,
        threshold: entry.threshold,
    }
}

pub fn decode_lut_entry(entry: &abi::backend_lut_entry) -> LutEntry {
    LutEntry {
        backend: entry.backend,
        alias: entry.alias,
        threshold: entry.threshold,
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
            BackendState::Drained => abi::backend_state::BACKEND_DRAINED.0,
            BackendState::Removed => abi::backend_state::BACKEND_REMOVED.0,
        } as u8,
        is_picked: backend.is_picked.into(),
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
            abi::backend_state::BACKEND_DRAINED => BackendState::Drained,
            abi::backend_state::BACKEND_REMOVED => BackendState::Removed,
            _ => BackendState::Active,
        },
        weight: backend.weight,
        is_picked: backend.is_picked != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ROUNDS, Rng, assert_round_trip};
    use super::*;

    #[test]
    fn services_are_decoded_to_what_they_were() {
        let entry = |n: &mut Rng| ServiceEntry {
            service: n.u32(),
            lut_first: n.u32(),
            lut_count: n.u32(),
            is_external: n.of(&[false, true]),
            has_sources: n.of(&[false, true]),
            maglev_first: n.u32(),
            maglev_size: n.u32(),
            affinity_ns: n.next(),
        };
        assert_round_trip(entry, service, decode_service);
        let column = |n: &mut Rng| LutEntry {
            backend: n.u32(),
            alias: n.u32(),
            threshold: n.u32(),
        };
        assert_round_trip(column, lut_entry, decode_lut_entry);
        let of_service = |n: &mut Rng| Backend {
            service: n.u32(),
            address: n.socket(),
            state: n.of(&BackendState::ALL),
            weight: n.u16(),
            is_picked: n.of(&[false, true]),
        };
        assert_round_trip(of_service, backend, decode_backend);
        let front = |n: &mut Rng| {
            Some(Frontend {
                address: n.ip(),
                port: n.u16(),
                protocol: n.of(&Protocol::ALL),
            })
        };
        let encode = |value: &Option<Frontend>| frontend(value.as_ref().unwrap());
        assert_round_trip(front, encode, decode_frontend);
    }

    #[test]
    fn the_row_of_an_address_without_port_is_no_frontend() {
        let mut rng = Rng(1);
        for _ in 0..ROUNDS {
            let address = rng.ip();
            let key = service_address(address);
            assert_eq!(decode_frontend(&key), None);
            assert_eq!(ip(&key.address), address);
        }
    }
}
