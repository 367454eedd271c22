//! Backends that get no new connections any more: since when, and until when they keep theirs.
//!
//! The time runs while a backend drains, or since it has left the file. It stands still, and starts again, while there is no
//! active backend and draining ones get the new connections.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::model::catalog::{BackendInfo, Catalog};
use crate::model::service::BackendState;
use crate::model::state::{AddressScope, Backend};
use crate::plan::ipcache::Owners;
use crate::plan::settings::nanoseconds;

/// What the plan knows of earlier generations, and the time.
#[derive(Clone, Copy)]
pub struct DrainClock<'a> {
    pub previous: &'a Catalog,
    pub owners: &'a Owners,
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub now_ns: u64,
}

/// The backends of a service: rows and infos by number.
pub struct Backends<'a> {
    pub rows: &'a mut BTreeMap<u32, Backend>,
    pub infos: &'a mut BTreeMap<u32, BackendInfo>,
}

impl DrainClock<'_> {
    /// Notes since when the backends of the file drain; `timeout`: how long they may, zero: without end.
    pub fn mark_draining(&self, timeout: Duration, backends: &mut Backends<'_>) {
        let draining = |row: &Backend| row.state == BackendState::Draining && !row.is_picked;
        for (number, row) in backends.rows.iter_mut().filter(|(_, row)| draining(row)) {
            let since = self.since(self.previous.backends.get(number));
            if !timeout.is_zero() && self.is_over(since, timeout) {
                row.state = BackendState::Drained;
            }
            if let Some(info) = backends.infos.get_mut(number) {
                info.drains_since_ns = Some(since);
            }
        }
    }

    /// Adds those that the live generation has and the file does not, for as long as their connections may continue. `known` are
    /// those of the service in the live generation.
    pub fn keep_removed(
        &self,
        known: &[(u32, &BackendInfo)],
        timeout: Duration,
        backends: &mut Backends<'_>,
    ) {
        if timeout.is_zero() {
            return;
        }
        for (number, info) in known {
            if backends.rows.contains_key(number) {
                continue;
            }
            let since = self.since(Some(info));
            if self.is_over(since, timeout) || self.is_gone(info.address.ip()) {
                continue;
            }
            let row = Backend {
                service: info.service,
                address: info.address,
                state: BackendState::Removed,
                weight: 0,
                is_picked: false,
            };
            backends.rows.insert(*number, row);
            let info = BackendInfo {
                drains_since_ns: Some(since),
                ..(*info).clone()
            };
            backends.infos.insert(*number, info);
        }
    }

    /// Since when a backend, as the live generation has it, gets no new connections.
    fn since(&self, known: Option<&BackendInfo>) -> u64 {
        let since = known.and_then(|info| info.drains_since_ns);
        since.unwrap_or(self.now_ns)
    }

    fn is_over(&self, since: u64, timeout: Duration) -> bool {
        self.now_ns >= since.saturating_add(nanoseconds(timeout))
    }

    /// Whether the address was a workload's of this host and is nobody's now: who is not there can't end its connections.
    fn is_gone(&self, address: IpAddr) -> bool {
        let mut endpoints = self.previous.endpoints.values();
        let was_here = endpoints.any(|info| {
            let mut prefixes = info.addresses.iter();
            prefixes.any(|prefix| prefix.contains(&address))
        });
        let is_here = matches!(self.owners.scope(address), AddressScope::Endpoint { .. });
        was_here && !is_here
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::model::state::State;
    use crate::plan::testing::TestConfig;

    const SECOND: u64 = 1_000_000_000;

    /// From one generation to the next: the second, the backends of the file, and those of the state.
    type Step = (u64, &'static str, &'static str);

    /// A service with a drain timeout of ten seconds, as it is `second` seconds after the start.
    fn test(second: u64, backends: &str) -> TestConfig {
        let mut test = TestConfig::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1")
            .service("s", "10.32.0.1:1/tcp [fd00:32::1]:1/tcp", backends);
        test.config.services.get_mut("s").unwrap().drain_timeout = Duration::from_secs(10);
        test.now_ns = second * SECOND;
        test
    }

    /// The backends as `10.9.0.1:1 draining 12`: the second at which they lose their connections.
    fn backends(state: &State) -> String {
        let backends = state.backends.iter().map(|(number, row)| {
            assert_eq!(state.catalog.backends[number].address, row.address);
            let end = state.drain_end_ns(*number).map(|end| end / SECOND);
            let end = end.map_or_else(String::new, |end| format!(" {end}"));
            format!("{} {}{end}", row.address, row.state)
        });
        backends.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn time_runs_for_backends_that_get_no_new_connections() {
        const BOTH: &str = "10.9.0.1:1 10.9.0.2:1";
        const DRAINING: &str = "10.9.0.1:1!draining 10.9.0.2:1";
        const ALONE: &str = "10.9.0.2:1";
        let rows: [(&str, &[Step]); 9] = [
            (
                "one drains",
                &[
                    (1, BOTH, "10.9.0.1:1 active, 10.9.0.2:1 active"),
                    (2, DRAINING, "10.9.0.1:1 draining 12, 10.9.0.2:1 active"),
                    (11, DRAINING, "10.9.0.1:1 draining 12, 10.9.0.2:1 active"),
                    (12, DRAINING, "10.9.0.1:1 drained, 10.9.0.2:1 active"),
                    (13, DRAINING, "10.9.0.1:1 drained, 10.9.0.2:1 active"),
                    (14, BOTH, "10.9.0.1:1 active, 10.9.0.2:1 active"),
                    (15, DRAINING, "10.9.0.1:1 draining 25, 10.9.0.2:1 active"),
                ],
            ),
            (
                "one leaves",
                &[
                    (1, BOTH, "10.9.0.1:1 active, 10.9.0.2:1 active"),
                    (2, ALONE, "10.9.0.1:1 removed 12, 10.9.0.2:1 active"),
                    (11, ALONE, "10.9.0.1:1 removed 12, 10.9.0.2:1 active"),
                    (12, ALONE, "10.9.0.2:1 active"),
                    (13, ALONE, "10.9.0.2:1 active"),
                ],
            ),
            (
                "one that has left is back",
                &[
                    (1, BOTH, "10.9.0.1:1 active, 10.9.0.2:1 active"),
                    (2, ALONE, "10.9.0.1:1 removed 12, 10.9.0.2:1 active"),
                    (3, BOTH, "10.9.0.1:1 active, 10.9.0.2:1 active"),
                    (4, ALONE, "10.9.0.1:1 removed 14, 10.9.0.2:1 active"),
                ],
            ),
            (
                "one that drains leaves: one time for both",
                &[
                    (1, DRAINING, "10.9.0.1:1 draining 11, 10.9.0.2:1 active"),
                    (5, ALONE, "10.9.0.1:1 removed 11, 10.9.0.2:1 active"),
                ],
            ),
            (
                "one that has drained leaves",
                &[
                    (1, DRAINING, "10.9.0.1:1 draining 11, 10.9.0.2:1 active"),
                    (11, DRAINING, "10.9.0.1:1 drained, 10.9.0.2:1 active"),
                    (12, ALONE, "10.9.0.2:1 active"),
                ],
            ),
            (
                "under maintenance no time runs",
                &[(
                    1,
                    "10.9.0.1:1!maintenance 10.9.0.2:1",
                    "10.9.0.1:1 maintenance, 10.9.0.2:1 active",
                )],
            ),
            (
                "the only ones get new connections",
                &[
                    (1, DRAINING, "10.9.0.1:1 draining 11, 10.9.0.2:1 active"),
                    (11, DRAINING, "10.9.0.1:1 drained, 10.9.0.2:1 active"),
                    (
                        12,
                        "10.9.0.1:1!draining",
                        "10.9.0.1:1 draining, 10.9.0.2:1 removed 22",
                    ),
                    (13, DRAINING, "10.9.0.1:1 draining 23, 10.9.0.2:1 active"),
                ],
            ),
            (
                "each family has its own",
                &[(
                    1,
                    "10.9.0.1:1!draining [fd00::9]:1",
                    "10.9.0.1:1 draining, [fd00::9]:1 active",
                )],
            ),
            (
                "a workload of this host that is gone is not waited for",
                &[
                    (
                        1,
                        "10.1.1.1:1 10.9.0.2:1",
                        "10.1.1.1:1 active, 10.9.0.2:1 active",
                    ),
                    (2, ALONE, "10.1.1.1:1 removed 12, 10.9.0.2:1 active"),
                    (3, "no interface: 10.9.0.2:1", "10.9.0.2:1 active"),
                ],
            ),
        ];
        for (what, steps) in rows {
            let mut state = State::default();
            for (second, of_file, expected) in steps {
                let alone = of_file.strip_prefix("no interface: ");
                let mut test = test(*second, alone.unwrap_or(of_file));
                if alone.is_some() {
                    test.host.links.clear();
                }
                state = test.compile_after(&state);
                assert_eq!(backends(&state), *expected, "{what}, second {second}");
                let again = test.compile_after(&state);
                assert_eq!(again, state, "{what}: it is settled");
            }
        }
    }

    #[test]
    fn without_a_timeout_one_that_leaves_is_gone() {
        let before = test(1, "10.9.0.1:1 10.9.0.2:1").compile();
        let mut after = test(2, "10.9.0.2:1!draining 10.9.0.3:1");
        after.config.services.get_mut("s").unwrap().drain_timeout = Duration::ZERO;
        let state = after.compile_after(&before);
        let expected = "10.9.0.2:1 draining, 10.9.0.3:1 active";
        assert_eq!(backends(&state), expected);
        assert_eq!(state.next_drain_end_ns(), None);
        // A timeout that is set later counts from the start of draining.
        let later = test(5, "10.9.0.2:1!draining 10.9.0.3:1").compile_after(&state);
        assert_eq!(later.next_drain_end_ns(), Some(12 * SECOND));
        let late = test(20, "10.9.0.2:1!draining 10.9.0.3:1").compile_after(&state);
        assert_eq!(backends(&late), "10.9.0.2:1 drained, 10.9.0.3:1 active");
    }
}
