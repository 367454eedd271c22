//! Services: the frontends, their backend tables and the backends.

mod alias_table;
mod backend_tables;
mod draining;
mod locality;
mod maglev;
mod members;
mod node_ports;
mod usable;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::{self, ServiceBackend};
use crate::model::catalog::{BackendInfo, Catalog, ServiceInfo};
use crate::model::maglev::MaglevTables;
use crate::model::service::Frontend;
use crate::model::state::{Backend, LutEntry, ServiceEntry, State};

use super::ids::IdAllocator;
use super::inputs::Inputs;
use super::ipcache::Owners;
use super::settings::nanoseconds;
use backend_tables::{BackendTables, Family};
use draining::{Backends, DrainClock};
pub use locality::warnings;
pub use members::ready_members;
pub use node_ports::own_addresses;
use usable::usable;

/// The tables of services and backends, and their entries in the catalog.
#[derive(Debug, Default)]
pub struct Services {
    frontends: BTreeMap<Frontend, ServiceEntry>,
    sources: BTreeSet<(u32, IpNet)>,
    backend_lut: Vec<LutEntry>,
    maglev: MaglevTables,
    backends: BTreeMap<u32, Backend>,
    service_infos: BTreeMap<u32, ServiceInfo>,
    backend_infos: BTreeMap<u32, BackendInfo>,
    next_service: u32,
    next_backend: u32,
}

/// Computes the tables of services; they depend on no other table.
///
/// Where a node port is a frontend of another service, too, that service has it: the file names the address.
pub fn compile(inputs: Inputs<'_>, owners: &Owners) -> Services {
    let Inputs {
        config, previous, ..
    } = inputs;
    let own = own_addresses(inputs.host, owners);
    let members = ready_members(config, inputs.host);
    let clock = DrainClock {
        previous,
        owners,
        now_ns: inputs.now_ns,
    };
    let known = backends_by_service(previous);
    let mut node_frontends = BTreeMap::new();
    let mut numbers = service_numbers(previous);
    let mut backends = backend_numbers(previous);
    let mut services = Services::default();
    let mut tables = BackendTables::default();
    for (name, service) in &config.services {
        let number = numbers.number(name);
        let (mut rows, mut infos) =
            number_backends(members.backends(service), number, &mut backends);
        let at_node = service.frontends_at(own.iter().copied());
        let mut info = info(name, service);
        for is_ipv4 in [true, false] {
            let is_of_family = |frontend: &&Frontend| frontend.address.is_ipv4() == is_ipv4;
            let mut named = service.frontends.iter().filter(is_of_family).peekable();
            let mut at_node = at_node.iter().filter(is_of_family).peekable();
            if named.peek().is_none() && at_node.peek().is_none() {
                continue;
            }
            let usable = usable(&rows, is_ipv4, service.locality, owners);
            for (backend, _) in &usable {
                rows.entry(*backend).and_modify(|row| row.is_picked = true);
            }
            let mut family = Family::new((number, service), is_ipv4, &rows, usable);
            info.table_sizes.extend(family.maglev_size());
            let mut row = |frontend: &Frontend| {
                let entry = family.entry(frontend.protocol, &mut tables);
                (*frontend, entry)
            };
            services.frontends.extend(named.map(&mut row));
            node_frontends.extend(at_node.map(row));
        }
        let mut of_service = Backends {
            rows: &mut rows,
            infos: &mut infos,
        };
        clock.mark_draining(service.drain_timeout, &mut of_service);
        let known = known.get(&number).map_or(&[][..], Vec::as_slice);
        clock.keep_removed(known, service.drain_timeout, &mut of_service);
        services.add((number, service), info, (rows, infos));
    }
    for (frontend, entry) in node_frontends {
        services.frontends.entry(frontend).or_insert(entry);
    }
    (services.backend_lut, services.maglev) = tables.finish(inputs.previous_maglev);
    services.next_service = numbers.next();
    services.next_backend = backends.next();
    services
}

/// The backends of the live generation.
fn backends_by_service(previous: &Catalog) -> BTreeMap<u32, Vec<(u32, &BackendInfo)>> {
    let mut known: BTreeMap<u32, Vec<(u32, &BackendInfo)>> = BTreeMap::new();
    for (number, info) in &previous.backends {
        known.entry(info.service).or_default().push((*number, info));
    }
    known
}

fn service_numbers(previous: &Catalog) -> IdAllocator<&str> {
    let known = previous.services.iter();
    let known = known.map(|(number, info)| (info.name.as_str(), *number));
    IdAllocator::new(known, previous.next.service)
}

fn backend_numbers(previous: &Catalog) -> IdAllocator<(u32, SocketAddr)> {
    let known = previous.backends.iter();
    let known = known.map(|(number, info)| ((info.service, info.address), *number));
    IdAllocator::new(known, previous.next.backend)
}

impl Services {
    fn add(
        &mut self,
        (number, service): (u32, &config::Service),
        info: ServiceInfo,
        (rows, infos): (BTreeMap<u32, Backend>, BTreeMap<u32, BackendInfo>),
    ) {
        let sources = service.sources.iter().map(|source| (number, *source));
        self.sources.extend(sources);
        self.service_infos.insert(number, info);
        self.backend_infos.extend(infos);
        self.backends.extend(rows);
    }

    /// Moves the tables into a state.
    pub fn put(self, state: &mut State) {
        let catalog = state.catalog_mut();
        catalog.services = self.service_infos;
        catalog.backends = self.backend_infos;
        catalog.next.service = self.next_service;
        catalog.next.backend = self.next_backend;
        state.services = self.frontends;
        state.service_sources = self.sources;
        state.backend_lut = self.backend_lut;
        state.maglev = self.maglev;
        state.backends = self.backends;
    }
}

/// The addresses of the frontends that the network reaches.
pub fn external_addresses(inputs: Inputs<'_>, owners: &Owners) -> BTreeSet<IpAddr> {
    let own = own_addresses(inputs.host, owners);
    let mut addresses = BTreeSet::new();
    for service in inputs.config.services.values().filter(|s| s.external) {
        let at_node = service.frontends_at(own.iter().copied());
        let frontends = service.frontends.iter().chain(&at_node);
        addresses.extend(frontends.map(|frontend| frontend.address));
    }
    addresses
}

fn info(name: &str, service: &config::Service) -> ServiceInfo {
    ServiceInfo {
        name: name.to_owned(),
        frontends: service.frontends.iter().copied().collect(),
        node_ports: service.node_ports.iter().copied().collect(),
        external: service.external,
        sources: service.sources.iter().copied().collect(),
        locality: service.locality,
        algorithm: service.algorithm,
        affinity_ns: nanoseconds(service.affinity),
        drain_timeout_ns: nanoseconds(service.drain_timeout),
        table_sizes: BTreeSet::new(),
    }
}

fn number_backends(
    backends: Vec<ServiceBackend<'_>>,
    service: u32,
    numbers: &mut IdAllocator<(u32, SocketAddr)>,
) -> (BTreeMap<u32, Backend>, BTreeMap<u32, BackendInfo>) {
    let (mut rows, mut infos) = (BTreeMap::new(), BTreeMap::new());
    for ServiceBackend { backend, identity } in backends {
        let address = backend.address;
        let number = numbers.number((service, address));
        rows.entry(number).or_insert(Backend {
            service,
            address,
            state: backend.state,
            weight: backend.weight,
            is_picked: false, // until it has a column
        });
        infos.entry(number).or_insert(BackendInfo {
            service,
            address,
            identity: identity.map(str::to_owned),
            drains_since_ns: None,
        });
    }
    (rows, infos)
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
