//! What a change does to open connections: what the datapath will do with the next packet of each.
//!
//! All connections of a flow group get the same outcome, so each group is analysed once. Each affected connection is
//! attributed to the change that causes its outcome; where no change of the plan is a cause, a line is added for it.

use std::collections::HashMap;

use super::effect::{Effect, Outcome};
use super::line::Change;
use super::object::Object;
use super::state_view::{StateView, is_pending};
use crate::model::conntrack::FlowGroup;
use crate::model::policy::{Action, Direction};
use crate::model::protocol::Protocol;
use crate::model::state::{AddressScope, IpcacheEntry, State};
use crate::plan::policy::Decision;

/// Adds to `changes`, which lead from `old` to `new`, what each does to the connections of these flow groups.
pub fn add_effects(
    old: &State,
    new: &State,
    changes: &mut Vec<Change>,
    groups: impl IntoIterator<Item = (FlowGroup, u64)>,
) {
    let mut lines: HashMap<Object, usize> = HashMap::new();
    for (line, change) in changes.iter().enumerate() {
        lines.insert(change.object.clone(), line);
    }
    let mut analysis = ImpactAnalysis::new(old, new);
    for (group, connections) in groups {
        let Some(Impact { outcome, causes }) = analysis.impact(&group) else {
            continue;
        };
        let known = causes.iter().find_map(|cause| lines.get(cause)).copied();
        let line = known.unwrap_or_else(|| {
            let object = causes.into_iter().next_back();
            let object = object.unwrap_or_else(|| Object::new("policy", "of the host"));
            lines.insert(object.clone(), changes.len());
            changes.push(Change {
                sign: '~',
                object,
                detail: String::new(),
                effect: Effect::default(),
            });
            changes.len() - 1
        });
        changes[line].effect.add(outcome, connections);
    }
}

/// What a change does to the connections of a flow group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impact {
    pub outcome: Outcome,
    /// The objects whose change may be the cause, the likeliest first. The last one stands for a cause that is no line of the
    /// plan.
    pub causes: Vec<Object>,
}

impl Impact {
    fn new(outcome: Outcome, cause: Object) -> Impact {
        Impact {
            outcome,
            causes: vec![cause],
        }
    }
}

/// Compares two states as the packets of open connections meet them.
pub struct ImpactAnalysis<'a> {
    old: StateView<'a>,
    new: StateView<'a>,
}

impl<'a> ImpactAnalysis<'a> {
    /// The analysis of a change from `old` to `new`.
    pub fn new(old: &'a State, new: &'a State) -> ImpactAnalysis<'a> {
        ImpactAnalysis {
            old: StateView::new(old),
            new: StateView::new(new),
        }
    }

    /// `None`: its connections go on, or had already ended in the old state.
    pub fn impact(&mut self, group: &FlowGroup) -> Option<Impact> {
        if !self.old.forwards(group) {
            return None;
        }
        self.impact_of_endpoints(group)
            .or_else(|| self.impact_of_service(group))
            .or_else(|| self.impact_of_snat(group))
            .or_else(|| self.impact_of_sources(group))
            .or_else(|| self.impact_of_policy(group))
            .or_else(|| self.impact_of_prefilter(group))
    }

    /// Whether both peers are still behind the same interfaces.
    fn impact_of_endpoints(&mut self, group: &FlowGroup) -> Option<Impact> {
        let (before, after) = (self.old.peers(group), self.new.peers(group));
        let mut removed = None;
        let mut is_client = false;
        for (nth, (before, after)) in before.into_iter().zip(after).enumerate() {
            let (was, is) = (self.old.interface(before), self.new.interface(after));
            match (was, is) {
                (None, None) => {}
                (Some(was), Some(is)) if was == is => {}
                (Some(interface), None)
                    if !self.new.is_attached(interface) && !is_pending(after) =>
                {
                    is_client |= nth == 0;
                    removed = Some(interface);
                }
                (Some(interface), _) | (None, Some(interface)) => {
                    // A backend by identity that is pending is none: its service decides, as below.
                    let is_backend = nth == 1 && !is_client;
                    if let Some(impact) = self.impact_of_service(group).filter(|_| is_backend) {
                        return Some(impact);
                    }
                    return Some(Impact::new(Outcome::Ended, Object::endpoint(interface)));
                }
            }
        }
        let cause = Object::endpoint(removed?);
        if !is_client && let Some(impact) = self.impact_of_service(group) {
            return Some(impact); // the client's hook no longer sends its packets to this backend
        }
        // Service translation happens at the client's hook. What it sends untranslated reaches a backend that is no
        // endpoint like any remote address. For the network it happens at the backend's hook on the way back.
        let is_lost = group.is_translated() && (is_client || self.old.is_of_network(group));
        let outcome = match !is_lost && self.new.allows(group) {
            true => Outcome::Released,
            false => Outcome::Ended,
        };
        Some(Impact::new(outcome, cause))
    }

    fn impact_of_service(&mut self, group: &FlowGroup) -> Option<Impact> {
        if self.new.service_is_valid(group) {
            return None;
        }
        let can_move = group.protocol != Protocol::Tcp.number() && self.new.has_backends(group);
        let outcome = match can_move {
            true => Outcome::Moved,
            false => Outcome::Ended,
        };
        let found = self.new.service(group);
        let is_same = found.is_some_and(|found| found.service == group.service);
        let has_network = found.is_some_and(|found| found.is_external);
        let causes = if group.is_of_socket {
            self.old.backend(group).into_iter().collect()
        } else if group.service == 0 {
            self.new.frontend(group)
        } else if !is_same {
            self.old.frontend(group)
        } else if !has_network && self.new.is_of_network(group) {
            self.new.service_object(group).into_iter().collect()
        } else {
            self.old.backend(group).into_iter().collect()
        };
        Some(Impact { outcome, causes })
    }

    /// Whether the address that SNAT has given to the connections is still one that it may give them, and the peer not the host
    /// itself.
    fn impact_of_snat(&mut self, group: &FlowGroup) -> Option<Impact> {
        let (source, uplink) = group.snat?;
        let peer = group.backend.ip();
        if !self.old.is_of_host(peer) && self.new.is_of_host(peer) {
            return Some(Impact::new(Outcome::Ended, Object::host_address(peer)));
        }
        if !self.old.translates_source(group, (source, uplink))
            || self.new.translates_source(group, (source, uplink))
        {
            return None;
        }
        let uplink = self.old.uplink(uplink);
        let uplink = uplink.map(|name| Object::new("uplink", name));
        let causes = [Object::host_address(source)].into_iter().chain(uplink);
        Some(Impact {
            outcome: Outcome::Ended,
            causes: causes.collect(),
        })
    }

    /// Whether the service's sources still name the client. What they refuse, `policy.audit` does not let pass.
    fn impact_of_sources(&mut self, group: &FlowGroup) -> Option<Impact> {
        match self.new.admits(group) {
            true => None,
            false => Some(Impact::new(Outcome::Ended, self.new.service_object(group)?)),
        }
    }

    fn impact_of_policy(&mut self, group: &FlowGroup) -> Option<Impact> {
        let (direction, decision) = self.new.verdict(group).refusal()?;
        if self.new.is_audit() {
            return None;
        }
        Some(Impact {
            outcome: Outcome::Ended,
            causes: self.causes_of_denial(group, direction, decision),
        })
    }

    fn causes_of_denial(
        &mut self,
        group: &FlowGroup,
        direction: Direction,
        decision: Decision,
    ) -> Vec<Object> {
        let before = self.old.verdict(group);
        let mut causes = Vec::new();
        if before.action() == Action::Deny {
            causes.push(Object::setting("policy.audit"));
        }
        causes.extend(self.changed_identities(group));
        causes.extend(self.new.rule(decision));
        let before = match direction {
            Direction::Ingress => before.ingress,
            Direction::Egress => before.egress,
        };
        causes.extend(before.and_then(|before| self.old.rule(before)));
        let [source, destination] = self.new.peers(group);
        let (subject, peer) = match direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        causes.extend(self.new.interface(subject).map(Object::endpoint));
        if source.is_some_and(|entry| entry.scope == AddressScope::Host) {
            causes.push(Object::setting("policy.allow_host"));
        }
        // The labels of the peer may have changed, and with them the rules that match it.
        let peer = peer.and_then(|peer| self.new.identity_name(peer.identity));
        causes.extend(peer.map(Object::identity));
        let subject = self.new.identity_name(decision.subject).unwrap_or_default();
        causes.push(Object::new("policy", format!("{direction} of {subject}")));
        causes
    }

    /// The peers whose identity changed.
    fn changed_identities(&mut self, group: &FlowGroup) -> Vec<Object> {
        let (before, after) = (self.old.peers(group), self.new.peers(group));
        let mut objects = Vec::new();
        for (before, after) in before.into_iter().zip(after) {
            let number = |entry: Option<&IpcacheEntry>| entry.map(|entry| entry.identity);
            if number(before) == number(after) {
                continue;
            }
            if let Some(interface) = self.new.interface(after) {
                objects.push(Object::endpoint(interface));
                continue;
            }
            for (view, entry) in [(&self.new, after), (&self.old, before)] {
                let name = entry.and_then(|entry| view.identity_name(entry.identity));
                objects.extend(name.map(Object::identity));
            }
        }
        objects
    }

    fn impact_of_prefilter(&mut self, group: &FlowGroup) -> Option<Impact> {
        if self.old.prefilter(group).is_some() {
            return None;
        }
        let cause = self.new.prefilter(group)?;
        Some(Impact::new(Outcome::Ended, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ForwardingMode, Interface, XdpMode};
    use crate::model::families::Families;
    use crate::model::host::HostState;
    use crate::model::state::Backend;
    use crate::plan::diff;
    use crate::plan::testing::{TestConfig, frontend, ip};

    /// A client of a local and a remote name server, through a service and directly.
    fn base() -> TestConfig {
        TestConfig::new()
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

    /// `tcp 10.200.0.64 10.32.0.10:53 10.200.0.44:53`: client, destination and backend; `state` has the numbers.
    fn group(state: &State, text: &str) -> FlowGroup {
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
            link_local_of: [0; 2],
            snat: None,
            is_of_socket: false,
            service,
            backend_id: of_service.map_or(0, |(number, _)| *number),
        }
    }

    const OPEN: [(&str, u64); 6] = [
        ("tcp 10.200.0.64 10.32.0.10:53 10.200.0.44:53", 14),
        ("udp 10.200.0.64 10.32.0.10:53 10.200.0.44:53", 3),
        ("udp 10.200.0.64 10.32.0.10:53 10.200.1.45:53", 2),
        ("tcp 10.200.0.64 10.200.0.44:53", 5),
        ("tcp 203.0.113.9 10.200.0.44:443", 7),
        ("tcp 10.200.0.64 198.51.100.7:80", 1),
    ];

    /// The lines with an effect on connections.
    fn lines(old: &State, new: &State) -> Vec<String> {
        let mut changes = diff(old, new);
        let open = OPEN.map(|(text, count)| (group(old, text), count));
        add_effects(old, new, &mut changes, open);
        let effective = changes.iter().filter(|change| !change.effect.is_empty());
        effective.map(ToString::to_string).collect()
    }

    #[test]
    fn connections_are_attributed_to_the_change_that_ends_them() {
        type Step = fn(TestConfig) -> TestConfig;
        const FRONTENDS: &str = "10.32.0.10:53/udp 10.32.0.10:53/tcp";
        let rows: [(&str, Step, &[&str]); 21] = [
            ("nothing", |test| test, &[]),
            (
                "a backend less: TCP is reset, UDP moves",
                |test| test.service("kube-dns", FRONTENDS, "10.200.1.45:53"),
                &[
                    "- backend 10.200.0.44:53 of service kube-dns: 14 connections end, 3 move to another backend",
                ],
            ),
            (
                "a backend by identity leaves with its endpoint",
                |mut test| {
                    test.host.links.remove("lxc-dns");
                    test.service("kube-dns", FRONTENDS, "@kube-dns:53 10.200.1.45:53")
                },
                &[
                    "- backend 10.200.0.44:53 of service kube-dns: 14 connections end, 3 move to another backend",
                    "~ endpoint lxc-dns ifindex 11 → pending: 12 connections end",
                ],
            ),
            (
                "no backend is left to move to",
                |test| test.service("kube-dns", FRONTENDS, ""),
                &[
                    "- backend 10.200.0.44:53 of service kube-dns: 17 connections end",
                    "- backend 10.200.1.45:53 of service kube-dns: 2 connections end",
                ],
            ),
            (
                "draining keeps what it has",
                |test| {
                    test.service(
                        "kube-dns",
                        FRONTENDS,
                        "10.200.0.44:53!draining 10.200.1.45:53",
                    )
                },
                &[],
            ),
            (
                "maintenance moves UDP",
                |test| {
                    test.service(
                        "kube-dns",
                        FRONTENDS,
                        "10.200.0.44:53!maintenance 10.200.1.45:53",
                    )
                },
                &[
                    "~ backend 10.200.0.44:53 of service kube-dns state active → maintenance: 3 connections move to another backend",
                ],
            ),
            (
                "a frontend less",
                |test| {
                    test.service(
                        "kube-dns",
                        "10.32.0.10:53/udp",
                        "10.200.0.44:53 10.200.1.45:53",
                    )
                },
                &["- service kube-dns 10.32.0.10:53/tcp: 14 connections end"],
            ),
            (
                "the service is removed",
                |mut test| {
                    test.config.services.remove("kube-dns");
                    test
                },
                &[
                    "- service kube-dns 10.32.0.10:53/tcp: 14 connections end",
                    "- service kube-dns 10.32.0.10:53/udp: 5 connections end",
                ],
            ),
            (
                "an address becomes a service's",
                |test| test.service("web", "198.51.100.7:443/tcp", "10.200.1.45:443"),
                &["+ service web 198.51.100.7:443/tcp: 1 connection ends"],
            ),
            (
                "a rule is removed",
                |test| {
                    test.policy(
                        "dns",
                        "kube-dns",
                        Some("allow client 53/udp,53/tcp;allow host"),
                        None,
                    )
                },
                &["- rule dns/ingress allow from label:tier=gold ports 443/tcp: 7 connections end"],
            ),
            (
                "a deny is added",
                |test| test.policy("no", "kube-dns", Some("deny client tcp"), None),
                &[
                    "+ rule no/ingress deny from client ports tcp subject kube-dns: 19 connections end",
                ],
            ),
            (
                "a direction gets enforcement",
                |test| test.policy("shut", "client", None, Some("")),
                &["~ endpoint lxc-client egress off → on: 25 connections end"],
            ),
            (
                "a prefix leaves its identity",
                |test| test.cidrs("partner", "203.0.113.128/25"),
                &["~ identity partner cidrs 203.0.113.0/24 → 203.0.113.128/25: 7 connections end"],
            ),
            (
                "an identity loses a label that a rule names",
                |test| {
                    test.identity("partner", 20007, "")
                        .identity("other", 20008, "tier=gold")
                },
                &["~ identity partner labels tier=gold → none: 7 connections end"],
            ),
            (
                "an endpoint of another identity",
                |mut test| {
                    let endpoint = test.config.interfaces.get_mut("lxc-client").unwrap();
                    if let Interface::Endpoint { identity, .. } = endpoint {
                        *identity = "partner".to_owned();
                    }
                    test
                },
                &["~ endpoint lxc-client identity client → partner: 22 connections end"],
            ),
            (
                "an endpoint is removed: untranslated connections go on, if the other side allows the world",
                |mut test| {
                    test.config.interfaces.remove("lxc-client");
                    test
                },
                &["- endpoint lxc-client: 24 connections end, 1 goes on without dpd"],
            ),
            (
                "an endpoint is removed and is no backend any more",
                |mut test| {
                    test.config.interfaces.remove("lxc-dns");
                    test.service("kube-dns", FRONTENDS, "10.200.1.45:53")
                },
                &[
                    "- backend 10.200.0.44:53 of service kube-dns: 14 connections end, 3 move to another backend",
                    "- endpoint lxc-dns: 12 connections go on without dpd",
                ],
            ),
            (
                "an endpoint's interface disappears",
                |mut test| {
                    test.host.links.remove("lxc-dns");
                    test
                },
                &["~ endpoint lxc-dns ifindex 11 → pending: 29 connections end"],
            ),
            (
                "an endpoint's address changes",
                |mut test| {
                    test.host.links.remove("lxc-dns");
                    test.endpoint("dns", "kube-dns", "10.200.0.46")
                },
                &["~ endpoint lxc-dns addresses 10.200.0.44 → 10.200.0.46: 29 connections end"],
            ),
            (
                "the prefilter",
                |test| test.prefilter("abusers", "203.0.113.0/28 192.0.2.0/24"),
                &["+ prefilter 203.0.113.0/28 of abusers: 7 connections end"],
            ),
            (
                "the prefilter of a host whose uplink has no XDP",
                |mut test| {
                    let xdp = XdpMode::Off;
                    let forwarding = ForwardingMode::Auto;
                    let uplink = Interface::Uplink {
                        xdp,
                        forwarding,
                        masquerade: Default::default(),
                        l2_announce: false,
                    };
                    test.config.interfaces.insert("ens5".to_owned(), uplink);
                    test.prefilter("abusers", "203.0.113.0/28")
                },
                &[],
            ),
        ];
        let old = base().compile();
        for (what, step, expected) in rows {
            let new = step(base()).compile_after(&old);
            assert_eq!(lines(&old, &new), *expected, "{what}");
        }
    }

    #[test]
    fn a_learnt_link_local_address_is_its_workloads() {
        let old = base().compile();
        let new = base().policy("closed", "client", Some(""), None).compile();
        let ifindex = old.catalog.endpoints["lxc-client"].ifindex.unwrap();
        let group = FlowGroup {
            link_local_of: [0, ifindex],
            ..group(&old, "udp 198.51.100.7 [fe80:0:0:a::64]:9")
        };
        let impact = ImpactAnalysis::new(&old, &new).impact(&group);
        assert_eq!(impact.map(|impact| impact.outcome), Some(Outcome::Ended));
        let nobodys = FlowGroup {
            link_local_of: [0; 2],
            ..group
        };
        assert_eq!(ImpactAnalysis::new(&old, &new).impact(&nobodys), None);
    }

    #[test]
    fn a_translated_socket_of_the_host_ends_with_its_backend() {
        let old = base().compile();
        let of = "tcp 192.0.2.1 10.200.0.44:53";
        let service = old.services.values().next().unwrap().service;
        let is_backend = |row: &Backend| row.address == "10.200.0.44:53".parse().unwrap();
        let backend = old.backends.iter().find(|(_, row)| is_backend(row));
        let socket = FlowGroup {
            service,
            backend_id: *backend.unwrap().0,
            is_of_socket: true,
            ..group(&old, of)
        };
        let rows: [(&str, &str, &[&str]); 2] = [
            ("another backend", "10.200.0.44:53 10.200.1.46:53", &[]),
            (
                "a backend less",
                "10.200.1.45:53",
                &["- backend 10.200.0.44:53 of service kube-dns: 2 connections end"],
            ),
        ];
        for (what, backends, expected) in rows {
            let frontends = "10.32.0.10:53/udp 10.32.0.10:53/tcp";
            let new = base().service("kube-dns", frontends, backends);
            let new = new.compile_after(&old);
            let mut changes = diff(&old, &new);
            add_effects(&old, &new, &mut changes, [(socket, 2)]);
            let effective = changes.iter().filter(|change| !change.effect.is_empty());
            let lines: Vec<String> = effective.map(ToString::to_string).collect();
            assert_eq!(lines, *expected, "{what}");
        }
    }

    #[test]
    fn masqueraded_connections_end_with_the_masquerade_or_its_address() {
        let set = |mut test: TestConfig, families| {
            if let Some(Interface::Uplink { masquerade, .. }) =
                test.config.interfaces.get_mut("ens5")
            {
                *masquerade = families;
            }
            test
        };
        let base = || set(base(), Families::BOTH);
        let old = base().compile();
        let ifindex = old.catalog.uplinks["ens5"].ifindex.unwrap();
        let group = FlowGroup {
            snat: Some((ip("192.0.2.1"), ifindex)),
            ..group(&old, "tcp 10.200.0.64 198.51.100.7:80")
        };
        let lines = |new: &State| {
            let mut changes = diff(&old, new);
            add_effects(&old, new, &mut changes, [(group, 3)]);
            let effective = changes.iter().filter(|change| !change.effect.is_empty());
            effective.map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(lines(&base().compile_after(&old)), [""; 0]);
        let mut without = base();
        without.host.addresses.remove(&ip("192.0.2.1"));
        assert_eq!(
            lines(&without.compile_after(&old)),
            ["- address 192.0.2.1 of host: 3 connections end"]
        );
        let mut at_host = base();
        at_host.host.addresses.insert(ip("198.51.100.7"));
        assert_eq!(
            lines(&at_host.compile_after(&old)),
            ["+ address 198.51.100.7 of host: 3 connections end"]
        );
        let line = lines(&set(base(), Families::IPV6).compile_after(&old));
        assert_eq!(line.len(), 1, "{line:?}");
        assert!(line[0].starts_with("~ uplink ens5 "), "{line:?}");
        assert!(line[0].contains("masquerade both → ipv6"), "{line:?}");
        assert!(line[0].ends_with(": 3 connections end"), "{line:?}");
    }

    #[test]
    fn connections_of_the_network_end_with_what_lets_them_in() {
        const FRONTENDS: &str = "203.0.113.1:80/tcp 203.0.113.1:80/udp";
        let base = || {
            TestConfig::new()
                .identity("web", 300, "")
                .endpoint("web", "web", "10.1.1.1")
                .endpoint("client", "web", "10.1.1.2")
                .uplink("ens5", XdpMode::Auto)
                .service("s", FRONTENDS, "10.1.1.1:80 10.9.0.1:80")
                .external("s", "8443/tcp")
        };
        let old = base().compile();
        let uplink = old.catalog.uplinks["ens5"].ifindex.unwrap();
        let open = [
            ("tcp 198.51.100.1 203.0.113.1:80 10.1.1.1:80", 1),
            ("udp 198.51.100.1 203.0.113.1:80 10.9.0.1:80", 2),
            ("tcp 198.51.100.2 192.0.2.1:8443 10.9.0.1:80", 4),
            ("tcp 10.1.1.2 203.0.113.1:80 10.9.0.1:80", 8),
            ("tcp 10.1.1.2 192.0.2.1:22", 16),
        ];
        let lines = |new: &State| {
            let groups = open.map(|(text, count)| {
                let group = group(&old, text);
                let snat = (group.backend.port() == 80 && text.contains("10.9.0.1"))
                    .then_some((ip("192.0.2.1"), uplink))
                    .filter(|_| !text.contains("10.1.1.2"));
                (FlowGroup { snat, ..group }, count)
            });
            let mut changes = diff(&old, new);
            add_effects(&old, new, &mut changes, groups);
            let effective = changes.iter().filter(|change| !change.effect.is_empty());
            effective.map(ToString::to_string).collect::<Vec<_>>()
        };
        let service = |edit: fn(&mut crate::config::Service)| {
            let mut test = base();
            edit(test.config.services.get_mut("s").unwrap());
            test
        };
        let host = |edit: fn(&mut HostState)| {
            let mut test = base();
            edit(&mut test.host);
            test
        };
        let uplink_pending = host(|host| drop(host.links.remove("ens5")));
        let rows: [(&str, TestConfig, &[&str]); 11] = [
            ("nothing", base(), &[]),
            (
                "it becomes internal",
                service(|s| (s.external, s.node_ports) = (false, vec![])),
                &[
                    "~ service s external true → false, sources everybody → none: 3 connections end",
                    "- service s node:8443/tcp: 4 connections end",
                ],
            ),
            (
                "sources that name nobody of them",
                service(|s| s.sources = vec!["198.51.101.0/24".parse().unwrap()]),
                &["~ service s sources everybody → 198.51.101.0/24: 7 connections end"],
            ),
            (
                "sources that name one",
                service(|s| s.sources = vec!["198.51.100.2/32".parse().unwrap()]),
                &["~ service s sources everybody → 198.51.100.2: 3 connections end"],
            ),
            (
                "locality",
                service(|s| s.locality = crate::model::service::Locality::Only),
                &[],
            ),
            (
                "an address of the host more",
                host(|host| host.addresses.extend([ip("192.0.2.7")])),
                &[],
            ),
            (
                "the address of a node port, which is that of SNAT",
                host(|host| {
                    host.addresses.remove(&ip("192.0.2.1"));
                    host.addresses.insert(ip("192.0.2.7"));
                }),
                &["- address 192.0.2.1 of host: 6 connections end"],
            ),
            (
                "the uplink",
                uplink_pending,
                &["~ uplink ens5 ifindex 12 → pending: 6 connections end"],
            ),
            (
                "a backend elsewhere: UDP moves",
                base()
                    .service("s", FRONTENDS, "10.1.1.1:80")
                    .external("s", "8443/tcp"),
                &[
                    "- backend 10.9.0.1:80 of service s: 12 connections end, 2 move to another backend",
                ],
            ),
            (
                "the backend here is no endpoint any more",
                {
                    let mut test = base();
                    test.config.interfaces.remove("lxc-web");
                    test
                },
                &["- endpoint lxc-web: 1 connection ends"],
            ),
            (
                "another service at the address of the host",
                base().service("t", "192.0.2.1:23/tcp", "10.9.0.1:80"),
                &[],
            ),
        ];
        for (what, test, expected) in rows {
            assert_eq!(lines(&test.compile_after(&old)), *expected, "{what}");
        }
    }

    #[test]
    fn the_end_of_an_audit_ends_what_it_let_pass() {
        let mut audited = base().policy("shut", "client", None, Some(""));
        audited.config.policy.audit = true;
        let old = audited.compile();
        let mut enforced = audited.clone();
        enforced.config.policy.audit = false;
        let new = enforced.compile_after(&old);
        assert_eq!(
            lines(&old, &new),
            ["~ setting policy.audit true → false: 25 connections end"]
        );
        assert_eq!(lines(&base().compile(), &audited.compile()), [""; 0]);
    }

    #[test]
    fn what_had_ended_before_is_not_counted() {
        let shut = base().policy("shut", "client", None, Some(""));
        let old = shut.compile();
        let new = shut
            .service("kube-dns", "10.32.0.10:53/udp", "")
            .compile_after(&old);
        assert_eq!(lines(&old, &new), [""; 0]);
    }

    #[test]
    fn an_effect_without_a_line_gets_its_own() {
        let old = base().compile();
        let new = base()
            .policy("dns", "kube-dns", Some(""), None)
            .compile_after(&old);
        let mut changes = Vec::new();
        let open = OPEN.map(|(text, count)| (group(&old, text), count));
        add_effects(&old, &new, &mut changes, open);
        let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["~ policy ingress of kube-dns: 29 connections end"]);
    }
}
