//! Endpoints: the local interfaces of workloads, and how a packet is delivered to each.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::config::{Config, Interface};
use crate::model::catalog::{Catalog, EndpointInfo};
use crate::model::host::{HostState, Link, Mac};
use crate::model::link_local::is_of_a_link;
use crate::model::policy::Direction;
use crate::model::state::{AddressScope, Delivery, Endpoint, HostAddresses, IpcacheEntry, State};

use super::host_addresses;
use super::inputs::Inputs;
use super::policy::Enforcements;

/// An endpoint of the file, and its interface if that is ready.
pub struct DeclaredEndpoint<'a> {
    pub interface: &'a str,
    pub identity_name: &'a str,
    pub identity: u32,
    /// In the file's order, without host bits.
    pub addresses: Vec<IpNet>,
    pub multicast: bool,
    /// `None`: it is pending.
    pub link: Option<ReadyLink>,
}

/// The properties of an interface that delivery needs.
#[derive(Clone, Copy)]
pub struct ReadyLink {
    pub ifindex: u32,
    delivery: Delivery,
    host_mac: Mac,
    workload_mac: Mac,
    /// Where the host finds its neighbours.
    pub link_ifindex: u32,
    mtu: u32,
    host: HostAddresses,
}

impl DeclaredEndpoint<'_> {
    /// The scope of its addresses.
    pub fn scope(&self) -> AddressScope {
        match self.link {
            Some(ReadyLink { ifindex, .. }) => AddressScope::Endpoint { ifindex },
            None => AddressScope::Pending,
        }
    }
}

/// The endpoints of the file in the order of their interfaces' names.
pub fn declared<'a>(config: &'a Config, host: &HostState) -> Vec<DeclaredEndpoint<'a>> {
    let node = host_addresses::of_node(config, host);
    let links = host.links.values().map(|link| (link.ifindex, link));
    let links: BTreeMap<u32, &Link> = links.collect();
    let mut endpoints = Vec::new();
    for (name, interface) in &config.interfaces {
        let Interface::Endpoint {
            addresses,
            identity,
            multicast,
        } = interface
        else {
            continue;
        };
        let Some(info) = config.identities.get(identity) else {
            continue;
        };
        endpoints.push(DeclaredEndpoint {
            interface: name,
            identity_name: identity,
            identity: info.id,
            addresses: addresses.iter().map(IpNet::trunc).collect(),
            multicast: *multicast,
            link: host.links.get(name).map(|link| {
                let bridge = link.bridge().and_then(|index| links.get(&index).copied());
                ready_link(link, bridge, node)
            }),
        });
    }
    endpoints
}

/// Where the MAC of the veth's peer is unknown, as while it moves to another namespace, the kernel asks for that of the receiver:
/// the interface stays an endpoint, since what it sends would pass unjudged otherwise.
fn ready_link(link: &Link, bridge: Option<&Link>, node: HostAddresses) -> ReadyLink {
    let peer = link.peer.as_ref().filter(|peer| !peer.is_bridge_port);
    let (delivery, mac) = match peer.and_then(|peer| Some((peer.same_namespace, peer.mac?))) {
        None => (Delivery::Neighbour, Mac::default()),
        Some((true, mac)) => (Delivery::Direct, mac),
        Some((false, mac)) => (Delivery::Peer, mac),
    };
    ReadyLink {
        ifindex: link.ifindex,
        delivery,
        host_mac: link.mac,
        workload_mac: mac,
        link_ifindex: bridge.unwrap_or(link).ifindex,
        mtu: mtu(link),
        host: host_addresses::on_link(&bridge.unwrap_or(link).addresses, node),
    }
}

/// The longest packet that both ends take.
fn mtu(link: &Link) -> u32 {
    let peer = link.peer.as_ref().map(|peer| peer.mtu);
    peer.filter(|mtu| *mtu != 0)
        .map_or(link.mtu, |mtu| mtu.min(link.mtu))
}

/// Allocates rows of `dpd_endpoint_counters`. A known endpoint keeps its row; a new one gets the lowest that no endpoint of the
/// previous generation had, so that no packet in flight is counted for another endpoint.
struct CounterRows<'a> {
    previous: &'a Catalog,
    taken: BTreeSet<u32>,
    lowest: u32,
}

impl<'a> CounterRows<'a> {
    fn new(previous: &'a Catalog) -> CounterRows<'a> {
        CounterRows {
            previous,
            taken: previous.endpoints.values().map(|info| info.row).collect(),
            lowest: 1,
        }
    }

    fn row(&mut self, interface: &str) -> u32 {
        if let Some(known) = self.previous.endpoints.get(interface)
            && known.row != 0
        // a catalog from before there were rows
        {
            return known.row;
        }
        while self.taken.contains(&self.lowest) {
            self.lowest += 1;
        }
        self.taken.insert(self.lowest);
        self.lowest
    }
}

/// Fills the table of endpoints, and names all that the file declares in the catalog. The classes of learnt link-local addresses
/// are by identity.
pub fn compile(
    inputs: Inputs<'_>,
    endpoints: &[DeclaredEndpoint<'_>],
    link_local_classes: &BTreeMap<u32, u32>,
    state: &mut State,
) {
    let enforcements = Enforcements::new(inputs.config);
    let mut rows = CounterRows::new(inputs.previous);
    for declared in endpoints {
        let row = rows.row(declared.interface);
        let info = EndpointInfo {
            ifindex: declared.link.map(|link| link.ifindex),
            identity: declared.identity,
            addresses: declared.addresses.iter().copied().collect(),
            row,
        };
        let name = declared.interface.to_owned();
        state.catalog_mut().endpoints.insert(name, info);
        let Some(link) = declared.link else { continue };
        let endpoint = Endpoint {
            identity: declared.identity,
            delivery: link.delivery,
            src_mac: link.host_mac,
            dst_mac: link.workload_mac,
            ingress: enforcements.of(declared.identity_name, Direction::Ingress),
            egress: enforcements.of(declared.identity_name, Direction::Egress),
            counters_index: row,
            link_ifindex: link.link_ifindex,
            mtu: link.mtu,
            host: link.host,
            multicast: declared.multicast,
            names_link_local: declared.addresses.iter().copied().any(is_of_a_link),
            link_local: IpcacheEntry {
                identity: declared.identity,
                class: link_local_classes
                    .get(&declared.identity)
                    .copied()
                    .unwrap_or_default(),
                is_world: false,
                snat: Default::default(),
                external_frontend: Default::default(),
                scope: declared.scope(),
            },
        };
        state.endpoints.insert(link.ifindex, endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::host::LinkPeer;
    use crate::model::state::Enforcement;
    use crate::plan::testing::{TestConfig, net};

    const HOST_MAC: Mac = [2, 0, 0, 0, 0, 1];
    const MAC: Mac = [2, 0, 0, 0, 0, 2];

    #[test]
    fn delivery_follows_the_link() {
        let peer = |mac, same_namespace| {
            Some(LinkPeer {
                ifindex: 2,
                mac,
                same_namespace,
                mtu: 1500,
                is_bridge_port: false,
            })
        };
        let rows = [
            (
                "a veth into a namespace",
                true,
                peer(Some(MAC), false),
                (Delivery::Peer, MAC),
            ),
            (
                "both ends here",
                true,
                peer(Some(MAC), true),
                (Delivery::Direct, MAC),
            ),
            ("a tap", true, None, (Delivery::Neighbour, [0; 6])),
            (
                "a link that is down is ready",
                false,
                peer(Some(MAC), false),
                (Delivery::Peer, MAC),
            ),
            (
                "the other end's MAC is not known yet",
                true,
                peer(None, false),
                (Delivery::Neighbour, [0; 6]),
            ),
            (
                "the same with both ends here",
                true,
                peer(None, true),
                (Delivery::Neighbour, [0; 6]),
            ),
        ];
        for (what, up, peer, expected) in rows {
            let mut test = TestConfig::new()
                .identity("web", 300, "")
                .endpoint("web", "web", "10.1.1.1");
            let link = Link {
                ifindex: 7,
                mac: HOST_MAC,
                up,
                peer,
                ..Link::default()
            };
            test.host.links.insert("lxc-web".to_owned(), link);
            let state = test.compile();
            let endpoint = &state.endpoints[&7];
            let found = (endpoint.delivery, endpoint.dst_mac);
            assert_eq!(found, expected, "{what}");
            assert_eq!(endpoint.src_mac, HOST_MAC, "{what}");
            let scope = state.ipcache[&net("10.1.1.1")].scope;
            let ifindex = state.catalog.endpoints["lxc-web"].ifindex;
            let here = (AddressScope::Endpoint { ifindex: 7 }, Some(7));
            assert_eq!((scope, ifindex), here, "{what}");
        }
    }

    #[test]
    fn an_endpoint_without_its_interface_is_pending() {
        let mut test = TestConfig::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1");
        test.host.links.clear();
        let state = test.compile();
        assert!(state.endpoints.is_empty());
        assert_eq!(state.catalog.endpoints["lxc-web"].ifindex, None);
        assert_eq!(state.ipcache[&net("10.1.1.1")].scope, AddressScope::Pending);
    }

    #[test]
    fn an_interface_that_the_file_does_not_name_is_ignored() {
        let mut test = TestConfig::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1");
        test.config.interfaces.clear();
        let state = test.compile();
        assert!(state.endpoints.is_empty() && state.catalog.endpoints.is_empty());
    }

    #[test]
    fn an_endpoint_has_its_identitys_enforcement() {
        let test = TestConfig::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.2.1.1 10.1.1.1")
            .policy(
                "p",
                "web",
                Some("allow cidr:10.2.0.0/16"),
                Some("deny world"),
            );
        let state = test.compile();
        let endpoint = &state.endpoints[&10];
        assert_eq!(endpoint.identity, 300);
        let both = (endpoint.ingress, endpoint.egress);
        assert_eq!(both, (Enforcement::On, Enforcement::DenyOnly));
    }

    #[test]
    fn an_endpoint_keeps_its_row_and_a_new_one_gets_a_free_one() {
        let test = |names: &[&str]| {
            names
                .iter()
                .fold(TestConfig::new().identity("web", 300, ""), |test, name| {
                    test.endpoint(name, "web", &format!("10.1.1.{}", name.len()))
                })
        };
        let rows = |state: &State| -> Vec<(String, u32)> {
            let endpoints = state.catalog.endpoints.iter();
            endpoints
                .map(|(name, info)| (name.clone(), info.row))
                .collect()
        };
        let first = test(&["b", "dd"]).compile();
        assert_eq!(
            rows(&first),
            [("lxc-b".to_owned(), 1), ("lxc-dd".to_owned(), 2)]
        );
        let second = test(&["aaa", "dd"]).compile_after(&first);
        assert_eq!(
            rows(&second),
            [("lxc-aaa".to_owned(), 3), ("lxc-dd".to_owned(), 2)],
            "packets in flight may still count for the row of a removed endpoint"
        );
        let third = test(&["aaa", "cccc", "dd"]).compile_after(&second);
        assert_eq!(third.catalog.endpoints["lxc-cccc"].row, 1);
        assert_eq!(
            third.endpoints.values().map(|e| e.counters_index).max(),
            Some(3)
        );
    }

    #[test]
    fn host_bits_of_a_prefix_are_ignored() {
        let test = TestConfig::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.9/24");
        let state = test.compile();
        assert!(state.ipcache.contains_key(&net("10.1.1.0/24")));
        assert_eq!(
            state.catalog.endpoints["lxc-web"].addresses,
            [net("10.1.1.0/24")].into()
        );
    }
}
