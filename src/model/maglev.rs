//! Maglev tables as the datapath has them, and their sizes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::protocol::Protocol;

/// The sizes that a table may have, in columns. They are primes, as the permutations need (Eisenbud et al., NSDI 2016, section
/// 3.4), and each is the largest one below a power of two, so that little of the last row is unused; but 65,521 is also the
/// most that a column's 16 bits can number.
pub const TABLE_SIZES: [u32; 8] = [251, 509, 1021, 2039, 4093, 8191, 16381, 65521];

/// Columns for each backend, at least: then the shares of equal backends differ by 1 % at most (the same).
const COLUMNS_PER_BACKEND: usize = 100;

/// The size for so many backends: the smallest that gives each a hundred columns, else the largest.
pub fn table_size(backends: usize) -> u32 {
    let [.., largest] = TABLE_SIZES;
    let is_enough = |size: &u32| *size as usize >= backends.saturating_mul(COLUMNS_PER_BACKEND);
    TABLE_SIZES.into_iter().find(is_enough).unwrap_or(largest)
}

/// The columns of one row of the kernel's table.
pub const ROW_COLUMNS: usize = 256;

/// The rows that a table of this size has.
pub fn rows(size: u32) -> u32 {
    size.div_ceil(ROW_COLUMNS as u32)
}

/// Which table: the frontends of a service share one in a family and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaglevKey {
    /// The service's number.
    pub service: u32,
    pub is_ipv4: bool,
    pub protocol: Protocol,
}

/// The tables of a generation.
pub type MaglevTables = BTreeMap<MaglevKey, MaglevTable>;

/// The table of a service.
#[derive(Clone, Debug)]
pub struct MaglevTable {
    /// Its first row in the kernel's table.
    pub first_row: u32,
    /// What each column names: a column of the service's backend table.
    pub columns: Arc<[u16]>,
    /// What it was computed from; `None`: it was read from the kernel, where another version of dpd may have written it.
    pub backends: Option<Arc<[MaglevBackend]>>,
}

/// A backend of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaglevBackend {
    pub address: SocketAddr,
    /// At least 1.
    pub weight: u16,
}

/// Equal tables are the same to packets, whatever is known of where they come from.
impl PartialEq for MaglevTable {
    fn eq(&self, other: &MaglevTable) -> bool {
        let are_same = Arc::ptr_eq(&self.columns, &other.columns);
        self.first_row == other.first_row && (are_same || self.columns == other.columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_gives_each_backend_a_hundred_columns() {
        let rows = [
            (0, 251),
            (1, 251),
            (2, 251),
            (3, 509),
            (5, 509),
            (6, 1021),
            (10, 1021),
            (11, 2039),
            (20, 2039),
            (21, 4093),
            (40, 4093),
            (41, 8191),
            (81, 8191),
            (82, 16381),
            (163, 16381),
            (164, 65521),
            (655, 65521),
            (1000, 65521),
            (usize::MAX, 65521),
        ];
        for (backends, size) in rows {
            assert_eq!(table_size(backends), size, "{backends} backends");
        }
    }

    #[test]
    fn sizes_are_primes_that_fill_their_rows() {
        for size in TABLE_SIZES {
            assert!((2..256).all(|n| n * n > size || size % n != 0), "{size}");
            let room = rows(size) * ROW_COLUMNS as u32;
            assert!((size..size + 16).contains(&room), "{size}");
            assert!(u16::try_from(size).is_ok(), "{size}");
        }
    }
}
