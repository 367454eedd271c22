//! Endpoints: the workloads behind local interfaces, and how a packet reaches each.

use ipnet::IpNet;

use crate::config::{Config, Interface};
use crate::model::catalog::EndpointInfo;
use crate::model::policy::Direction;
use crate::model::state::{Delivery, Endpoint, Place, State};
use crate::model::world::{Link, Mac, World};

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
    pub fn place(&self) -> Place {
        match self.attachment {
            Some(Attachment { ifindex, .. }) => Place::Endpoint { ifindex },
            None => Place::Waiting,
        }
    }
}

/// The file's endpoints in the order of their interfaces' names.
pub fn workloads<'a>(config: &'a Config, world: &World) -> Vec<Workload<'a>> {
    let mut workloads = Vec::new();
    for (name, interface) in &config.interfaces {
        let Interface::Endpoint {
            addresses,
            identity,
        } = interface;
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

/// Fills the table of endpoints; the addresses' classes must be known.
pub fn compile(config: &Config, workloads: &[Workload<'_>], state: &mut State) {
    let enforcements = Enforcements::new(config);
    for workload in workloads {
        let info = EndpointInfo {
            ifindex: workload.attachment.map(|attachment| attachment.ifindex),
            identity: workload.identity,
            addresses: workload.addresses.iter().copied().collect(),
        };
        state
            .catalog
            .endpoints
            .insert(workload.interface.to_owned(), info);
        let Some(attachment) = workload.attachment else {
            continue;
        };
        let first = workload.addresses.first();
        let endpoint = Endpoint {
            identity: workload.identity,
            // Without an address it can send nothing; `any` alone would be its peer.
            class: first
                .and_then(|a| state.addresses.get(a))
                .map_or(0, |entry| entry.class),
            delivery: attachment.delivery,
            host_mac: attachment.host_mac,
            mac: attachment.mac,
            ingress: enforcements.of(workload.identity_name, Direction::Ingress),
            egress: enforcements.of(workload.identity_name, Direction::Egress),
        };
        state.endpoints.insert(attachment.ifindex, endpoint);
    }
}
