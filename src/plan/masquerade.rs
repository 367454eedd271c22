//! Masquerade: which families and destinations it concerns.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::config::{Config, Interface};
use crate::model::families::Families;

/// The families that some uplink masquerades.
pub fn families(config: &Config) -> Families {
    let mut found = Families::default();
    for interface in config.interfaces.values() {
        if let Interface::Uplink { masquerade, .. } = interface {
            found = found.union(*masquerade);
        }
    }
    found
}

/// The prefixes of the world that see the workloads' own addresses: those of the file, and of the other nodes' workloads. The nodes'
/// own addresses are no part of the world.
pub fn exempt(config: &Config) -> BTreeSet<IpNet> {
    if families(config).is_empty() {
        return BTreeSet::new();
    }
    let nodes = config.nodes.values();
    let workloads = nodes.flat_map(|node| {
        let endpoints = node.endpoints.keys();
        let endpoints = endpoints.map(|address| IpNet::from(*address));
        node.cidrs.iter().map(IpNet::trunc).chain(endpoints)
    });
    workloads
        .chain(config.masquerade.except.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::model::state::SnatRole;
    use crate::plan::testing::{TestConfig, ip, net};

    #[test]
    fn the_ipcache_says_what_is_masqueraded() {
        let mut test = TestConfig::new()
            .uplink("ens5", XdpMode::Auto)
            .identity("web", 300, "")
            .identity("far", 301, "")
            .endpoint("web", "web", "10.1.1.1")
            .cidrs("far", "203.0.113.0/24 10.2.1.0/24")
            .node("node-b", "192.0.2.2", "10.2.0.0/16")
            .node("node-c", "192.0.2.3", "")
            .node_endpoints("node-c", "10.3.0.1=far");
        test.host.links.get_mut("ens5").unwrap().unsteady = [ip("192.0.2.9")].into();
        test.host.addresses.insert(ip("192.0.2.9"));
        test.host.local_prefixes = [net("127.0.0.0/8"), net("192.0.2.255/32")].into();
        test.config.masquerade.except = vec![net("198.51.0.0/16")];
        let role = |test: &TestConfig, address: &str| {
            let state = test.compile();
            let entry = crate::plan::ipcache::find(&state, ip(address)).unwrap();
            entry.snat
        };
        assert_eq!(
            role(&test, "8.8.8.8"),
            SnatRole::None,
            "no uplink masquerades"
        );
        if let Some(Interface::Uplink { masquerade, .. }) = test.config.interfaces.get_mut("ens5") {
            *masquerade = Families::IPV4;
        }
        let rows = [
            ("the world", "8.8.8.8", SnatRole::Masqueraded),
            (
                "the world of the other family",
                "2001:db8::9",
                SnatRole::None,
            ),
            ("an identity's prefix", "203.0.113.9", SnatRole::Masqueraded),
            ("an exception", "198.51.100.7", SnatRole::None),
            ("another node", "192.0.2.2", SnatRole::None),
            ("a workload behind it", "10.2.0.9", SnatRole::None),
            ("one that an identity names", "10.2.1.9", SnatRole::None),
            ("one of a node's endpoints", "10.3.0.1", SnatRole::None),
            ("next to it", "10.3.0.2", SnatRole::Masqueraded),
            ("a workload", "10.1.1.1", SnatRole::None),
            ("the host", "192.0.2.1", SnatRole::Source),
            ("an address that does not last", "192.0.2.9", SnatRole::Host),
            ("broadcast", "192.0.2.255", SnatRole::None),
            ("loopback", "127.0.0.1", SnatRole::None),
        ];
        for (what, address, expected) in rows {
            assert_eq!(role(&test, address), expected, "{what}");
        }
    }
}
