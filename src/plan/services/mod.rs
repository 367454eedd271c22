//! Services: the frontends, their backend tables and the backends.

mod alias_table;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::config::{self, Config};
use crate::model::catalog::{BackendInfo, Catalog, ServiceInfo};
use crate::model::service::{BackendState, Frontend};
use crate::model::state::{Backend, LutEntry, ServiceEntry, State};

use super::ids::IdAllocator;
use alias_table::alias_table;

/// The tables of services and backends, and their entries in the catalog.
#[derive(Debug, Default)]
pub struct Services {
    frontends: BTreeMap<Frontend, ServiceEntry>,
    backend_lut: Vec<LutEntry>,
    backends: BTreeMap<u32, Backend>,
    service_infos: BTreeMap<u32, ServiceInfo>,
    backend_infos: BTreeMap<u32, BackendInfo>,
    next_service: u32,
    next_backend: u32,
}

/// Computes the tables of services; they depend on no other table.
pub fn compile(config: &Config, previous: &Catalog) -> Services {
    let mut numbers: IdAllocator<&str> = IdAllocator::new(
        previous
            .services
            .iter()
            .map(|(n, info)| (info.name.as_str(), *n)),
        previous.next.service,
    );
    let mut backends: IdAllocator<(u32, SocketAddr)> = IdAllocator::new(
        previous
            .backends
            .iter()
            .map(|(n, info)| ((info.service, info.address), *n)),
        previous.next.backend,
    );
    let mut services = Services::default();
    for (name, service) in &config.services {
        let number = numbers.number(name);
        let own = number_backends(service, number, &mut backends);
        services.add_frontends(service, number, &own);
        let info = ServiceInfo {
            name: name.clone(),
            frontends: service.frontends.iter().copied().collect(),
        };
        services.service_infos.insert(number, info);
        services
            .backend_infos
            .extend(own.iter().map(|(backend, row)| {
                let info = BackendInfo {
                    service: number,
                    address: row.address,
                };
                (*backend, info)
            }));
        services.backends.extend(own);
    }
    services.next_service = numbers.next();
    services.next_backend = backends.next();
    services
}

impl Services {
    /// Moves the tables into a state.
    pub fn put(self, state: &mut State) {
        let catalog = state.catalog_mut();
        catalog.services = self.service_infos;
        catalog.backends = self.backend_infos;
        catalog.next.service = self.next_service;
        catalog.next.backend = self.next_backend;
        state.services = self.frontends;
        state.backend_lut = self.backend_lut;
        state.backends = self.backends;
    }

    /// Adds the frontends of a service. Those of one family share a backend table.
    fn add_frontends(
        &mut self,
        service: &config::Service,
        number: u32,
        backends: &BTreeMap<u32, Backend>,
    ) {
        for is_ipv4 in [true, false] {
            let frontends = service.frontends.iter();
            let mut frontends = frontends
                .filter(|f| f.address.is_ipv4() == is_ipv4)
                .peekable();
            if frontends.peek().is_none() {
                continue;
            }
            let columns = alias_table(&usable(backends, is_ipv4));
            let lut_first = match columns.is_empty() {
                true => 0,
                false => self.backend_lut.len() as u32,
            };
            let entry = ServiceEntry {
                service: number,
                lut_first,
                lut_count: columns.len() as u32,
                is_external: false,
                has_sources: false,
            };
            self.backend_lut.extend(columns);
            self.frontends
                .extend(frontends.map(|frontend| (*frontend, entry.clone())));
        }
    }
}

fn number_backends(
    service: &config::Service,
    number: u32,
    numbers: &mut IdAllocator<(u32, SocketAddr)>,
) -> BTreeMap<u32, Backend> {
    let mut own = BTreeMap::new();
    for backend in &service.backends {
        let row = Backend {
            service: number,
            address: backend.address,
            state: backend.state,
            weight: backend.weight,
        };
        own.entry(numbers.number((number, backend.address)))
            .or_insert(row);
    }
    own
}

/// The backends for new connections, with their weights: the active ones, or, if there is none, the draining ones, as in
/// Kubernetes (KEP-1669).
fn usable(backends: &BTreeMap<u32, Backend>, is_ipv4: bool) -> Vec<(u32, u16)> {
    let of_state = |wanted: BackendState| -> Vec<(u32, u16)> {
        backends
            .iter()
            .filter(|(_, b)| b.address.is_ipv4() == is_ipv4 && b.state == wanted && b.weight > 0)
            .map(|(number, b)| (*number, b.weight))
            .collect()
    };
    let active = of_state(BackendState::Active);
    if active.is_empty() {
        of_state(BackendState::Draining)
    } else {
        active
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::testing::{TestConfig, frontend};

    #[test]
    fn only_usable_backends_are_picked() {
        let rows = [
            ("all that are active", "10.0.0.1:1 10.0.0.2:1", "1 2", ""),
            (
                "no draining one next to an active",
                "10.0.0.1:1 10.0.0.2:1!draining",
                "1",
                "",
            ),
            (
                "draining ones where none is active",
                "10.0.0.1:1!draining 10.0.0.2:1!maintenance",
                "1",
                "",
            ),
            ("never one in maintenance", "10.0.0.1:1!maintenance", "", ""),
            (
                "weight 0 gets no new connection",
                "10.0.0.1:1*0 10.0.0.2:1",
                "2",
                "",
            ),
            (
                "an active one of weight 0 does not count",
                "10.0.0.1:1*0 10.0.0.2:1!draining",
                "2",
                "",
            ),
            (
                "weight 0 everywhere",
                "10.0.0.1:1*0 10.0.0.2:1*0!draining",
                "",
                "",
            ),
            ("each family its own", "10.0.0.1:1 [fd00::1]:1", "1", "2"),
            (
                "each family's states alone",
                "10.0.0.1:1 [fd00::1]:1!draining",
                "1",
                "2",
            ),
            ("none at all", "", "", ""),
        ];
        for (what, backends, ipv4, ipv6) in rows {
            let frontends = "10.32.0.1:1/tcp 10.32.0.1:1/udp [fd00:32::1]:1/tcp";
            let state = TestConfig::new()
                .service("s", frontends, backends)
                .compile();
            let picked = |text: &str| {
                let entry = &state.services[&frontend(text)];
                let first = entry.lut_first as usize;
                let columns = &state.backend_lut[first..first + entry.lut_count as usize];
                let numbers: Vec<String> = columns
                    .iter()
                    .map(|column| column.backend.to_string())
                    .collect();
                numbers.join(" ")
            };
            assert_eq!(picked("10.32.0.1:1/tcp"), ipv4, "{what}: IPv4");
            assert_eq!(
                picked("10.32.0.1:1/udp"),
                ipv4,
                "{what}: the other frontend"
            );
            assert_eq!(picked("[fd00:32::1]:1/tcp"), ipv6, "{what}: IPv6");
            let all = backends.split_whitespace().count();
            assert_eq!(
                (state.backends.len(), state.catalog.backends.len()),
                (all, all),
                "{what}"
            );
        }
    }

    #[test]
    fn frontends_of_a_family_share_a_backend_table() {
        let test = TestConfig::new()
            .service(
                "a",
                "10.32.0.1:53/udp 10.32.0.1:53/tcp",
                "10.0.0.1:53 10.0.0.2:53",
            )
            .service("b", "10.32.0.2:53/udp", "10.0.0.1:53 10.0.0.2:53");
        let state = test.compile();
        let entry = |text: &str| state.services[&frontend(text)].clone();
        assert_eq!(entry("10.32.0.1:53/udp"), entry("10.32.0.1:53/tcp"));
        assert_eq!(
            (
                entry("10.32.0.1:53/udp").lut_first,
                entry("10.32.0.2:53/udp").lut_first
            ),
            (0, 2)
        );
        assert_eq!(state.backend_lut.len(), 4);
        // The same address behind two services is two backends: a connection belongs to one service.
        assert_eq!(state.backends.len(), 4);
    }

    #[test]
    fn the_order_of_the_file_is_ignored() {
        let test = |backends: &str| TestConfig::new().service("a", "10.32.0.1:53/udp", backends);
        let first = test("10.0.0.1:53 10.0.0.2:53*3").compile();
        let second = test("10.0.0.2:53*3 10.0.0.1:53").compile_after(&first);
        assert_eq!(first, second);
    }
}
