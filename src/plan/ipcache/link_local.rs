//! Link-local addresses: each link has its own, with its ifindex in them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv6Net};

use super::owner::{HOST, Owner, WORLD};
use crate::model::catalog::ClassInfo;
use crate::model::link_local::{PREFIX_MIN, is_of_a_link, scope};
use crate::model::state::State;
use crate::plan::endpoints::DeclaredEndpoint;
use crate::plan::ids::IdAllocator;
use crate::plan::inputs::Inputs;
use crate::plan::policy::CidrClasses;

/// The peer class of an endpoint's learnt link-local address, by the endpoint's identity.
pub type LearntClasses = BTreeMap<u32, u32>;

/// The links that endpoints are on: the bridges that they are ports of, and their own interfaces.
pub fn links(endpoints: &[DeclaredEndpoint<'_>]) -> BTreeSet<u32> {
    let ready = endpoints.iter().filter_map(|endpoint| endpoint.link);
    ready.map(|link| link.link_ifindex).collect()
}

/// Adds who has which address on each link: the endpoints, the host, and the identities' prefixes. Where two endpoints on a bridge
/// name the same address, the first by name has it.
pub fn add_owners(
    inputs: Inputs<'_>,
    endpoints: &[DeclaredEndpoint<'_>],
    links: &BTreeSet<u32>,
    owners: &mut BTreeMap<IpNet, Owner>,
) {
    let host = inputs.host;
    for link in host.links.values().filter(|l| links.contains(&l.ifindex)) {
        let own = link.addresses.iter().map(|address| IpNet::from(*address));
        for prefix in own
            .chain(host.local_prefixes.iter().copied())
            .filter(|p| is_of_a_link(*p))
        {
            owners.insert(scope(prefix, link.ifindex), HOST);
        }
    }
    for endpoint in endpoints {
        let Some(link) = endpoint.link else { continue };
        let owner = Owner {
            identity: endpoint.identity,
            is_world: false,
            scope: endpoint.scope(),
        };
        for prefix in endpoint.addresses.iter().filter(|p| is_of_a_link(**p)) {
            let scoped = scope(*prefix, link.link_ifindex);
            owners.entry(scoped).or_insert(owner);
        }
    }
    for identity in inputs.config.identities.values() {
        let named = Owner {
            identity: identity.id,
            ..WORLD
        };
        for prefix in identity
            .cidrs
            .iter()
            .map(IpNet::trunc)
            .filter(|p| is_of_a_link(*p))
        {
            for link in links {
                owners.entry(scope(prefix, *link)).or_insert(named);
            }
        }
    }
}

/// Numbers the classes of learnt addresses: of which link and which address is not known, so only `cidr:` peers that have all
/// link-local addresses cover them.
pub fn learnt_classes(
    endpoints: &[DeclaredEndpoint<'_>],
    cidr_classes: &CidrClasses,
    classes: &mut IdAllocator<ClassInfo>,
    state: &mut State,
) -> LearntClasses {
    let any = Ipv6Net::new(
        std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        PREFIX_MIN,
    );
    let any = any.map(IpNet::V6).unwrap_or_default();
    let covering = cidr_classes.prefixes().filter(|cidr| cidr.contains(&any));
    let cidrs: BTreeSet<IpNet> = covering
        .filter_map(|cidr| cidr_classes.representative(*cidr))
        .collect();
    let identities: BTreeSet<u32> = endpoints.iter().map(|endpoint| endpoint.identity).collect();
    let mut learnt = LearntClasses::new();
    for identity in identities {
        let class = ClassInfo {
            identity,
            world: false,
            cidrs: cidrs.clone(),
        };
        let number = classes.number(class.clone());
        state.catalog_mut().classes.insert(number, class);
        learnt.insert(identity, number);
    }
    learnt
}
