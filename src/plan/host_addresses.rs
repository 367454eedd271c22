//! From which of its addresses the host sends the errors that it makes itself: ICMP's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::{Config, Interface};
use crate::model::host::{HostState, is_routable};
use crate::model::state::HostAddresses;

/// By which the network knows the node: the first of the file, else of the uplinks, else of the host, of those that are routable
/// beyond a link.
pub fn of_node(config: &Config, host: &HostState) -> HostAddresses {
    let named = config.node.addresses.iter().flatten();
    let uplinks = config
        .interfaces
        .iter()
        .filter(|(_, role)| matches!(role, Interface::Uplink { .. }))
        .filter_map(|(name, _)| host.links.get(name))
        .flat_map(|link| &link.addresses);
    first(named.chain(uplinks).chain(&host.addresses))
}

/// On a link with these addresses: the first of them, else the node's, as the kernel chooses for a link without any.
pub fn on_link(addresses: &BTreeSet<IpAddr>, node: HostAddresses) -> HostAddresses {
    let own = first(addresses.iter());
    HostAddresses {
        ipv4: own.ipv4.or(node.ipv4),
        ipv6: own.ipv6.or(node.ipv6),
    }
}

/// The first of each family that is routable beyond a link.
pub fn first<'a>(candidates: impl Iterator<Item = &'a IpAddr>) -> HostAddresses {
    let mut found = HostAddresses::default();
    for address in candidates.filter(|address| is_routable(**address)) {
        match address {
            IpAddr::V4(v4) => {
                found.ipv4.get_or_insert(*v4);
            }
            IpAddr::V6(v6) => {
                found.ipv6.get_or_insert(*v6);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::plan::testing::{TestConfig, ip};

    fn text(addresses: HostAddresses) -> String {
        let ipv4 = addresses.ipv4.map(|v4| v4.to_string());
        let ipv6 = addresses.ipv6.map(|v6| v6.to_string());
        format!("{} {}", ipv4.unwrap_or_default(), ipv6.unwrap_or_default())
    }

    #[test]
    fn the_node_sends_from_the_address_that_the_network_knows() {
        let mut test = TestConfig::new().uplink("ens5", XdpMode::Auto);
        test.host.addresses = ["10.0.0.1", "127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"]
            .map(ip)
            .into();
        let ens5 = test.host.links.get_mut("ens5").unwrap();
        ens5.addresses = [ip("192.0.2.1"), ip("fe80::5")].into();
        let found = |test: &TestConfig| text(of_node(&test.config, &test.host));
        assert_eq!(found(&test), "192.0.2.1 2001:db8::1", "the uplink's");
        test.config.node.addresses = Some(vec![ip("198.51.100.1")]);
        assert_eq!(found(&test), "198.51.100.1 2001:db8::1", "the file's");
        test.config.node.addresses = None;
        test.config.interfaces.clear();
        assert_eq!(found(&test), "10.0.0.1 2001:db8::1", "the host's first");
    }

    #[test]
    fn a_links_own_address_goes_before_the_nodes() {
        let node = first([ip("192.0.2.1"), ip("2001:db8::1")].iter());
        let rows: [(&str, &[&str], &str); 4] = [
            ("none", &[], "192.0.2.1 2001:db8::1"),
            ("one", &["10.1.1.1", "10.1.1.2"], "10.1.1.1 2001:db8::1"),
            ("both", &["10.1.1.1", "fd00::1"], "10.1.1.1 fd00::1"),
            (
                "of the link alone",
                &["169.254.1.1", "fe80::1"],
                "192.0.2.1 2001:db8::1",
            ),
        ];
        for (what, own, expected) in rows {
            let own = own.iter().map(|address| ip(address)).collect();
            assert_eq!(text(on_link(&own, node)), expected, "{what}");
        }
    }
}
