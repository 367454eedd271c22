//! Announced addresses.

use super::address::{address, ip};
use crate::bpf::abi;
use crate::model::host::{LinkAddress, Mac};

pub fn link_address(on_link: &LinkAddress) -> abi::link_address {
    abi::link_address {
        address: address(on_link.address),
        ifindex: on_link.ifindex,
        pad: 0,
    }
}

pub fn decode_link_address(key: &abi::link_address) -> LinkAddress {
    LinkAddress {
        ifindex: key.ifindex,
        address: ip(&key.address),
    }
}

pub fn announced(mac: Mac) -> abi::announced {
    abi::announced { mac, pad: [0; 2] }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, assert_round_trip};
    use super::*;

    #[test]
    fn addresses_on_links_are_decoded_to_what_they_were() {
        let make = |n: &mut Rng| LinkAddress {
            ifindex: n.u32(),
            address: n.ip(),
        };
        assert_round_trip(make, link_address, decode_link_address);
    }
}
