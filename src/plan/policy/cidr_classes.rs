//! Equivalence classes of `cidr:` peers: prefixes that exactly the same rules name.
//!
//! No rule distinguishes such prefixes, so the first of them represents all. A list of fifty thousand prefixes makes one
//! peer class and not fifty thousand: the size of the policy table follows the number of rules, not of their prefixes.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use crate::config::Config;
use crate::model::policy::Peer;

use super::rules::lists;

/// Every prefix that some rule names, with the one that represents its class.
pub struct CidrClasses {
    prefixes: BTreeMap<IpNet, IpNet>,
}

impl CidrClasses {
    pub fn new(config: &Config) -> Self {
        let mut rules_of: BTreeMap<IpNet, Vec<usize>> = BTreeMap::new();
        let rules = lists(config).flat_map(|(_, _, _, rules)| rules);
        for (index, rule) in rules.enumerate() {
            for peer in &rule.peers {
                let Peer::Cidr(prefix) = peer else { continue };
                let rules = rules_of.entry(prefix.trunc()).or_default();
                if rules.last() != Some(&index) {
                    rules.push(index);
                }
            }
        }
        let mut first: HashMap<&[usize], IpNet> = HashMap::new();
        let prefixes = rules_of
            .iter()
            .map(|(prefix, rules)| (*prefix, *first.entry(rules).or_insert(*prefix)))
            .collect();
        CidrClasses { prefixes }
    }

    /// The prefix that represents the class of this one; `None`: no rule names it.
    pub fn representative(&self, prefix: IpNet) -> Option<IpNet> {
        self.prefixes.get(&prefix.trunc()).copied()
    }

    /// Every prefix that some rule names.
    pub fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.prefixes.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{TestConfig, net};

    #[test]
    fn prefixes_of_the_same_rules_have_one_representative() {
        let ingress = "deny cidr:10.0.0.0/8,cidr:11.0.0.0/8,cidr:2001:db8::/32;\
                       allow cidr:11.0.0.0/8,cidr:12.0.0.0/8,cidr:12.0.0.0/8";
        let egress = "deny cidr:12.0.0.0/8,cidr:9.0.0.0/8";
        let test = TestConfig::new().identity("web", 300, "").policy(
            "p",
            "web",
            Some(ingress),
            Some(egress),
        );
        let classes = CidrClasses::new(&test.config);
        let rows = [
            ("the first of its set", "10.0.0.0/8", Some("10.0.0.0/8")),
            ("the same rule alone", "2001:db8::/32", Some("10.0.0.0/8")),
            ("another rule too", "11.0.0.0/8", Some("11.0.0.0/8")),
            (
                "two rules, one of them twice",
                "12.0.0.0/8",
                Some("12.0.0.0/8"),
            ),
            ("the other direction alone", "9.0.0.0/8", Some("9.0.0.0/8")),
            ("inside of one that is named", "10.1.0.0/16", None),
            ("host bits do not count", "10.9.9.9/8", Some("10.0.0.0/8")),
        ];
        for (what, prefix, expected) in rows {
            assert_eq!(
                classes.representative(net(prefix)),
                expected.map(net),
                "{what}: {prefix}"
            );
        }
        assert_eq!(classes.prefixes().count(), 5);
    }
}
