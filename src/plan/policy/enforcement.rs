//! Enforcement: which directions of an identity need a rule that allows, and which only obey denies.

use std::collections::HashMap;

use crate::config::{Config, EnforcementMode, Rule};
use crate::model::catalog::Catalog;
use crate::model::policy::{Action, Direction};
use crate::model::state::Enforcement;

use super::rules::lists;

/// The enforcement of each direction of each identity.
pub struct Enforcements<'a> {
    mode: EnforcementMode,
    named: HashMap<(&'a str, Direction), Enforcement>,
}

impl<'a> Enforcements<'a> {
    pub fn new(config: &'a Config) -> Self {
        let mut named = HashMap::new();
        for (_, subject, direction, rules) in lists(config) {
            let wanted = enforcement_of(rules);
            let found = named.entry((subject, direction)).or_insert(wanted);
            *found = wanted.max(*found);
        }
        Enforcements {
            mode: config.policy.enforcement,
            named,
        }
    }

    /// The enforcement of the identity with this name.
    pub fn of(&self, identity: &'a str, direction: Direction) -> Enforcement {
        match self.mode {
            EnforcementMode::Always => Enforcement::On,
            EnforcementMode::Never => Enforcement::Off,
            EnforcementMode::Default => {
                let named = self.named.get(&(identity, direction));
                named.copied().unwrap_or(Enforcement::Off)
            }
        }
    }
}

/// The enforcement that a list of rules asks for: a list of denies alone blocks what they match, and nothing else.
fn enforcement_of(rules: &[Rule]) -> Enforcement {
    let has_denies_alone =
        !rules.is_empty() && rules.iter().all(|rule| rule.action == Action::Deny);
    match has_denies_alone {
        true => Enforcement::DenyOnly,
        false => Enforcement::On,
    }
}

/// Names in the catalog the policies that put an identity under enforcement.
pub fn name_enforcers(config: &Config, catalog: &mut Catalog) {
    for (policy, subject, direction, rules) in lists(config) {
        if enforcement_of(rules) != Enforcement::On {
            continue;
        }
        let subject = config.identities.get(subject).map(|identity| identity.id);
        let Some(info) = subject.and_then(|subject| catalog.identities.get_mut(&subject)) else {
            continue;
        };
        match direction {
            Direction::Ingress => info.ingress_enforced_by.push(policy.to_owned()),
            Direction::Egress => info.egress_enforced_by.push(policy.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::TestConfig;

    #[test]
    fn enforcement_follows_what_is_named() {
        use Enforcement::{DenyOnly, Off, On};
        use EnforcementMode::{Always, Default, Never};
        let rows = [
            ("nothing names it", Default, None, None, Off),
            ("an empty list: nothing passes", Default, Some(""), None, On),
            ("an allow", Default, Some("allow db"), None, On),
            (
                "denies alone block what they match",
                Default,
                Some("deny db;deny host"),
                None,
                DenyOnly,
            ),
            (
                "a deny and an allow",
                Default,
                Some("deny db;allow any"),
                None,
                On,
            ),
            (
                "denies here, an allow there",
                Default,
                Some("deny db"),
                Some("allow any"),
                On,
            ),
            (
                "denies here, an empty list there",
                Default,
                Some(""),
                Some("deny db"),
                On,
            ),
            (
                "an allow of a peer without an address",
                Default,
                Some("allow idle"),
                None,
                On,
            ),
            ("always, though nothing names it", Always, None, None, On),
            (
                "always, though only denies do",
                Always,
                Some("deny db"),
                None,
                On,
            ),
            (
                "never, though a list is empty",
                Never,
                Some(""),
                Some("deny db"),
                Off,
            ),
        ];
        for (what, mode, first, second, expected) in rows {
            let test = TestConfig::new()
                .policy("a", "web", first, None)
                .policy("b", "web", second, None)
                .policy("other", "db", None, Some(""))
                .enforcement(mode);
            let enforcements = Enforcements::new(&test.config);
            assert_eq!(
                enforcements.of("web", Direction::Ingress),
                expected,
                "{what}"
            );
            let egress = match mode {
                Always => On,
                Default | Never => Off,
            };
            assert_eq!(
                enforcements.of("web", Direction::Egress),
                egress,
                "{what}: the other direction"
            );
        }
    }
}
