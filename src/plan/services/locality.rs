//! Services that take backends of this host alone, and have none.

use std::net::IpAddr;

use crate::config::{Backend, Config, Members, ServiceBackend};
use crate::model::families::Families;
use crate::model::host::HostState;
use crate::model::service::{BackendState, Locality};
use crate::model::state::AddressScope;
use crate::plan::endpoints;
use crate::plan::ipcache::Owners;

pub fn warnings(config: &Config, host: &HostState) -> Vec<String> {
    let services = config.services.iter();
    let mut only = services
        .filter(|(_, service)| service.locality == Locality::Only)
        .peekable();
    if only.peek().is_none() {
        return Vec::new();
    }
    let owners = Owners::new(config, host, &endpoints::declared(config, host));
    let is_here = |address: IpAddr| {
        let scope = owners.scope(address);
        matches!(scope, AddressScope::Endpoint { .. } | AddressScope::Pending)
    };
    // A pending endpoint counts: it is here as soon as its interface is.
    let members = Members::new(config, |_| true);
    let families = [(Families::IPV4, "IPv4"), (Families::IPV6, "IPv6")];
    let mut warnings = Vec::new();
    for (name, service) in only {
        let backends = members.backends(service);
        let lacking = families
            .iter()
            .filter(|(family, _)| has_none_here(&backends, *family, is_here));
        warnings.extend(lacking.map(|(_, family)| {
            format!(
                "service {name} has locality = \"only\", and no {family} backend that takes connections is an endpoint of this \
                 host: clients get an ICMP port unreachable; add one, or set locality = \"prefer\""
            )
        }));
    }
    warnings
}

/// Not true of a service without any backend for new connections: the file alone says that.
fn has_none_here(
    backends: &[ServiceBackend<'_>],
    family: Families,
    is_here: impl Fn(IpAddr) -> bool,
) -> bool {
    let is_usable = |backend: &Backend| {
        let takes_new = backend.weight > 0 && backend.state != BackendState::Maintenance;
        takes_new && family.covers(backend.address.ip())
    };
    let backends = backends.iter().map(|found| &found.backend);
    let mut usable = backends
        .filter(|backend| is_usable(backend))
        .map(|backend| backend.address.ip())
        .peekable();
    usable.peek().is_some() && !usable.any(is_here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::TestConfig;

    #[test]
    fn a_service_that_takes_backends_of_this_host_and_has_none_is_warned_of() {
        use Locality::{Any, Only, Prefer};
        let rows = [
            ("any", Any, "10.9.0.1:80", ""),
            ("prefer", Prefer, "10.9.0.1:80", ""),
            ("elsewhere", Only, "10.9.0.1:80", "IPv4"),
            ("IPv6", Only, "10.1.1.1:80 [fd00:9::1]:80", "IPv6"),
            ("both", Only, "10.9.0.1:80 [fd00:9::1]:80", "IPv4 IPv6"),
            ("one here", Only, "10.9.0.1:80 10.1.1.1:80", ""),
            ("pending", Only, "10.1.1.2:80", ""),
            (
                "draining here",
                Only,
                "10.1.1.1:80!draining 10.9.0.1:80",
                "",
            ),
            ("weight 0 here", Only, "10.1.1.1:80*0 10.9.0.1:80", "IPv4"),
            (
                "maintenance",
                Only,
                "10.1.1.1:80!maintenance 10.9.0.1:80",
                "IPv4",
            ),
            (
                "none at all",
                Only,
                "10.1.1.1:80!maintenance 10.9.0.1:80*0",
                "",
            ),
            ("the host's own", Only, "192.0.2.1:80", "IPv4"),
        ];
        for (what, locality, backends, expected) in rows {
            let mut test = TestConfig::new()
                .identity("web", 300, "")
                .endpoint("web", "web", "10.1.1.1")
                .endpoint("gone", "web", "10.1.1.2")
                .service("s", "", backends);
            test.host.links.remove("lxc-gone");
            test.config.services.get_mut("s").unwrap().locality = locality;
            let found = warnings(&test.config, &test.host);
            let families: Vec<&str> = ["IPv4", "IPv6"]
                .into_iter()
                .filter(|family| found.iter().any(|warning| warning.contains(family)))
                .collect();
            assert_eq!(families.join(" "), expected, "{what}: {found:?}");
        }
    }
}
