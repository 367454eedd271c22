//! The whole compiler: its verdicts against the configuration's own words, numbers over generations, and sizes.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Config, EnforcementMode, Interface, Policy, Rule};
use crate::model::host::HostState;
use crate::model::policy::{Action, Direction, Peer, Ports};
use crate::model::state::State;

use super::address;
use super::diff;
use super::policy::{Decision, verdict};
use super::testing::{Lab, Rng, ip, net};

/// The configuration's own words, read again for each packet: slow, and nothing of the compiler's.
struct Oracle<'a> {
    config: &'a Config,
    world: &'a HostState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who<'a> {
    Endpoint {
        interface: &'a str,
        identity: &'a str,
    },
    Host,
    Node,
    /// Elsewhere; the identity that names it, if one does.
    World(Option<&'a str>),
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    port: u16,
}

impl<'a> Oracle<'a> {
    fn who(&self, address: IpAddr) -> Who<'a> {
        let cidrs = self.config.identities.iter().flat_map(|(name, identity)| {
            let cidrs = identity.cidrs.iter();
            cidrs.map(move |cidr| (cidr, name.as_str()))
        });
        let around = cidrs.filter(|(cidr, _)| cidr.contains(&address));
        let named = around.max_by_key(|(cidr, _)| cidr.prefix_len());
        let mut best = (0, Who::World(named.map(|(_, name)| name)));
        let mut nodes = self.config.nodes.values().flat_map(|node| &node.addresses);
        if nodes.any(|node| *node == address) {
            best = (IpNet::from(address).prefix_len(), Who::Node);
        }
        let own = self.config.node.addresses.iter().flatten();
        if own
            .chain(&self.world.addresses)
            .any(|host| *host == address)
        {
            best = (IpNet::from(address).prefix_len(), Who::Host);
        }
        for (interface, endpoint) in &self.config.interfaces {
            let Interface::Endpoint {
                addresses,
                identity,
            } = endpoint
            else {
                continue;
            };
            for prefix in addresses {
                if prefix.contains(&address) && prefix.prefix_len() >= best.0 {
                    best = (
                        prefix.prefix_len(),
                        Who::Endpoint {
                            interface,
                            identity,
                        },
                    );
                }
            }
        }
        best.1
    }

    fn is_peer(&self, peer: &Peer, address: IpAddr) -> bool {
        let identity = match self.who(address) {
            Who::Endpoint { identity, .. } => Some(identity),
            Who::World(named) => named,
            Who::Host | Who::Node => None,
        };
        match peer {
            Peer::Any => true,
            Peer::Host => self.who(address) == Who::Host,
            Peer::RemoteNode => self.who(address) == Who::Node,
            Peer::World => matches!(self.who(address), Who::World(_)),
            Peer::Identity(name) => identity == Some(name),
            Peer::Label { key, value } => identity.is_some_and(|name| {
                let labels = &self.config.identities[name].labels;
                labels.contains(&(key.clone(), value.clone()))
            }),
            Peer::Cidr(prefix) => prefix.contains(&address),
        }
    }

    fn is_match(&self, rule: &Rule, peer: IpAddr, packet: Packet) -> bool {
        let is_port = |ports: &Ports| {
            let range = ports.range;
            ports.protocol.number() == packet.protocol
                && range.is_none_or(|(first, last)| (first..=last).contains(&packet.port))
        };
        rule.peers.iter().any(|named| self.is_peer(named, peer))
            && (rule.ports.is_empty() || rule.ports.iter().any(is_port))
    }

    fn side(&self, subject: &str, direction: Direction, peer: IpAddr, packet: Packet) -> Action {
        let policies = self
            .config
            .policies
            .values()
            .filter(|policy| policy.subject == subject);
        let lists: Vec<&Vec<Rule>> = policies
            .filter_map(|policy| list(policy, direction))
            .collect();
        let says = |action: Action| {
            let mut rules = lists.iter().copied().flatten();
            rules.any(|rule| rule.action == action && self.is_match(rule, peer, packet))
        };
        let has_allow = |list: &Vec<Rule>| list.iter().any(|rule| rule.action == Action::Allow);
        let allows_host = self.config.policy.allow_host && direction == Direction::Ingress;
        let is_closed = match self.config.policy.enforcement {
            EnforcementMode::Never => return Action::Allow,
            EnforcementMode::Always => true,
            EnforcementMode::Default => lists.iter().any(|list| list.is_empty() || has_allow(list)),
        };
        if says(Action::Deny) {
            Action::Deny
        } else if says(Action::Allow) || !is_closed || (allows_host && self.who(peer) == Who::Host)
        {
            Action::Allow
        } else {
            Action::Deny
        }
    }

    /// (egress, ingress), `None` where nobody is asked.
    fn verdict(&self, packet: Packet) -> (Option<Action>, Option<Action>) {
        let (from, to) = (self.who(packet.src), self.who(packet.dst));
        let side = |who, direction, peer| match who {
            Who::Endpoint { identity, .. } if from != to => {
                Some(self.side(identity, direction, peer, packet))
            }
            _ => None,
        };
        (
            side(from, Direction::Egress, packet.dst),
            side(to, Direction::Ingress, packet.src),
        )
    }
}

fn list(policy: &Policy, direction: Direction) -> Option<&Vec<Rule>> {
    match direction {
        Direction::Ingress => policy.ingress.as_ref(),
        Direction::Egress => policy.egress.as_ref(),
    }
}

const IDENTITIES: [&str; 4] = ["a", "b", "c", "d"];
const PORTS: [u16; 9] = [0, 1, 51, 52, 53, 54, 80, 1024, 65535];

/// Sixteen addresses of each family: all that random packets and prefixes lie in.
fn random_address(dice: &mut Rng) -> IpAddr {
    let last = dice.below(16);
    ip(&if dice.below(4) == 0 {
        format!("fd00::{last:x}")
    } else {
        format!("10.0.0.{last}")
    })
}

fn all_addresses() -> impl Iterator<Item = IpAddr> {
    let last = 0..16;
    let both = last.flat_map(|last| [format!("10.0.0.{last}"), format!("fd00::{last:x}")]);
    both.map(|address| ip(&address))
}

fn random_prefix(dice: &mut Rng) -> IpNet {
    let address = random_address(dice);
    let full = IpNet::from(address).prefix_len();
    let length = if dice.below(12) == 0 {
        0
    } else {
        full - dice.below(5) as u8
    };
    IpNet::new(address, length).unwrap().trunc()
}

fn random_rules(dice: &mut Rng) -> String {
    let rule = |dice: &mut Rng| {
        let peers: Vec<String> = (0..=dice.below(3))
            .map(|_| match dice.below(8) {
                0 => "any".to_owned(),
                1 => "host".to_owned(),
                2 => "world".to_owned(),
                3 => format!("label:tier={}", dice.below(2)),
                4 => "remote-node".to_owned(),
                5 => dice.pick(&IDENTITIES).to_owned(),
                _ => format!("cidr:{}", random_prefix(dice)),
            })
            .collect();
        let ports: Vec<String> = (0..dice.below(3))
            .map(|_| {
                let protocol = dice.pick(&["tcp", "udp"]);
                let (a, b) = (PORTS[dice.below(9)], PORTS[dice.below(9)]);
                match dice.below(4) {
                    0 => "icmp".to_owned(),
                    1 => protocol.to_owned(),
                    2 => format!("{a}/{protocol}"),
                    _ => format!("{}-{}/{protocol}", a.min(b), a.max(b)),
                }
            })
            .collect();
        let action = dice.pick(&["allow", "allow", "deny"]);
        format!("{action} {} {}", peers.join(","), ports.join(","))
    };
    let rules: Vec<String> = (0..dice.below(4)).map(|_| rule(dice)).collect();
    rules.join(";").replace(" ;", ";").trim_end().to_owned()
}

/// A small configuration in which everything overlaps with everything.
fn random_lab(dice: &mut Rng) -> Lab {
    let mut lab = Lab::new();
    lab.world.addresses = (0..2).map(|_| random_address(dice)).collect();
    for (number, name) in IDENTITIES.iter().enumerate() {
        lab = lab.identity(name, 300 + number as u32, &format!("tier={}", number % 2));
    }
    let mut taken = Vec::new();
    for name in ["one", "two", "three"] {
        let prefixes: Vec<IpNet> = (0..2).map(|_| random_prefix(dice)).collect();
        let free = prefixes
            .iter()
            .filter(|p| p.prefix_len() > 0 && !taken.contains(*p));
        let free: Vec<String> = free.map(IpNet::to_string).collect();
        lab = lab.endpoint(name, dice.pick(&IDENTITIES), &free.join(" "));
        taken.extend(prefixes);
    }
    let mut named = Vec::new();
    for name in ["a", "b", "c"] {
        let cidrs: Vec<IpNet> = (0..dice.below(3)).map(|_| random_prefix(dice)).collect();
        let free = cidrs.iter().filter(|cidr| !named.contains(*cidr));
        let free: Vec<String> = free.map(IpNet::to_string).collect();
        lab = lab.cidrs(name, &free.join(" "));
        named.extend(cidrs);
    }
    for name in ["node-b", "node-c"] {
        let address = random_address(dice).to_string();
        lab = lab.node(name, &address, &random_prefix(dice).to_string());
    }
    for name in ["p", "q", "r", "s"] {
        let ingress = Some(random_rules(dice)).filter(|_| dice.below(4) > 0);
        let egress = Some(random_rules(dice)).filter(|_| dice.below(4) > 0);
        let subject = dice.pick(&IDENTITIES);
        lab = lab.policy(name, subject, ingress.as_deref(), egress.as_deref());
    }
    lab.config.policy.allow_host = dice.below(2) == 0;
    lab.config.policy.enforcement = match dice.below(8) {
        0 => EnforcementMode::Always,
        1 => EnforcementMode::Never,
        _ => EnforcementMode::Default,
    };
    lab
}

/// The rule that a decision names must be one that says so of this packet.
fn names_a_true_rule(
    oracle: &Oracle<'_>,
    state: &State,
    decision: Decision,
    peer: IpAddr,
    packet: Packet,
) -> bool {
    let Some(number) = decision.rule else {
        return true;
    };
    let info = &state.catalog.rules[&number];
    let rule = &list(&oracle.config.policies[&info.policy], info.direction).unwrap()[info.index];
    rule.action == decision.action
        && info.subject == decision.subject
        && oracle.is_match(rule, peer, packet)
}

#[test]
fn the_tables_say_what_the_configuration_says() {
    let mut dice = Rng::new(7);
    for round in 0..1500 {
        let lab = random_lab(&mut dice);
        let state = lab.compile();
        let oracle = Oracle {
            config: &lab.config,
            world: &lab.world,
        };
        for _ in 0..40 {
            let packet = Packet {
                src: random_address(&mut dice),
                dst: random_address(&mut dice),
                protocol: [1, 6, 17, 47][dice.below(4)],
                port: PORTS[dice.below(9)],
            };
            let found = verdict(&state, packet.src, packet.dst, packet.protocol, packet.port);
            let actions = (
                found.egress.map(|d| d.action),
                found.ingress.map(|d| d.action),
            );
            let wanted = oracle.verdict(packet);
            assert_eq!(
                actions, wanted,
                "round {round}: {packet:?} in {:#?}",
                lab.config.policies
            );
            for (decision, peer) in [(found.egress, packet.dst), (found.ingress, packet.src)] {
                let Some(decision) = decision else { continue };
                let is_true = names_a_true_rule(&oracle, &state, decision, peer, packet);
                assert!(
                    is_true,
                    "round {round}: {packet:?} by the wrong rule: {decision:?}"
                );
            }
        }
    }
}

/// The lab with one thing in it changed.
fn disturb(dice: &mut Rng, lab: &Lab) -> Lab {
    let mut lab = lab.clone();
    let policy = dice.pick(&["p", "q", "r", "s"]);
    match dice.below(7) {
        0 => {
            let other = random_lab(dice).config.policies[policy].clone();
            lab.config.policies.insert(policy.to_owned(), other);
        }
        1 => drop(lab.world.addresses.pop_first()),
        2 => drop(lab.world.links.pop_last()),
        3 => drop(lab.config.interfaces.pop_first()),
        4 => drop(lab.config.nodes.pop_first()),
        5 => {
            let identity = dice.pick(&IDENTITIES);
            let identity = lab.config.identities.get_mut(identity).unwrap();
            identity.cidrs.pop();
        }
        _ => {
            let policy = lab.config.policies.get_mut(policy).unwrap();
            policy.ingress.iter_mut().for_each(|rules| rules.reverse());
        }
    }
    lab
}

#[test]
fn a_plan_without_a_line_changes_nothing() {
    // Which of two overlapping rules gets the credit may change with their order, what they do may not.
    let tables = |state: &State| {
        let policy = state.policy.iter().map(|(key, entry)| (*key, entry.action));
        let policy: Vec<_> = policy.collect();
        let addresses = all_addresses().map(|of| address::find(state, of).cloned());
        let addresses: Vec<_> = addresses.collect();
        (addresses, state.endpoints.clone(), policy)
    };
    let mut dice = Rng::new(11);
    let mut alike = 0;
    for round in 0..500 {
        let lab = random_lab(&mut dice);
        let old = lab.compile();
        let new = disturb(&mut dice, &lab).compile_after(&old);
        if diff(&old, &new).is_empty() {
            alike += 1;
            assert_eq!(tables(&old), tables(&new), "round {round}");
        }
    }
    assert!(
        (100..400).contains(&alike),
        "{alike} of 500 pairs are alike: the test tests nothing"
    );
}

#[test]
fn compiling_twice_gives_the_same() {
    let mut dice = Rng::new(3);
    for round in 0..100 {
        let lab = random_lab(&mut dice);
        let first = lab.compile();
        assert_eq!(
            first,
            lab.compile(),
            "round {round}: from the same known numbers"
        );
        assert_eq!(
            first,
            lab.compile_after(&first),
            "round {round}: from its own numbers"
        );
    }
}

/// The example of the documents, with everything that takes a number.
fn example() -> Lab {
    Lab::new()
        .identity("client", 20001, "app=client")
        .identity("kube-dns", 18203, "k8s-app=kube-dns")
        .endpoint("client", "client", "10.200.0.64 fd00:200::64")
        .endpoint("coredns", "kube-dns", "10.200.0.44")
        .service(
            "kube-dns",
            "10.32.0.10:53/udp 10.32.0.10:53/tcp",
            "10.200.0.44:53 10.200.0.45:53",
        )
        .service("web", "10.32.0.11:80/tcp", "10.200.0.44:80")
        .policy(
            "dns",
            "kube-dns",
            Some("allow client 53/udp;allow world;deny cidr:198.51.100.0/24"),
            None,
        )
}

#[test]
fn numbers_outlive_changes() {
    let service = |state: &State, name: &str| {
        let mut found = state
            .catalog
            .services
            .iter()
            .filter(|(_, info)| info.name == name);
        found.next().map(|(number, _)| *number)
    };
    let backend = |state: &State, address: &str| {
        let address = address.parse().unwrap();
        let mut found = state
            .catalog
            .backends
            .iter()
            .filter(|(_, info)| info.address == address);
        found.next().map(|(number, _)| *number)
    };
    let rule = |state: &State, text: &str| {
        let mut found = state
            .catalog
            .rules
            .iter()
            .filter(|(_, info)| info.text() == text);
        found.next().map(|(number, _)| *number)
    };
    let first = example().compile();

    // A service before it by name, a backend less, a rule in front: the rest keeps its numbers.
    let second = example()
        .service("a", "10.32.0.9:1/tcp", "10.200.0.44:53")
        .service("kube-dns", "10.32.0.10:53/udp", "10.200.0.45:53")
        .policy(
            "dns",
            "kube-dns",
            Some("allow host;allow client 53/udp;allow world"),
            None,
        )
        .compile_after(&first);
    assert_eq!(service(&first, "kube-dns"), service(&second, "kube-dns"));
    assert_eq!(service(&first, "web"), service(&second, "web"));
    assert_eq!(
        backend(&first, "10.200.0.45:53"),
        backend(&second, "10.200.0.45:53")
    );
    let words = "allow from client ports 53/udp";
    assert_eq!(rule(&first, words), rule(&second, words));
    assert!(
        first
            .catalog
            .services
            .keys()
            .all(|number| service(&second, "a") != Some(*number))
    );
    assert!(
        first
            .catalog
            .rules
            .keys()
            .all(|n| rule(&second, "allow from host") != Some(*n))
    );

    // What went and comes back is another thing: connections of the first must not find it.
    let third = example().compile_after(&second);
    let denied = "deny from cidr:198.51.100.0/24";
    assert!(rule(&third, denied) > rule(&first, denied));
    assert_ne!(
        backend(&first, "10.200.0.44:53"),
        backend(&third, "10.200.0.44:53")
    );
    assert!(third.catalog.next.backend > second.catalog.next.backend);
}

#[test]
fn rules_of_the_same_words_keep_their_places() {
    let lab = |list: &str| example().policy("dns", "kube-dns", Some(list), None);
    let numbers = |state: &State| -> Vec<(usize, u32)> {
        let rules = state.catalog.rules.iter();
        let mut numbers: Vec<_> = rules.map(|(number, info)| (info.index, *number)).collect();
        numbers.sort();
        numbers
    };
    let first = lab("allow client;allow world;allow client").compile();
    assert_eq!(numbers(&first), [(0, 1), (1, 2), (2, 3)]);
    let second = lab("allow world;allow client;allow client;allow client").compile_after(&first);
    assert_eq!(numbers(&second), [(0, 2), (1, 1), (2, 3), (3, 4)]);
    let third = lab("allow client").compile_after(&second);
    assert_eq!(numbers(&third), [(0, 1)]);
}

/// `count` prefixes, none inside of another.
fn cidrs(count: usize) -> Vec<String> {
    let cidr = |n: usize| {
        let (first, second, third) = (172 + n / 40_000, n / 200 % 200, n % 200);
        format!("cidr:{first}.{second}.{third}.0/24")
    };
    (0..count).map(cidr).collect()
}

#[test]
fn policy_has_rows_in_the_order_of_rules_not_of_prefixes() {
    let denied = format!("deny {} 25/tcp", cidrs(50_000).join(","));
    let others: Vec<String> = (1..=20)
        .map(|port| format!("allow world {port}/tcp"))
        .collect();
    let lab = Lab::new()
        .identity("web", 300, "")
        .endpoint("web", "web", "10.1.1.1")
        .policy("abusers", "web", Some(&denied), None)
        .policy("others", "web", Some(&others.join(";")), None);
    let state = lab.compile();
    assert!(state.ipcache.len() > 50_000);
    let classes = state.catalog.classes.len();
    assert_eq!(classes, 4, "web, host, the world, and what is denied of it");
    assert_eq!(
        state.policy.len(),
        1 + 20,
        "the deny, and each allow for all classes of the world"
    );
    let action = |src: &str, port| verdict(&state, ip(src), ip("10.1.1.1"), 6, port).action();
    let rows = [
        ("of the list", "173.49.199.7", 25, Action::Deny),
        (
            "of the list, another port",
            "173.49.199.7",
            20,
            Action::Allow,
        ),
        (
            "of the list, a port of no rule",
            "173.49.199.7",
            21,
            Action::Deny,
        ),
        ("not of the list", "173.49.200.7", 20, Action::Allow),
    ];
    for (what, src, port, expected) in rows {
        assert_eq!(action(src, port), expected, "{what}");
    }

    // One prefix more: the class of the rest is known by the same words still.
    let longer = format!("deny {} 25/tcp", cidrs(50_001).join(","));
    let next = lab.policy("abusers", "web", Some(&longer), None);
    let next = next.compile_after(&state);
    assert_eq!(next.catalog.classes, state.catalog.classes);
}

#[test]
fn a_big_configuration_is_compiled() {
    let mut lab = Lab::new();
    for number in 0..1000_u32 {
        let name = format!("id-{number}");
        let address = format!("10.{}.{}.1", 100 + number / 250, number % 250);
        lab = lab
            .identity(&name, 1000 + number, "app=x")
            .endpoint(&name, &name, &address);
    }
    for number in 0..10_000_u32 {
        let address = format!("10.32.{}.{}:80/tcp", number / 250, number % 250);
        let backends: Vec<String> = (1..=10)
            .map(|backend| {
                format!(
                    "10.100.{}.{}:80*{backend}",
                    number % 250,
                    number / 250 + backend
                )
            })
            .collect();
        lab = lab.service(&format!("service-{number}"), &address, &backends.join(" "));
        let (subject, peer) = (number % 1000, number / 10);
        let rules = format!(
            "allow id-{peer} {}/tcp;allow id-{} 53/udp",
            number + 1,
            number % 999
        );
        lab = lab.policy(
            &format!("policy-{number}"),
            &format!("id-{subject}"),
            Some(&rules),
            None,
        );
    }
    let denied = format!("deny {}", cidrs(50_000).join(","));
    lab = lab.policy(
        "abusers",
        "id-0",
        Some(&denied),
        Some("allow cidr:172.0.0.0/8"),
    );

    let state = lab.compile();
    assert_eq!(
        (state.services.len(), state.backend_lut.len()),
        (10_000, 100_000)
    );
    assert_eq!(state.backends.len(), 100_000);
    assert_eq!(state.catalog.rules.len(), 20_002);
    let hosts_and_defaults = 4;
    assert_eq!(state.ipcache.len(), 50_000 + 1 + 1000 + hosts_and_defaults);
    assert!(state.ipcache.contains_key(&net("173.49.199.0/24")));
    let classes = state.catalog.classes.len();
    assert_eq!(classes, 1000 + 1 + 4, "what the world's prefixes differ in");
    assert_eq!(state.policy.len(), 20_000 + 4);
    let denied = verdict(&state, ip("172.1.1.1"), ip("10.100.0.1"), 6, 1);
    assert_eq!(denied.action(), Action::Deny);
    assert_eq!(lab.compile_after(&state), state);
}
