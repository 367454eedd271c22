//! Policy in the file's terms: peers, directions, ports and actions.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::protocol::Protocol;

/// The most rows of the policy table: 100 bytes of memory each, three times during a change.
pub const ROWS_MAX: usize = 1 << 20;

/// The direction of a rule, seen from its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Ingress,
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

/// The action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Deny,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
        })
    }
}

/// The peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    Any,
    Host,
    RemoteNode,
    World,
    /// An identity by its name in the file.
    Identity(String),
    /// Every identity with this label.
    Label {
        key: String,
        value: String,
    },
    Cidr(IpNet),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Any => f.write_str("any"),
            Peer::Host => f.write_str("host"),
            Peer::RemoteNode => f.write_str("remote-node"),
            Peer::World => f.write_str("world"),
            Peer::Identity(name) => f.write_str(name),
            Peer::Label { key, value } => write!(f, "label:{key}={value}"),
            Peer::Cidr(prefix) => write!(f, "cidr:{prefix}"),
        }
    }
}

/// The ports of one protocol that a rule concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    pub protocol: Protocol,
    /// First and last port, both included; `None`: all of the protocol.
    pub range: Option<(u16, u16)>,
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.range {
            None => write!(f, "{}", self.protocol),
            Some((first, last)) if first == last => write!(f, "{first}/{}", self.protocol),
            Some((first, last)) => write!(f, "{first}-{last}/{}", self.protocol),
        }
    }
}

/// Numbers of reserved identities (Cilium's `pkg/identity/numericidentity.go`).
pub mod reserved {
    pub const HOST: u32 = 1;
    pub const WORLD: u32 = 2;
    pub const REMOTE_NODE: u32 = 6;

    /// The class of the peer `any`.
    pub const CLASS_ANY: u32 = 0;
    /// The class of the peer `world`, looked up in addition to the peer's own class.
    pub const CLASS_WORLD: u32 = u32::MAX;

    /// The name of a reserved identity's number.
    pub fn name(id: u32) -> Option<&'static str> {
        match id {
            HOST => Some("host"),
            WORLD => Some("world"),
            REMOTE_NODE => Some("remote-node"),
            _ => None,
        }
    }
}
/// The fewest (port, leading bits) whose ports are `first` to `last`, both included.
pub fn port_prefixes(first: u16, last: u16) -> Vec<(u16, u8)> {
    let (mut next, end) = (u32::from(first), u32::from(last) + 1);
    let mut prefixes = Vec::new();
    while next < end {
        // As many ports as `next` is aligned to, but none beyond the end.
        let aligned = next.trailing_zeros().min(16);
        let free_bits = aligned.min((end - next).ilog2());
        prefixes.push((next as u16, 16 - free_bits as u8));
        next += 1 << free_bits;
    }
    prefixes
}
