//! A set of address families.

use std::net::IpAddr;

use super::masquerade::Masquerade;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Families {
    pub fn is_empty(self) -> bool {
        self == Families::default()
    }

    /// Whether it has the family of an address.
    pub fn covers(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        }
    }

    /// Adds the family of an address.
    pub fn add(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(_) => self.ipv4 = true,
            IpAddr::V6(_) => self.ipv6 = true,
        }
    }

    pub fn union(self, other: Families) -> Families {
        Families {
            ipv4: self.ipv4 || other.ipv4,
            ipv6: self.ipv6 || other.ipv6,
        }
    }
}

impl From<Masquerade> for Families {
    fn from(masquerade: Masquerade) -> Families {
        Families {
            ipv4: masquerade.has_ipv4(),
            ipv6: masquerade.has_ipv6(),
        }
    }
}
