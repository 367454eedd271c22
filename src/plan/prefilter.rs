//! The prefilter: the prefixes that XDP drops on the uplinks, each with the number under which its drops are counted.

use ipnet::IpNet;

use crate::model::catalog::PrefilterInfo;
use crate::model::state::{PrefilterEntry, State};

use super::ids::IdAllocator;
use super::inputs::Inputs;

/// Fills the table of the prefilter. A prefix of several tables belongs to the first of them by name.
pub fn compile(inputs: Inputs<'_>, state: &mut State) {
    let previous = inputs.previous;
    let numbered = previous.prefilter.iter();
    let mut numbers = IdAllocator::new(
        numbered.map(|(number, info)| (info.clone(), *number)),
        previous.next.prefilter,
    );
    for (table, prefixes) in &inputs.config.prefilter {
        for prefix in prefixes.iter().map(IpNet::trunc) {
            if state.prefilter.contains_key(&prefix) {
                continue;
            }
            let info = PrefilterInfo {
                table: table.clone(),
                prefix,
            };
            let number = numbers.number(info.clone());
            state.prefilter.insert(prefix, PrefilterEntry { number });
            state.catalog_mut().prefilter.insert(number, info);
        }
    }
    state.catalog_mut().next.prefilter = numbers.next();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{TestConfig, net};

    /// `PREFIX TABLE NUMBER` in the order of the prefixes.
    fn rows(state: &State) -> Vec<String> {
        let rows = state.prefilter.iter().map(|(prefix, entry)| {
            let info = &state.catalog.prefilter[&entry.number];
            assert_eq!(info.prefix, *prefix);
            format!("{prefix} {} {}", info.table, entry.number)
        });
        rows.collect()
    }

    #[test]
    fn a_prefix_is_the_first_tables_and_keeps_its_number() {
        let first = TestConfig::new()
            .prefilter("bogons", "192.0.2.0/24 10.0.0.0/8")
            .prefilter("abusers", "198.51.100.66 192.0.2.0/24 2001:db8::/32")
            .compile();
        assert_eq!(
            rows(&first),
            [
                "10.0.0.0/8 bogons 4",
                "192.0.2.0/24 abusers 2",
                "198.51.100.66/32 abusers 1",
                "2001:db8::/32 abusers 3",
            ]
        );
        let second = TestConfig::new()
            .prefilter("a", "203.0.113.0/24 198.51.100.66")
            .prefilter("bogons", "10.0.0.0/8")
            .compile_after(&first);
        assert_eq!(
            rows(&second),
            [
                "10.0.0.0/8 bogons 4",
                "198.51.100.66/32 a 6",
                "203.0.113.0/24 a 5",
            ]
        );
        assert_eq!(
            second.catalog.prefilter.len(),
            3,
            "removed prefixes leave the catalog"
        );
        let third = TestConfig::new()
            .prefilter("b", "10.0.0.0/8")
            .compile_after(&second);
        assert_eq!(rows(&third), ["10.0.0.0/8 b 7"], "a number is never reused");
        assert!(third.prefilter.contains_key(&net("10.0.0.0/8")));
    }

    #[test]
    fn host_bits_are_ignored() {
        let state = TestConfig::new().prefilter("a", "10.9.9.9/8").compile();
        assert_eq!(rows(&state), ["10.0.0.0/8 a 1"]);
    }
}
