//! Addresses: prefixes to identities and policy classes (the ipcache).
//!
//! A class is one set of {identity, world or not, all `cidr:` peers that cover the prefix}. Overlapping
//! prefixes of different rules can't be told apart by identities; by classes they can: whatever a rule names as
//! its peer is a set of whole classes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::Config;
use crate::model::catalog::{Catalog, ClassInfo};
use crate::model::policy::{Peer, reserved};
use crate::model::state::{AddressEntry, Place, State};
use crate::model::world::World;

use super::endpoint::Workload;
use super::numbers::Numbers;

/// Who has a prefix.
#[derive(Clone, Copy)]
struct Owner {
    identity: u32,
    /// It is no endpoint, host or node.
    world: bool,
    place: Place,
}

const WORLD: Owner = Owner {
    identity: reserved::WORLD,
    world: true,
    place: Place::Remote,
};

/// The entry that holds an address: the longest prefix', as the kernel's trie finds it.
pub fn find(state: &State, address: IpAddr) -> Option<&AddressEntry> {
    let full = IpNet::from(address);
    (0..=full.prefix_len())
        .rev()
        .filter_map(|length| IpNet::new(address, length).ok())
        .find_map(|prefix| state.addresses.get(&prefix.trunc()))
}

/// Fills the table of addresses and names the classes.
pub fn compile(
    config: &Config,
    world: &World,
    workloads: &[Workload<'_>],
    known: &Catalog,
    state: &mut State,
) {
    let owners = owners(config, world, workloads);
    for (prefix, owner) in &owners {
        let info = state.catalog.identities.entry(owner.identity).or_default();
        info.addresses.insert(*prefix);
    }
    let mut classes = Numbers::new(
        known.classes.iter().map(|(n, class)| (class.clone(), *n)),
        known.next.class,
    );
    for (prefix, owner, cidrs) in covered(&owners, &cidr_peers(config)) {
        let class = ClassInfo {
            identity: owner.identity,
            world: owner.world,
            cidrs,
        };
        let number = classes.number(class.clone());
        state.catalog.classes.insert(number, class);
        let entry = AddressEntry {
            identity: owner.identity,
            class: number,
            place: owner.place,
        };
        state.addresses.insert(prefix, entry);
    }
    state.catalog.next.class = classes.next();
}

/// The prefixes that are somebody's: the endpoints', and the host's own addresses that are no endpoint's.
fn owners(config: &Config, world: &World, workloads: &[Workload<'_>]) -> BTreeMap<IpNet, Owner> {
    let mut owners = BTreeMap::new();
    for workload in workloads {
        let owner = Owner {
            identity: workload.identity,
            world: false,
            place: workload.place(),
        };
        for prefix in &workload.addresses {
            owners.entry(*prefix).or_insert(owner);
        }
    }
    let host = Owner {
        identity: reserved::HOST,
        world: false,
        place: Place::Host,
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
    owners
}

/// Every prefix that some rule names.
fn cidr_peers(config: &Config) -> BTreeSet<IpNet> {
    let policies = config.policies.values();
    let lists = policies.flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
    let peers = lists.flatten().flat_map(|rule| &rule.peers);
    peers
        .filter_map(|peer| match peer {
            Peer::Cidr(prefix) => Some(prefix.trunc()),
            _ => None,
        })
        .collect()
}

/// Every prefix that needs an entry, with its owner and the `cidr:` peers that cover it.
///
/// Sorted, a prefix follows all that cover it, so a stack of covers is enough. A `cidr:` peer never takes over:
/// inside somebody's prefix it is still theirs.
fn covered(
    owners: &BTreeMap<IpNet, Owner>,
    cidrs: &BTreeSet<IpNet>,
) -> Vec<(IpNet, Owner, BTreeSet<IpNet>)> {
    let defaults = [
        IpNet::from(Ipv4Net::default()),
        IpNet::from(Ipv6Net::default()),
    ];
    let mut prefixes: BTreeSet<IpNet> = defaults.into();
    prefixes.extend(owners.keys().chain(cidrs));

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
        if cidrs.contains(&prefix) {
            covering.insert(prefix);
        }
        covers.push(entries.len());
        let owner = owners.get(&prefix).copied().unwrap_or(inherited);
        entries.push((prefix, owner, covering));
    }
    entries
}
