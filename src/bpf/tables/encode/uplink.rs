//! Uplinks.

use crate::bpf::abi;
use crate::model::forwarding::Forwarding;
use crate::model::state::Uplink;

pub fn uplink(uplink: &Uplink) -> abi::uplink {
    let forwarding = match uplink.forwarding {
        Forwarding::Direct => abi::forwarding::FORWARDING_DIRECT,
        Forwarding::Stack => abi::forwarding::FORWARDING_STACK,
    };
    abi::uplink {
        forwarding: forwarding.0 as u8,
        pad: [0; 7],
    }
}

pub fn decode_uplink(uplink: &abi::uplink) -> Uplink {
    Uplink {
        forwarding: match abi::forwarding(uplink.forwarding.into()) {
            abi::forwarding::FORWARDING_DIRECT => Forwarding::Direct,
            _ => Forwarding::Stack,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, assert_round_trip};
    use super::*;

    #[test]
    fn uplinks_are_decoded_to_what_they_were() {
        let make = |n: &mut Rng| Uplink {
            forwarding: n.of(&[Forwarding::Direct, Forwarding::Stack]),
        };
        assert_round_trip(make, uplink, decode_uplink);
    }
}
