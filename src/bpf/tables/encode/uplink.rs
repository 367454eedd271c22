//! Uplinks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{address, decode_host_addresses, host_addresses, ip};
use crate::bpf::abi;
use crate::model::families::Families;
use crate::model::forwarding::Forwarding;
use crate::model::host::ReversePath;
use crate::model::state::{HostAddresses, Uplink};

pub fn uplink(uplink: &Uplink) -> abi::uplink {
    let forwarding = match uplink.forwarding {
        Forwarding::Direct => abi::forwarding::FORWARDING_DIRECT,
        Forwarding::Stack => abi::forwarding::FORWARDING_STACK,
    };
    let reverse_path = match uplink.reverse_path {
        ReversePath::Off => abi::reverse_path::REVERSE_PATH_OFF,
        ReversePath::Strict => abi::reverse_path::REVERSE_PATH_STRICT,
        ReversePath::Loose => abi::reverse_path::REVERSE_PATH_LOOSE,
    };
    let (host_ipv4, host_ipv6) = host_addresses(&uplink.host);
    abi::uplink {
        forwarding: forwarding.0 as u8,
        reverse_path: reverse_path.0 as u8,
        prefilters: uplink.prefilters.into(),
        masquerade: families(uplink.masquerade),
        pad: [0; 4],
        host_ipv4,
        host_ipv6,
        snat_ipv4: address(uplink.snat.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).into()),
        snat_ipv6: address(uplink.snat.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).into()),
    }
}

const IPV4: u32 = abi::masquerade_family::MASQUERADE_IPV4.0;
const IPV6: u32 = abi::masquerade_family::MASQUERADE_IPV6.0;

fn families(families: Families) -> u8 {
    let set = [(families.ipv4, IPV4), (families.ipv6, IPV6)];
    let set = set.iter().filter(|(is_set, _)| *is_set);
    set.fold(0, |all, (_, family)| all | *family as u8)
}

fn decode_families(bits: u8) -> Families {
    let has = |family| u32::from(bits) & family != 0;
    Families::new(has(IPV4), has(IPV6))
}

/// An address that is none is the unspecified one.
fn decode_sources(ipv4: &abi::address, ipv6: &abi::address) -> HostAddresses {
    let of = |address| Some(ip(address)).filter(|ip| !ip.is_unspecified());
    HostAddresses {
        ipv4: of(ipv4).and_then(|ip| match ip {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }),
        ipv6: of(ipv6).and_then(|ip| match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(v6),
        }),
    }
}

pub fn decode_uplink(uplink: &abi::uplink) -> Uplink {
    Uplink {
        forwarding: match abi::forwarding(uplink.forwarding.into()) {
            abi::forwarding::FORWARDING_DIRECT => Forwarding::Direct,
            _ => Forwarding::Stack,
        },
        reverse_path: match abi::reverse_path(uplink.reverse_path.into()) {
            abi::reverse_path::REVERSE_PATH_STRICT => ReversePath::Strict,
            abi::reverse_path::REVERSE_PATH_LOOSE => ReversePath::Loose,
            _ => ReversePath::Off,
        },
        prefilters: uplink.prefilters != 0,
        host: decode_host_addresses(&uplink.host_ipv4, &uplink.host_ipv6),
        masquerade: decode_families(uplink.masquerade),
        snat: decode_sources(&uplink.snat_ipv4, &uplink.snat_ipv6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, assert_round_trip};
    use super::*;

    #[test]
    fn uplinks_are_decoded_to_what_they_were() {
        const PATHS: [ReversePath; 3] = [ReversePath::Off, ReversePath::Strict, ReversePath::Loose];
        let make = |n: &mut Rng| Uplink {
            forwarding: n.of(&[Forwarding::Direct, Forwarding::Stack]),
            reverse_path: n.of(&PATHS),
            prefilters: n.of(&[false, true]),
            host: n.host_addresses(),
            masquerade: n.of(&Families::ALL),
            snat: n.host_addresses(),
        };
        assert_round_trip(make, uplink, decode_uplink);
    }
}
