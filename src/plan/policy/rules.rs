//! The rules of a configuration in order of precedence, and their numbers.

use std::collections::HashMap;

use crate::config::{Config, Rule};
use crate::model::catalog::{Catalog, RuleInfo};
use crate::model::policy::{Action, Direction};
use crate::model::state::State;
use crate::plan::ids::IdAllocator;

/// The lists of rules as (policy, subject, direction, rules), in order of precedence: of two rules with the same row the first one counts.
pub fn lists(config: &Config) -> impl Iterator<Item = (&str, &str, Direction, &[Rule])> + Clone {
    config.policies.iter().flat_map(|(name, policy)| {
        let ingress = policy
            .ingress
            .iter()
            .map(|rules| (Direction::Ingress, rules));
        let egress = policy.egress.iter().map(|rules| (Direction::Egress, rules));
        let both = ingress.chain(egress);
        both.map(|(direction, rules)| {
            (
                name.as_str(),
                policy.subject.as_str(),
                direction,
                rules.as_slice(),
            )
        })
    })
}

fn subject_number(config: &Config, name: &str) -> u32 {
    let identity = config.identities.get(name);
    identity.map_or(0, |identity| identity.id)
}

fn rule_infos(config: &Config) -> Vec<RuleInfo> {
    let mut infos = Vec::new();
    for (policy, subject, direction, rules) in lists(config) {
        let subject = subject_number(config, subject);
        for (index, rule) in rules.iter().enumerate() {
            infos.push(RuleInfo {
                policy: policy.to_owned(),
                direction,
                index,
                subject,
                action: rule.action,
                peers: rule.peers.iter().map(ToString::to_string).collect(),
                ports: rule.ports.iter().map(ToString::to_string).collect(),
                file: rule.location.file.display().to_string(),
                line: rule.location.line,
            });
        }
    }
    infos
}

/// What identifies a rule across generations: policy, direction, text, and its position among rules of the same text.
type RuleKey<'a> = (
    &'a str,
    Direction,
    Action,
    &'a [String],
    &'a [String],
    usize,
);

fn rule_keys<'a>(
    infos: impl IntoIterator<Item = &'a RuleInfo>,
) -> impl Iterator<Item = RuleKey<'a>> {
    let mut seen = HashMap::new();
    infos.into_iter().map(move |info| {
        let list = (info.policy.as_str(), info.direction);
        let text = (info.action, info.peers.as_slice(), info.ports.as_slice());
        let same = seen.entry((list, text)).or_insert(0);
        *same += 1;
        (list.0, list.1, text.0, text.1, text.2, *same)
    })
}

/// A rule with the subject and direction of its list.
pub struct ListedRule<'a> {
    pub rule: &'a Rule,
    pub subject: u32,
    pub direction: Direction,
}

/// All rules by position, the order of `RuleNumbers`.
pub fn listed(config: &Config) -> impl Iterator<Item = ListedRule<'_>> {
    lists(config).flat_map(|(_, subject, direction, rules)| {
        let subject = subject_number(config, subject);
        rules.iter().map(move |rule| ListedRule {
            rule,
            subject,
            direction,
        })
    })
}

/// The numbers of all rules and their entries in the catalog, by position.
#[derive(Debug)]
pub struct RuleNumbers {
    infos: Vec<RuleInfo>,
    numbers: Vec<u32>,
    next: u32,
}

impl RuleNumbers {
    /// Numbers the rules. A rule of the previous catalog with the same text keeps its number.
    pub fn assign(config: &Config, previous: &Catalog) -> RuleNumbers {
        let infos = rule_infos(config);
        let mut old: Vec<(&u32, &RuleInfo)> = previous.rules.iter().collect();
        old.sort_by_key(|(_, info)| (&info.policy, info.direction, info.index));
        let keys = rule_keys(old.iter().map(|(_, info)| *info));
        let mut numbers = IdAllocator::new(
            keys.zip(old.iter().map(|(number, _)| **number)),
            previous.next.rule,
        );
        let numbered = rule_keys(&infos).map(|key| numbers.number(key)).collect();
        let next = numbers.next();
        RuleNumbers {
            infos,
            numbers: numbered,
            next,
        }
    }

    /// Replaces the positions in a state's policy rows by the rules' numbers, and names the rules in the catalog.
    pub fn put(self, state: &mut State) {
        for entry in state.policy.values_mut() {
            entry.rule = self.numbers[entry.rule as usize];
        }
        let catalog = state.catalog_mut();
        catalog.rules = self.numbers.into_iter().zip(self.infos).collect();
        catalog.next.rule = self.next;
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::testing::TestConfig;

    #[test]
    fn a_rule_has_its_location() {
        let test = TestConfig::new().identity("web", 300, "").policy(
            "p",
            "web",
            Some("allow host;deny db 53/udp,80-90/tcp"),
            None,
        );
        let state = test.compile();
        let info = &state.catalog.rules[&2];
        assert_eq!(info.label(), "p/ingress/1");
        assert_eq!(info.text(), "deny from db ports 53/udp, 80-90/tcp");
        assert_eq!((info.subject, info.line), (300, 1));
        assert_eq!(info.file, "/etc/dpd/config.toml");
    }
}
