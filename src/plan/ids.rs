//! Numbers of objects: an object of the previous generation keeps its number, a new one gets a number that was never used.

use std::collections::BTreeMap;

/// Allocates the numbers of one kind of object.
pub struct IdAllocator<K> {
    ids: BTreeMap<K, u32>,
    next: u32,
}

impl<K: Ord> IdAllocator<K> {
    /// `next` is the first number that was never used, as the previous catalog has it.
    pub fn new(previous: impl IntoIterator<Item = (K, u32)>, next: u32) -> Self {
        let mut ids = IdAllocator {
            ids: BTreeMap::new(),
            next: next.max(1), // 0 means "none" in every table
        };
        for (key, number) in previous {
            // A damaged catalog must not make us allocate one of its numbers a second time.
            ids.next = ids.next.max(number.saturating_add(1));
            ids.ids.entry(key).or_insert(number);
        }
        ids
    }

    /// The number of `key`, the next free one if it is new.
    pub fn number(&mut self, key: K) -> u32 {
        *self.ids.entry(key).or_insert_with(|| {
            let number = self.next;
            self.next += 1;
            number
        })
    }

    /// The first number that was never used.
    pub fn next(&self) -> u32 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_keeps_its_number() {
        let mut ids = IdAllocator::new([("a", 3), ("b", 5)], 9);
        assert_eq!((ids.number("b"), ids.number("a")), (5, 3));
    }

    #[test]
    fn a_new_name_gets_an_unused_number() {
        let mut ids = IdAllocator::new([("a", 3)], 9);
        assert_eq!((ids.number("b"), ids.number("c")), (9, 10));
        assert_eq!((ids.number("b"), ids.next()), (9, 11));
    }

    #[test]
    fn zero_is_never_allocated() {
        assert_eq!(IdAllocator::new([], 0).number("a"), 1);
    }

    #[test]
    fn a_catalog_whose_next_lags_behind_allocates_nothing_twice() {
        assert_eq!(IdAllocator::new([("a", 7)], 2).number("b"), 8);
    }

    #[test]
    fn of_two_numbers_of_one_name_the_first_stays() {
        let mut ids = IdAllocator::new([("a", 3), ("a", 4)], 5);
        assert_eq!((ids.number("a"), ids.number("b")), (3, 5));
    }
}
