//! The order in which the policy trie is searched.

use crate::model::state::PolicyKey;

/// Every key that covers this one, itself included, the longest prefix first: the kernel's trie returns the first of them that
/// exists.
pub fn covering(key: PolicyKey) -> impl Iterator<Item = PolicyKey> {
    let of_protocol = key.protocol.is_some().then_some((0..=key.port_bits).rev());
    let by_ports = of_protocol
        .into_iter()
        .flatten()
        .map(move |port_bits| PolicyKey {
            port: if port_bits == 0 {
                0
            } else {
                key.port & (u16::MAX << (16 - port_bits))
            },
            port_bits,
            ..key
        });
    by_ports.chain(std::iter::once(PolicyKey {
        protocol: None,
        port: 0,
        port_bits: 0,
        ..key
    }))
}
