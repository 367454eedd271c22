//! A set of address families.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Families {
    pub const NONE: Families = Families::new(false, false);
    pub const IPV4: Families = Families::new(true, false);
    pub const IPV6: Families = Families::new(false, true);
    pub const BOTH: Families = Families::new(true, true);
    pub const ALL: [Families; 4] = [
        Families::NONE,
        Families::IPV4,
        Families::IPV6,
        Families::BOTH,
    ];

    pub const fn new(ipv4: bool, ipv6: bool) -> Families {
        Families { ipv4, ipv6 }
    }

    /// The family of an address.
    pub fn of(address: IpAddr) -> Families {
        match address {
            IpAddr::V4(_) => Families::IPV4,
            IpAddr::V6(_) => Families::IPV6,
        }
    }

    /// The file's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Families::NONE => "none",
            Families::IPV4 => "ipv4",
            Families::IPV6 => "ipv6",
            Families::BOTH => "both",
        }
    }

    pub fn is_empty(self) -> bool {
        self == Families::NONE
    }

    /// Whether it has the family of an address.
    pub fn covers(self, address: IpAddr) -> bool {
        !self.intersection(Families::of(address)).is_empty()
    }

    pub fn union(self, other: Families) -> Families {
        Families::new(self.ipv4 || other.ipv4, self.ipv6 || other.ipv6)
    }

    /// The families that both have.
    pub fn intersection(self, other: Families) -> Families {
        Families::new(self.ipv4 && other.ipv4, self.ipv6 && other.ipv6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_families() {
        let (v4, v6) = ([192, 0, 2, 1].into(), IpAddr::V6([0; 16].into()));
        for (families, name, has) in [
            (Families::NONE, "none", [false, false]),
            (Families::IPV4, "ipv4", [true, false]),
            (Families::IPV6, "ipv6", [false, true]),
            (Families::BOTH, "both", [true, true]),
        ] {
            assert_eq!(families.name(), name);
            assert_eq!([families.covers(v4), families.covers(v6)], has, "{name}");
            assert_eq!(families.is_empty(), has == [false, false], "{name}");
            for other in Families::ALL {
                let both = families.intersection(other);
                let any = families.union(other);
                for address in [v4, v6] {
                    let (own, its) = (families.covers(address), other.covers(address));
                    assert_eq!(
                        both.covers(address),
                        own && its,
                        "{name} and {}",
                        other.name()
                    );
                    assert_eq!(
                        any.covers(address),
                        own || its,
                        "{name} or {}",
                        other.name()
                    );
                }
            }
        }
    }
}
