//! Policy: rules to rows of a trie that is keyed by subject, peer's class, direction, protocol and port.
//!
//! The longest prefix alone decides in the trie, so an allow that a deny of the same peer covers is left out;
//! a deny inside an allow is longer and stands by itself. `any` and `world` are classes of their own, asked beside the
//! peer's: a row for each class that they hold would make millions of a few thousand rules.

use std::collections::HashMap;

use crate::config::{Config, EnforcementMode, Rule};
use crate::model::catalog::{Catalog, RuleInfo};
use crate::model::policy::{Action, Direction};
use crate::model::state::{Enforcement, PolicyEntry, PolicyKey, State};

use super::cidr::CidrClasses;
use super::numbers::Numbers;
use super::peer::PeerClasses;
use super::ports;
pub use super::verdict::{Decision, Verdict, verdict};

/// What policy does in each direction of each identity.
pub(super) struct Enforcements<'a> {
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

/// Fills the table of policy; the classes must be known. Until `Rules` has given its number to each rule, a row has its place
/// among all of them.
pub fn compile(config: &Config, stand_ins: &CidrClasses, state: &mut State) {
    let peers = PeerClasses::new(config, stand_ins, &state.catalog);
    let denies = Denies::of(
        placed(config)
            .filter(|rule| rule.rule.action == Action::Deny)
            .flat_map(|rule| rule.rows(&peers)),
    );
    let mut table = Vec::new();
    for (place, rule) in (0..).zip(placed(config)) {
        let action = rule.rule.action;
        let entry = PolicyEntry {
            action,
            rule: place,
        };
        let keys = rule.rows(&peers).into_iter();
        let counts = |key: &PolicyKey| action == Action::Deny || !denies.cover(key);
        table.extend(keys.filter(counts).map(|key| (key, entry)));
    }
    // The sort keeps the order of what is alike: the first rule wins.
    table.sort_by_key(|(key, _)| *key);
    table.dedup_by_key(|(key, _)| *key);
    state.policy = table.into_iter().collect();
    name_enforcers(config, state.catalog_mut());
}

/// What rules are known by, in the order of their places.
#[derive(Debug)]
pub struct Rules {
    infos: Vec<RuleInfo>,
    numbers: Vec<u32>,
    next: u32,
}

impl Rules {
    /// Nothing else of a state has to be known.
    pub fn of(config: &Config, known: &Catalog) -> Rules {
        let infos = rule_infos(config);
        let mut former: Vec<(&u32, &RuleInfo)> = known.rules.iter().collect();
        former.sort_by_key(|(_, info)| (&info.policy, info.direction, info.index));
        let keys = rule_keys(former.iter().map(|(_, info)| *info));
        let mut numbers = Numbers::new(
            keys.zip(former.iter().map(|(number, _)| **number)),
            known.next.rule,
        );
        let numbered = rule_keys(&infos).map(|key| numbers.number(key)).collect();
        let next = numbers.next();
        Rules {
            infos,
            numbers: numbered,
            next,
        }
    }

    /// Gives the rows of a state's policy their rules' numbers, and names them in the catalog.
    pub fn put(self, state: &mut State) {
        for entry in state.policy.values_mut() {
            entry.rule = self.numbers[entry.rule as usize];
        }
        let catalog = state.catalog_mut();
        catalog.rules = self.numbers.into_iter().zip(self.infos).collect();
        catalog.next.rule = self.next;
    }
}

/// What a list asks for: one of nothing but denies takes those away and leaves the rest as it was.
fn enforcement_of(rules: &[Rule]) -> Enforcement {
    let takes_only = !rules.is_empty() && rules.iter().all(|rule| rule.action == Action::Deny);
    match takes_only {
        true => Enforcement::DenyOnly,
        false => Enforcement::On,
    }
}

/// Notes which policies put an identity under enforcement.
fn name_enforcers(config: &Config, catalog: &mut Catalog) {
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

/// The lists of rules as (policy, subject, direction, rules), in the order in which the first rule wins.
pub(super) fn lists(
    config: &Config,
) -> impl Iterator<Item = (&str, &str, Direction, &[Rule])> + Clone {
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
                file: rule.place.file.display().to_string(),
                line: rule.place.line,
            });
        }
    }
    infos
}

/// What a rule is known by: where it belongs and what it says, and which one it is of those that say the same.
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
        let place = (info.policy.as_str(), info.direction);
        let words = (info.action, info.peers.as_slice(), info.ports.as_slice());
        let same = seen.entry((place, words)).or_insert(0);
        *same += 1;
        (place.0, place.1, words.0, words.1, words.2, *same)
    })
}

/// A rule where it stands.
struct Placed<'a> {
    rule: &'a Rule,
    subject: u32,
    direction: Direction,
}

/// All rules in the order of their places.
fn placed(config: &Config) -> impl Iterator<Item = Placed<'_>> {
    lists(config).flat_map(|(_, subject, direction, rules)| {
        let subject = subject_number(config, subject);
        rules.iter().map(move |rule| Placed {
            rule,
            subject,
            direction,
        })
    })
}

impl Placed<'_> {
    /// Every row that a rule makes: its peers' classes times its ports.
    fn rows(&self, peers: &PeerClasses<'_>) -> Vec<PolicyKey> {
        let ports = ports::rows(&self.rule.ports);
        let classes = self.rule.peers.iter().flat_map(|peer| peers.of(peer));
        let mut classes: Vec<u32> = classes.collect();
        classes.sort_unstable();
        classes.dedup();
        let mut rows = Vec::with_capacity(classes.len() * ports.len());
        for class in classes {
            for (protocol, port, port_bits) in &ports {
                rows.push(PolicyKey {
                    subject: self.subject,
                    class,
                    direction: self.direction,
                    protocol: *protocol,
                    port: *port,
                    port_bits: *port_bits,
                });
            }
        }
        rows
    }
}

/// Every row that covers this one, itself too, the longest first: how the trie is searched.
pub(super) fn covering(key: PolicyKey) -> impl Iterator<Item = PolicyKey> {
    let of_protocol = key.protocol.is_some().then_some((0..=key.port_bits).rev());
    let by_ports = of_protocol
        .into_iter()
        .flatten()
        .map(move |port_bits| PolicyKey {
            port: if port_bits == 0 {
                0
            } else {
                key.port & (u16::MAX << (16 - port_bits))
            },
            port_bits,
            ..key
        });
    by_ports.chain(std::iter::once(PolicyKey {
        protocol: None,
        port: 0,
        port_bits: 0,
        ..key
    }))
}

/// What is denied, by subject, peer's class and direction: few of those have any deny at all.
struct Denies(HashMap<(u32, u32, Direction), Vec<PolicyKey>>);

impl Denies {
    fn of(keys: impl Iterator<Item = PolicyKey>) -> Denies {
        let mut denies: HashMap<_, Vec<PolicyKey>> = HashMap::new();
        for key in keys {
            denies.entry(Self::place(&key)).or_default().push(key);
        }
        Denies(denies)
    }

    fn place(key: &PolicyKey) -> (u32, u32, Direction) {
        (key.subject, key.class, key.direction)
    }

    /// Whether all that this row matches is denied.
    fn cover(&self, key: &PolicyKey) -> bool {
        let denies = self.0.get(&Self::place(key));
        denies.is_some_and(|denies| covering(*key).any(|key| denies.contains(&key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::reserved;
    use crate::plan::testing::{Lab, ip};

    fn lab() -> Lab {
        Lab::new()
            .identity("web", 300, "tier=front env=prod")
            .identity("db", 301, "tier=back env=prod")
            .identity("idle", 302, "env=prod")
            .endpoint("web", "web", "10.1.1.1")
            .endpoint("db", "db", "10.1.1.2")
    }

    /// The ingress rows of `web` in words, in the trie's order: `PEER PROTOCOL PORT/BITS ACTION RULE`.
    fn rows(list: &str) -> Vec<String> {
        let state = lab().policy("p", "web", Some(list), None).compile();
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
            ("a label of none", "allow label:tier=none", &[]),
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
                "a deny of any leaves the rows of others alone: it is asked beside them",
                "deny any udp;allow db 53/udp",
                &["any 17 0/0 deny 0", "db 17 53/16 allow 1"],
            ),
        ];
        for (what, list, expected) in table {
            assert_eq!(rows(list), *expected, "{what}: {list}");
        }
    }

    #[test]
    fn the_first_policy_by_name_gets_the_credit() {
        let lab = lab().policy("b", "web", Some("allow db"), None).policy(
            "a",
            "web",
            Some("allow db"),
            None,
        );
        let state = lab.compile();
        let rules: Vec<String> = state
            .policy
            .values()
            .map(|entry| state.catalog.rules[&entry.rule].label())
            .collect();
        assert_eq!(rules, ["a/ingress/0"]);
    }

    #[test]
    fn enforcement_follows_what_is_named() {
        use Enforcement::{DenyOnly, Off, On};
        use EnforcementMode::{Always, Default, Never};
        let rows = [
            ("nothing names it", Default, None, None, Off),
            ("an empty list: nothing passes", Default, Some(""), None, On),
            ("an allow", Default, Some("allow db"), None, On),
            (
                "denies alone take away",
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
                "an allow that nobody is",
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
            let lab = lab()
                .policy("a", "web", first, None)
                .policy("b", "web", second, None)
                .policy("other", "db", None, Some(""))
                .enforcement(mode);
            let enforcements = Enforcements::new(&lab.config);
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
                "{what}: the other way"
            );
        }
    }

    #[test]
    fn a_rule_says_where_it_stands() {
        let lab = lab().policy(
            "p",
            "web",
            Some("allow host;deny db 53/udp,80-90/tcp"),
            None,
        );
        let state = lab.compile();
        let info = &state.catalog.rules[&2];
        assert_eq!(info.label(), "p/ingress/1");
        assert_eq!(info.text(), "deny from db ports 53/udp, 80-90/tcp");
        assert_eq!((info.subject, info.line), (300, 1));
        assert_eq!(info.file, "/etc/dpd/config.toml");
    }

    #[test]
    fn a_refusal_names_the_side_and_the_rule() {
        let lab = lab()
            .policy(
                "in",
                "db",
                Some("allow web 53/udp;deny cidr:10.1.1.1 53/tcp"),
                None,
            )
            .policy("out", "web", None, Some("allow db;deny world 25/tcp"));
        let state = lab.compile();
        let rows = [
            ("both allow", "10.1.1.1", "10.1.1.2", 17, 53, "allow"),
            (
                "no rule of the receiver",
                "10.1.1.1",
                "10.1.1.2",
                17,
                54,
                "deny ingress 301 by none",
            ),
            (
                "a deny of the receiver",
                "10.1.1.1",
                "10.1.1.2",
                6,
                53,
                "deny ingress 301 by in/ingress/1",
            ),
            (
                "a deny of the sender",
                "10.1.1.1",
                "8.8.8.8",
                6,
                25,
                "deny egress 300 by out/egress/1",
            ),
            (
                "no rule of the sender",
                "10.1.1.1",
                "8.8.8.8",
                6,
                80,
                "deny egress 300 by none",
            ),
            (
                "the host may, though no rule says so",
                "192.0.2.1",
                "10.1.1.2",
                6,
                53,
                "allow",
            ),
            ("to itself", "10.1.1.1", "10.1.1.1", 6, 1, "allow"),
            ("past us", "8.8.8.8", "9.9.9.9", 6, 1, "allow"),
        ];
        for (what, src, dst, protocol, port, expected) in rows {
            let found = verdict(&state, ip(src), ip(dst), protocol, port);
            let words = match found.refusal() {
                None => "allow".to_owned(),
                Some((direction, decision)) => {
                    let rule = decision
                        .rule
                        .map(|number| state.catalog.rules[&number].label());
                    let rule = rule.unwrap_or_else(|| "none".to_owned());
                    format!("deny {direction} {} by {rule}", decision.subject)
                }
            };
            assert_eq!(words, expected, "{what}");
        }
    }
}
