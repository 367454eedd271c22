//! The ipcache: prefixes to identities and peer classes.
//!
//! A peer class is one set of {identity, world or not, all `cidr:` peers that cover the prefix}. Identities alone can't
//! distinguish overlapping prefixes of different rules; classes can: the peers of a rule are a set of whole classes.
//! Prefixes that no rule distinguishes share one class (`policy::CidrClasses`).

mod link_local;
mod lookup;
mod owner;

pub use link_local::LearntClasses;
pub use lookup::{covering, find, find_with_prefix};
pub use owner::Owners;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::catalog::ClassInfo;
use crate::model::families::Families;
use crate::model::host::HostState;
use crate::model::link_local::{is_of_a_link, scope, unscope_prefix};
use crate::model::state::{AddressScope, ExternalFrontend, IpcacheEntry, SnatRole, State};

use super::endpoints::DeclaredEndpoint;
use super::ids::IdAllocator;
use super::inputs::Inputs;
use super::masquerade;
use super::policy::CidrClasses;
use super::snat;
use owner::{Owner, WORLD};

/// What the rows say of addresses.
pub struct Addresses<'a> {
    pub owners: &'a Owners,
    /// The families in which SNAT takes the host's addresses.
    pub snat: Families,
    /// The addresses of external frontends: each has a row of its own.
    pub external: BTreeSet<IpAddr>,
}

impl Addresses<'_> {
    fn external_prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.external.iter().map(|address| IpNet::from(*address))
    }

    fn external_frontend(&self, covered: &Covered, host: &HostState) -> ExternalFrontend {
        let address = covered.prefix.addr();
        let is_single = covered.prefix == IpNet::from(address);
        if !is_single || !self.external.contains(&address) {
            return ExternalFrontend::None;
        }
        let is_of_host = covered.owner.scope == AddressScope::Host;
        match is_of_host && host.receives(address) {
            true => ExternalFrontend::Host,
            false => ExternalFrontend::Routed,
        }
    }
}

/// Fills the ipcache and names the peer classes.
pub fn compile(
    inputs: Inputs<'_>,
    endpoints: &[DeclaredEndpoint<'_>],
    addresses: &Addresses<'_>,
    cidr_classes: &CidrClasses,
    state: &mut State,
) -> LearntClasses {
    let links = link_local::links(endpoints);
    let mut owners = addresses.owners.prefixes().clone();
    link_local::add_owners(inputs, endpoints, &links, &mut owners);
    let previous = inputs.previous;
    let numbered = previous.classes.iter();
    let mut classes = IdAllocator::new(
        numbered.map(|(number, class)| (class.clone(), *number)),
        previous.next.class,
    );
    let masquerade = masquerade::families(inputs.config);
    let exempt = masquerade::exempt(inputs.config);
    let own_rows = exempt.iter().copied().chain(addresses.external_prefixes());
    for covered in covered(&owners, cidr_classes, &links, &exempt, own_rows) {
        let snat = covered.snat_role(masquerade, addresses.snat, inputs.host);
        let external_frontend = addresses.external_frontend(&covered, inputs.host);
        let Covered {
            prefix,
            owner,
            cidrs,
            ..
        } = covered;
        if owners.get(&prefix) == Some(&owner) {
            let prefix = unscope_prefix(prefix);
            let info = state
                .catalog_mut()
                .identities
                .entry(owner.identity)
                .or_default();
            info.addresses.insert(prefix);
        }
        let class = ClassInfo {
            identity: owner.identity,
            world: owner.is_world,
            cidrs,
        };
        let number = classes.number(class.clone());
        state.catalog_mut().classes.insert(number, class);
        let entry = IpcacheEntry {
            identity: owner.identity,
            class: number,
            is_world: owner.is_world,
            scope: owner.scope,
            snat,
            external_frontend,
        };
        state.ipcache.insert(prefix, entry);
    }
    let learnt = link_local::learnt_classes(endpoints, cidr_classes, &mut classes, state);
    state.catalog_mut().next.class = classes.next();
    learnt
}

/// A prefix that needs an entry.
struct Covered {
    prefix: IpNet,
    owner: Owner,
    /// The `cidr:` peers that cover it.
    cidrs: BTreeSet<IpNet>,
    /// Masquerade does not concern it.
    is_exempt: bool,
}

impl Covered {
    fn snat_role(&self, masquerade: Families, snat: Families, host: &HostState) -> SnatRole {
        let address = self.prefix.addr();
        let is_single = self.prefix == IpNet::from(address);
        match self.owner.scope {
            AddressScope::Host if is_single => snat::role_of_own(snat, host, address),
            AddressScope::Remote
                if self.owner.is_world && !self.is_exempt && masquerade.covers(address) =>
            {
                SnatRole::Masqueraded
            }
            _ => SnatRole::None,
        }
    }
}

/// Every prefix that needs an entry.
///
/// In sorted order a prefix follows all that cover it, so a stack of covers is enough. A `cidr:` peer never changes the owner
/// of a prefix. Neither does an identity's prefix inside a prefix that is no part of the world.
fn covered(
    owners: &BTreeMap<IpNet, Owner>,
    cidr_classes: &CidrClasses,
    links: &BTreeSet<u32>,
    exempt: &BTreeSet<IpNet>,
    own_rows: impl Iterator<Item = IpNet>,
) -> Vec<Covered> {
    let defaults = [
        IpNet::from(Ipv4Net::default()),
        IpNet::from(Ipv6Net::default()),
    ];
    let mut prefixes: BTreeSet<IpNet> = defaults.into();
    prefixes.extend(owners.keys().chain(cidr_classes.prefixes()));
    prefixes.extend(own_rows);
    for prefix in cidr_classes.prefixes().filter(|p| is_of_a_link(**p)) {
        prefixes.extend(links.iter().map(|link| scope(*prefix, *link)));
    }

    let mut entries: Vec<Covered> = Vec::with_capacity(prefixes.len());
    let mut covers: Vec<usize> = Vec::new();
    for prefix in prefixes {
        while covers
            .pop_if(|cover| !entries[*cover].prefix.contains(&prefix))
            .is_some()
        {}
        let cover = covers.last().map(|cover| &entries[*cover]);
        let inherited = cover.map_or(WORLD, |cover| cover.owner);
        let mut covering = cover.map_or(BTreeSet::new(), |cover| cover.cidrs.clone());
        let is_exempt = exempt.contains(&prefix) || cover.is_some_and(|cover| cover.is_exempt);
        covering.extend(cidr_classes.representative(unscope_prefix(prefix)));
        covers.push(entries.len());
        let own = owners.get(&prefix).copied();
        let owner = own
            .filter(|own| !own.is_world || inherited.is_world)
            .unwrap_or(inherited);
        entries.push(Covered {
            prefix,
            owner,
            cidrs: covering,
            is_exempt,
        });
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::reserved;
    use crate::plan::testing::{TestConfig, ip, net};

    /// An entry in words: identity, scope, and the `cidr:` peers of its class.
    fn entry(state: &State, address: &str) -> String {
        let entry = find(state, ip(address)).unwrap();
        let class = &state.catalog.classes[&entry.class];
        assert_eq!(
            class.identity, entry.identity,
            "{address}: the class is of the entry's identity"
        );
        let name = state.catalog.identity_name(entry.identity).unwrap();
        let scope = match entry.scope {
            AddressScope::Endpoint { ifindex } => format!("on {ifindex}"),
            AddressScope::Pending => "pending".to_owned(),
            AddressScope::Host => "here".to_owned(),
            AddressScope::Remote => "away".to_owned(),
        };
        let world = if class.world { "world" } else { "own" };
        let cidrs: String = class.cidrs.iter().map(|cidr| format!(" {cidr}")).collect();
        format!("{name} {scope} {world}{cidrs}")
    }

    #[test]
    fn the_longest_prefix_decides() {
        let cidrs = "allow cidr:10.0.0.0/8;deny cidr:10.1.0.0/16;deny cidr:10.1.1.64/26;allow cidr:fd00::/8;\
                     deny cidr:192.0.2.0/24";
        let mut test = TestConfig::new()
            .identity("web", 300, "")
            .identity("db", 301, "")
            .endpoint("web", "web", "10.1.1.0/24 fd00::1")
            .endpoint("db", "db", "10.1.1.7 10.2.0.1")
            .endpoint("gone", "db", "10.3.0.1")
            .identity("far", 302, "")
            .identity("near", 303, "")
            .cidrs("far", "10.0.0.0/9 203.0.113.0/24 10.7.7.0/24")
            .cidrs("near", "10.4.0.0/16 203.0.113.2 2001:db8:4::/48")
            .cidrs("db", "10.5.0.5")
            .node(
                "node-b",
                "203.0.113.1 10.4.0.1 2001:db8:4::1 10.7.0.1",
                "10.6.0.0/16 10.200.0.0/16",
            )
            .policy("p", "web", Some(cidrs), None);
        test.host.links.remove("lxc-gone");
        test.host.addresses.extend([ip("10.1.1.1"), ip("10.2.0.1")]);
        test.host.local_prefixes = [
            "127.0.0.0/8",
            "10.1.1.0/24",
            "10.1.1.255",
            "10.3.0.0/24",
            "10.7.0.0/16",
            "203.0.113.64/26",
            "2001:db8:4::",
            "2001:db8:4:1::/64",
        ]
        .map(net)
        .into();
        test.config.node.addresses = Some(vec![ip("198.51.100.1")]);
        let state = test.compile();
        let rows = [
            ("no owner", "8.8.8.8", "world away world"),
            ("no owner, IPv6", "2001:db8::9", "world away world"),
            (
                "one peer covers it",
                "10.9.0.1",
                "far away world 10.0.0.0/8",
            ),
            (
                "two peers cover it",
                "10.1.2.1",
                "far away world 10.0.0.0/8 10.1.0.0/16",
            ),
            (
                "behind a node, and no identity names it",
                "10.200.0.1",
                "world away world 10.0.0.0/8",
            ),
            (
                "behind a node, and an identity names it",
                "10.6.0.1",
                "far away world 10.0.0.0/8",
            ),
            (
                "the longer prefix of two identities",
                "10.4.0.2",
                "near away world 10.0.0.0/8",
            ),
            (
                "elsewhere, of an identity that is here too",
                "10.5.0.5",
                "db away world 10.0.0.0/8",
            ),
            (
                "an identity's prefix does not change a node's identity",
                "10.4.0.1",
                "remote-node away own 10.0.0.0/8",
            ),
            ("a node, IPv6", "2001:db8:4::1", "remote-node away own"),
            ("next to a node, IPv6", "2001:db8:4::2", "near away world"),
            (
                "a node inside of an identity's prefix",
                "203.0.113.1",
                "remote-node away own",
            ),
            (
                "an address of its own inside of another's prefix",
                "203.0.113.2",
                "near away world",
            ),
            ("an identity's prefix", "203.0.113.3", "far away world"),
            (
                "inside an endpoint's prefix",
                "10.1.1.9",
                "web on 10 own 10.0.0.0/8 10.1.0.0/16",
            ),
            (
                "a peer inside an endpoint's prefix does not change the owner",
                "10.1.1.65",
                "web on 10 own 10.0.0.0/8 10.1.0.0/16 10.1.1.64/26",
            ),
            (
                "an endpoint inside another's prefix",
                "10.1.1.7",
                "db on 11 own 10.0.0.0/8 10.1.0.0/16",
            ),
            (
                "the host inside an endpoint's prefix",
                "10.1.1.1",
                "host here own 10.0.0.0/8 10.1.0.0/16",
            ),
            (
                "an endpoint's address that the host has too",
                "10.2.0.1",
                "db on 11 own 10.0.0.0/8",
            ),
            (
                "an endpoint whose interface is not there",
                "10.3.0.1",
                "db pending own 10.0.0.0/8",
            ),
            ("an endpoint's IPv6", "fd00::1", "web on 10 own fd00::/8"),
            (
                "the host's, inside a peer",
                "192.0.2.1",
                "host here own 192.0.2.0/24",
            ),
            (
                "the host's neighbour",
                "192.0.2.2",
                "world away world 192.0.2.0/24",
            ),
            (
                "the host's by the file alone",
                "198.51.100.1",
                "host here own",
            ),
            ("the host's loopback", "127.1.2.3", "host here own"),
            (
                "a prefix that the host receives",
                "10.7.0.2",
                "host here own 10.0.0.0/8",
            ),
            (
                "an identity's prefix inside of it",
                "10.7.7.7",
                "host here own 10.0.0.0/8",
            ),
            (
                "a node inside of it",
                "10.7.0.1",
                "remote-node away own 10.0.0.0/8",
            ),
            (
                "an identity's prefix around it",
                "203.0.113.65",
                "host here own",
            ),
            (
                "a prefix of the host's around an endpoint's",
                "10.3.0.2",
                "host here own 10.0.0.0/8",
            ),
            (
                "a broadcast address inside of an endpoint's prefix",
                "10.1.1.255",
                "host here own 10.0.0.0/8 10.1.0.0/16",
            ),
            ("an anycast address", "2001:db8:4::", "host here own"),
            ("a prefix, IPv6", "2001:db8:4:1::9", "host here own"),
            (
                "the default of IPv4 does not cover IPv6",
                "::1",
                "world away world",
            ),
        ];
        for (what, address, expected) in rows {
            assert_eq!(entry(&state, address), expected, "{what}: {address}");
        }
        let addresses = |id: u32| state.catalog.identities[&id].addresses.clone();
        assert_eq!(addresses(300), [net("10.1.1.0/24"), net("fd00::1")].into());
        assert_eq!(
            addresses(301),
            ["10.1.1.7", "10.2.0.1", "10.3.0.1", "10.5.0.5"]
                .map(net)
                .into()
        );
        let nodes = ["203.0.113.1", "10.4.0.1", "2001:db8:4::1", "10.7.0.1"].map(net);
        assert_eq!(addresses(reserved::REMOTE_NODE), nodes.into());
        assert_eq!(addresses(reserved::WORLD), [].into());
        assert!(addresses(reserved::HOST).contains(&net("198.51.100.1")));
        assert!(!addresses(reserved::HOST).contains(&net("10.2.0.1")));
    }

    #[test]
    fn each_link_has_its_own_link_local_addresses() {
        let mut test = TestConfig::new()
            .identity("web", 300, "")
            .identity("db", 301, "")
            .identity("far", 302, "")
            .endpoint("a", "web", "10.1.1.1 fe80::1:5")
            .endpoint("b", "db", "10.1.1.2 fe80::1:5")
            .cidrs("far", "fe80::2:0/112")
            .policy(
                "p",
                "web",
                Some("deny cidr:fe80::/10;deny cidr:fe80::7"),
                None,
            );
        let own = |test: &mut TestConfig, link: &str, address: &str| {
            let link = test.host.links.get_mut(link).unwrap();
            link.addresses.insert(ip(address));
            link.ifindex
        };
        let a = own(&mut test, "lxc-a", "fe80::aa");
        let b = own(&mut test, "lxc-b", "fe80::bb");
        assert_eq!((a, b), (10, 11));
        let state = test.compile();
        let rows = [
            ("named", "fe80:0:0:a::1:5", "web on 10 own fe80::/10"),
            (
                "the same on another link",
                "fe80:0:0:b::1:5",
                "db on 11 own fe80::/10",
            ),
            ("the host's", "fe80:0:0:a::aa", "host here own fe80::/10"),
            (
                "not on this link",
                "fe80:0:0:a::bb",
                "world away world fe80::/10",
            ),
            (
                "an identity's",
                "fe80:0:0:b::2:1",
                "far away world fe80::/10",
            ),
            (
                "a rule's",
                "fe80:0:0:b::7",
                "world away world fe80::/10 fe80::7/128",
            ),
        ];
        for (what, address, expected) in rows {
            assert_eq!(entry(&state, address), expected, "{what}");
        }
        let addresses = &state.catalog.identities[&300].addresses;
        assert_eq!(*addresses, ["10.1.1.1", "fe80::1:5"].map(net).into());
        let learnt = &state.endpoints[&a].link_local;
        let class = &state.catalog.classes[&learnt.class];
        assert_eq!(class.cidrs, [net("fe80::/10")].into());
        assert!(state.endpoints[&a].names_link_local);
    }

    #[test]
    fn a_peer_of_everything_is_in_every_class_of_its_family() {
        let test = TestConfig::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1 fd00::1")
            .policy("p", "web", Some("deny cidr:0.0.0.0/0"), None);
        let state = test.compile();
        let rows = [
            ("8.8.8.8", "world away world 0.0.0.0/0"),
            ("10.1.1.1", "web on 10 own 0.0.0.0/0"),
            ("192.0.2.1", "host here own 0.0.0.0/0"),
            ("2001:db8::9", "world away world"),
            ("fd00::1", "web on 10 own"),
        ];
        for (address, expected) in rows {
            assert_eq!(entry(&state, address), expected, "{address}");
        }
    }

    #[test]
    fn prefixes_that_no_rule_distinguishes_are_one_class() {
        let lists = "deny cidr:8.0.0.0/8,cidr:9.0.0.0/8;deny cidr:8.8.0.0/16,cidr:9.9.0.0/16";
        let test = TestConfig::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1")
            .policy("p", "web", Some(lists), None);
        let state = test.compile();
        let rows = [
            ("of the first rule", "8.1.1.1", "world away world 8.0.0.0/8"),
            (
                "by its other prefix",
                "9.1.1.1",
                "world away world 8.0.0.0/8",
            ),
            (
                "of both",
                "8.8.1.1",
                "world away world 8.0.0.0/8 8.8.0.0/16",
            ),
            (
                "by the others",
                "9.9.1.1",
                "world away world 8.0.0.0/8 8.8.0.0/16",
            ),
            ("of none", "7.7.7.7", "world away world"),
        ];
        for (what, address, expected) in rows {
            assert_eq!(entry(&state, address), expected, "{what}");
        }
        assert_eq!(state.catalog.classes.len(), 5);
    }

    #[test]
    fn prefixes_of_one_kind_are_one_class() {
        let test =
            TestConfig::new()
                .identity("web", 300, "")
                .endpoint("web", "web", "10.1.1.1 10.1.1.2");
        let state = test.compile();
        let entry = |address: &str| find(&state, ip(address)).unwrap().class;
        assert_eq!(entry("10.1.1.1"), entry("10.1.1.2"));
        assert_eq!(entry("8.8.8.8"), entry("2001:db8::9"));
        assert_eq!(state.catalog.classes.len(), 3, "web, host and world");
        assert!(!state.catalog.classes.contains_key(&0), "0 is any");
    }

    #[test]
    fn every_address_of_an_external_frontend_has_a_row_that_says_so() {
        let mut test = TestConfig::new()
            .identity("web", 300, "")
            .identity("all", 301, "")
            .cidrs("all", "203.0.0.0/16")
            .service(
                "s",
                "203.0.113.1:80/tcp 10.7.0.1:80/tcp 192.0.2.1:80/tcp",
                "10.9.0.1:80",
            )
            .external("s", "8443/tcp")
            .service(
                "inner",
                "203.0.113.2:80/tcp 192.0.2.1:81/tcp",
                "10.9.0.1:80",
            );
        test.host.addresses.insert(ip("192.0.2.2"));
        test.host.local_prefixes = [net("10.7.0.0/16")].into();
        let before = {
            let mut test = test.clone();
            test.config.services.clear();
            test.compile()
        };
        let state = test.compile();
        let rows = [
            ("routed here", "203.0.113.1", ExternalFrontend::Routed, true),
            (
                "of a prefix that the host receives",
                "10.7.0.1",
                ExternalFrontend::Host,
                true,
            ),
            (
                "an address of the host",
                "192.0.2.1",
                ExternalFrontend::Host,
                true,
            ),
            (
                "a node port alone",
                "192.0.2.2",
                ExternalFrontend::Host,
                true,
            ),
            (
                "a family without a backend",
                "2001:db8::1",
                ExternalFrontend::None,
                true,
            ),
            (
                "a service for workloads",
                "203.0.113.2",
                ExternalFrontend::None,
                false,
            ),
            ("another", "203.0.113.3", ExternalFrontend::None, false),
        ];
        for (what, address, expected, has_row) in rows {
            let found = find(&state, ip(address)).unwrap();
            assert_eq!(found.external_frontend, expected, "{what}");
            assert_eq!(state.ipcache.contains_key(&net(address)), has_row, "{what}");
            assert_eq!(
                entry(&state, address),
                entry(&before, address),
                "{what}: its owner"
            );
        }
        let whole: Vec<String> = state.service_addresses().map(|a| a.to_string()).collect();
        assert_eq!(whole, ["203.0.113.1", "203.0.113.2"]);
    }
}
