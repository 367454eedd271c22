//! Peers of rules as peer classes.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::config::Config;
use crate::model::catalog::Catalog;
use crate::model::policy::{Peer, reserved};

use super::cidr_classes::CidrClasses;

/// The peer classes of each peer of a rule.
pub struct PeerClasses<'a> {
    config: &'a Config,
    cidr_classes: &'a CidrClasses,
    /// Identities by label.
    labelled: HashMap<(&'a str, &'a str), Vec<u32>>,
    by_identity: HashMap<u32, Vec<u32>>,
    /// By the prefix that represents a class of `cidr:` peers.
    by_cidr: HashMap<IpNet, Vec<u32>>,
}

impl<'a> PeerClasses<'a> {
    pub fn new(config: &'a Config, cidr_classes: &'a CidrClasses, catalog: &Catalog) -> Self {
        let mut peers = PeerClasses {
            config,
            cidr_classes,
            labelled: HashMap::new(),
            by_identity: HashMap::new(),
            by_cidr: HashMap::new(),
        };
        for (number, class) in &catalog.classes {
            peers
                .by_identity
                .entry(class.identity)
                .or_default()
                .push(*number);
            for cidr in &class.cidrs {
                peers.by_cidr.entry(*cidr).or_default().push(*number);
            }
        }
        for identity in config.identities.values() {
            for (key, value) in &identity.labels {
                let carriers = peers.labelled.entry((key, value)).or_default();
                carriers.push(identity.id);
            }
        }
        peers
    }

    /// The classes of a peer. For a `cidr:` peer they are those of all prefixes that the same rules name, since no rule
    /// distinguishes them.
    pub fn of(&self, peer: &Peer) -> Vec<u32> {
        match peer {
            Peer::Any => vec![reserved::CLASS_ANY],
            Peer::Host => self.of_identities(&[reserved::HOST]),
            Peer::RemoteNode => self.of_identities(&[reserved::REMOTE_NODE]),
            Peer::World => vec![reserved::CLASS_WORLD],
            Peer::Identity(name) => match self.config.identities.get(name) {
                Some(identity) => self.of_identities(&[identity.id]),
                None => Vec::new(),
            },
            Peer::Label { key, value } => {
                let carriers = self.labelled.get(&(key.as_str(), value.as_str()));
                self.of_identities(carriers.map_or(&[], Vec::as_slice))
            }
            Peer::Cidr(prefix) => self
                .cidr_classes
                .representative(*prefix)
                .and_then(|prefix| self.by_cidr.get(&prefix).cloned())
                .unwrap_or_default(),
        }
    }

    fn of_identities(&self, ids: &[u32]) -> Vec<u32> {
        let classes = ids.iter().filter_map(|id| self.by_identity.get(id));
        classes.flatten().copied().collect()
    }
}
