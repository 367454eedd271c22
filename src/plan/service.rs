//! Services: frontends to slots, and slots to backends by weight.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::config::{self, Config};
use crate::model::catalog::{BackendInfo, Catalog, ServiceInfo};
use crate::model::service::{BackendState, Frontend};
use crate::model::state::{Backend, LutEntry, ServiceEntry, State};

use super::numbers::Numbers;

/// The tables of services, slots and backends, and what the catalog says of them.
#[derive(Debug, Default)]
pub struct Services {
    frontends: BTreeMap<Frontend, ServiceEntry>,
    slots: Vec<LutEntry>,
    backends: BTreeMap<u32, Backend>,
    service_infos: BTreeMap<u32, ServiceInfo>,
    backend_infos: BTreeMap<u32, BackendInfo>,
    next_service: u32,
    next_backend: u32,
}

/// Computes all that services are; nothing else of a state has to be known.
pub fn compile(config: &Config, known: &Catalog) -> Services {
    let mut numbers: Numbers<&str> = Numbers::new(
        known
            .services
            .iter()
            .map(|(n, info)| (info.name.as_str(), *n)),
        known.next.service,
    );
    let mut backends: Numbers<(u32, SocketAddr)> = Numbers::new(
        known
            .backends
            .iter()
            .map(|(n, info)| ((info.service, info.address), *n)),
        known.next.backend,
    );
    let mut services = Services::default();
    for (name, service) in &config.services {
        let number = numbers.number(name);
        let own = number_backends(service, number, &mut backends);
        services.place_frontends(service, number, &own);
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
    /// Makes them the services of a state.
    pub fn put(self, state: &mut State) {
        let catalog = state.catalog_mut();
        catalog.services = self.service_infos;
        catalog.backends = self.backend_infos;
        catalog.next.service = self.next_service;
        catalog.next.backend = self.next_backend;
        state.services = self.frontends;
        state.backend_lut = self.slots;
        state.backends = self.backends;
    }

    /// The frontends of one family share their slots.
    fn place_frontends(
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
            let slots = draw_table(&usable(backends, is_ipv4));
            let entry = ServiceEntry {
                service: number,
                lut_first: if slots.is_empty() {
                    0
                } else {
                    self.slots.len() as u32
                },
                lut_count: slots.len() as u32,
            };
            self.slots.extend(slots);
            self.frontends
                .extend(frontends.map(|frontend| (*frontend, entry.clone())));
        }
    }
}

fn number_backends(
    service: &config::Service,
    number: u32,
    numbers: &mut Numbers<(u32, SocketAddr)>,
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

/// The backends that new connections may go to, with their weights: the active ones, or, if there is none, those
/// that drain (Kubernetes' KEP-1669): a slow answer beats none.
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

/// The alias table of {backend, weight} pairs: drawing a slot and then one of its two backends gives each
/// backend its weight's share. Every backend is the `backend` of exactly one slot.
///
/// In whole numbers: a backend's share of all draws is `weight × count` parts, a slot holds `total` parts. What
/// a light backend leaves of its slot, a heavy one takes.
fn draw_table(weights: &[(u32, u16)]) -> Vec<LutEntry> {
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let count = weights.len() as u64;
    let mut parts: Vec<u64> = weights
        .iter()
        .map(|(_, weight)| u64::from(*weight) * count)
        .collect();
    let mut slots: Vec<LutEntry> = weights
        .iter()
        .map(|(backend, _)| LutEntry {
            backend: *backend,
            alias: *backend,
            threshold: u32::MAX,
        })
        .collect();

    let (mut light, mut heavy): (Vec<usize>, Vec<usize>) =
        (0..parts.len()).partition(|slot| parts[*slot] < total);
    while let (Some(small), Some(large)) = (light.pop(), heavy.pop()) {
        slots[small].alias = slots[large].backend;
        slots[small].threshold = threshold(parts[small], total);
        parts[large] -= total - parts[small];
        if parts[large] < total {
            light.push(large);
        } else {
            heavy.push(large);
        }
    }
    slots
}

/// The threshold that is met by `parts` of `total` draws: one less than their number, as a draw of the same
/// value meets it. `parts` is at least a 65535th of `total`, so there is always a draw.
fn threshold(parts: u64, total: u64) -> u32 {
    let draws = ((u128::from(parts) << 32) + u128::from(total / 2)) / u128::from(total);
    u32::try_from(draws.saturating_sub(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{Lab, Rng, frontend};

    /// Each backend's share of the draws in parts of 2^32 × slots: the table's own arithmetic, without rounding.
    fn shares(slots: &[LutEntry]) -> BTreeMap<u32, u128> {
        let mut shares = BTreeMap::new();
        for slot in slots {
            let own = u128::from(slot.threshold) + 1;
            *shares.entry(slot.backend).or_default() += own;
            *shares.entry(slot.alias).or_default() += (1 << 32) - own;
        }
        shares
    }

    #[test]
    fn draws_follow_the_weights() {
        let mut dice = Rng::new(5);
        let mut random = |count: usize| -> Vec<u16> {
            (0..count).map(|_| 1 + dice.below(65535) as u16).collect()
        };
        let rows = [
            ("one backend gets all", vec![1]),
            ("equal ones share equally", vec![7, 7, 7]),
            ("one to three", vec![1, 3]),
            ("thirds, which no binary fraction is", vec![1, 2]),
            ("the lightest beside the heaviest", vec![1, 65535]),
            (
                "a light one among many heavy",
                [vec![65535; 99], vec![1]].concat(),
            ),
            (
                "many light ones beside a heavy",
                [vec![1; 999], vec![65535]].concat(),
            ),
            ("ten by chance", random(10)),
            ("a thousand by chance", random(1000)),
        ];
        for (what, weights) in rows {
            let pairs: Vec<(u32, u16)> = (1..).zip(weights.iter().copied()).collect();
            let slots = draw_table(&pairs);
            let primaries: Vec<u32> = slots.iter().map(|slot| slot.backend).collect();
            let numbers: Vec<u32> = pairs.iter().map(|(number, _)| *number).collect();
            assert_eq!(primaries, numbers, "{what}: each is the first of one slot");

            let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
            let count = slots.len() as u128;
            let shares = shares(&slots);
            assert_eq!(
                shares.values().sum::<u128>(),
                count << 32,
                "{what}: nothing is lost"
            );
            for (number, weight) in pairs {
                // share / (count × 2^32) and weight / total, both times count × 2^32 × total.
                let (got, wanted) = (shares[&number] * total, (u128::from(weight) * count) << 32);
                // Rounding costs at most half a draw in each slot.
                assert!(
                    2 * got.abs_diff(wanted) <= count * total,
                    "{what}: backend {number} of weight {weight}"
                );
            }
        }
    }

    #[test]
    fn fractions_that_binary_has_are_exact() {
        let slots = draw_table(&[(1, 1), (2, 3)]);
        let drawn: Vec<(u32, u32, u32)> = slots
            .iter()
            .map(|s| (s.backend, s.alias, s.threshold))
            .collect();
        assert_eq!(drawn, [(1, 2, u32::MAX / 2), (2, 2, u32::MAX)]);
    }

    #[test]
    fn only_usable_backends_are_drawn() {
        let rows = [
            ("all that are active", "10.0.0.1:1 10.0.0.2:1", "1 2", ""),
            (
                "no draining one beside an active",
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
            ("no weight, nothing new", "10.0.0.1:1*0 10.0.0.2:1", "2", ""),
            (
                "an active one without weight is none",
                "10.0.0.1:1*0 10.0.0.2:1!draining",
                "2",
                "",
            ),
            (
                "no weight anywhere",
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
            let state = Lab::new().service("s", frontends, backends).compile();
            let drawn = |text: &str| {
                let entry = &state.services[&frontend(text)];
                let first = entry.lut_first as usize;
                let slots = &state.backend_lut[first..first + entry.lut_count as usize];
                let numbers: Vec<String> =
                    slots.iter().map(|slot| slot.backend.to_string()).collect();
                numbers.join(" ")
            };
            assert_eq!(drawn("10.32.0.1:1/tcp"), ipv4, "{what}: IPv4");
            assert_eq!(drawn("10.32.0.1:1/udp"), ipv4, "{what}: the other frontend");
            assert_eq!(drawn("[fd00:32::1]:1/tcp"), ipv6, "{what}: IPv6");
            let all = backends.split_whitespace().count();
            assert_eq!(
                (state.backends.len(), state.catalog.backends.len()),
                (all, all),
                "{what}"
            );
        }
    }

    #[test]
    fn frontends_of_a_family_share_their_slots() {
        let lab = Lab::new()
            .service(
                "a",
                "10.32.0.1:53/udp 10.32.0.1:53/tcp",
                "10.0.0.1:53 10.0.0.2:53",
            )
            .service("b", "10.32.0.2:53/udp", "10.0.0.1:53 10.0.0.2:53");
        let state = lab.compile();
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
        // The same address behind two services is two backends: connections know which they came by.
        assert_eq!(state.backends.len(), 4);
    }

    #[test]
    fn the_order_of_the_file_does_not_count() {
        let lab = |backends: &str| Lab::new().service("a", "10.32.0.1:53/udp", backends);
        let first = lab("10.0.0.1:53 10.0.0.2:53*3").compile();
        let second = lab("10.0.0.2:53*3 10.0.0.1:53").compile_after(&first);
        assert_eq!(first, second);
    }
}
