//! Node ports: frontends at every address of this host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::host::HostState;
use crate::model::state::AddressScope;
use crate::plan::ipcache::Owners;

/// The addresses at which node ports answer: none that a workload has.
pub fn own_addresses(host: &HostState, owners: &Owners) -> BTreeSet<IpAddr> {
    let own = host.unicast_addresses();
    own.filter(|address| owners.scope(*address) == AddressScope::Host)
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::config::XdpMode;
    use crate::plan::testing::{TestConfig, ip, net};

    /// The frontends of a service as `ADDRESS:PORT/PROTOCOL`.
    fn frontends(test: &TestConfig, service: &str) -> Vec<String> {
        let state = test.compile();
        let services = state.services.iter();
        let own =
            services.filter(|(_, entry)| state.catalog.services[&entry.service].name == service);
        own.map(|(frontend, _)| frontend.to_string()).collect()
    }

    #[test]
    fn a_node_port_answers_at_every_unicast_address_of_the_host() {
        let mut test = TestConfig::new()
            .uplink("ens5", XdpMode::Auto)
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1 10.1.2.0/24")
            .service("s", "", "10.1.1.1:80 [fd00::1]:80")
            .external("s", "8443/tcp");
        test.host.addresses = [
            "127.0.0.1",
            "::1",
            "169.254.1.1",
            "192.0.2.1",
            "2001:db8::1",
            "fe80::1",
            "10.1.1.1",
            "10.1.2.1",
        ]
        .map(ip)
        .into();
        test.host.local_prefixes = [net("192.0.2.255/32"), net("198.51.100.0/24")].into();
        let of_hosts = [
            "10.1.2.1:8443/tcp",
            "192.0.2.1:8443/tcp",
            "[2001:db8::1]:8443/tcp",
        ];
        assert_eq!(frontends(&test, "s"), of_hosts);
        test.host.addresses.insert(ip("192.0.2.7"));
        assert_eq!(frontends(&test, "s").len(), 4, "one that comes later");
        let test = test
            .service("s", "203.0.113.1:80/tcp", "10.1.1.1:80")
            .external("s", "8443/tcp 8443/udp");
        assert_eq!(
            frontends(&test, "s").join(" "),
            "10.1.2.1:8443/tcp 10.1.2.1:8443/udp 192.0.2.1:8443/tcp 192.0.2.1:8443/udp 192.0.2.7:8443/tcp \
             192.0.2.7:8443/udp 203.0.113.1:80/tcp",
            "the families of the backends"
        );
    }

    #[test]
    fn a_frontend_that_names_the_address_takes_precedence() {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let test = TestConfig::new()
                .service(first, "", "10.1.1.1:80")
                .external(first, "80/tcp")
                .service(second, "192.0.2.1:80/tcp", "10.1.1.2:80");
            let mut test = test;
            test.host.addresses.insert(ip("192.0.2.2"));
            assert_eq!(frontends(&test, first), ["192.0.2.2:80/tcp"]);
            assert_eq!(frontends(&test, second), ["192.0.2.1:80/tcp"]);
            let state = test.compile();
            let external: Vec<bool> = state.services.values().map(|s| s.is_external).collect();
            assert_eq!(external, [false, true], "{first}");
        }
    }
}
