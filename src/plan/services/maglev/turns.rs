//! Whose turn it is to take a column: backends have turns in proportion to their weights.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::model::maglev::MaglevBackend;

/// Whether each backend has a turn in each round.
pub fn are_equal(backends: &[MaglevBackend]) -> bool {
    let mut pairs = backends.windows(2);
    pairs.all(|pair| pair[0].weight == pair[1].weight)
}

/// The backends by turn, without an end.
///
/// All have their first turn at time 0, and the next ones, from k = 1, at (k + ½) / weight. So at any time each has had as many
/// turns as its weight times the time, rounded to the nearest number (Webster's method), but at least one: the lightest backend
/// gets connections, too. Turns of the same time are in the order of the backends.
pub struct Turns(BinaryHeap<Reverse<Turn>>);

struct Turn {
    /// The time, times twice the weight: 0, 3, 5, 7 and so on.
    half_turns: u64,
    weight: u64,
    backend: usize,
}

impl Turns {
    pub fn new(backends: &[MaglevBackend]) -> Turns {
        let first = backends.iter().enumerate().map(|(backend, of)| {
            Reverse(Turn {
                half_turns: 0,
                weight: of.weight.into(),
                backend,
            })
        });
        Turns(first.collect())
    }
}

impl Iterator for Turns {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let mut first = self.0.peek_mut()?;
        let turn = &mut first.0;
        turn.half_turns += if turn.half_turns == 0 { 3 } else { 2 };
        Some(turn.backend)
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Turn) -> Ordering {
        let (own, others) = (
            self.half_turns * other.weight,
            other.half_turns * self.weight,
        );
        own.cmp(&others).then(self.backend.cmp(&other.backend))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Turn) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Turn) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}
