//! Who has a prefix.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::lookup::covering;
use crate::config::{Config, Identity};
use crate::model::host::HostState;
use crate::model::link_local::is_of_a_link;
use crate::model::policy::reserved;
use crate::model::state::AddressScope;
use crate::plan::endpoints::DeclaredEndpoint;

/// What the addresses of a prefix belong to.
#[derive(Clone, Copy, PartialEq)]
pub struct Owner {
    pub identity: u32,
    /// It is neither an endpoint, nor this host, nor another node.
    pub is_world: bool,
    pub scope: AddressScope,
}

/// Nobody that the file or the host names.
pub const WORLD: Owner = Owner {
    identity: reserved::WORLD,
    is_world: true,
    scope: AddressScope::Remote,
};

/// This host.
pub const HOST: Owner = Owner {
    identity: reserved::HOST,
    is_world: false,
    scope: AddressScope::Host,
};

/// The prefixes that have an owner, but for those of a link. The same prefix goes to an endpoint first, then to the host, to
/// another node, and to an identity by `cidrs` or `nodes.*.endpoints`. The host has the prefixes that its stack receives, besides its addresses.
pub struct Owners(BTreeMap<IpNet, Owner>);

impl Owners {
    pub fn new(config: &Config, host: &HostState, endpoints: &[DeclaredEndpoint<'_>]) -> Owners {
        Owners(owners(config, host, endpoints))
    }

    pub fn prefixes(&self) -> &BTreeMap<IpNet, Owner> {
        &self.0
    }

    /// The scope of an address. An identity's prefix does not change it.
    pub fn scope(&self, address: IpAddr) -> AddressScope {
        let mut around = covering(address).filter_map(|prefix| self.0.get(&prefix));
        let owner = around.find(|owner| !owner.is_world);
        owner.map_or(WORLD.scope, |owner| owner.scope)
    }
}

fn owners(
    config: &Config,
    host: &HostState,
    endpoints: &[DeclaredEndpoint<'_>],
) -> BTreeMap<IpNet, Owner> {
    let mut owners = BTreeMap::new();
    for endpoint in endpoints {
        let owner = Owner {
            identity: endpoint.identity,
            is_world: false,
            scope: endpoint.scope(),
        };
        for prefix in endpoint.addresses.iter().filter(|p| !is_of_a_link(**p)) {
            owners.entry(*prefix).or_insert(owner);
        }
    }
    let named = config.node.addresses.iter().flatten();
    for address in named.chain(&host.addresses) {
        owners.entry(IpNet::from(*address)).or_insert(HOST);
    }
    for prefix in &host.local_prefixes {
        owners.entry(*prefix).or_insert(HOST);
    }
    let remote_node = Owner {
        identity: reserved::REMOTE_NODE,
        is_world: false,
        scope: AddressScope::Remote,
    };
    for address in config.nodes.values().flat_map(|node| &node.addresses) {
        owners.entry(IpNet::from(*address)).or_insert(remote_node);
    }
    let named = |identity: &Identity| Owner {
        identity: identity.id,
        ..WORLD
    };
    for identity in config.identities.values() {
        for prefix in &identity.cidrs {
            owners.entry(prefix.trunc()).or_insert(named(identity));
        }
    }
    for (address, identity) in config.nodes.values().flat_map(|node| &node.endpoints) {
        if let Some(identity) = config.identities.get(identity) {
            let prefix = IpNet::from(*address);
            owners.entry(prefix).or_insert(named(identity));
        }
    }
    owners
}
