//! The verdict of the compiled tables on a new connection, by the same lookups as the datapath.

use std::net::IpAddr;

use crate::model::policy::{Action, Direction, reserved};
use crate::model::state::{AddressScope, Enforcement, IpcacheEntry, PolicyEntry, PolicyKey, State};

use super::trie::covering;
use crate::plan::ipcache;

/// The decisions of both sides on a connection. With `settings.audit` the datapath reports a denial and forwards the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The sender's side; `None`: the sender is no endpoint of this host, or is the receiver too.
    pub egress: Option<Decision>,
    /// The receiver's side; `None` as above.
    pub ingress: Option<Decision>,
}

/// The decision of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Identity number of this side.
    pub subject: u32,
    pub action: Action,
    /// The number of the rule that decided; `None`: none matched, or there is no enforcement.
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

    /// The side that denies, the sender's first.
    pub fn refusal(&self) -> Option<(Direction, Decision)> {
        let egress = self.egress.map(|decision| (Direction::Egress, decision));
        let ingress = self.ingress.map(|decision| (Direction::Ingress, decision));
        let mut sides = egress.into_iter().chain(ingress);
        sides.find(|(_, decision)| decision.action == Action::Deny)
    }
}

/// The verdict on a connection from `src` to `dst`, which are the addresses after DNAT.
///
/// `port` is the destination's, and is ignored for protocols without ports. A pending endpoint has no side.
pub fn verdict(state: &State, src: IpAddr, dst: IpAddr, protocol: u8, port: u16) -> Verdict {
    let (from, to) = (ipcache::find(state, src), ipcache::find(state, dst));
    verdict_of_entries(state, from, to, protocol, port)
}

/// The same, of addresses that have been looked up.
pub fn verdict_of_entries(
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
    let side = |ifindex: u32, direction, peer: Option<&IpcacheEntry>| {
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
        let is_world = peer.is_some_and(|entry| entry.is_world);
        Some(decide(state, key, is_world, enforcement, allow_host))
    };
    Verdict {
        egress: sender.and_then(|ifindex| side(ifindex, Direction::Egress, to)),
        ingress: receiver.and_then(|ifindex| side(ifindex, Direction::Ingress, from)),
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
    is_world: bool,
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
    let world = is_world.then(|| of_class(reserved::CLASS_WORLD)).flatten();
    let rows = [of_class(key.class), world, of_class(reserved::CLASS_ANY)];
    let found = rows.into_iter().flatten();
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

/// The row that the kernel's trie returns.
fn longest(state: &State, key: PolicyKey) -> Option<&PolicyEntry> {
    covering(key).find_map(|key| state.policy.get(&key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{TestConfig, ip};

    #[test]
    fn a_refusal_names_the_side_and_the_rule() {
        let test = TestConfig::new()
            .identity("web", 300, "")
            .identity("db", 301, "")
            .endpoint("web", "web", "10.1.1.1")
            .endpoint("db", "db", "10.1.1.2")
            .policy(
                "in",
                "db",
                Some("allow web 53/udp;deny cidr:10.1.1.1 53/tcp"),
                None,
            )
            .policy("out", "web", None, Some("allow db;deny world 25/tcp"));
        let state = test.compile();
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
                "the host is allowed without a rule",
                "192.0.2.1",
                "10.1.1.2",
                6,
                53,
                "allow",
            ),
            ("to itself", "10.1.1.1", "10.1.1.1", 6, 1, "allow"),
            (
                "between remote addresses",
                "8.8.8.8",
                "9.9.9.9",
                6,
                1,
                "allow",
            ),
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
