//! Masquerade: SNAT of what workloads send to the world to an address of the host.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The families that an uplink masquerades.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Masquerade {
    #[default]
    None,
    Ipv4,
    Ipv6,
    Both,
}

impl Masquerade {
    pub const ALL: [Masquerade; 4] = [
        Masquerade::None,
        Masquerade::Ipv4,
        Masquerade::Ipv6,
        Masquerade::Both,
    ];

    /// The families of a set.
    pub fn new(has_ipv4: bool, has_ipv6: bool) -> Masquerade {
        match (has_ipv4, has_ipv6) {
            (true, true) => Masquerade::Both,
            (true, false) => Masquerade::Ipv4,
            (false, true) => Masquerade::Ipv6,
            (false, false) => Masquerade::None,
        }
    }

    /// The file's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Masquerade::None => "none",
            Masquerade::Ipv4 => "ipv4",
            Masquerade::Ipv6 => "ipv6",
            Masquerade::Both => "both",
        }
    }

    pub fn has_ipv4(self) -> bool {
        matches!(self, Masquerade::Ipv4 | Masquerade::Both)
    }

    pub fn has_ipv6(self) -> bool {
        matches!(self, Masquerade::Ipv6 | Masquerade::Both)
    }

    /// The families that both have.
    pub fn and(self, other: Masquerade) -> Masquerade {
        Masquerade::new(
            self.has_ipv4() && other.has_ipv4(),
            self.has_ipv6() && other.has_ipv6(),
        )
    }

    /// Whether it has the family of an address.
    pub fn covers(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.has_ipv4(),
            IpAddr::V6(_) => self.has_ipv6(),
        }
    }
}

/// What SNAT to the host's addresses has to do with an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SnatRole {
    #[default]
    None,
    /// What workloads send there by an uplink that masquerades.
    Masqueraded,
    /// The host's: replies to translated packets may come to it.
    Host,
    /// The same, and new connections may take it.
    Source,
}
