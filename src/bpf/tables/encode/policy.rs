//! Policy.

use crate::bpf::abi;
use crate::model::policy::{Action, Direction};
use crate::model::state::{PolicyEntry, PolicyKey};

/// Subject, class, direction.
const POLICY_BITS: u32 = abi::policy_key_bits::POLICY_KEY_ALL_BITS.0;

const PROTOCOL_BITS: u32 = abi::policy_key_bits::POLICY_KEY_PROTOCOL_BITS.0 - POLICY_BITS;

pub fn direction(direction: Direction) -> u8 {
    let number = match direction {
        Direction::Ingress => abi::direction::DIRECTION_INGRESS,
        Direction::Egress => abi::direction::DIRECTION_EGRESS,
    };
    number.0 as u8
}

pub fn decode_direction(number: u8) -> Direction {
    match abi::direction(number.into()) {
        abi::direction::DIRECTION_EGRESS => Direction::Egress,
        _ => Direction::Ingress,
    }
}

pub fn policy_key(key: &PolicyKey) -> abi::policy_key {
    let bits = match key.protocol {
        None => 0,
        Some(_) => PROTOCOL_BITS + u32::from(key.port_bits),
    };
    abi::policy_key {
        prefix_length: POLICY_BITS + bits,
        subject: key.subject,
        class: key.class,
        direction: direction(key.direction),
        protocol: key.protocol.unwrap_or_default(),
        port: key.port.to_be(),
    }
}

pub fn decode_policy_key(key: &abi::policy_key) -> PolicyKey {
    let bits = key.prefix_length.saturating_sub(POLICY_BITS);
    PolicyKey {
        subject: key.subject,
        class: key.class,
        direction: decode_direction(key.direction),
        protocol: (bits >= PROTOCOL_BITS).then_some(key.protocol),
        port: u16::from_be(key.port),
        port_bits: bits.saturating_sub(PROTOCOL_BITS) as u8,
    }
}

pub fn policy(entry: &PolicyEntry) -> abi::policy {
    abi::policy {
        rule: entry.rule,
        deny: (entry.action == Action::Deny).into(),
        pad: [0; 3],
    }
}

pub fn decode_policy(policy: &abi::policy) -> PolicyEntry {
    PolicyEntry {
        action: if policy.deny != 0 {
            Action::Deny
        } else {
            Action::Allow
        },
        rule: policy.rule,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, assert_round_trip};
    use super::*;

    #[test]
    fn policy_is_decoded_to_what_it_was() {
        let key = |n: &mut Rng| {
            let protocol = n.of(&[None, Some(1), Some(6), Some(17), Some(0), Some(255)]);
            let port_bits = match protocol {
                None => 0,
                Some(_) => (n.next() % 17) as u8,
            };
            // Bits after the prefix are zero in a plan.
            let mask = u16::MAX.checked_shl(16 - u32::from(port_bits)).unwrap_or(0);
            PolicyKey {
                subject: n.u32(),
                class: n.u32(),
                direction: n.of(&[Direction::Ingress, Direction::Egress]),
                protocol,
                port: n.u16() & mask,
                port_bits,
            }
        };
        assert_round_trip(key, policy_key, decode_policy_key);
        let entry = |n: &mut Rng| PolicyEntry {
            action: n.of(&[Action::Allow, Action::Deny]),
            rule: n.u32(),
        };
        assert_round_trip(entry, policy, decode_policy);
    }
}
