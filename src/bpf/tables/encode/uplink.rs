//! Uplinks.

use super::address::{decode_host_addresses, host_addresses};
use crate::bpf::abi;
use crate::model::forwarding::Forwarding;
use crate::model::host::ReversePath;
use crate::model::state::Uplink;

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
        pad: [0; 5],
        host_ipv4,
        host_ipv6,
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
        };
        assert_round_trip(make, uplink, decode_uplink);
    }
}
