//! The verdict of the compiled tables, compared with the configuration itself for random packets.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Config, EnforcementMode, Interface, Policy, Rule};
use crate::model::host::HostState;
use crate::model::policy::{Action, Direction, Peer, Ports};
use crate::model::state::State;

use super::{Decision, verdict};
use crate::plan::testing::{PORTS, Rng, random_address, random_config};

/// Evaluates the configuration itself for each packet: slow, and independent of the compiler.
struct Oracle<'a> {
    config: &'a Config,
    host: &'a HostState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who<'a> {
    Endpoint {
        interface: &'a str,
        identity: &'a str,
    },
    Host,
    Node,
    /// A remote address; the identity that names it, if one does.
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
            cidrs.map(move |cidr| (*cidr, name.as_str()))
        });
        let nodes = self.config.nodes.values();
        let endpoints = nodes.flat_map(|node| &node.endpoints);
        let endpoints = endpoints.map(|(address, name)| (IpNet::from(*address), name.as_str()));
        let cidrs = cidrs.chain(endpoints);
        let around = cidrs.filter(|(cidr, _)| cidr.contains(&address));
        let named = around.max_by_key(|(cidr, _)| cidr.prefix_len());
        let mut best = (0, Who::World(named.map(|(_, name)| name)));
        let mut nodes = self.config.nodes.values().flat_map(|node| &node.addresses);
        if nodes.any(|node| *node == address) {
            best = (IpNet::from(address).prefix_len(), Who::Node);
        }
        let own = self.config.node.addresses.iter().flatten();
        if own.chain(&self.host.addresses).any(|host| *host == address) {
            best = (IpNet::from(address).prefix_len(), Who::Host);
        }
        for prefix in &self.host.local_prefixes {
            if prefix.contains(&address) && prefix.prefix_len() >= best.0 {
                best = (prefix.prefix_len(), Who::Host);
            }
        }
        for (interface, endpoint) in &self.config.interfaces {
            let Interface::Endpoint {
                addresses,
                identity,
                ..
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
        let matches_any = |action: Action| {
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
        if matches_any(Action::Deny) {
            Action::Deny
        } else if matches_any(Action::Allow)
            || !is_closed
            || (allows_host && self.who(peer) == Who::Host)
        {
            Action::Allow
        } else {
            Action::Deny
        }
    }

    /// (egress, ingress), `None` where there is no side.
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

/// Whether the rule that a decision names has its action and matches the packet.
fn names_a_matching_rule(
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
fn the_tables_decide_as_the_configuration() {
    let mut rng = Rng::new(7);
    for round in 0..1500 {
        let test = random_config(&mut rng);
        let state = test.compile();
        let oracle = Oracle {
            config: &test.config,
            host: &test.host,
        };
        for _ in 0..40 {
            let packet = Packet {
                src: random_address(&mut rng),
                dst: random_address(&mut rng),
                protocol: [1, 6, 17, 47][rng.below(4)],
                port: PORTS[rng.below(9)],
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
                test.config.policies
            );
            for (decision, peer) in [(found.egress, packet.dst), (found.ingress, packet.src)] {
                let Some(decision) = decision else { continue };
                let is_match = names_a_matching_rule(&oracle, &state, decision, peer, packet);
                assert!(
                    is_match,
                    "round {round}: {packet:?} by the wrong rule: {decision:?}"
                );
            }
        }
    }
}
