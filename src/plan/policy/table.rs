//! The policy trie: rows keyed by subject, peer class, direction, protocol and port.
//!
//! In the trie the longest prefix alone decides. So an allow that a deny of the same peer covers gets no row; a deny inside an
//! allow is longer and needs no care. `any` and `world` are classes of their own, looked up in addition to the peer's: a row for
//! each class that they include would make millions of rows from a few thousand rules.

use std::collections::HashMap;
use std::fmt;

use crate::config::{Config, SourceLocation};
use crate::model::policy::{Action, Direction, ROWS_MAX};
use crate::model::state::{PolicyEntry, PolicyKey, State};

use super::cidr_classes::CidrClasses;
use super::enforcement::name_enforcers;
use super::peers::PeerClasses;
use super::ports;
use super::rules::{ListedRule, listed};
use super::trie::covering;

/// Fills the policy table. The catalog must have the peer classes. Until `RuleNumbers::put`, a row names its rule by
/// position.
///
/// # Errors
/// If the rules make too many rows. The configuration's check has counted identities and labels, but not the peer classes into
/// which overlapping prefixes divide them.
pub fn compile(
    config: &Config,
    cidr_classes: &CidrClasses,
    state: &mut State,
) -> Result<(), TooManyRows> {
    let peers = PeerClasses::new(config, cidr_classes, &state.catalog);
    check_size(config, &peers)?;
    let denies = Denies::of(
        listed(config)
            .filter(|rule| rule.rule.action == Action::Deny)
            .flat_map(|rule| rows(&rule, &peers)),
    );
    let mut table = Vec::new();
    for (position, rule) in (0..).zip(listed(config)) {
        let action = rule.rule.action;
        let entry = PolicyEntry {
            action,
            rule: position,
        };
        let keys = rows(&rule, &peers).into_iter();
        let has_effect = |key: &PolicyKey| action == Action::Deny || !denies.cover(key);
        table.extend(keys.filter(has_effect).map(|key| (key, entry)));
    }
    // The sort is stable: of rows with the same key the first rule wins.
    table.sort_by_key(|(key, _)| *key);
    table.dedup_by_key(|(key, _)| *key);
    state.policy = table.into_iter().collect();
    name_enforcers(config, state.catalog_mut());
    Ok(())
}

/// The rule with which the rows become more than the policy table may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooManyRows {
    pub location: SourceLocation,
    /// Of the peers of this rule.
    pub classes: usize,
    /// Prefixes of ports that its ranges are.
    pub ports: usize,
    /// With those of the rules before it.
    pub rows: usize,
}

impl std::error::Error for TooManyRows {}

impl fmt::Display for TooManyRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line) = (self.location.file.display(), self.location.line);
        write!(
            f,
            "{file}:{line}: with the rows of this rule ({} peer classes, {} prefixes of ports) the policy table has {}: more than \
             {ROWS_MAX}. Prefixes of identities and of `cidr:` peers that overlap divide its peers into that many classes: name \
             fewer of them, or fewer ports",
            self.classes, self.ports, self.rows
        )
    }
}

/// Counts the rows before any is made.
fn check_size(config: &Config, peers: &PeerClasses<'_>) -> Result<(), TooManyRows> {
    let mut rows = 0usize;
    for listed in listed(config) {
        let classes = classes(&listed, peers).len();
        let ports = ports::rows(&listed.rule.ports).len();
        rows = rows.saturating_add(classes.saturating_mul(ports));
        if rows > ROWS_MAX {
            return Err(TooManyRows {
                location: listed.rule.location.clone(),
                classes,
                ports,
                rows,
            });
        }
    }
    Ok(())
}

/// The classes of a rule's peers, each once.
fn classes(listed: &ListedRule<'_>, peers: &PeerClasses<'_>) -> Vec<u32> {
    let classes = listed.rule.peers.iter().flat_map(|peer| peers.of(peer));
    let mut classes: Vec<u32> = classes.collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

/// The rows of one rule: the classes of its peers times its ports.
fn rows(listed: &ListedRule<'_>, peers: &PeerClasses<'_>) -> Vec<PolicyKey> {
    let ports = ports::rows(&listed.rule.ports);
    let classes = classes(listed, peers);
    let mut rows = Vec::with_capacity(classes.len() * ports.len());
    for class in classes {
        for (protocol, port, port_bits) in &ports {
            rows.push(PolicyKey {
                subject: listed.subject,
                class,
                direction: listed.direction,
                protocol: *protocol,
                port: *port,
                port_bits: *port_bits,
            });
        }
    }
    rows
}

/// The rows of denies by subject, peer class and direction, since few of these have any deny.
struct Denies(HashMap<(u32, u32, Direction), Vec<PolicyKey>>);

impl Denies {
    fn of(keys: impl Iterator<Item = PolicyKey>) -> Denies {
        let mut denies: HashMap<_, Vec<PolicyKey>> = HashMap::new();
        for key in keys {
            denies.entry(Self::group(&key)).or_default().push(key);
        }
        Denies(denies)
    }

    fn group(key: &PolicyKey) -> (u32, u32, Direction) {
        (key.subject, key.class, key.direction)
    }

    /// Whether everything that this row matches is denied.
    fn cover(&self, key: &PolicyKey) -> bool {
        let denies = self.0.get(&Self::group(key));
        denies.is_some_and(|denies| covering(*key).any(|key| denies.contains(&key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::reserved;
    use crate::plan::testing::TestConfig;

    fn base() -> TestConfig {
        TestConfig::new()
            .identity("web", 300, "tier=front env=prod")
            .identity("db", 301, "tier=back env=prod")
            .identity("idle", 302, "env=prod")
            .endpoint("web", "web", "10.1.1.1")
            .endpoint("db", "db", "10.1.1.2")
    }

    /// The ingress rows of `web` in words, in the trie's order: `PEER PROTOCOL PORT/BITS ACTION RULE`.
    fn rows(list: &str) -> Vec<String> {
        let state = base().policy("p", "web", Some(list), None).compile();
        let words = state.policy.iter().map(|(key, entry)| {
            assert_eq!((key.subject, key.direction), (300, Direction::Ingress));
            let peer = match (key.class, state.catalog.classes.get(&key.class)) {
                (_, Some(class)) => {
                    let name = state.catalog.identity_name(class.identity).unwrap();
                    let cidrs: String = class.cidrs.iter().map(|c| format!("+{c}")).collect();
                    format!("{name}{cidrs}")
                }
                (reserved::CLASS_WORLD, _) => "all of the world".to_owned(),
                _ => "any".to_owned(),
            };
            let ports = match key.protocol {
                Some(protocol) => format!("{protocol} {}/{}", key.port, key.port_bits),
                None => "all".to_owned(),
            };
            let index = state.catalog.rules[&entry.rule].index;
            format!("{peer} {ports} {} {index}", entry.action)
        });
        let mut words: Vec<String> = words.collect();
        words.sort();
        words
    }

    #[test]
    fn rules_become_rows() {
        let table: &[(&str, &str, &[&str])] = &[
            ("an identity, all traffic", "allow db", &["db all allow 0"]),
            (
                "any is a class of its own",
                "allow any",
                &["any all allow 0"],
            ),
            ("a whole protocol", "allow db icmp", &["db 1 0/0 allow 0"]),
            ("a port", "allow db 53/udp", &["db 17 53/16 allow 0"]),
            (
                "a range",
                "allow db 80-82/tcp",
                &["db 6 80/15 allow 0", "db 6 82/16 allow 0"],
            ),
            (
                "all ports of a range are the protocol",
                "allow db 0-65535/tcp",
                &["db 6 0/0 allow 0"],
            ),
            (
                "a label of two",
                "allow label:env=prod",
                &["db all allow 0", "web all allow 0"],
            ),
            (
                "a label of one",
                "allow label:tier=back",
                &["db all allow 0"],
            ),
            ("a label that no identity has", "allow label:tier=none", &[]),
            ("an identity without an address", "allow idle", &[]),
            ("the host", "allow host", &["host all allow 0"]),
            (
                "other nodes, of which there is none",
                "allow remote-node",
                &[],
            ),
            (
                "the world is a class of its own",
                "allow world",
                &["all of the world all allow 0"],
            ),
            (
                "the world with a prefix in it",
                "allow world;deny cidr:8.0.0.0/8",
                &["all of the world all allow 0", "world+8.0.0.0/8 all deny 1"],
            ),
            (
                "an allow of the world inside of its deny",
                "deny world udp;allow world 53/udp",
                &["all of the world 17 0/0 deny 0"],
            ),
            (
                "a prefix of local endpoints",
                "deny cidr:10.1.1.2/31",
                &["db+10.1.1.2/31 all deny 0", "world+10.1.1.2/31 all deny 0"],
            ),
            (
                "a prefix in a prefix",
                "allow cidr:8.0.0.0/8 tcp;allow cidr:8.8.0.0/16 udp",
                &[
                    "world+8.0.0.0/8 6 0/0 allow 0",
                    "world+8.0.0.0/8+8.8.0.0/16 17 0/0 allow 1",
                    "world+8.0.0.0/8+8.8.0.0/16 6 0/0 allow 0",
                ],
            ),
            (
                "a peer named twice",
                "allow db,label:tier=back",
                &["db all allow 0"],
            ),
            (
                "the first of two alike",
                "allow db;allow db,web",
                &["db all allow 0", "web all allow 1"],
            ),
            (
                "a deny beats an allow before it",
                "allow db;deny db",
                &["db all deny 1"],
            ),
            (
                "a deny beats an allow behind it",
                "deny db;allow db",
                &["db all deny 0"],
            ),
            (
                "an allow inside a deny of all",
                "deny db;allow db 53/udp",
                &["db all deny 0"],
            ),
            (
                "an allow inside a protocol's deny",
                "allow db 53/udp;deny db udp",
                &["db 17 0/0 deny 1"],
            ),
            (
                "an allow inside a range's deny",
                "allow db 81/tcp;deny db 80-83/tcp",
                &["db 6 80/14 deny 1"],
            ),
            (
                "an allow that is half inside a deny",
                "allow db 80-83/tcp;deny db 80-81/tcp",
                &["db 6 80/14 allow 0", "db 6 80/15 deny 1"],
            ),
            (
                "a deny inside an allow",
                "allow db;deny db 53/udp",
                &["db 17 53/16 deny 1", "db all allow 0"],
            ),
            (
                "an allow of another protocol",
                "deny db udp;allow db tcp",
                &["db 17 0/0 deny 0", "db 6 0/0 allow 1"],
            ),
            (
                "an allow inside an allow keeps its name",
                "allow db;allow db 53/udp",
                &["db 17 53/16 allow 1", "db all allow 0"],
            ),
            (
                "a deny of any keeps the rows of other peers: both are looked up",
                "deny any udp;allow db 53/udp",
                &["any 17 0/0 deny 0", "db 17 53/16 allow 1"],
            ),
        ];
        for (what, list, expected) in table {
            assert_eq!(rows(list), *expected, "{what}: {list}");
        }
    }

    /// Each of the rule's ports meets each class of the identity's addresses, which other rules divide.
    #[test]
    fn rules_that_make_too_many_rows_are_refused_at_the_one_that_does() {
        let ports: Vec<String> = (0..1100).map(|n| format!("{}/tcp", 2 * n + 1)).collect();
        let list = format!("allow cidr:10.0.0.0/8 {}", ports.join(","));
        let divided = |prefixes: u32| {
            let each = (0..prefixes)
                .map(|n| format!("deny cidr:10.{}.{}.0/24 {}/udp", n / 256, n % 256, n + 1));
            let each: Vec<String> = each.collect();
            let test = TestConfig::new().identity("web", 300, "");
            let test = test.policy("a", "web", Some(&each.join(";")), None);
            let test = test.policy("b", "web", Some(&list), None);
            test.try_compile()
        };
        assert!(divided(900).is_ok());
        let refused = divided(1000).expect_err("a million and more");
        assert_eq!((refused.ports, refused.location.line), (1100, 1));
        assert!(
            refused.classes > 1000 && refused.rows > ROWS_MAX,
            "{refused:?}"
        );
        let words = format!(
            "/etc/dpd/config.toml:1: with the rows of this rule ({} peer classes",
            refused.classes
        );
        assert!(refused.to_string().starts_with(&words), "{refused}");
    }

    #[test]
    fn the_first_policy_by_name_gets_the_credit() {
        let test = base().policy("b", "web", Some("allow db"), None).policy(
            "a",
            "web",
            Some("allow db"),
            None,
        );
        let state = test.compile();
        let rules: Vec<String> = state
            .policy
            .values()
            .map(|entry| state.catalog.rules[&entry.rule].label())
            .collect();
        assert_eq!(rules, ["a/ingress/0"]);
    }
}
