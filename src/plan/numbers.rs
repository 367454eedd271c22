//! Names to numbers: a name that was known keeps its number, a new one gets one that nobody had before.

use std::collections::BTreeMap;

/// The numbers of one kind of thing.
pub struct Numbers<K> {
    known: BTreeMap<K, u32>,
    next: u32,
}

impl<K: Ord> Numbers<K> {
    /// `next` is the first number that was never given, as the catalog kept it.
    pub fn new(known: impl IntoIterator<Item = (K, u32)>, next: u32) -> Self {
        let mut numbers = Numbers {
            known: BTreeMap::new(),
            next: next.max(1),
        };
        for (key, number) in known {
            // A catalog that was damaged must not make us give one of its numbers again.
            numbers.next = numbers.next.max(number.saturating_add(1));
            numbers.known.entry(key).or_insert(number);
        }
        numbers
    }

    /// The number of `key`, the next free one if it is new.
    pub fn number(&mut self, key: K) -> u32 {
        *self.known.entry(key).or_insert_with(|| {
            let number = self.next;
            self.next += 1;
            number
        })
    }

    /// The first number that was never given.
    pub fn next(&self) -> u32 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_keeps_its_number() {
        let mut numbers = Numbers::new([("a", 3), ("b", 5)], 9);
        assert_eq!((numbers.number("b"), numbers.number("a")), (5, 3));
    }

    #[test]
    fn a_new_name_gets_a_number_that_nobody_had() {
        let mut numbers = Numbers::new([("a", 3)], 9);
        assert_eq!((numbers.number("b"), numbers.number("c")), (9, 10));
        assert_eq!((numbers.number("b"), numbers.next()), (9, 11));
    }

    #[test]
    fn zero_is_never_given() {
        assert_eq!(Numbers::new([], 0).number("a"), 1);
    }

    #[test]
    fn a_catalog_whose_next_lags_behind_gives_nothing_twice() {
        assert_eq!(Numbers::new([("a", 7)], 2).number("b"), 8);
    }

    #[test]
    fn of_two_numbers_of_one_name_the_first_stays() {
        let mut numbers = Numbers::new([("a", 3), ("a", 4)], 5);
        assert_eq!((numbers.number("a"), numbers.number("b")), (3, 5));
    }
}
