//! Which backends get new connections.

use std::collections::BTreeMap;

use crate::model::service::{BackendState, Locality};
use crate::model::state::{AddressScope, Backend};
use crate::plan::ipcache::Owners;

/// Where a backend may be.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    Here,
    Anywhere,
}

/// The backends for new connections, with their weights: the active ones, or, if there is none, the draining ones, as in
/// Kubernetes (KEP-1669). Those of an endpoint whose interface is there are on this host.
pub fn usable(
    backends: &BTreeMap<u32, Backend>,
    is_ipv4: bool,
    locality: Locality,
    owners: &Owners,
) -> Vec<(u32, u16)> {
    use BackendState::{Active, Draining};
    let is_here = |backend: &Backend| {
        let scope = owners.scope(backend.address.ip());
        matches!(scope, AddressScope::Endpoint { .. })
    };
    let choose = |(state, place): (BackendState, Where)| -> Vec<(u32, u16)> {
        let backends = backends.iter().filter(|(_, backend)| {
            backend.address.is_ipv4() == is_ipv4
                && backend.state == state
                && backend.weight > 0
                && (place == Where::Anywhere || is_here(backend))
        });
        backends
            .map(|(number, backend)| (*number, backend.weight))
            .collect()
    };
    let (here, anywhere) = (Where::Here, Where::Anywhere);
    let choices: &[(BackendState, Where)] = match locality {
        Locality::Any => &[(Active, anywhere), (Draining, anywhere)],
        Locality::Prefer => &[
            (Active, here),
            (Active, anywhere),
            (Draining, here),
            (Draining, anywhere),
        ],
        Locality::Only => &[(Active, here), (Draining, here)],
    };
    let mut chosen = choices.iter().map(|choice| choose(*choice));
    chosen.find(|usable| !usable.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::TestConfig;

    #[test]
    fn locality_decides_where_backends_are_picked() {
        use Locality::{Any, Only, Prefer};
        // 10.1.1.1 and 10.1.2.0/24 are here, 10.1.3.1 is pending, 10.1.2.1 is the host's.
        let (here, there) = ("10.1.1.1:1", "10.9.0.1:1");
        let rows: [(&str, Locality, &[&str], &str); 17] = [
            ("any", Any, &[here, there], "1 2"),
            ("prefer", Prefer, &[here, there], "1"),
            ("only", Only, &[here, there], "1"),
            ("behind an endpoint", Prefer, &["10.1.2.9:1", there], "1"),
            ("the host's own", Prefer, &["10.1.2.1:1", there], "1 2"),
            ("pending, any", Any, &["10.1.3.1:1", there], "1 2"),
            ("pending, prefer", Prefer, &["10.1.3.1:1", there], "1 2"),
            ("pending, only", Only, &["10.1.3.1:1", there], ""),
            ("none here, prefer", Prefer, &[there], "1"),
            ("none here, only", Only, &[there], ""),
            ("weight 0 here", Prefer, &["10.1.1.1:1*0", there], "2"),
            (
                "draining here, prefer",
                Prefer,
                &["10.1.1.1:1!draining", there],
                "2",
            ),
            (
                "draining here, only",
                Only,
                &["10.1.1.1:1!draining", there],
                "1",
            ),
            (
                "draining everywhere, any",
                Any,
                &["10.1.1.1:1!draining", "10.9.0.1:1!draining"],
                "1 2",
            ),
            (
                "draining everywhere, prefer",
                Prefer,
                &["10.1.1.1:1!draining", "10.9.0.1:1!draining"],
                "1",
            ),
            (
                "draining there alone, prefer",
                Prefer,
                &["10.1.1.1:1!maintenance", "10.9.0.1:1!draining"],
                "2",
            ),
            ("maintenance, only", Only, &["10.1.1.1:1!maintenance"], ""),
        ];
        for (what, locality, backends, expected) in rows {
            let mut test = TestConfig::new()
                .identity("web", 300, "")
                .identity("all", 301, "")
                .cidrs("all", "10.0.0.0/8")
                .endpoint("web", "web", "10.1.1.1 10.1.2.0/24")
                .endpoint("gone", "web", "10.1.3.1")
                .service("s", "10.32.0.1:1/tcp", &backends.join(" "));
            test.host.links.remove("lxc-gone");
            test.host.addresses.insert("10.1.2.1".parse().unwrap());
            test.config.services.get_mut("s").unwrap().locality = locality;
            let state = test.compile();
            let picked = state.backend_lut.iter().map(|row| row.backend.to_string());
            assert_eq!(picked.collect::<Vec<_>>().join(" "), expected, "{what}");
        }
    }
}
