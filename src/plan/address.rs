//! Addresses: prefixes to identities and policy classes (the ipcache).
//!
//! A class is one set of {identity, world or not, all `cidr:` peers that cover the prefix}. Overlapping
//! prefixes of different rules can't be told apart by identities; by classes they can: whatever a rule names as
//! its peer is a set of whole classes. Prefixes that no rule tells apart count as one (`cidr`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::Config;
use crate::model::catalog::{Catalog, ClassInfo};
use crate::model::host::HostState;
use crate::model::policy::reserved;
use crate::model::state::{AddressScope, IpcacheEntry, State};

use super::cidr::CidrClasses;
use super::endpoint::Workload;
use super::numbers::Numbers;

/// Who has a prefix.
#[derive(Clone, Copy, PartialEq)]
struct Owner {
    identity: u32,
    /// It is no endpoint, host or node.
    world: bool,
    scope: AddressScope,
}

const WORLD: Owner = Owner {
    identity: reserved::WORLD,
    world: true,
    scope: AddressScope::Remote,
};

/// The entry that holds an address: the longest prefix', as the kernel's trie finds it.
pub fn find(state: &State, address: IpAddr) -> Option<&IpcacheEntry> {
    find_row(state, address).map(|(_, entry)| entry)
}

/// The same with its prefix.
pub fn find_row(state: &State, address: IpAddr) -> Option<(IpNet, &IpcacheEntry)> {
    covering(address).find_map(|prefix| Some((prefix, state.ipcache.get(&prefix)?)))
}

/// The prefixes that hold an address, the longest first.
pub(super) fn covering(address: IpAddr) -> impl Iterator<Item = IpNet> {
    let lengths = (0..=IpNet::from(address).prefix_len()).rev();
    lengths
        .filter_map(move |length| IpNet::new(address, length).ok())
        .map(|prefix| prefix.trunc())
}

/// Fills the table of addresses and names the classes.
pub fn compile(
    config: &Config,
    world: &HostState,
    workloads: &[Workload<'_>],
    stand_ins: &CidrClasses,
    known: &Catalog,
    state: &mut State,
) {
    let owners = owners(config, world, workloads);
    let mut classes = Numbers::new(
        known.classes.iter().map(|(n, class)| (class.clone(), *n)),
        known.next.class,
    );
    for (prefix, owner, cidrs) in covered(&owners, stand_ins) {
        if owners.get(&prefix) == Some(&owner) {
            let info = state
                .catalog_mut()
                .identities
                .entry(owner.identity)
                .or_default();
            info.addresses.insert(prefix);
        }
        let class = ClassInfo {
            identity: owner.identity,
            world: owner.world,
            cidrs,
        };
        let number = classes.number(class.clone());
        state.catalog_mut().classes.insert(number, class);
        let entry = IpcacheEntry {
            identity: owner.identity,
            class: number,
            is_world: owner.world,
            scope: owner.scope,
        };
        state.ipcache.insert(prefix, entry);
    }
    state.catalog_mut().next.class = classes.next();
}

/// The prefixes that are somebody's. Of two who have the same, endpoints come first, then the host, the other
/// hosts, and what identities name elsewhere.
fn owners(
    config: &Config,
    world: &HostState,
    workloads: &[Workload<'_>],
) -> BTreeMap<IpNet, Owner> {
    let mut owners = BTreeMap::new();
    for workload in workloads {
        let owner = Owner {
            identity: workload.identity,
            world: false,
            scope: workload.place(),
        };
        for prefix in &workload.addresses {
            owners.entry(*prefix).or_insert(owner);
        }
    }
    let host = Owner {
        identity: reserved::HOST,
        world: false,
        scope: AddressScope::Host,
    };
    for address in config
        .node
        .addresses
        .iter()
        .flatten()
        .chain(&world.addresses)
    {
        owners.entry(IpNet::from(*address)).or_insert(host);
    }
    let remote_node = Owner {
        identity: reserved::REMOTE_NODE,
        world: false,
        scope: AddressScope::Remote,
    };
    for address in config.nodes.values().flat_map(|node| &node.addresses) {
        owners.entry(IpNet::from(*address)).or_insert(remote_node);
    }
    for identity in config.identities.values() {
        let named = Owner {
            identity: identity.id,
            ..WORLD
        };
        for prefix in &identity.cidrs {
            owners.entry(prefix.trunc()).or_insert(named);
        }
    }
    owners
}

/// Every prefix that needs an entry, with its owner and the `cidr:` peers that cover it.
///
/// Sorted, a prefix follows all that cover it, so a stack of covers is enough. A `cidr:` peer never takes over:
/// inside somebody's prefix it is still theirs. Nor does an identity's prefix inside of what is no part of the world.
fn covered(
    owners: &BTreeMap<IpNet, Owner>,
    stand_ins: &CidrClasses,
) -> Vec<(IpNet, Owner, BTreeSet<IpNet>)> {
    let defaults = [
        IpNet::from(Ipv4Net::default()),
        IpNet::from(Ipv6Net::default()),
    ];
    let mut prefixes: BTreeSet<IpNet> = defaults.into();
    prefixes.extend(owners.keys().chain(stand_ins.prefixes()));

    let mut entries: Vec<(IpNet, Owner, BTreeSet<IpNet>)> = Vec::with_capacity(prefixes.len());
    let mut covers: Vec<usize> = Vec::new();
    for prefix in prefixes {
        while covers
            .pop_if(|cover| !entries[*cover].0.contains(&prefix))
            .is_some()
        {}
        let (inherited, mut covering) = match covers.last() {
            Some(cover) => (entries[*cover].1, entries[*cover].2.clone()),
            None => (WORLD, BTreeSet::new()),
        };
        covering.extend(stand_ins.of(prefix));
        covers.push(entries.len());
        let own = owners.get(&prefix).copied();
        let owner = own
            .filter(|own| !own.world || inherited.world)
            .unwrap_or(inherited);
        entries.push((prefix, owner, covering));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{Lab, ip, net};

    /// An entry in words: identity, place, and the `cidr:` peers of its class.
    fn entry(state: &State, address: &str) -> String {
        let entry = find(state, ip(address)).unwrap();
        let class = &state.catalog.classes[&entry.class];
        assert_eq!(
            class.identity, entry.identity,
            "{address}: the class is of the entry's identity"
        );
        let name = state.catalog.identity_name(entry.identity).unwrap();
        let place = match entry.scope {
            AddressScope::Endpoint { ifindex } => format!("on {ifindex}"),
            AddressScope::Pending => "waiting".to_owned(),
            AddressScope::Host => "here".to_owned(),
            AddressScope::Remote => "away".to_owned(),
        };
        let world = if class.world { "world" } else { "own" };
        let cidrs: String = class.cidrs.iter().map(|cidr| format!(" {cidr}")).collect();
        format!("{name} {place} {world}{cidrs}")
    }

    #[test]
    fn an_address_is_what_the_longest_prefix_says() {
        let cidrs = "allow cidr:10.0.0.0/8;deny cidr:10.1.0.0/16;deny cidr:10.1.1.64/26;allow cidr:fd00::/8;\
                     deny cidr:192.0.2.0/24";
        let mut lab = Lab::new()
            .identity("web", 300, "")
            .identity("db", 301, "")
            .endpoint("web", "web", "10.1.1.0/24 fd00::1")
            .endpoint("db", "db", "10.1.1.7 10.2.0.1")
            .endpoint("gone", "db", "10.3.0.1")
            .identity("far", 302, "")
            .identity("near", 303, "")
            .cidrs("far", "10.0.0.0/9 203.0.113.0/24")
            .cidrs("near", "10.4.0.0/16 203.0.113.2 2001:db8:4::/48")
            .cidrs("db", "10.5.0.5")
            .node(
                "node-b",
                "203.0.113.1 10.4.0.1 2001:db8:4::1",
                "10.6.0.0/16 10.200.0.0/16",
            )
            .policy("p", "web", Some(cidrs), None);
        lab.world.links.remove("lxc-gone");
        lab.world.addresses.extend([ip("10.1.1.1"), ip("10.2.0.1")]);
        lab.config.node.addresses = Some(vec![ip("198.51.100.1")]);
        let state = lab.compile();
        let rows = [
            ("nobody's", "8.8.8.8", "world away world"),
            ("nobody's, IPv6", "2001:db8::9", "world away world"),
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
                "an identity's prefix does not take a node over",
                "10.4.0.1",
                "remote-node away own 10.0.0.0/8",
            ),
            ("a node, IPv6", "2001:db8:4::1", "remote-node away own"),
            ("beside a node, IPv6", "2001:db8:4::2", "near away world"),
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
                "a peer inside an endpoint's prefix takes nothing over",
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
                "an endpoint that is not there",
                "10.3.0.1",
                "db waiting own 10.0.0.0/8",
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
            (
                "IPv4's default says nothing of IPv6",
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
        let nodes = ["203.0.113.1", "10.4.0.1", "2001:db8:4::1"].map(net);
        assert_eq!(addresses(reserved::REMOTE_NODE), nodes.into());
        assert_eq!(addresses(reserved::WORLD), [].into());
        assert!(addresses(reserved::HOST).contains(&net("198.51.100.1")));
        assert!(!addresses(reserved::HOST).contains(&net("10.2.0.1")));
    }

    #[test]
    fn a_peer_of_everything_is_in_every_class_of_its_family() {
        let lab = Lab::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1 fd00::1")
            .policy("p", "web", Some("deny cidr:0.0.0.0/0"), None);
        let state = lab.compile();
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
    fn prefixes_that_no_rule_tells_apart_are_one_class() {
        let lists = "deny cidr:8.0.0.0/8,cidr:9.0.0.0/8;deny cidr:8.8.0.0/16,cidr:9.9.0.0/16";
        let lab = Lab::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1")
            .policy("p", "web", Some(lists), None);
        let state = lab.compile();
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
        let lab = Lab::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1 10.1.1.2");
        let state = lab.compile();
        let entry = |address: &str| find(&state, ip(address)).unwrap().class;
        assert_eq!(entry("10.1.1.1"), entry("10.1.1.2"));
        assert_eq!(entry("8.8.8.8"), entry("2001:db8::9"));
        assert_eq!(state.catalog.classes.len(), 3, "web, host and world");
        assert!(!state.catalog.classes.contains_key(&0), "0 is any");
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert_eq!(find(&State::default(), ip("10.0.0.1")), None);
    }
}
