//! Endpoints: the workloads behind local interfaces, and how a packet reaches each.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::config::{Config, Interface};
use crate::model::catalog::{Catalog, EndpointInfo};
use crate::model::host::{HostState, Link, Mac};
use crate::model::policy::Direction;
use crate::model::state::{AddressScope, Delivery, Endpoint, State};

use super::policy::Enforcements;

/// An endpoint of the file, and its interface if that is ready.
pub struct Workload<'a> {
    pub interface: &'a str,
    pub identity_name: &'a str,
    pub identity: u32,
    /// In the file's order, without host bits.
    pub addresses: Vec<IpNet>,
    pub attachment: Option<Attachment>,
}

/// What delivery needs to know of an interface.
#[derive(Clone, Copy)]
pub struct Attachment {
    pub ifindex: u32,
    delivery: Delivery,
    host_mac: Mac,
    mac: Mac,
}

impl Workload<'_> {
    /// Where its addresses are.
    pub fn place(&self) -> AddressScope {
        match self.attachment {
            Some(Attachment { ifindex, .. }) => AddressScope::Endpoint { ifindex },
            None => AddressScope::Pending,
        }
    }
}

/// The file's endpoints in the order of their interfaces' names.
pub fn workloads<'a>(config: &'a Config, world: &HostState) -> Vec<Workload<'a>> {
    let mut workloads = Vec::new();
    for (name, interface) in &config.interfaces {
        let Interface::Endpoint {
            addresses,
            identity,
        } = interface
        else {
            continue;
        };
        let Some(info) = config.identities.get(identity) else {
            continue;
        };
        workloads.push(Workload {
            interface: name,
            identity_name: identity,
            identity: info.id,
            addresses: addresses.iter().map(IpNet::trunc).collect(),
            attachment: world.links.get(name).and_then(attach),
        });
    }
    workloads
}

/// A veth whose other end has no known MAC yet can't be delivered to: it is waited for like one that isn't there.
fn attach(link: &Link) -> Option<Attachment> {
    let (delivery, mac) = match &link.peer {
        None => (Delivery::Neighbour, Mac::default()),
        Some(peer) if peer.same_namespace => (Delivery::Direct, peer.mac?),
        Some(peer) => (Delivery::Peer, peer.mac?),
    };
    Some(Attachment {
        ifindex: link.ifindex,
        delivery,
        host_mac: link.mac,
        mac,
    })
}

/// The rows in which packets are counted. An endpoint that was there keeps its own; a new one gets the lowest that
/// nobody had in the generation before, so that no packet under way counts for another.
struct Rows<'a> {
    known: &'a Catalog,
    taken: BTreeSet<u32>,
    lowest: u32,
}

impl<'a> Rows<'a> {
    fn new(known: &'a Catalog) -> Rows<'a> {
        Rows {
            known,
            taken: known.endpoints.values().map(|info| info.row).collect(),
            lowest: 1,
        }
    }

    fn row(&mut self, interface: &str) -> u32 {
        // 0 is what a catalog says that knew no rows yet.
        if let Some(known) = self.known.endpoints.get(interface)
            && known.row != 0
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

/// Fills the table of endpoints. `known` is the catalog of the generation before.
pub fn compile(config: &Config, workloads: &[Workload<'_>], known: &Catalog, state: &mut State) {
    let enforcements = Enforcements::new(config);
    let mut rows = Rows::new(known);
    for workload in workloads {
        let row = rows.row(workload.interface);
        let info = EndpointInfo {
            ifindex: workload.attachment.map(|attachment| attachment.ifindex),
            identity: workload.identity,
            addresses: workload.addresses.iter().copied().collect(),
            row,
        };
        state
            .catalog_mut()
            .endpoints
            .insert(workload.interface.to_owned(), info);
        let Some(attachment) = workload.attachment else {
            continue;
        };
        let endpoint = Endpoint {
            identity: workload.identity,
            delivery: attachment.delivery,
            src_mac: attachment.host_mac,
            dst_mac: attachment.mac,
            ingress: enforcements.of(workload.identity_name, Direction::Ingress),
            egress: enforcements.of(workload.identity_name, Direction::Egress),
            counters_index: row,
        };
        state.endpoints.insert(attachment.ifindex, endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::host::LinkPeer;
    use crate::model::state::Enforcement;
    use crate::plan::testing::{Lab, net};

    const HOST_MAC: Mac = [2, 0, 0, 0, 0, 1];
    const MAC: Mac = [2, 0, 0, 0, 0, 2];

    #[test]
    fn delivery_follows_the_link() {
        let peer = |mac, same_namespace| {
            Some(LinkPeer {
                ifindex: 2,
                mac,
                same_namespace,
            })
        };
        let rows = [
            (
                "a veth into a namespace",
                true,
                peer(Some(MAC), false),
                Some((Delivery::Peer, MAC)),
            ),
            (
                "both ends here",
                true,
                peer(Some(MAC), true),
                Some((Delivery::Direct, MAC)),
            ),
            ("a tap", true, None, Some((Delivery::Neighbour, [0; 6]))),
            (
                "down is there",
                false,
                peer(Some(MAC), false),
                Some((Delivery::Peer, MAC)),
            ),
            (
                "the other end's MAC is not known yet",
                true,
                peer(None, false),
                None,
            ),
            ("nor is it here", true, peer(None, true), None),
        ];
        for (what, up, peer, expected) in rows {
            let mut lab = Lab::new()
                .identity("web", 300, "")
                .endpoint("web", "web", "10.1.1.1");
            let link = Link {
                ifindex: 7,
                mac: HOST_MAC,
                mtu: 1500,
                up,
                addresses: Default::default(),
                peer,
            };
            lab.world.links.insert("lxc-web".to_owned(), link);
            let state = lab.compile();
            let found = state.endpoints.get(&7);
            assert_eq!(found.map(|e| (e.delivery, e.dst_mac)), expected, "{what}");
            let place = state.ipcache[&net("10.1.1.1")].scope;
            let info = &state.catalog.endpoints["lxc-web"];
            match found {
                Some(endpoint) => {
                    assert_eq!(endpoint.src_mac, HOST_MAC, "{what}");
                    assert_eq!(
                        (place, info.ifindex),
                        (AddressScope::Endpoint { ifindex: 7 }, Some(7)),
                        "{what}"
                    );
                }
                None => assert_eq!(
                    (place, info.ifindex),
                    (AddressScope::Pending, None),
                    "{what}"
                ),
            }
        }
    }

    #[test]
    fn an_endpoint_without_its_interface_waits() {
        let mut lab = Lab::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1");
        lab.world.links.clear();
        let state = lab.compile();
        assert!(state.endpoints.is_empty());
        assert_eq!(state.catalog.endpoints["lxc-web"].ifindex, None);
        assert_eq!(state.ipcache[&net("10.1.1.1")].scope, AddressScope::Pending);
    }

    #[test]
    fn an_interface_that_the_file_does_not_name_is_left_alone() {
        let mut lab = Lab::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1");
        lab.config.interfaces.clear();
        let state = lab.compile();
        assert!(state.endpoints.is_empty() && state.catalog.endpoints.is_empty());
    }

    #[test]
    fn an_endpoint_has_its_identitys_enforcement() {
        let lab = Lab::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.2.1.1 10.1.1.1")
            .policy(
                "p",
                "web",
                Some("allow cidr:10.2.0.0/16"),
                Some("deny world"),
            );
        let state = lab.compile();
        let endpoint = &state.endpoints[&10];
        assert_eq!(endpoint.identity, 300);
        let both = (endpoint.ingress, endpoint.egress);
        assert_eq!(both, (Enforcement::On, Enforcement::DenyOnly));
    }

    #[test]
    fn an_endpoint_keeps_its_row_and_a_new_one_gets_a_free_one() {
        let lab = |names: &[&str]| {
            names
                .iter()
                .fold(Lab::new().identity("web", 300, ""), |lab, name| {
                    lab.endpoint(name, "web", &format!("10.1.1.{}", name.len()))
                })
        };
        let rows = |state: &State| -> Vec<(String, u32)> {
            let endpoints = state.catalog.endpoints.iter();
            endpoints
                .map(|(name, info)| (name.clone(), info.row))
                .collect()
        };
        let first = lab(&["b", "dd"]).compile();
        assert_eq!(
            rows(&first),
            [("lxc-b".to_owned(), 1), ("lxc-dd".to_owned(), 2)]
        );
        let second = lab(&["aaa", "dd"]).compile_after(&first);
        assert_eq!(
            rows(&second),
            [("lxc-aaa".to_owned(), 3), ("lxc-dd".to_owned(), 2)],
            "packets may still count for the row of one that has just gone"
        );
        let third = lab(&["aaa", "cccc", "dd"]).compile_after(&second);
        assert_eq!(third.catalog.endpoints["lxc-cccc"].row, 1);
        assert_eq!(
            third.endpoints.values().map(|e| e.counters_index).max(),
            Some(3)
        );
    }

    #[test]
    fn host_bits_of_a_prefix_do_not_count() {
        let lab = Lab::new()
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.9/24");
        let state = lab.compile();
        assert!(state.ipcache.contains_key(&net("10.1.1.0/24")));
        assert_eq!(
            state.catalog.endpoints["lxc-web"].addresses,
            [net("10.1.1.0/24")].into()
        );
    }
}
