//! Services: frontends, backends and their states.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::protocol::Protocol;

/// An address, port and protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frontend {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = SocketAddr::new(self.address, self.port);
        write!(f, "{socket}/{}", self.protocol)
    }
}

/// A port that is a frontend at every address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodePort {
    pub port: u16,
    pub protocol: Protocol,
}

impl NodePort {
    /// The frontend at one of the addresses.
    pub fn at(self, address: IpAddr) -> Frontend {
        Frontend {
            address,
            port: self.port,
            protocol: self.protocol,
        }
    }
}

impl fmt::Display for NodePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node:{}/{}", self.port, self.protocol)
    }
}

/// How a new connection's backend is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// At random, by weight.
    #[default]
    Random,
    /// By a hash of the connection: on all hosts the same.
    Maglev,
}

impl Algorithm {
    pub const ALL: [Algorithm; 2] = [Algorithm::Random, Algorithm::Maglev];

    /// The file's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Random => "random",
            Algorithm::Maglev => "maglev",
        }
    }
}

/// Which backends get new connections, by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Locality {
    #[default]
    Any,
    /// Those on this host while one of them is active.
    Prefer,
    /// Those on this host.
    Only,
}

impl Locality {
    pub const ALL: [Locality; 3] = [Locality::Any, Locality::Prefer, Locality::Only];

    /// The file's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Locality::Any => "any",
            Locality::Prefer => "prefer",
            Locality::Only => "only",
        }
    }
}

/// The state of a backend: what the file says of it, or what that has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Gets new connections.
    Active,
    /// Keeps its connections; gets new ones only while no backend is active.
    Draining,
    /// Gets no new connections and loses UDP at once; TCP connections continue to their end.
    Maintenance,
    /// Drains, and its time for that is over: it keeps no connection. No state of the file.
    Drained,
    /// Has left the file, and keeps its connections until its time is over. No state of the file.
    Removed,
}

impl BackendState {
    pub const ALL: [BackendState; 5] = [
        BackendState::Active,
        BackendState::Draining,
        BackendState::Maintenance,
        BackendState::Drained,
        BackendState::Removed,
    ];

    /// Whether a backend of this state keeps the connections that it has.
    pub fn keeps(self, protocol: Protocol) -> bool {
        match self {
            BackendState::Active | BackendState::Draining | BackendState::Removed => true,
            BackendState::Maintenance => protocol == Protocol::Tcp,
            BackendState::Drained => false,
        }
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            BackendState::Active => "active",
            BackendState::Draining => "draining",
            BackendState::Maintenance => "maintenance",
            BackendState::Drained => "drained",
            BackendState::Removed => "removed",
        })
    }
}

/// The translation of a socket of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPeer {
    /// What it has called.
    pub frontend: SocketAddr,
    /// What it is connected to.
    pub backend: SocketAddr,
    /// The numbers of both.
    pub service: u32,
    pub backend_number: u32,
}
