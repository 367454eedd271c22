//! A host to compile a configuration for without looking at a real one: for checks, budgets and tests.

use crate::config::{Config, Interface};
use crate::model::host::{HostState, Link, LinkPeer};

/// A host that has every interface of the file, and the node's addresses as far as the file names them.
pub fn assumed_host(config: &Config) -> HostState {
    let links = config.interfaces.iter().zip(1..);
    let links = links.map(|((name, interface), ifindex)| {
        let peer = LinkPeer {
            ifindex: 2,
            mac: Some([2, 0, 0, 0, 0, 1]),
            same_namespace: false,
            mtu: 1500,
            is_bridge_port: false,
        };
        let link = Link {
            ifindex,
            mac: [2, 0, 0, 0, 0, 0],
            mtu: 1500,
            up: true,
            peer: matches!(interface, Interface::Endpoint { .. }).then_some(peer),
            ..Link::default()
        };
        (name.clone(), link)
    });
    HostState {
        links: links.collect(),
        addresses: config.node.addresses.iter().flatten().copied().collect(),
        local_prefixes: Default::default(),
        stack: Default::default(),
        socket_ports: Default::default(),
        announced: Default::default(),
        netns_cookie: 0,
    }
}
