//! What a change does to the connections that are there: each is judged as the datapath will judge its next packet.
//!
//! Connections of one client to one backend meet the same fate, so they are judged once. A connection is laid to the
//! change that ends it; what no line can answer for is summed up in a line of its own.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use super::address;
use super::diff::{Change, Thing, rules};
use super::verdict::{Decision, Verdict, verdict_between};
use crate::model::conntrack::FlowGroup;
use crate::model::policy::{Action, Direction};
use crate::model::protocol::Protocol;
use crate::model::service::{BackendState, Frontend};
use crate::model::state::{AddressScope, IpcacheEntry, ServiceEntry, State, XdpMode};

/// How many connections a change concerns, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Their next packet is refused.
    pub ended: u64,
    /// They begin anew with their next packet, at another backend.
    pub moved: u64,
    /// They go on, and dpd has nothing to do with them any more.
    pub released: u64,
    /// They begin anew with their next packet, as far as one that is in the middle of them may.
    pub forgotten: u64,
    /// Some may have been missed.
    pub is_least: bool,
}

impl Effect {
    pub fn is_nothing(&self) -> bool {
        self.connections() == 0
    }

    /// All that the change concerns.
    pub fn connections(&self) -> u64 {
        self.ended + self.moved + self.released + self.forgotten
    }

    fn add(&mut self, fate: Outcome, connections: u64) {
        match fate {
            Outcome::Ends => self.ended += connections,
            Outcome::Moves => self.moved += connections,
            Outcome::Leaves => self.released += connections,
        }
    }
}

impl fmt::Display for Effect {
    /// `14 connections end, 3 begin anew at another backend`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_or_more = |n| if n == 1 { 0 } else { 1 };
        let parts = [
            (self.ended, ["ends", "end"]),
            (
                self.moved,
                [
                    "begins anew at another backend",
                    "begin anew at another backend",
                ],
            ),
            (self.released, ["goes on without dpd", "go on without dpd"]),
            (self.forgotten, ["is forgotten", "are forgotten"]),
        ];
        let parts = parts.into_iter().filter(|(n, _)| *n > 0);
        for (nth, (n, words)) in parts.enumerate() {
            let number = one_or_more(n);
            let noun = match nth {
                0 => [" connection", " connections"][number],
                _ => "",
            };
            let before = match nth {
                0 if self.is_least => "at least ",
                0 => "",
                _ => ", ",
            };
            write!(f, "{before}{n}{noun} {}", words[number])?;
        }
        Ok(())
    }
}

/// What becomes of a connection that does not simply go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ends,
    Moves,
    Leaves,
}

/// A fate, and the things that may have brought it about, the likeliest first; the last one stands for the rest.
type Impact = (Outcome, Vec<Thing>);

/// Adds to `changes`, which lead from `old` to `new`, what each does to the connections of these conversations.
pub fn count(
    old: &State,
    new: &State,
    changes: &mut Vec<Change>,
    conversations: impl IntoIterator<Item = (FlowGroup, u64)>,
) {
    let mut places: HashMap<Thing, usize> = HashMap::new();
    for (place, change) in changes.iter().enumerate() {
        places.insert(change.thing.clone(), place);
    }
    let mut judge = ImpactAnalysis {
        old: Side::new(old),
        new: Side::new(new),
    };
    for (conversation, connections) in conversations {
        let Some((fate, things)) = judge.judge(&conversation) else {
            continue;
        };
        let known = things.iter().find_map(|thing| places.get(thing)).copied();
        let place = known.unwrap_or_else(|| {
            let thing = things.into_iter().next_back();
            let thing = thing.unwrap_or_else(|| Thing::new("policy", "of the host"));
            places.insert(thing.clone(), changes.len());
            changes.push(Change {
                sign: '~',
                thing,
                detail: String::new(),
                effect: Effect::default(),
            });
            changes.len() - 1
        });
        changes[place].effect.add(fate, connections);
    }
}

struct ImpactAnalysis<'a> {
    old: Side<'a>,
    new: Side<'a>,
}

impl ImpactAnalysis<'_> {
    /// `None`: it goes on, or has been ended already by what was before.
    fn judge(&mut self, conversation: &FlowGroup) -> Option<Impact> {
        if !self.old.goes_on(conversation) {
            return None;
        }
        self.judge_places(conversation)
            .or_else(|| self.judge_service(conversation))
            .or_else(|| self.judge_policy(conversation))
            .or_else(|| self.judge_prefilter(conversation))
    }

    /// Whether both ends are still where they were.
    fn judge_places(&mut self, conversation: &FlowGroup) -> Option<Impact> {
        let (before, after) = (self.old.ends(conversation), self.new.ends(conversation));
        let mut left = None;
        let mut is_clients = false;
        for (nth, (before, after)) in before.into_iter().zip(after).enumerate() {
            let (was, is) = (self.old.interface(before), self.new.interface(after));
            match (was, is) {
                (None, None) => {}
                (Some(was), Some(is)) if was == is => {}
                (None, Some(interface)) => {
                    return Some((Outcome::Ends, vec![Thing::endpoint(interface)]));
                }
                (Some(interface), None)
                    if !self.new.is_attached(interface) && !is_waiting(after) =>
                {
                    is_clients |= nth == 0;
                    left = Some(interface);
                }
                (Some(interface), _) => {
                    return Some((Outcome::Ends, vec![Thing::endpoint(interface)]));
                }
            }
        }
        let causes = vec![Thing::endpoint(left?)];
        // Services are found where the client sends; its packets reach a backend that is no endpoint as they reach the world.
        let is_lost = is_clients && conversation.is_translated();
        let goes_on = !is_lost && self.new.allows(conversation);
        let fate = if goes_on {
            Outcome::Leaves
        } else {
            Outcome::Ends
        };
        Some((fate, causes))
    }

    fn judge_service(&mut self, conversation: &FlowGroup) -> Option<Impact> {
        if self.new.service_holds(conversation) {
            return None;
        }
        let found = self.new.service(conversation);
        let can_move = conversation.protocol != Protocol::Tcp.number()
            && found.is_some_and(|service| service.lut_count > 0);
        let fate = if can_move {
            Outcome::Moves
        } else {
            Outcome::Ends
        };
        let is_same = found.is_some_and(|found| found.service == conversation.service);
        let thing = if conversation.service != 0 && is_same {
            let old = self.old.state;
            let backend = old.backends.get(&conversation.backend_id)?;
            Thing::backend(backend, &old.catalog)
        } else if conversation.service != 0 {
            self.old.frontend(conversation)?
        } else {
            self.new.frontend(conversation)?
        };
        Some((fate, vec![thing]))
    }

    fn judge_policy(&mut self, conversation: &FlowGroup) -> Option<Impact> {
        let verdict = self.new.verdict(conversation);
        let (direction, decision) = verdict.refusal()?;
        if self.new.state.settings.audit {
            return None;
        }
        let before = self.old.verdict(conversation);
        let mut causes = Vec::new();
        if before.action() == Action::Deny {
            causes.push(Thing::setting("policy.audit"));
        }
        causes.extend(self.changed_identities(conversation));
        causes.extend(self.new.rule(decision));
        let before = match direction {
            Direction::Ingress => before.ingress,
            Direction::Egress => before.egress,
        };
        causes.extend(before.and_then(|before| self.old.rule(before)));
        let [source, destination] = self.new.ends(conversation);
        let subject = match direction {
            Direction::Ingress => destination,
            Direction::Egress => source,
        };
        causes.extend(self.new.interface(subject).map(Thing::endpoint));
        if source.is_some_and(|entry| entry.scope == AddressScope::Host) {
            causes.push(Thing::setting("policy.allow_host"));
        }
        // Its labels may be others: what a rule says of them then means others.
        let catalog = &self.new.state.catalog;
        let peer = match direction {
            Direction::Ingress => source,
            Direction::Egress => destination,
        };
        let peer = peer.and_then(|peer| catalog.identity_name(peer.identity));
        causes.extend(peer.map(Thing::identity));
        let subject = catalog.identity_name(decision.subject).unwrap_or_default();
        causes.push(Thing::new("policy", format!("{direction} of {subject}")));
        Some((Outcome::Ends, causes))
    }

    /// The ends that are others now for policy.
    fn changed_identities(&mut self, conversation: &FlowGroup) -> Vec<Thing> {
        let (before, after) = (self.old.ends(conversation), self.new.ends(conversation));
        let mut things = Vec::new();
        for (before, after) in before.into_iter().zip(after) {
            let number = |entry: Option<&IpcacheEntry>| entry.map(|entry| entry.identity);
            if number(before) == number(after) {
                continue;
            }
            if let Some(interface) = self.new.interface(after) {
                things.push(Thing::endpoint(interface));
                continue;
            }
            for (side, entry) in [(&self.new, after), (&self.old, before)] {
                let name = entry.and_then(|entry| side.state.catalog.identity_name(entry.identity));
                things.extend(name.map(Thing::identity));
            }
        }
        things
    }

    fn judge_prefilter(&mut self, conversation: &FlowGroup) -> Option<Impact> {
        if self.old.prefilter(conversation).is_some() {
            return None;
        }
        let thing = self.new.prefilter(conversation)?;
        Some((Outcome::Ends, vec![thing]))
    }
}

/// What the verdict on a conversation depends on: class and place of both ends, protocol, port.
type Question = ([Option<(u32, AddressScope)>; 2], u8, u16);

/// One of the two states, with what has been found in it.
struct Side<'a> {
    state: &'a State,
    /// Endpoints' interfaces by number.
    interfaces: HashMap<u32, &'a str>,
    rules: HashMap<u32, Thing>,
    /// Some uplink drops what the prefilter has.
    filters: bool,
    found: HashMap<IpAddr, Option<&'a IpcacheEntry>>,
    verdicts: HashMap<Question, Verdict>,
}

impl<'a> Side<'a> {
    fn new(state: &'a State) -> Side<'a> {
        let endpoints = state.catalog.endpoints.iter();
        let interfaces = endpoints.filter_map(|(name, info)| Some((info.ifindex?, name.as_str())));
        let mut uplinks = state.catalog.uplinks.values();
        Side {
            state,
            interfaces: interfaces.collect(),
            rules: rules(&state.catalog).into_iter().collect(),
            filters: !state.prefilter.is_empty()
                && uplinks.any(|info| info.ifindex.is_some() && info.xdp != XdpMode::Off),
            found: HashMap::new(),
            verdicts: HashMap::new(),
        }
    }

    fn find(&mut self, address: IpAddr) -> Option<&'a IpcacheEntry> {
        let state = self.state;
        let found = self.found.entry(address);
        *found.or_insert_with(|| address::find(state, address))
    }

    /// The client and the backend.
    fn ends(&mut self, conversation: &FlowGroup) -> [Option<&'a IpcacheEntry>; 2] {
        [conversation.src, conversation.backend.ip()].map(|address| self.find(address))
    }

    /// The endpoint's interface behind which an address is.
    fn interface(&self, entry: Option<&IpcacheEntry>) -> Option<&'a str> {
        match entry?.scope {
            AddressScope::Endpoint { ifindex } => self.interfaces.get(&ifindex).copied(),
            AddressScope::Pending | AddressScope::Host | AddressScope::Remote => None,
        }
    }

    /// Whether the interface is an endpoint's and there.
    fn is_attached(&self, interface: &str) -> bool {
        let info = self.state.catalog.endpoints.get(interface);
        info.is_some_and(|info| info.ifindex.is_some())
    }

    fn rule(&self, decision: Decision) -> Option<Thing> {
        self.rules.get(&decision.rule?).cloned()
    }

    fn service(&self, conversation: &FlowGroup) -> Option<&'a ServiceEntry> {
        let protocol = Protocol::from_number(conversation.protocol)?;
        self.state.services.get(&Frontend {
            address: conversation.dst.ip(),
            port: conversation.dst.port(),
            protocol,
        })
    }

    /// The frontend that the connection was sent to, or another one of its address.
    fn frontend(&self, conversation: &FlowGroup) -> Option<Thing> {
        let address = conversation.dst.ip();
        let first = Frontend {
            address,
            port: 0,
            protocol: Protocol::Tcp,
        };
        let rows = self.state.services.range(first..);
        let mut rows = rows.take_while(|(frontend, _)| frontend.address == address);
        let own = rows.clone().find(|(frontend, _)| {
            frontend.port == conversation.dst.port()
                && frontend.protocol.number() == conversation.protocol
        });
        let (frontend, entry) = own.or_else(|| rows.next())?;
        let service = self.state.catalog.services.get(&entry.service)?;
        Some(Thing::service(&service.name, frontend))
    }

    /// Whether the service that the connection was begun through still sends to its backend; of one that was begun
    /// without, whether its destination is no service's.
    fn service_holds(&self, conversation: &FlowGroup) -> bool {
        let found = self.service(conversation);
        if conversation.service == 0 {
            return found.is_none() && self.frontend(conversation).is_none();
        }
        if found.is_none_or(|found| found.service != conversation.service) {
            return false;
        }
        let Some(backend) = self.state.backends.get(&conversation.backend_id) else {
            return false;
        };
        let is_same =
            (backend.service, backend.address) == (conversation.service, conversation.backend);
        is_same
            && (backend.state != BackendState::Maintenance
                || conversation.protocol == Protocol::Tcp.number())
    }

    fn verdict(&mut self, conversation: &FlowGroup) -> Verdict {
        let state = self.state;
        let [source, destination] = self.ends(conversation);
        let end = |entry: Option<&IpcacheEntry>| entry.map(|entry| (entry.class, entry.scope));
        let (protocol, port) = (conversation.protocol, conversation.backend.port());
        let question = ([end(source), end(destination)], protocol, port);
        *self
            .verdicts
            .entry(question)
            .or_insert_with(|| verdict_between(state, source, destination, protocol, port))
    }

    fn allows(&mut self, conversation: &FlowGroup) -> bool {
        self.state.settings.audit || self.verdict(conversation).action() == Action::Allow
    }

    /// Whether the next packet passes.
    fn goes_on(&mut self, conversation: &FlowGroup) -> bool {
        let ends = self.ends(conversation);
        let are_there = ends.iter().all(|end| end.is_some() && !is_waiting(*end));
        let is_ours = ends.iter().any(|end| self.interface(*end).is_some());
        are_there && is_ours && self.service_holds(conversation) && self.allows(conversation)
    }

    /// The prefix by which packets of the other side are dropped on the uplinks.
    fn prefilter(&mut self, conversation: &FlowGroup) -> Option<Thing> {
        if !self.filters {
            return None;
        }
        let addresses = [conversation.src, conversation.backend.ip()];
        let ends = addresses.into_iter().zip(self.ends(conversation));
        let mut remote =
            ends.filter(|(_, end)| end.is_some_and(|end| end.scope == AddressScope::Remote));
        let prefix = remote.find_map(|(address, _)| {
            address::covering(address).find(|prefix| self.state.prefilter.contains_key(prefix))
        })?;
        let number = self.state.prefilter.get(&prefix)?.number;
        let table = &self.state.catalog.prefilter.get(&number)?.table;
        Some(Thing::prefilter(&prefix, table))
    }
}

fn is_waiting(entry: Option<&IpcacheEntry>) -> bool {
    entry.is_some_and(|entry| entry.scope == AddressScope::Pending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Interface, XdpMode};
    use crate::plan::diff;
    use crate::plan::testing::{Lab, frontend, ip};

    /// A client that asks a name server here and one elsewhere, through a service and straight on.
    fn lab() -> Lab {
        Lab::new()
            .identity("client", 20001, "")
            .identity("kube-dns", 18203, "")
            .identity("partner", 20007, "tier=gold")
            .cidrs("partner", "203.0.113.0/24")
            .endpoint("client", "client", "10.200.0.64")
            .endpoint("dns", "kube-dns", "10.200.0.44")
            .uplink("ens5", XdpMode::Auto)
            .service(
                "kube-dns",
                "10.32.0.10:53/udp 10.32.0.10:53/tcp",
                "10.200.0.44:53 10.200.1.45:53",
            )
            .policy(
                "dns",
                "kube-dns",
                Some("allow client 53/udp,53/tcp;allow label:tier=gold 443/tcp;allow host"),
                None,
            )
    }

    /// `tcp 10.200.0.64 10.32.0.10:53 10.200.0.44:53`: who, to where, and where that goes; `state` has the numbers.
    fn conversation(state: &State, text: &str) -> FlowGroup {
        let words: Vec<&str> = text.split_whitespace().collect();
        let protocol: Protocol = words[0].parse().unwrap();
        let sent = frontend(&format!("{}/{protocol}", words[2]));
        let dst = std::net::SocketAddr::new(sent.address, sent.port);
        let service = state.services.get(&sent).map_or(0, |entry| entry.service);
        let backend = words.get(3).map_or(dst, |backend| backend.parse().unwrap());
        let mut backends = state.backends.iter();
        let of_service = backends.find(|(_, row)| (row.service, row.address) == (service, backend));
        FlowGroup {
            protocol: protocol.number(),
            src: ip(words[1]),
            dst,
            backend,
            service,
            backend_id: of_service.map_or(0, |(number, _)| *number),
        }
    }

    const TALK: [(&str, u64); 6] = [
        ("tcp 10.200.0.64 10.32.0.10:53 10.200.0.44:53", 14),
        ("udp 10.200.0.64 10.32.0.10:53 10.200.0.44:53", 3),
        ("udp 10.200.0.64 10.32.0.10:53 10.200.1.45:53", 2),
        ("tcp 10.200.0.64 10.200.0.44:53", 5),
        ("tcp 203.0.113.9 10.200.0.44:443", 7),
        ("tcp 10.200.0.64 198.51.100.7:80", 1),
    ];

    /// The lines that say something of connections.
    fn lines(old: &State, new: &State) -> Vec<String> {
        let mut changes = diff(old, new);
        let talk = TALK.map(|(text, count)| (conversation(old, text), count));
        count(old, new, &mut changes, talk);
        let telling = changes.iter().filter(|change| !change.effect.is_nothing());
        telling.map(ToString::to_string).collect()
    }

    #[test]
    fn connections_are_laid_to_the_change_that_ends_them() {
        type Step = fn(Lab) -> Lab;
        const FRONTENDS: &str = "10.32.0.10:53/udp 10.32.0.10:53/tcp";
        let rows: [(&str, Step, &[&str]); 19] = [
            ("nothing", |lab| lab, &[]),
            (
                "a backend less: TCP is reset, UDP begins anew",
                |lab| lab.service("kube-dns", FRONTENDS, "10.200.1.45:53"),
                &[
                    "- backend 10.200.0.44:53 of service kube-dns: 14 connections end, 3 begin anew at another backend",
                ],
            ),
            (
                "no backend is left to begin anew with",
                |lab| lab.service("kube-dns", FRONTENDS, ""),
                &[
                    "- backend 10.200.0.44:53 of service kube-dns: 17 connections end",
                    "- backend 10.200.1.45:53 of service kube-dns: 2 connections end",
                ],
            ),
            (
                "draining keeps what it has",
                |lab| {
                    lab.service(
                        "kube-dns",
                        FRONTENDS,
                        "10.200.0.44:53!draining 10.200.1.45:53",
                    )
                },
                &[],
            ),
            (
                "maintenance loses UDP",
                |lab| {
                    lab.service(
                        "kube-dns",
                        FRONTENDS,
                        "10.200.0.44:53!maintenance 10.200.1.45:53",
                    )
                },
                &[
                    "~ backend 10.200.0.44:53 of service kube-dns state active → maintenance: 3 connections begin anew at another backend",
                ],
            ),
            (
                "a frontend less",
                |lab| {
                    lab.service(
                        "kube-dns",
                        "10.32.0.10:53/udp",
                        "10.200.0.44:53 10.200.1.45:53",
                    )
                },
                &["- service kube-dns 10.32.0.10:53/tcp: 14 connections end"],
            ),
            (
                "the service goes",
                |mut lab| {
                    lab.config.services.remove("kube-dns");
                    lab
                },
                &[
                    "- service kube-dns 10.32.0.10:53/tcp: 14 connections end",
                    "- service kube-dns 10.32.0.10:53/udp: 5 connections end",
                ],
            ),
            (
                "an address becomes a service's",
                |lab| lab.service("web", "198.51.100.7:443/tcp", "10.200.1.45:443"),
                &["+ service web 198.51.100.7:443/tcp: 1 connection ends"],
            ),
            (
                "a rule goes",
                |lab| {
                    lab.policy(
                        "dns",
                        "kube-dns",
                        Some("allow client 53/udp,53/tcp;allow host"),
                        None,
                    )
                },
                &["- rule dns/ingress allow from label:tier=gold ports 443/tcp: 7 connections end"],
            ),
            (
                "a deny comes",
                |lab| lab.policy("no", "kube-dns", Some("deny client tcp"), None),
                &[
                    "+ rule no/ingress deny from client ports tcp subject kube-dns: 19 connections end",
                ],
            ),
            (
                "a direction comes under enforcement",
                |lab| lab.policy("shut", "client", None, Some("")),
                &["~ endpoint lxc-client egress off → on: 25 connections end"],
            ),
            (
                "a prefix leaves its identity",
                |lab| lab.cidrs("partner", "203.0.113.128/25"),
                &["~ identity partner cidrs 203.0.113.0/24 → 203.0.113.128/25: 7 connections end"],
            ),
            (
                "a label goes that a rule names",
                |lab| {
                    lab.identity("partner", 20007, "")
                        .identity("other", 20008, "tier=gold")
                },
                &["~ identity partner labels tier=gold → none: 7 connections end"],
            ),
            (
                "an endpoint of another identity",
                |mut lab| {
                    let endpoint = lab.config.interfaces.get_mut("lxc-client").unwrap();
                    if let Interface::Endpoint { identity, .. } = endpoint {
                        *identity = "partner".to_owned();
                    }
                    lab
                },
                &["~ endpoint lxc-client identity client → partner: 22 connections end"],
            ),
            (
                "an endpoint goes: only what was not translated goes on, if the other side lets the world in",
                |mut lab| {
                    lab.config.interfaces.remove("lxc-client");
                    lab
                },
                &["- endpoint lxc-client: 24 connections end, 1 goes on without dpd"],
            ),
            (
                "an endpoint's interface goes",
                |mut lab| {
                    lab.world.links.remove("lxc-dns");
                    lab
                },
                &["~ endpoint lxc-dns ifindex 11 → waiting: 29 connections end"],
            ),
            (
                "an endpoint's address changes",
                |mut lab| {
                    lab.world.links.remove("lxc-dns");
                    lab.endpoint("dns", "kube-dns", "10.200.0.46")
                },
                &["~ endpoint lxc-dns addresses 10.200.0.44 → 10.200.0.46: 29 connections end"],
            ),
            (
                "the prefilter",
                |lab| lab.prefilter("abusers", "203.0.113.0/28 192.0.2.0/24"),
                &["+ prefilter 203.0.113.0/28 of abusers: 7 connections end"],
            ),
            (
                "the prefilter of a host whose uplink has no XDP",
                |mut lab| {
                    let xdp = XdpMode::Off;
                    let uplink = Interface::Uplink { xdp };
                    lab.config.interfaces.insert("ens5".to_owned(), uplink);
                    lab.prefilter("abusers", "203.0.113.0/28")
                },
                &[],
            ),
        ];
        let old = lab().compile();
        for (what, step, expected) in rows {
            let new = step(lab()).compile_after(&old);
            assert_eq!(lines(&old, &new), *expected, "{what}");
        }
    }

    #[test]
    fn the_end_of_an_audit_ends_what_was_only_let_pass() {
        let mut audited = lab().policy("shut", "client", None, Some(""));
        audited.config.policy.audit = true;
        let old = audited.compile();
        let mut enforced = audited.clone();
        enforced.config.policy.audit = false;
        let new = enforced.compile_after(&old);
        assert_eq!(
            lines(&old, &new),
            ["~ setting policy.audit true → false: 25 connections end"]
        );
        assert_eq!(lines(&lab().compile(), &audited.compile()), [""; 0]);
    }

    #[test]
    fn what_has_ended_before_is_not_ended_again() {
        let shut = lab().policy("shut", "client", None, Some(""));
        let old = shut.compile();
        let new = shut
            .service("kube-dns", "10.32.0.10:53/udp", "")
            .compile_after(&old);
        assert_eq!(lines(&old, &new), [""; 0]);
    }

    #[test]
    fn what_no_line_answers_for_has_a_line_of_its_own() {
        let old = lab().compile();
        let new = lab()
            .policy("dns", "kube-dns", Some(""), None)
            .compile_after(&old);
        let mut changes = Vec::new();
        let talk = TALK.map(|(text, count)| (conversation(&old, text), count));
        count(&old, &new, &mut changes, talk);
        let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["~ policy ingress of kube-dns: 29 connections end"]);
    }

    #[test]
    fn an_effect_is_said_in_words() {
        let effect = |ended, moved, released, is_least| Effect {
            ended,
            moved,
            released,
            is_least,
            ..Effect::default()
        };
        let forgotten = Effect {
            forgotten: 9,
            ..effect(2, 0, 0, true)
        };
        let rows = [
            (effect(0, 0, 0, true), ""),
            (effect(1, 0, 0, false), "1 connection ends"),
            (
                effect(2, 1, 0, false),
                "2 connections end, 1 begins anew at another backend",
            ),
            (
                effect(0, 0, 3, true),
                "at least 3 connections go on without dpd",
            ),
            (forgotten, "at least 2 connections end, 9 are forgotten"),
        ];
        for (effect, words) in rows {
            assert_eq!(effect.to_string(), words);
        }
    }
}
