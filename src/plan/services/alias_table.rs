//! The alias table (Vose 1991): picks a backend in proportion to its weight by one random column and one comparison.

use crate::model::state::LutEntry;

/// The table of {backend, weight} pairs: a random column, and then one of its two backends, gives each backend the share of its
/// weight. Every backend is the `backend` of exactly one column.
///
/// In whole numbers: a backend's share is `weight × count` parts, a column has room for `total` parts. A heavy backend takes
/// the room that a light one leaves in its column.
pub fn alias_table(weights: &[(u32, u16)]) -> Vec<LutEntry> {
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let count = weights.len() as u64;
    let mut parts: Vec<u64> = weights
        .iter()
        .map(|(_, weight)| u64::from(*weight) * count)
        .collect();
    let mut columns: Vec<LutEntry> = weights
        .iter()
        .map(|(backend, _)| LutEntry {
            backend: *backend,
            alias: *backend,
            threshold: u32::MAX,
        })
        .collect();

    let (mut light, mut heavy): (Vec<usize>, Vec<usize>) =
        (0..parts.len()).partition(|column| parts[*column] < total);
    while let (Some(small), Some(large)) = (light.pop(), heavy.pop()) {
        columns[small].alias = columns[large].backend;
        columns[small].threshold = threshold(parts[small], total);
        parts[large] -= total - parts[small];
        if parts[large] < total {
            light.push(large);
        } else {
            heavy.push(large);
        }
    }
    columns
}

/// The threshold below or at which `parts` of `total` random numbers are: one less than their count, as the number itself
/// counts. `parts` is at least a 65535th of `total`, so the count is never 0.
fn threshold(parts: u64, total: u64) -> u32 {
    let count = ((u128::from(parts) << 32) + u128::from(total / 2)) / u128::from(total);
    u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::testing::Rng;

    /// Each backend's share of the picks in parts of 2^32 × columns: the table's own arithmetic, without rounding.
    fn shares(columns: &[LutEntry]) -> BTreeMap<u32, u128> {
        let mut shares = BTreeMap::new();
        for column in columns {
            let own = u128::from(column.threshold) + 1;
            *shares.entry(column.backend).or_default() += own;
            *shares.entry(column.alias).or_default() += (1 << 32) - own;
        }
        shares
    }

    #[test]
    fn shares_follow_the_weights() {
        let mut rng = Rng::new(5);
        let mut random = |count: usize| -> Vec<u16> {
            (0..count).map(|_| 1 + rng.below(65535) as u16).collect()
        };
        let rows = [
            ("one backend gets all", vec![1]),
            ("equal ones share equally", vec![7, 7, 7]),
            ("one to three", vec![1, 3]),
            ("thirds, which no binary fraction is", vec![1, 2]),
            ("the lightest and the heaviest", vec![1, 65535]),
            (
                "a light one among many heavy",
                [vec![65535; 99], vec![1]].concat(),
            ),
            (
                "many light ones and a heavy",
                [vec![1; 999], vec![65535]].concat(),
            ),
            ("ten at random", random(10)),
            ("a thousand at random", random(1000)),
        ];
        for (what, weights) in rows {
            let pairs: Vec<(u32, u16)> = (1..).zip(weights.iter().copied()).collect();
            let columns = alias_table(&pairs);
            let primaries: Vec<u32> = columns.iter().map(|column| column.backend).collect();
            let numbers: Vec<u32> = pairs.iter().map(|(number, _)| *number).collect();
            assert_eq!(
                primaries, numbers,
                "{what}: each is the `backend` of one column"
            );

            let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
            let count = columns.len() as u128;
            let shares = shares(&columns);
            assert_eq!(
                shares.values().sum::<u128>(),
                count << 32,
                "{what}: nothing is lost"
            );
            for (number, weight) in pairs {
                // share / (count × 2^32) and weight / total, both times count × 2^32 × total.
                let (got, wanted) = (shares[&number] * total, (u128::from(weight) * count) << 32);
                // Rounding costs at most half a number in each column.
                assert!(
                    2 * got.abs_diff(wanted) <= count * total,
                    "{what}: backend {number} of weight {weight}"
                );
            }
        }
    }

    #[test]
    fn fractions_that_binary_has_are_exact() {
        let columns = alias_table(&[(1, 1), (2, 3)]);
        let rows: Vec<(u32, u32, u32)> = columns
            .iter()
            .map(|s| (s.backend, s.alias, s.threshold))
            .collect();
        assert_eq!(rows, [(1, 2, u32::MAX / 2), (2, 2, u32::MAX)]);
    }
}
