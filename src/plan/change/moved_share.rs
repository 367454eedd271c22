//! Which share of new connections gets another backend than before: of services that pick by a hash, before or after the change.
//!
//! With Maglev a flow has one backend, so the share is that of the hashes whose backend changes. A random pick has none to
//! compare with: if it takes the place of a hash, or the other way round, the share is the probability that both differ.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::effect::{Effect, MovedShare};
use super::line::Change;
use super::object::Object;
use crate::model::maglev::MaglevKey;
use crate::model::protocol::Protocol;
use crate::model::service::BackendState;
use crate::model::state::{LutEntry, ServiceEntry, State};

const MILLION: u128 = 1_000_000;
/// The hashes that a flow may have.
const HASHES: u64 = 1 << 32;

/// Adds the shares to the lines of the services, which are in the order of their objects.
pub fn add_moved_shares(old: &State, new: &State, changes: &mut Vec<Change>) {
    if old.maglev.is_empty() && new.maglev.is_empty() {
        return;
    }
    let (before, after) = (picks(old, new), picks(new, old));
    let mut shares: BTreeMap<u32, u32> = BTreeMap::new();
    for (key, before) in &before {
        if let Some(after) = after.get(key)
            && let moved @ 1.. = before.moved(after)
        {
            let share = shares.entry(key.service).or_default();
            *share = moved.max(*share);
        }
    }
    for (service, per_million) in shares {
        let Some(info) = new.catalog.services.get(&service) else {
            continue;
        };
        let share = MovedShare {
            per_million,
            keeps_backends: keeps_backends(old, new, service),
            keeps_clients: [old, new].iter().all(|state| has_affinity(state, service)),
        };
        line_of(Object::service(&info.name), changes)
            .effect
            .moved_share = Some(share);
    }
}

/// The line of an object; a new one if it has none.
fn line_of(object: Object, changes: &mut Vec<Change>) -> &mut Change {
    let found = changes.binary_search_by(|change| change.object.cmp(&object));
    let line = found.unwrap_or_else(|place| {
        let change = Change {
            sign: '~',
            object,
            detail: String::new(),
            effect: Effect::default(),
        };
        changes.insert(place, change);
        place
    });
    &mut changes[line]
}

/// Whether no backend is gone or loses connections by its state.
fn keeps_backends(old: &State, new: &State, service: u32) -> bool {
    let is_down = |state: BackendState| !state.keeps(Protocol::Udp);
    let mut backends = old.backends.iter().filter(|(_, of)| of.service == service);
    backends.all(|(number, before)| {
        let after = new.backends.get(number);
        after.is_some_and(|after| is_down(before.state) || !is_down(after.state))
    })
}

fn has_affinity(state: &State, service: u32) -> bool {
    let info = state.catalog.services.get(&service);
    info.is_some_and(|info| info.affinity_ns != 0)
}

/// How the frontends of a key pick.
struct Picks<'a> {
    state: &'a State,
    lut: &'a [LutEntry],
    /// A Maglev table; `None`: at random.
    columns: Option<&'a [u16]>,
}

/// How services pick, if one of the states has a Maglev table for that.
fn picks<'a>(state: &'a State, other: &State) -> BTreeMap<MaglevKey, Picks<'a>> {
    let keys = state.maglev.keys().chain(other.maglev.keys());
    let keys: BTreeSet<&MaglevKey> = keys.collect();
    let of_frontend = state.services.iter().filter_map(|(frontend, entry)| {
        let key = MaglevKey {
            service: entry.service,
            is_ipv4: frontend.address.is_ipv4(),
            protocol: frontend.protocol,
        };
        let picks = Picks::new(state, entry, &key).filter(|_| keys.contains(&key));
        Some((key, picks?))
    });
    of_frontend.collect()
}

impl<'a> Picks<'a> {
    /// `None`: there is no usable backend.
    fn new(state: &'a State, entry: &ServiceEntry, key: &MaglevKey) -> Option<Picks<'a>> {
        let first = entry.lut_first as usize;
        let lut = state.backend_lut.get(first..)?;
        let lut = lut.get(..entry.lut_count as usize)?;
        let columns = match entry.maglev_size {
            0 => None,
            _ => Some(&*state.maglev.get(key)?.columns),
        };
        (!lut.is_empty()).then_some(Picks {
            state,
            lut,
            columns,
        })
    }

    /// Of a million new connections, those that get another backend; at least one if there is any.
    fn moved(&self, after: &Picks<'_>) -> u32 {
        let (part, whole) = match (self.columns, after.columns) {
            (None, None) => return 0,
            (Some(before), Some(columns)) if self.is_same(before, after, columns) => return 0,
            (Some(before), Some(columns)) => {
                (self.moved_hashes(before, after, columns), HASHES.into())
            }
            _ => self.differing(after),
        };
        (part * MILLION).div_ceil(whole) as u32
    }

    /// The usual case, without a look at each column.
    fn is_same(&self, columns: &[u16], after: &Picks<'_>, others: &[u16]) -> bool {
        let numbers =
            |picks: &Picks<'_>| -> Vec<u32> { picks.lut.iter().map(|row| row.backend).collect() };
        std::ptr::eq(columns, others) && numbers(self) == numbers(after)
    }

    /// The hashes whose backend changes. A table of M columns has column `hash × M >> 32` for a hash.
    fn moved_hashes(&self, columns: &[u16], after: &Picks<'_>, others: &[u16]) -> u128 {
        let end =
            |column: usize, of: &[u16]| (HASHES * (column as u64 + 1)).div_ceil(of.len() as u64);
        let (mut from, mut moved) = (0, 0);
        let (mut own, mut other) = (0, 0);
        while let (Some(before), Some(now)) = (columns.get(own), others.get(other)) {
            let (own_end, other_end) = (end(own, columns), end(other, others));
            let to = own_end.min(other_end);
            if self.address(self.lut.get(usize::from(*before)))
                != after.address(after.lut.get(usize::from(*now)))
            {
                moved += to - from;
            }
            from = to;
            own += usize::from(own_end == to);
            other += usize::from(other_end == to);
        }
        moved.into()
    }

    /// The probability that two independent picks differ, as part and whole.
    fn differing(&self, after: &Picks<'_>) -> (u128, u128) {
        let (own, own_total) = self.shares();
        let (others, total) = after.shares();
        let same = own
            .iter()
            .map(|(address, share)| share * others.get(address).copied().unwrap_or_default());
        let whole = own_total * total;
        (whole - same.sum::<u128>(), whole)
    }

    /// Each backend's share of the new connections, and their sum.
    fn shares(&self) -> (BTreeMap<Option<SocketAddr>, u128>, u128) {
        let mut shares: BTreeMap<Option<SocketAddr>, u128> = BTreeMap::new();
        for column in self.columns.unwrap_or_default() {
            let row = self.lut.get(usize::from(*column));
            *shares.entry(self.address(row)).or_default() += 1;
        }
        for row in self.lut.iter().filter(|_| self.columns.is_none()) {
            let own = u128::from(row.threshold) + 1;
            *shares.entry(self.address(Some(row))).or_default() += own;
            let alias = self.state.backends.get(&row.alias);
            let alias = alias.map(|backend| backend.address);
            *shares.entry(alias).or_default() += u128::from(HASHES) - own;
        }
        let total = shares.values().sum();
        (shares, total)
    }

    fn address(&self, row: Option<&LutEntry>) -> Option<SocketAddr> {
        let backend = self.state.backends.get(&row?.backend)?;
        Some(backend.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::service::Algorithm;
    use crate::plan::diff;
    use crate::plan::testing::TestConfig;

    const FRONTENDS: &str = "10.32.0.1:80/tcp 10.32.0.1:80/udp [fd00:32::1]:80/tcp";

    /// A service with Maglev, and one that nothing changes.
    fn with(backends: &str) -> TestConfig {
        let test = TestConfig::new()
            .service("other", "10.32.0.2:80/tcp", "10.9.0.1:1 10.9.0.2:1")
            .service("s", FRONTENDS, backends);
        maglev(maglev(test, "other"), "s")
    }

    fn maglev(mut test: TestConfig, service: &str) -> TestConfig {
        let service = test.config.services.get_mut(service).unwrap();
        service.algorithm = Algorithm::Maglev;
        test
    }

    fn random(mut test: TestConfig) -> TestConfig {
        let service = test.config.services.get_mut("s").unwrap();
        service.algorithm = Algorithm::Random;
        test
    }

    fn affine(mut test: TestConfig) -> TestConfig {
        let service = test.config.services.get_mut("s").unwrap();
        service.affinity = std::time::Duration::from_secs(1);
        test
    }

    fn sized(mut test: TestConfig, size: u32) -> TestConfig {
        let service = test.config.services.get_mut("s").unwrap();
        service.table_size = Some(size);
        test
    }

    /// `10.0.0.1:1` to `10.0.0.COUNT:1`.
    fn many(count: usize) -> String {
        let backends = (1..=count).map(|n| format!("10.0.0.{n}:1"));
        backends.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_line_of_the_service_has_the_share() {
        let two = "10.0.0.1:1 10.0.0.2:1";
        let rows: [(&str, TestConfig, TestConfig, &[&str]); 13] = [
            ("nothing", with(two), with(two), &[]),
            (
                "all go to the other one",
                with("10.0.0.1:1"),
                with("10.0.0.2:1"),
                &["~ service s: 100.0 % of new connections go to another backend"],
            ),
            (
                "the half of one that drains",
                with(two),
                with("10.0.0.1:1 10.0.0.2:1!draining"),
                &["~ service s: 49.8 % of new connections go to another backend, no open one does"],
            ),
            (
                "clients keep what they have",
                affine(with(two)),
                affine(with("10.0.0.1:1 10.0.0.2:1!draining")),
                &[
                    "~ service s: 49.8 % of new clients' connections go to another backend, no open one does",
                ],
            ),
            (
                "they have none yet",
                with(two),
                affine(with("10.0.0.1:1 10.0.0.2:1!draining")),
                &[
                    "~ service s affinity none → 1s: 49.8 % of new connections go to another backend, no open one does",
                ],
            ),
            (
                "maintenance moves open ones too",
                with(two),
                with("10.0.0.1:1 10.0.0.2:1!maintenance"),
                &["~ service s: 49.8 % of new connections go to another backend"],
            ),
            (
                "back from maintenance",
                with("10.0.0.1:1 10.0.0.2:1!maintenance"),
                with(two),
                &["~ service s: 49.8 % of new connections go to another backend, no open one does"],
            ),
            ("the first backend", with(""), with("10.0.0.1:1"), &[]),
            (
                "a hash in the place of chance",
                random(with(two)),
                with(two),
                &[
                    "~ service s algorithm random → maglev, table size none → 251: 50.0 % of new connections go to another \
                     backend, no open one does",
                ],
            ),
            (
                "and chance in the place of a hash",
                with("10.0.0.1:1*3 10.0.0.2:1"),
                random(with("10.0.0.1:1*3 10.0.0.2:1")),
                &[
                    "~ service s algorithm maglev → random, table size 251 → none: 37.5 % of new connections go to another \
                     backend, no open one does",
                ],
            ),
            (
                "the size that it has is pinned",
                with(two),
                sized(with(two), 251),
                &[],
            ),
            (
                "a size of one backend",
                with("10.0.0.1:1"),
                sized(with("10.0.0.1:1"), 1021),
                &["~ service s table size 251 → 1021"],
            ),
            (
                "another family",
                with("10.0.0.1:1 [fd00::1]:1"),
                with("10.0.0.1:1 [fd00::2]:1"),
                &["~ service s: 100.0 % of new connections go to another backend"],
            ),
        ];
        for (what, before, after, expected) in rows {
            let old = before.compile();
            let new = after.compile_after(&old);
            let changes = diff(&old, &new);
            let of_service: Vec<String> = changes
                .iter()
                .filter(|change| change.object == Object::service("s"))
                .map(Change::to_string)
                .collect();
            assert_eq!(of_service, expected, "{what}");
            assert!(changes.is_sorted_by_key(|change| &change.object), "{what}");
        }
    }

    /// (what moved, of a million) of the service.
    fn share(old: &State, new: &State) -> u32 {
        let changes = diff(old, new);
        let mut shares = changes
            .iter()
            .filter_map(|change| change.effect.moved_share);
        shares.next().map_or(0, |share| share.per_million)
    }

    #[test]
    fn shares_are_those_of_the_hashes() {
        let ten = many(10);
        let rows = [
            (with(&ten), with(&many(9)), 100_000..150_000),
            (with(&many(9)), with(&ten), 100_000..150_000),
            (with(&many(5)), with(&many(6)), 700_000..950_000),
            (with(&ten), sized(with(&ten), 2039), 850_000..950_000),
            (with(&ten), sized(with(&ten), 251), 850_000..950_000),
        ];
        for (before, after, expected) in rows {
            let old = before.compile();
            let new = after.compile_after(&old);
            let moved = share(&old, &new);
            assert!(expected.contains(&moved), "{moved}");
            // Of each protocol, look at the hashes one after the other.
            let (picks, others) = (picks(&old, &new), super::picks(&new, &old));
            let looked_at = picks.iter().map(|(key, before)| {
                let after = &others[key];
                let backend = |of: &Picks<'_>, hash: u64| {
                    let columns = of.columns.unwrap();
                    let column = columns[((hash * columns.len() as u64) >> 32) as usize];
                    of.address(of.lut.get(usize::from(column)))
                };
                let step = 1 << 16;
                let hashes = (0..HASHES).step_by(step);
                let moved = hashes.filter(|hash| backend(before, *hash) != backend(after, *hash));
                moved.count() as u64 * step as u64 * 1_000_000 / HASHES
            });
            let most = looked_at.max().unwrap();
            assert!(most.abs_diff(moved.into()) < 4000, "{most} {moved}");
        }
    }
}
