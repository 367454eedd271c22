//! Services: frontends, backends and their states.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::protocol::Protocol;

/// Where a service is reached.
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

/// What a backend may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Chosen for new connections.
    Active,
    /// Keeps what it has; chosen only while no backend is active.
    Draining,
    /// Gets nothing new and loses UDP at once; TCP connections run out.
    Maintenance,
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            BackendState::Active => "active",
            BackendState::Draining => "draining",
            BackendState::Maintenance => "maintenance",
        })
    }
}
