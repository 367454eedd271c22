//! The tables by which backends are picked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::alias_table::alias_table;
use super::maglev::Allotment;
use crate::config::Service;
use crate::model::maglev::{MaglevBackend, MaglevKey, MaglevTables};
use crate::model::protocol::Protocol;
use crate::model::state::{Backend, LutEntry, ServiceEntry};
use crate::plan::settings::nanoseconds;

/// The tables of all services.
#[derive(Debug, Default)]
pub struct BackendTables {
    lut: Vec<LutEntry>,
    maglev: Allotment,
}

impl BackendTables {
    /// The backend tables, one after the other, and the Maglev tables.
    pub fn finish(self, previous: &MaglevTables) -> (Vec<LutEntry>, MaglevTables) {
        (self.lut, self.maglev.tables(previous))
    }

    /// Adds a backend table; returns its first row and its number of columns.
    fn add(&mut self, columns: Vec<LutEntry>) -> (u32, u32) {
        let first = match columns.is_empty() {
            true => 0,
            false => self.lut.len() as u32,
        };
        let count = columns.len() as u32;
        self.lut.extend(columns);
        (first, count)
    }
}

/// The usable backends of a service in an address family. Its frontends share a backend table; with Maglev, those of a protocol
/// share a Maglev table, too.
pub struct Family<'a> {
    number: u32,
    service: &'a Service,
    is_ipv4: bool,
    /// The size of its Maglev tables; `None`: it has none.
    size: Option<u32>,
    /// Number and weight.
    usable: Vec<(u32, u16)>,
    /// The same by address, with Maglev.
    maglev: Arc<[MaglevBackend]>,
    entries: BTreeMap<Protocol, ServiceEntry>,
}

impl<'a> Family<'a> {
    /// `usable` are numbers, of `rows`, and weights.
    pub fn new(
        (number, service): (u32, &'a Service),
        is_ipv4: bool,
        rows: &BTreeMap<u32, Backend>,
        mut usable: Vec<(u32, u16)>,
    ) -> Family<'a> {
        let of_family = |row: &&Backend| row.address.is_ipv4() == is_ipv4;
        let size = service.maglev_size(rows.values().filter(of_family).count());
        let mut maglev = Vec::new();
        if size.is_some() {
            // By address: numbers differ from host to host.
            usable.sort_by_key(|(number, _)| rows.get(number).map(|backend| backend.address));
            let backend = |(number, weight): &(u32, u16)| {
                let address = rows.get(number)?.address;
                let weight = *weight;
                Some(MaglevBackend { address, weight })
            };
            maglev.extend(usable.iter().filter_map(backend));
        }
        Family {
            number,
            service,
            is_ipv4,
            size,
            usable,
            maglev: maglev.into(),
            entries: BTreeMap::new(),
        }
    }

    /// The size of its Maglev tables; `None`: it has none.
    pub fn maglev_size(&self) -> Option<u32> {
        self.size
    }

    /// The entry of its frontends of a protocol. The tables are added with the first one.
    pub fn entry(&mut self, protocol: Protocol, tables: &mut BackendTables) -> ServiceEntry {
        if let Some(known) = self.entries.get(&protocol) {
            return known.clone();
        }
        let size = self.maglev_size();
        let mut entry = match self.entries.values().next() {
            Some(other) => other.clone(),
            None => self.shared_entry(tables),
        };
        entry.maglev_size = size.unwrap_or(0);
        entry.maglev_first = size.map_or(0, |size| {
            let key = MaglevKey {
                service: self.number,
                is_ipv4: self.is_ipv4,
                protocol,
            };
            tables.maglev.add(key, size, &self.maglev)
        });
        self.entries.insert(protocol, entry.clone());
        entry
    }

    /// The entry without a Maglev table.
    fn shared_entry(&self, tables: &mut BackendTables) -> ServiceEntry {
        let columns = match self.maglev_size() {
            Some(_) => self
                .usable
                .iter()
                .map(|(backend, _)| only(*backend))
                .collect(),
            None => alias_table(&self.usable),
        };
        let (lut_first, lut_count) = tables.add(columns);
        ServiceEntry {
            service: self.number,
            lut_first,
            lut_count,
            is_external: self.service.external,
            has_sources: !self.service.sources.is_empty(),
            maglev_first: 0,
            maglev_size: 0,
            affinity_ns: nanoseconds(self.service.affinity),
        }
    }
}

/// A column of one backend.
fn only(backend: u32) -> LutEntry {
    LutEntry {
        backend,
        alias: backend,
        threshold: u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::model::maglev::MaglevKey;
    use crate::model::service::{Algorithm, Frontend};
    use crate::model::state::State;
    use crate::plan::testing::{TestConfig, frontend};

    const FRONTENDS: &str = "10.32.0.1:1/tcp 10.32.0.1:1/udp 10.32.0.2:1/tcp [fd00:32::1]:1/tcp";

    fn maglev(mut test: TestConfig, service: &str) -> TestConfig {
        let service = test.config.services.get_mut(service).unwrap();
        service.algorithm = Algorithm::Maglev;
        test
    }

    fn key(state: &State, frontend: &Frontend) -> MaglevKey {
        MaglevKey {
            service: state.services[frontend].service,
            is_ipv4: frontend.address.is_ipv4(),
            protocol: frontend.protocol,
        }
    }

    /// The backend of each column of a frontend's table, as the datapath finds it.
    fn picked(state: &State, text: &str) -> Vec<SocketAddr> {
        let frontend = frontend(text);
        let entry = &state.services[&frontend];
        let Some(table) = state.maglev.get(&key(state, &frontend)) else {
            return Vec::new();
        };
        assert_eq!(table.first_row, entry.maglev_first);
        assert_eq!(table.columns.len() as u32, entry.maglev_size);
        let backend = |column: &u16| {
            assert!(u32::from(*column) < entry.lut_count);
            let row = &state.backend_lut[entry.lut_first as usize + usize::from(*column)];
            assert_eq!((row.alias, row.threshold), (row.backend, u32::MAX));
            state.backends[&row.backend].address
        };
        table.columns.iter().map(backend).collect()
    }

    fn addresses(picked: &[SocketAddr]) -> String {
        let mut addresses: Vec<String> = picked.iter().map(SocketAddr::to_string).collect();
        addresses.sort();
        addresses.dedup();
        addresses.join(" ")
    }

    #[test]
    fn frontends_of_a_family_and_protocol_share_a_table() {
        let backends = "10.0.0.1:1 10.0.0.2:1 10.0.0.3:1 [fd00::1]:1";
        let test = TestConfig::new()
            .service("a", "10.32.0.9:1/tcp", "10.0.0.1:1 10.0.0.2:1")
            .service("s", FRONTENDS, backends);
        let state = maglev(test, "s").compile();
        let entry = |text| {
            let entry = &state.services[&frontend(text)];
            (entry.lut_first, entry.maglev_first, entry.maglev_size)
        };
        assert_eq!(entry("10.32.0.9:1/tcp"), (0, 0, 0), "at random");
        assert_eq!(entry("10.32.0.1:1/tcp"), (2, 0, 509));
        assert_eq!(entry("10.32.0.2:1/tcp"), (2, 0, 509));
        assert_eq!(entry("10.32.0.1:1/udp"), (2, 2, 509));
        assert_eq!(entry("[fd00:32::1]:1/tcp"), (5, 4, 251));
        assert_eq!(state.maglev.len(), 3);
        let (tcp, udp) = ("10.32.0.1:1/tcp", "10.32.0.1:1/udp");
        assert_ne!(picked(&state, tcp), picked(&state, udp));
        let service = state.services[&frontend(tcp)].service;
        let sizes = &state.catalog.services[&service].table_sizes;
        assert!(sizes.iter().eq(&[251, 509]));
    }

    #[test]
    fn usable_backends_have_columns() {
        let rows = [
            ("10.0.0.1:1 10.0.0.2:1", "10.0.0.1:1 10.0.0.2:1", ""),
            ("10.0.0.1:1 10.0.0.2:1!draining", "10.0.0.1:1", ""),
            ("10.0.0.1:1*0 10.0.0.2:1*65535", "10.0.0.2:1", ""),
            (
                "10.0.0.1:1!draining 10.0.0.2:1!maintenance",
                "10.0.0.1:1",
                "",
            ),
            ("10.0.0.1:1!maintenance [fd00::1]:1", "", "[fd00::1]:1"),
            ("", "", ""),
        ];
        for (backends, ipv4, ipv6) in rows {
            let test = TestConfig::new().service("s", FRONTENDS, backends);
            let state = maglev(test, "s").compile();
            let of = |text| addresses(&picked(&state, text));
            assert_eq!(of("10.32.0.1:1/tcp"), ipv4, "{backends}");
            assert_eq!(of("10.32.0.1:1/udp"), ipv4, "{backends}");
            assert_eq!(of("[fd00:32::1]:1/tcp"), ipv6, "{backends}");
            let entry = &state.services[&frontend("10.32.0.1:1/tcp")];
            assert_eq!(entry.maglev_size, 251, "{backends}: of all its backends");
        }
    }

    /// Names, the order of the file, and the numbers that objects got before are those of one host.
    #[test]
    fn a_table_depends_on_addresses_and_weights_alone() {
        let backends = ["10.0.0.9:1", "10.0.0.10:1*3", "10.0.0.1:2", "10.0.0.1:1*2"];
        let test = TestConfig::new().service("s", FRONTENDS, &backends.join(" "));
        let here = maglev(test, "s").compile();
        let mut reversed = backends;
        reversed.reverse();
        let before = TestConfig::new()
            .service("b", "10.32.1.1:1/tcp", "10.0.0.9:1 10.0.0.1:1")
            .service("z", "10.32.1.2:1/tcp", "10.0.0.7:1 10.0.0.10:1")
            .compile();
        let test = TestConfig::new()
            .service("b", "10.32.1.1:1/tcp", "10.0.0.9:1 10.0.0.1:1")
            .service("z", FRONTENDS, &reversed.join(" "));
        let there = maglev(maglev(test, "b"), "z").compile_after(&before);
        for text in ["10.32.0.1:1/tcp", "10.32.0.1:1/udp"] {
            assert_eq!(picked(&here, text).len(), 509);
            assert_eq!(picked(&here, text), picked(&there, text), "{text}");
        }
    }
}
