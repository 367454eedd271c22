//! Policy: rules to rows of a trie that is keyed by subject, peer's class, direction, protocol and port.
//!
//! The longest prefix alone decides in the trie, so an allow that a deny of the same peer covers is left out;
//! a deny inside an allow is longer and stands by itself.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use crate::config::{Config, EnforcementMode, Rule};
use crate::model::catalog::{Catalog, RuleInfo};
use crate::model::policy::{Action, Direction, Peer, Ports, reserved};
use crate::model::state::{Enforcement, PolicyEntry, PolicyKey, State};

use super::numbers::Numbers;
pub use super::verdict::{Decision, Verdict, verdict};

/// The class that stands for `any`.
pub(super) const ANY: u32 = 0;

/// What policy does in each direction of each identity.
pub(super) struct Enforcements<'a> {
    mode: EnforcementMode,
    named: HashMap<(&'a str, Direction), Enforcement>,
}

impl<'a> Enforcements<'a> {
    pub fn new(config: &'a Config) -> Self {
        let mut named = HashMap::new();
        for (_, subject, direction, rules) in lists(config) {
            let takes_only =
                !rules.is_empty() && rules.iter().all(|rule| rule.action == Action::Deny);
            let wanted = if takes_only {
                Enforcement::DenyOnly
            } else {
                Enforcement::On
            };
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

/// Fills the table of policy; the classes must be known.
pub fn compile(config: &Config, known: &Catalog, state: &mut State) {
    let infos = rule_infos(config);
    let rules = lists(config).flat_map(|(_, _, _, rules)| rules);
    let numbered = number_rules(&infos, known, state);
    let peers = PeerClasses::new(config, &state.catalog);

    // Denies first: then an allow can see what covers it.
    for action in [Action::Deny, Action::Allow] {
        for ((rule, info), number) in rules.clone().zip(&infos).zip(&numbered) {
            if rule.action != action {
                continue;
            }
            let entry = PolicyEntry {
                action,
                rule: *number,
            };
            for key in rows(rule, info, &peers) {
                if action == Action::Deny || !is_denied(state, key) {
                    state.policy.entry(key).or_insert(entry);
                }
            }
        }
    }
    state.catalog.rules = numbered.into_iter().zip(infos).collect();
}

/// The lists of rules as (policy, subject, direction, rules), in the order in which the first rule wins.
fn lists(config: &Config) -> impl Iterator<Item = (&str, &str, Direction, &[Rule])> + Clone {
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

fn rule_infos(config: &Config) -> Vec<RuleInfo> {
    let mut infos = Vec::new();
    for (policy, subject, direction, rules) in lists(config) {
        let subject = config
            .identities
            .get(subject)
            .map_or(0, |identity| identity.id);
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

fn number_rules(infos: &[RuleInfo], known: &Catalog, state: &mut State) -> Vec<u32> {
    let mut former: Vec<(&u32, &RuleInfo)> = known.rules.iter().collect();
    former.sort_by_key(|(_, info)| (&info.policy, info.direction, info.index));
    let keys = rule_keys(former.iter().map(|(_, info)| *info));
    let mut numbers = Numbers::new(
        keys.zip(former.iter().map(|(number, _)| **number)),
        known.next.rule,
    );
    let numbered = rule_keys(infos).map(|key| numbers.number(key)).collect();
    state.catalog.next.rule = numbers.next();
    numbered
}

/// Every row that a rule makes: its peers' classes times its ports.
fn rows(rule: &Rule, info: &RuleInfo, peers: &PeerClasses<'_>) -> Vec<PolicyKey> {
    let ports = port_rows(&rule.ports);
    let classes: BTreeSet<u32> = rule.peers.iter().flat_map(|peer| peers.of(peer)).collect();
    let mut rows = Vec::with_capacity(classes.len() * ports.len());
    for class in classes {
        for (protocol, port, port_bits) in &ports {
            rows.push(PolicyKey {
                subject: info.subject,
                class,
                direction: info.direction,
                protocol: *protocol,
                port: *port,
                port_bits: *port_bits,
            });
        }
    }
    rows
}

/// The (protocol, port, leading bits of the port) that a list of ports covers; an empty one is all traffic.
fn port_rows(ports: &[Ports]) -> Vec<(Option<u8>, u16, u8)> {
    if ports.is_empty() {
        return vec![(None, 0, 0)];
    }
    let mut rows = Vec::new();
    for ports in ports {
        let protocol = Some(ports.protocol.number());
        let (first, last) = ports.range.unwrap_or((0, u16::MAX));
        let prefixes = port_prefixes(first, last);
        rows.extend(
            prefixes
                .into_iter()
                .map(|(port, bits)| (protocol, port, bits)),
        );
    }
    rows
}

/// The fewest (port, leading bits) whose ports are `first` to `last`, both included.
fn port_prefixes(first: u16, last: u16) -> Vec<(u16, u8)> {
    let (mut next, end) = (u32::from(first), u32::from(last) + 1);
    let mut prefixes = Vec::new();
    while next < end {
        // As many ports as `next` is aligned to, but none beyond the end.
        let aligned = next.trailing_zeros().min(16);
        let free_bits = aligned.min((end - next).ilog2());
        prefixes.push((next as u16, 16 - free_bits as u8));
        next += 1 << free_bits;
    }
    prefixes
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

fn is_denied(state: &State, key: PolicyKey) -> bool {
    covering(key).any(|key| {
        let found = state.policy.get(&key);
        found.is_some_and(|entry| entry.action == Action::Deny)
    })
}

/// Which classes each peer of a rule is.
struct PeerClasses<'a> {
    config: &'a Config,
    labelled: HashMap<(&'a str, &'a str), Vec<u32>>,
    by_identity: HashMap<u32, Vec<u32>>,
    by_cidr: HashMap<IpNet, Vec<u32>>,
    world: Vec<u32>,
}

impl<'a> PeerClasses<'a> {
    fn new(config: &'a Config, catalog: &Catalog) -> Self {
        let mut peers = PeerClasses {
            config,
            labelled: HashMap::new(),
            by_identity: HashMap::new(),
            by_cidr: HashMap::new(),
            world: Vec::new(),
        };
        for (number, class) in &catalog.classes {
            peers
                .by_identity
                .entry(class.identity)
                .or_default()
                .push(*number);
            for cidr in &class.cidrs {
                peers.by_cidr.entry(*cidr).or_default().push(*number);
            }
            if class.world {
                peers.world.push(*number);
            }
        }
        for identity in config.identities.values() {
            for (key, value) in &identity.labels {
                let carriers = peers.labelled.entry((key, value)).or_default();
                carriers.push(identity.id);
            }
        }
        peers
    }

    fn of(&self, peer: &Peer) -> Vec<u32> {
        match peer {
            Peer::Any => vec![ANY],
            Peer::Host => self.of_identities(&[reserved::HOST]),
            Peer::RemoteNode => self.of_identities(&[reserved::REMOTE_NODE]),
            Peer::World => self.world.clone(),
            Peer::Identity(name) => match self.config.identities.get(name) {
                Some(identity) => self.of_identities(&[identity.id]),
                None => Vec::new(),
            },
            Peer::Label { key, value } => {
                let carriers = self.labelled.get(&(key.as_str(), value.as_str()));
                self.of_identities(carriers.map_or(&[], Vec::as_slice))
            }
            Peer::Cidr(prefix) => self
                .by_cidr
                .get(&prefix.trunc())
                .cloned()
                .unwrap_or_default(),
        }
    }

    fn of_identities(&self, ids: &[u32]) -> Vec<u32> {
        let classes = ids.iter().filter_map(|id| self.by_identity.get(id));
        classes.flatten().copied().collect()
    }
}
