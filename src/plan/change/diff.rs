//! The changes between two generations, in the file's own words.

use std::collections::BTreeSet;

use super::effect::Effect;
use super::line::Change;
use super::moved_share::add_moved_shares;
use super::object::{Object, join_words};
use super::objects::{Properties, objects};
use crate::model::state::State;
use crate::parallel::both;

/// The changes from `old` to `new` in the order of their names; none if both mean the same to packets.
///
/// A rule that only moves within its list is no change. An `old` of `State::default()` is an empty host.
pub fn diff(old: &State, new: &State) -> Vec<Change> {
    let (before, after) = both(|| objects(old, new), || objects(new, old));
    let names: BTreeSet<&Object> = before.keys().chain(after.keys()).collect();
    let mut changes = names
        .into_iter()
        .filter_map(|object| compare(object, before.get(object), after.get(object)))
        .collect();
    add_moved_shares(old, new, &mut changes);
    changes
}

/// The change of `conntrack.size`, which is no part of a generation. At least `excess` connections find no room in the new
/// tables.
pub fn resized(old: u32, new: u32, excess: u64) -> Option<Change> {
    (old != new).then(|| Change {
        sign: '~',
        object: Object::setting("conntrack.size"),
        detail: format!("{old} → {new}"),
        effect: Effect {
            forgotten: excess,
            is_least: true,
            ..Effect::default()
        },
    })
}

fn compare(object: &Object, old: Option<&Properties>, new: Option<&Properties>) -> Option<Change> {
    let (sign, properties) = match (old, new) {
        (Some(old), Some(new)) => ('~', changed(old, new)),
        (None, Some(new)) => ('+', present(new)),
        (_, None) => ('-', Vec::new()),
    };
    if sign == '~' && properties.is_empty() {
        return None;
    }
    Some(Change {
        sign,
        object: object.clone(),
        detail: properties.join(", "),
        effect: Effect::default(),
    })
}

fn present(properties: &Properties) -> Vec<String> {
    let present = properties.iter().filter(|(_, value)| !value.is_empty());
    present
        .map(|(what, value)| join_words(&[what, value]))
        .collect()
}

/// `identity client → intruder` for each property that differs.
fn changed(old: &Properties, new: &Properties) -> Vec<String> {
    let pairs = old.iter().zip(new).filter(|(old, new)| old != new);
    pairs
        .map(|((what, old), (_, new))| {
            join_words(&[what, &format!("{} → {}", or_none(old), or_none(new))])
        })
        .collect()
}

fn or_none(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ForwardingMode, Interface, XdpMode};
    use crate::model::forwarding::{StackFilter, StackHook};
    use crate::model::host::LinkAddress;
    use crate::plan::testing::{TestConfig, ip, net};

    fn base() -> TestConfig {
        TestConfig::new()
            .identity("client", 20001, "app=client")
            .identity("kube-dns", 18203, "")
            .endpoint("client", "client", "10.200.0.64 fd00:200::64")
            .service(
                "kube-dns",
                "10.32.0.10:53/udp",
                "10.200.0.44:53 10.200.0.45:53",
            )
            .policy(
                "dns",
                "kube-dns",
                Some("allow client 53/udp;deny any tcp"),
                None,
            )
            .uplink("ens5", XdpMode::Auto)
            .cidrs("client", "10.200.1.0/24")
            .node("node-b", "192.0.2.2 2001:db8::2", "10.200.1.0/24")
            .prefilter("abusers", "198.51.100.66 203.0.113.0/24")
    }

    fn lines(old: &State, new: &State) -> Vec<String> {
        diff(old, new).iter().map(Change::to_string).collect()
    }

    #[test]
    fn changes_in_the_words_of_the_file() {
        type Step = fn(TestConfig) -> TestConfig;
        let rows: [(&str, Step, &[&str]); 38] = [
            ("nothing", |test| test, &[]),
            (
                "a service for the network",
                |test| {
                    test.service("web", "203.0.113.9:443/tcp", "10.200.0.44:443")
                        .external("web", "8443/tcp")
                },
                &[
                    "+ backend 10.200.0.44:443 of service web weight 1, state active",
                    "+ service web external true, sources everybody, locality any, algorithm random",
                    "+ service web 203.0.113.9:443/tcp",
                    "+ service web node:8443/tcp",
                    "+ source ports of SNAT 1024-8442 8444-32767 61000-65535",
                    "~ uplink ens5 SNAT to none → 192.0.2.1",
                ],
            ),
            (
                "a service that becomes external",
                |mut test| {
                    let service = test.config.services.get_mut("kube-dns").unwrap();
                    service.external = true;
                    service.sources = vec!["198.51.100.0/24".parse().unwrap()];
                    test
                },
                &[
                    "~ service kube-dns external false → true, sources none → 198.51.100.0/24",
                    "+ source ports of SNAT 1024-32767 61000-65535",
                    "~ uplink ens5 SNAT to none → 192.0.2.1",
                ],
            ),
            (
                "exceptions of masquerade",
                |mut test| {
                    test.config.masquerade.except = vec![net("10.0.0.0/8"), net("198.51.100.7/32")];
                    test
                },
                &[
                    "+ masquerade except 10.0.0.0/8",
                    "+ masquerade except 198.51.100.7",
                ],
            ),
            (
                "a service that prefers its host",
                |mut test| {
                    let service = test.config.services.get_mut("kube-dns").unwrap();
                    service.locality = crate::model::service::Locality::Prefer;
                    test
                },
                &["~ service kube-dns locality any → prefer"],
            ),
            (
                "a frontend more",
                |test| {
                    test.service(
                        "kube-dns",
                        "10.32.0.10:53/udp 10.32.0.10:53/tcp",
                        "10.200.0.44:53 10.200.0.45:53",
                    )
                },
                &["+ service kube-dns 10.32.0.10:53/tcp"],
            ),
            (
                "a backend less",
                |test| test.service("kube-dns", "10.32.0.10:53/udp", "10.200.0.44:53"),
                &["- backend 10.200.0.45:53 of service kube-dns"],
            ),
            (
                "a backend that drains",
                |test| {
                    test.service(
                        "kube-dns",
                        "10.32.0.10:53/udp",
                        "10.200.0.44:53*5!draining 10.200.0.45:53",
                    )
                },
                &[
                    "~ backend 10.200.0.44:53 of service kube-dns weight 1 → 5, state active → draining",
                ],
            ),
            (
                "backends by identity",
                |test| {
                    test.endpoint("dns", "kube-dns", "10.200.0.44 10.200.0.46")
                        .service("kube-dns", "10.32.0.10:53/udp", "@kube-dns:53")
                },
                &[
                    "~ backend 10.200.0.44:53 of service kube-dns identity none → kube-dns",
                    "- backend 10.200.0.45:53 of service kube-dns",
                    "+ backend 10.200.0.46:53 of service kube-dns weight 1, state active, identity kube-dns",
                    "+ endpoint lxc-dns identity kube-dns, addresses 10.200.0.44 10.200.0.46, ifindex 12, delivery peer, host MAC 02:00:00:00:00:0c, MAC 02:00:00:00:01:0c, MTU 1500, neighbours at ifindex 12, errors from 192.0.2.1 2001:db8::1, multicast false, ingress on, egress off",
                    "~ setting conntrack.per_endpoint 0 → half of each table",
                ],
            ),
            (
                "a node's endpoints",
                |test| test.node_endpoints("node-b", "10.200.1.44=kube-dns"),
                &["~ identity kube-dns cidrs none → 10.200.1.44"],
            ),
            (
                "a service of another name",
                |mut test| {
                    let service = test.config.services.remove("kube-dns").unwrap();
                    test.config.services.insert("dns".to_owned(), service);
                    test
                },
                &[
                    "+ backend 10.200.0.44:53 of service dns weight 1, state active",
                    "- backend 10.200.0.44:53 of service kube-dns",
                    "+ backend 10.200.0.45:53 of service dns weight 1, state active",
                    "- backend 10.200.0.45:53 of service kube-dns",
                    "+ service dns 10.32.0.10:53/udp",
                    "- service kube-dns 10.32.0.10:53/udp",
                ],
            ),
            (
                "an endpoint of another identity",
                |mut test| {
                    test.host.links.remove("lxc-client");
                    test.endpoint("client", "kube-dns", "10.200.0.64 fd00:200::64")
                },
                &["~ endpoint lxc-client identity client → kube-dns, ingress off → on"],
            ),
            (
                "an endpoint with multicast",
                |mut test| {
                    let client = test.config.interfaces.get_mut("lxc-client");
                    if let Some(Interface::Endpoint { multicast, .. }) = client {
                        *multicast = true;
                    }
                    test
                },
                &["~ endpoint lxc-client multicast false → true"],
            ),
            (
                "an endpoint of another address",
                |mut test| {
                    test.host.links.remove("lxc-client");
                    test.endpoint("client", "client", "10.200.0.64 10.201.0.0/16")
                },
                &[
                    "~ endpoint lxc-client addresses 10.200.0.64 fd00:200::64 → 10.200.0.64 10.201.0.0/16",
                ],
            ),
            (
                "an interface that disappears",
                |mut test| {
                    test.host.links.remove("lxc-client");
                    test
                },
                &["~ endpoint lxc-client ifindex 10 → pending"],
            ),
            (
                "an endpoint that is still pending",
                |mut test| {
                    test.config.interfaces.remove("lxc-client");
                    let test = test.endpoint("new", "client", "10.200.0.70");
                    let mut gone = test.clone();
                    gone.host.links.remove("lxc-new");
                    gone
                },
                &[
                    "- endpoint lxc-client",
                    "+ endpoint lxc-new identity client, addresses 10.200.0.70, ifindex pending",
                ],
            ),
            (
                "the workload's MAC",
                |mut test| {
                    let link = test.host.links.get_mut("lxc-client").unwrap();
                    link.peer.as_mut().unwrap().mac = Some([2, 0, 0, 0, 1, 0xff]);
                    test
                },
                &["~ endpoint lxc-client MAC 02:00:00:00:01:0a → 02:00:00:00:01:ff"],
            ),
            (
                "an identity's number",
                |test| test.identity("client", 20002, "app=client"),
                &["~ identity client id 20001 → 20002"],
            ),
            (
                "an identity's labels",
                |test| test.identity("client", 20001, ""),
                &["~ identity client labels app=client → none"],
            ),
            (
                "an identity more",
                |test| test.identity("intruder", 20003, "a=b c=d"),
                &["+ identity intruder id 20003, labels a=b c=d"],
            ),
            (
                "an identity's prefixes elsewhere",
                |test| test.cidrs("client", "10.200.2.0/24 10.200.1.44"),
                &["~ identity client cidrs 10.200.1.0/24 → 10.200.1.44 10.200.2.0/24"],
            ),
            (
                "an uplink whose interface disappears",
                |mut test| {
                    test.host.links.remove("ens5");
                    test
                },
                &["~ uplink ens5 ifindex 11 → pending"],
            ),
            (
                "an uplink's XDP",
                |mut test| {
                    let xdp = XdpMode::Generic;
                    let forwarding = ForwardingMode::Auto;
                    let uplink = Interface::Uplink {
                        xdp,
                        forwarding,
                        masquerade: Default::default(),
                        l2_announce: false,
                    };
                    test.config.interfaces.insert("ens5".to_owned(), uplink);
                    test
                },
                &["~ uplink ens5 xdp auto → generic"],
            ),
            (
                "an uplink's way",
                |mut test| {
                    let xdp = XdpMode::Auto;
                    let forwarding = ForwardingMode::Stack;
                    let uplink = Interface::Uplink {
                        xdp,
                        forwarding,
                        masquerade: Default::default(),
                        l2_announce: false,
                    };
                    test.config.interfaces.insert("ens5".to_owned(), uplink);
                    test
                },
                &["~ uplink ens5 forwarding direct → stack (forwarding = \"stack\")"],
            ),
            (
                "a chain that forwarded packets meet",
                |mut test| {
                    let filter = StackFilter {
                        hook: StackHook::Forward,
                        name: "nftables inet filter/forward".to_owned(),
                        why: "has rules",
                        translates: Default::default(),
                    };
                    test.host.stack.filters.insert(filter);
                    test
                },
                &[
                    "~ uplink ens5 forwarding direct → stack (nftables inet filter/forward has rules)",
                ],
            ),
            (
                "an address that an uplink announces",
                |test| {
                    let mut test = test.external("kube-dns", "");
                    let ens5 = test.config.interfaces.get_mut("ens5");
                    if let Some(Interface::Uplink { l2_announce, .. }) = ens5 {
                        *l2_announce = true;
                    }
                    let link = test.host.links.get_mut("ens5").unwrap();
                    link.carrier_ups = Some(1);
                    test.host.announced = [LinkAddress {
                        ifindex: link.ifindex,
                        address: ip("10.32.0.10"),
                    }]
                    .into();
                    test
                },
                &[
                    "+ announcement 10.32.0.10 of uplink ens5 MAC 02:00:00:00:00:0b",
                    "~ service kube-dns external false → true, sources none → everybody",
                    "+ source ports of SNAT 1024-32767 61000-65535",
                    "~ uplink ens5 SNAT to none → 192.0.2.1",
                ],
            ),
            (
                "an uplink more",
                |test| test.uplink("ens6", XdpMode::Off),
                &[
                    "+ uplink ens6 xdp off, forwarding direct, ifindex 12, reverse path off, errors from 192.0.2.1 2001:db8::1",
                ],
            ),
            (
                "an endpoint's interface that is an uplink now",
                |mut test| {
                    let xdp = XdpMode::Auto;
                    let forwarding = ForwardingMode::Auto;
                    let uplink = Interface::Uplink {
                        xdp,
                        forwarding,
                        masquerade: Default::default(),
                        l2_announce: false,
                    };
                    test.config
                        .interfaces
                        .insert("lxc-client".to_owned(), uplink);
                    test
                },
                &[
                    "- endpoint lxc-client",
                    "+ uplink lxc-client xdp auto, forwarding direct, ifindex 10, reverse path off, errors from 192.0.2.1 2001:db8::1",
                ],
            ),
            (
                "another address of a node, and a node more",
                |test| {
                    test.node("node-b", "192.0.2.3 2001:db8::2", "")
                        .node("node-c", "192.0.2.4", "")
                },
                &[
                    "~ node node-b addresses 192.0.2.2 2001:db8::2 → 192.0.2.3 2001:db8::2, cidrs 10.200.1.0/24 → none",
                    "+ node node-c addresses 192.0.2.4",
                ],
            ),
            (
                "prefixes of the prefilter",
                |test| test.prefilter("abusers", "203.0.113.0/25 198.51.100.66"),
                &[
                    "- prefilter 203.0.113.0/24 of abusers",
                    "+ prefilter 203.0.113.0/25 of abusers",
                ],
            ),
            (
                "a prefix of the prefilter that another table has too",
                |test| test.prefilter("bogons", "198.51.100.66"),
                &[],
            ),
            (
                "an address of the host",
                |mut test| {
                    test.host.addresses = [ip("192.0.2.1"), ip("192.0.2.7")].into();
                    test
                },
                &[
                    "+ address 192.0.2.7 of host",
                    "- address 2001:db8::1 of host",
                    "~ endpoint lxc-client errors from 192.0.2.1 2001:db8::1 → 192.0.2.1",
                    "~ uplink ens5 errors from 192.0.2.1 2001:db8::1 → 192.0.2.1",
                ],
            ),
            (
                "a rule with another text",
                |test| {
                    test.policy(
                        "dns",
                        "kube-dns",
                        Some("allow client 53/tcp;deny any tcp"),
                        None,
                    )
                },
                &[
                    "+ rule dns/ingress allow from client ports 53/tcp subject kube-dns",
                    "- rule dns/ingress allow from client ports 53/udp",
                ],
            ),
            (
                "the same rule again",
                |test| {
                    test.policy(
                        "dns",
                        "kube-dns",
                        Some("allow client 53/udp;deny any tcp;deny any tcp"),
                        None,
                    )
                },
                &["+ rule dns/ingress deny from any ports tcp (2) subject kube-dns"],
            ),
            (
                "rules in another order",
                |test| {
                    test.policy(
                        "dns",
                        "kube-dns",
                        Some("deny any tcp;allow client 53/udp"),
                        None,
                    )
                },
                &[],
            ),
            (
                "a policy of another subject",
                |test| {
                    test.policy(
                        "dns",
                        "client",
                        Some("allow client 53/udp;deny any tcp"),
                        None,
                    )
                },
                &[
                    "~ endpoint lxc-client ingress off → on",
                    "~ rule dns/ingress allow from client ports 53/udp subject kube-dns → client",
                    "~ rule dns/ingress deny from any ports tcp subject kube-dns → client",
                ],
            ),
            (
                "a list of nothing",
                |test| test.policy("closed", "client", None, Some("")),
                &["~ endpoint lxc-client egress off → on"],
            ),
            (
                "settings",
                |mut test| {
                    test.config.conntrack.udp = std::time::Duration::from_millis(1500);
                    test.config.policy.audit = true;
                    test.config.host.services = false;
                    test
                },
                &[
                    "~ setting conntrack.udp 30s → 1.5s",
                    "~ setting host.services true → false",
                    "~ setting policy.audit false → true",
                ],
            ),
        ];
        let old = base().compile();
        for (what, step, expected) in rows {
            let new = step(base()).compile_after(&old);
            assert_eq!(lines(&old, &new), *expected, "{what}");
        }
    }

    #[test]
    fn an_empty_host_gets_all_objects_and_a_cleaned_one_keeps_none() {
        let state = base().compile();
        let added = lines(&State::default(), &state);
        let removed = lines(&state, &State::default());
        assert!(
            added.iter().all(|line| line.starts_with("+ ")),
            "{added:#?}"
        );
        assert!(
            removed.iter().all(|line| line.starts_with("- ")),
            "{removed:#?}"
        );
        assert_eq!(added.len(), removed.len());
        assert!(
            added.contains(&"+ setting conntrack.tcp 8000s".to_owned()),
            "{added:#?}"
        );
        assert!(
            removed.contains(&"- setting conntrack.tcp".to_owned()),
            "{removed:#?}"
        );
    }
}
