//! Maglev tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! Each backend has a permutation of the columns. In turns, each takes the first column of its permutation that nobody has
//! taken, until all are taken. A backend that comes or goes moves few columns of the others.
//!
//! The permutation depends on the backend's address, port and protocol alone, and the order of turns on addresses and weights,
//! so all hosts with the same backends have the same table.

use std::net::IpAddr;

use crate::model::digest::fnv1a;
use crate::model::maglev::MaglevBackend;
use crate::model::protocol::Protocol;

use super::turns::{Turns, are_equal};

/// No backend: there are fewer than that.
const FREE: u16 = u16::MAX;

/// The table of backends in the order of their addresses: the index of a backend for each column.
pub fn maglev_table(backends: &[MaglevBackend], protocol: Protocol, size: u32) -> Vec<u16> {
    let permutations = backends
        .iter()
        .map(|backend| Permutation::new(backend, protocol, size))
        .collect();
    match are_equal(backends) {
        true => fill(permutations, (0..backends.len()).cycle(), size),
        false => fill(permutations, Turns::new(backends), size),
    }
}

fn fill(
    mut permutations: Vec<Permutation>,
    turns: impl Iterator<Item = usize>,
    size: u32,
) -> Vec<u16> {
    let mut columns = vec![FREE; size as usize];
    for backend in turns.take(columns.len()) {
        let permutation = &mut permutations[backend];
        while columns[permutation.column as usize] != FREE {
            permutation.advance(size);
        }
        columns[permutation.column as usize] = backend as u16;
    }
    columns
}

/// The order in which a backend takes columns: `skip` further each time.
struct Permutation {
    column: u32,
    skip: u32,
}

impl Permutation {
    fn new(backend: &MaglevBackend, protocol: Protocol, size: u32) -> Permutation {
        let hash = hash(backend, protocol);
        let (high, low) = ((hash >> 32) as u32, hash as u32);
        Permutation {
            column: high % size,
            skip: low % (size - 1) + 1,
        }
    }

    fn advance(&mut self, size: u32) {
        self.column += self.skip;
        if self.column >= size {
            self.column -= size;
        }
    }
}

/// Must be the same in every version of dpd. The hashers of Rust's library may change, so these are written out: FNV-1a over
/// the bytes of the key as a packet has them, then, as its halves are used by themselves, the finalizer of SplitMix64 (Steele,
/// Lea and Flood, OOPSLA 2014), which makes each bit depend on every bit.
fn hash(backend: &MaglevBackend, protocol: Protocol) -> u64 {
    let address = match backend.address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let port = backend.address.port();
    let rest = [(port >> 8) as u8, port as u8, protocol.number()];
    let hash = fnv1a(address.octets().into_iter().chain(rest));
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}
