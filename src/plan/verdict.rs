//! The verdict of the compiled tables on one new connection, found step by step as the datapath finds it.

use std::net::IpAddr;

use crate::model::policy::{Action, Direction, reserved};
use crate::model::state::{AddressScope, Enforcement, IpcacheEntry, PolicyEntry, PolicyKey, State};

use super::address;
use super::policy::covering;

/// What both sides' policies say of a connection. With `settings.audit` the datapath says the same and lets it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The sender's side; `None`: the sender is no workload of this host, or it talks to itself.
    pub egress: Option<Decision>,
    /// The receiver's side; `None` as above.
    pub ingress: Option<Decision>,
}

/// What one side says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Identity number of the side that was asked.
    pub subject: u32,
    pub action: Action,
    /// The number of the rule that decided; `None`: none matched, or none was asked.
    pub rule: Option<u32>,
}

impl Verdict {
    /// Whether the connection may be made.
    pub fn action(&self) -> Action {
        match self.refusal() {
            Some(_) => Action::Deny,
            None => Action::Allow,
        }
    }

    /// The side that refuses, the sender's first.
    pub fn refusal(&self) -> Option<(Direction, Decision)> {
        let egress = self.egress.map(|decision| (Direction::Egress, decision));
        let ingress = self.ingress.map(|decision| (Direction::Ingress, decision));
        let mut asked = egress.into_iter().chain(ingress);
        asked.find(|(_, decision)| decision.action == Action::Deny)
    }
}

/// Asks the tables about a connection from `src` to `dst`, addresses as they are behind the service step.
///
/// `port` is the destination's and does not count for protocols without ports. An endpoint whose interface is not
/// there has no side to ask.
pub fn verdict(state: &State, src: IpAddr, dst: IpAddr, protocol: u8, port: u16) -> Verdict {
    let (from, to) = (address::find(state, src), address::find(state, dst));
    verdict_between(state, from, to, protocol, port)
}

/// The same of addresses that have been looked up.
pub(super) fn verdict_between(
    state: &State,
    from: Option<&IpcacheEntry>,
    to: Option<&IpcacheEntry>,
    protocol: u8,
    port: u16,
) -> Verdict {
    let (sender, receiver) = (ifindex(from), ifindex(to));
    if sender.is_some() && sender == receiver {
        return Verdict {
            egress: None,
            ingress: None,
        };
    }
    let from_host = from.is_some_and(|entry| entry.scope == AddressScope::Host);
    let ask = |ifindex: u32, direction, peer: Option<&IpcacheEntry>| {
        let endpoint = state.endpoints.get(&ifindex)?;
        let (enforcement, allow_host) = match direction {
            Direction::Egress => (endpoint.egress, false),
            Direction::Ingress => (endpoint.ingress, from_host && state.settings.allow_host),
        };
        let key = PolicyKey {
            subject: endpoint.identity,
            class: peer.map_or(reserved::CLASS_ANY, |entry| entry.class),
            direction,
            protocol: Some(protocol),
            port,
            port_bits: 16,
        };
        let of_world = peer.is_some_and(|entry| entry.is_world);
        Some(decide(state, key, of_world, enforcement, allow_host))
    };
    Verdict {
        egress: sender.and_then(|ifindex| ask(ifindex, Direction::Egress, to)),
        ingress: receiver.and_then(|ifindex| ask(ifindex, Direction::Ingress, from)),
    }
}

fn ifindex(entry: Option<&IpcacheEntry>) -> Option<u32> {
    match entry?.scope {
        AddressScope::Endpoint { ifindex } => Some(ifindex),
        AddressScope::Pending | AddressScope::Host | AddressScope::Remote => None,
    }
}

fn decide(
    state: &State,
    key: PolicyKey,
    of_world: bool,
    enforcement: Enforcement,
    allow_host: bool,
) -> Decision {
    let decision = |action, rule| Decision {
        subject: key.subject,
        action,
        rule,
    };
    if enforcement == Enforcement::Off {
        return decision(Action::Allow, None);
    }
    let of_class = |class| longest(state, PolicyKey { class, ..key });
    let world = of_world.then(|| of_class(reserved::CLASS_WORLD)).flatten();
    let asked = [of_class(key.class), world, of_class(reserved::CLASS_ANY)];
    let found = asked.into_iter().flatten();
    for action in [Action::Deny, Action::Allow] {
        if let Some(entry) = found.clone().find(|entry| entry.action == action) {
            return decision(action, Some(entry.rule));
        }
    }
    if enforcement == Enforcement::DenyOnly || allow_host {
        decision(Action::Allow, None)
    } else {
        decision(Action::Deny, None)
    }
}

/// What the trie answers: the row with the most leading bits in common.
fn longest(state: &State, key: PolicyKey) -> Option<&PolicyEntry> {
    covering(key).find_map(|key| state.policy.get(&key))
}
