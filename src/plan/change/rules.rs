//! The rules of a catalog as objects of a plan, named by their text.

use std::collections::BTreeMap;

use crate::model::catalog::{Catalog, RuleInfo};
use crate::model::policy::Direction;

use super::object::Object;

/// The rules of a catalog by number.
pub fn rules(catalog: &Catalog) -> BTreeMap<u32, Object> {
    RuleLists::of(catalog).names()
}

/// The lists of rules by policy and direction, each in order of precedence.
pub struct RuleLists<'a> {
    catalog: &'a Catalog,
    lists: BTreeMap<(&'a str, Direction), Vec<(u32, &'a RuleInfo)>>,
}

impl<'a> RuleLists<'a> {
    pub fn of(catalog: &'a Catalog) -> Self {
        let mut lists: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (number, rule) in &catalog.rules {
            let list = lists.entry((rule.policy.as_str(), rule.direction));
            list.or_default().push((*number, rule));
        }
        for list in lists.values_mut() {
            list.sort_by_key(|(_, rule)| rule.index);
        }
        RuleLists { catalog, lists }
    }

    fn subject(&self, rule: &RuleInfo) -> Option<&'a str> {
        self.catalog.identity_name(rule.subject)
    }

    /// The lists that differ from those of the other catalog in text or order; the location in a file is ignored.
    pub fn without(self, other: &RuleLists<'_>) -> Self {
        let is_same = |((a, of_a), (b, of_b)): (&(u32, &RuleInfo), &(u32, &RuleInfo))| {
            let are_peers = of_a.peers == of_b.peers && of_a.ports == of_b.ports;
            let is_subject = self.subject(of_a) == other.subject(of_b);
            a == b && are_peers && is_subject && of_a.action == of_b.action
        };
        let mut lists = self.lists.clone();
        lists.retain(|key, list| {
            let other = other.lists.get(key).map_or(&[][..], Vec::as_slice);
            list.len() != other.len() || !list.iter().zip(other).all(is_same)
        });
        RuleLists { lists, ..self }
    }

    pub fn names(self) -> BTreeMap<u32, Object> {
        let mut names = BTreeMap::new();
        for ((policy, direction), list) in self.lists {
            let mut taken: BTreeMap<String, usize> = BTreeMap::new();
            for (number, rule) in list {
                let name = format!("{policy}/{direction} {}", rule.text());
                // A second rule of the same text is an object of its own.
                let nth = taken.entry(name.clone()).or_default();
                *nth += 1;
                let name = match nth {
                    1 => name,
                    nth => format!("{name} ({nth})"),
                };
                names.insert(number, Object::new("rule", name));
            }
        }
        names
    }
}
