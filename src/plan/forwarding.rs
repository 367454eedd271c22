//! Which way packets leave by an uplink, and why: from what the file wants and what the host's stack does.

use std::collections::BTreeSet;

use crate::config::{Config, ForwardingMode, Interface};
use crate::model::families::Families;
use crate::model::forwarding::{Forwarding, HostStack, StackFilter, StackHook};
use crate::model::host::HostState;

/// The filters that a sentence names; there may be hundreds.
const NAMED: usize = 4;

/// The way of new connections by an uplink, and why; no reason: nothing of the stack concerns them.
pub fn decide(
    (mode, masquerade): (ForwardingMode, Families),
    uplink: &str,
    stack: &HostStack,
) -> (Forwarding, String) {
    let by_the_file = || format!("forwarding = \"{}\"", mode.name());
    match mode {
        ForwardingMode::Direct => (Forwarding::Direct, by_the_file()),
        ForwardingMode::Stack => (Forwarding::Stack, by_the_file()),
        ForwardingMode::Auto if !masquerade.is_empty() => {
            let by_masquerade = format!("masquerade = \"{}\"", masquerade.name());
            (Forwarding::Direct, by_masquerade)
        }
        ForwardingMode::Auto => match filters_of(uplink, stack).next() {
            Some(first) => (Forwarding::Stack, first.to_string()),
            None => (Forwarding::Direct, String::new()),
        },
    }
}

fn filters_of<'a>(uplink: &'a str, stack: &'a HostStack) -> impl Iterator<Item = &'a StackFilter> {
    let filters = stack.filters.iter();
    filters.filter(move |filter| filter.hook.concerns(uplink))
}

/// Root qdiscs that do not limit a rate: the kernel's own choices.
const UNSHAPED: [&str; 9] = [
    "",
    "noop",
    "noqueue",
    "pfifo_fast",
    "pfifo",
    "fq_codel",
    "fq",
    "mq",
    "mqprio",
];

/// What packets bypass, though they would meet it without dpd: a sentence for each kind.
pub fn bypassed(config: &Config, host: &HostState) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut endpoints = 0;
    for (name, interface) in &config.interfaces {
        match interface {
            Interface::Endpoint { .. } => endpoints += 1,
            Interface::Uplink { masquerade, .. } if !masquerade.is_empty() => {
                let names = list(filters_of(host.kernel_name(name), &host.stack));
                if !names.is_empty() {
                    let families = masquerade.name();
                    sentences.push(format!(
                        "uplink {name}: masquerade = \"{families}\" bypasses {names}: what dpd translates never goes \
                         through the stack"
                    ));
                }
            }
            Interface::Uplink {
                forwarding: ForwardingMode::Direct,
                ..
            } => {
                let names = list(filters_of(host.kernel_name(name), &host.stack));
                if !names.is_empty() {
                    sentences.push(format!(
                        "uplink {name}: forwarding = \"direct\" bypasses {names}: with \"auto\" packets go through"
                    ));
                }
            }
            Interface::Uplink { .. } => {}
        }
    }
    sentences.extend(by_external_services(config, host));
    let between = list(between_workloads(&host.stack));
    if endpoints > 1 && !between.is_empty() {
        sentences.push(format!(
            "packets between workloads bypass {between}: dpd's own policies decide there"
        ));
    }
    if delivers(config, host) {
        sentences.extend(at_endpoints(config, host));
        sentences.extend(qdiscs(config, host));
    }
    sentences
}

fn has_external_service(config: &Config) -> bool {
    config.services.values().any(|service| service.external)
}

/// What the network sends to external services never goes through the stack, which drops packets that come from the host's own
/// address.
fn by_external_services(config: &Config, host: &HostState) -> Vec<String> {
    if !has_external_service(config) {
        return Vec::new();
    }
    let uplinks = config.interfaces.iter();
    let uplinks = uplinks.filter_map(|(name, interface)| match interface {
        Interface::Uplink { forwarding, .. } => Some((name, *forwarding)),
        Interface::Endpoint { .. } => None,
    });
    let sentence = |(name, forwarding): (&String, ForwardingMode)| {
        let names = list(filters_of(host.kernel_name(name), &host.stack));
        match (forwarding, names.as_str()) {
            (ForwardingMode::Stack, "") => Some(format!(
                "uplink {name}: what the network sends to external services bypasses the stack, with forwarding = \"stack\" \
                 as well"
            )),
            (_, "") => None,
            _ => Some(format!(
                "uplink {name}: what the network sends to external services bypasses {names}: the services' `sources` and \
                 dpd's own policies decide there"
            )),
        }
    };
    uplinks.filter_map(sentence).collect()
}

/// Whether packets go straight into a workload: from another one, or from an uplink past the stack.
fn delivers(config: &Config, host: &HostState) -> bool {
    let is_external = has_external_service(config);
    let mut senders = 0;
    for (name, interface) in &config.interfaces {
        senders += match interface {
            Interface::Endpoint { .. } => 1,
            Interface::Uplink {
                forwarding,
                masquerade,
                ..
            } => {
                let (way, _) = decide((*forwarding, *masquerade), name, &host.stack);
                usize::from(is_external || way == Forwarding::Direct)
            }
        };
    }
    endpoints(config).next().is_some() && senders > 1
}

fn endpoints(config: &Config) -> impl Iterator<Item = &String> {
    let interfaces = config.interfaces.iter();
    interfaces.filter_map(|(name, interface)| match interface {
        Interface::Endpoint { .. } => Some(name),
        Interface::Uplink { .. } => None,
    })
}

/// The chains at the interfaces of endpoints. What a program at ingress redirects meets neither ingress nor egress.
fn at_endpoints(config: &Config, host: &HostState) -> Option<String> {
    let is_at_endpoint = |filter: &&StackFilter| {
        matches!(filter.hook, StackHook::Interface(_))
            && endpoints(config).any(|name| filter.hook.concerns(name))
    };
    let chains = list(host.stack.filters.iter().filter(is_at_endpoint));
    (!chains.is_empty()).then(|| {
        format!(
            "packets that dpd delivers bypass {chains} at interfaces of endpoints: dpd's own policies decide there"
        )
    })
}

/// What is redirected to a peer is received by it, and never queued at the host's side (net/core/filter.c, `skb_do_redirect`).
fn qdiscs(config: &Config, host: &HostState) -> Option<String> {
    let shaped = endpoints(config).filter_map(|name| {
        let link = host.links.get(name)?;
        let peer = link.peer.as_ref()?;
        let is_redirected_to = !peer.same_namespace && !peer.is_bridge_port;
        let shapes = is_redirected_to && !UNSHAPED.contains(&link.qdisc.as_str());
        shapes.then(|| format!("{name} ({})", link.qdisc))
    });
    let shaped = list_names(&shaped.collect());
    (!shaped.is_empty()).then(|| {
        format!(
            "packets that dpd delivers bypass the qdisc of {shaped}: shape what a workload receives inside its own \
             namespace, or where it is sent"
        )
    })
}

/// What packets between two workloads of a host would meet there, on its way through a router or a bridge.
fn between_workloads(stack: &HostStack) -> impl Iterator<Item = &StackFilter> {
    stack.filters.iter().filter(|filter| match filter.hook {
        StackHook::Forward | StackHook::Bridge => true,
        StackHook::Routing => stack.filters_bridged,
        StackHook::Interface(_) | StackHook::Xfrm => false,
    })
}

/// `nftables inet filter/forward, nftables ip nat/POSTROUTING and 2 more`
pub fn list<'a>(filters: impl Iterator<Item = &'a StackFilter>) -> String {
    list_names(&filters.map(|filter| filter.name.clone()).collect())
}

/// The first names, and how many more there are.
pub fn list_names(names: &BTreeSet<String>) -> String {
    let named: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    match names.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::plan::testing::TestConfig;

    /// Where packets meet each, and its name.
    type Filters<'a> = &'a [(StackHook, &'a str)];

    fn stack(filters: Filters<'_>) -> HostStack {
        let filters = filters.iter().map(|(hook, name)| StackFilter {
            hook: hook.clone(),
            name: (*name).to_owned(),
            why: "has rules",
            translates: Families::NONE,
        });
        HostStack {
            filters: filters.collect(),
            filters_bridged: false,
        }
    }

    #[test]
    fn an_uplink_is_direct_while_nothing_of_the_stack_concerns_it() {
        use ForwardingMode::{Auto, Direct, Stack};
        let at = |name: &str| StackHook::Interface(name.to_owned());
        let both = [(StackHook::Routing, "nat"), (StackHook::Forward, "filter")];
        let rows: [(&str, ForwardingMode, Filters<'_>, &str); 11] = [
            ("nothing", Auto, &[], "direct"),
            (
                "nothing, and the file",
                Stack,
                &[],
                "stack: forwarding = \"stack\"",
            ),
            (
                "a filter, and the file",
                Direct,
                &both,
                "direct: forwarding = \"direct\"",
            ),
            ("two filters", Auto, &both, "stack: filter has rules"),
            ("a NAT", Auto, &both[..1], "stack: nat has rules"),
            (
                "its ingress",
                Auto,
                &[(at("ens5"), "in")],
                "stack: in has rules",
            ),
            ("another's ingress", Auto, &[(at("ens55"), "in")], "direct"),
            (
                "the ingress of many",
                Auto,
                &[(at("ens*"), "in")],
                "stack: in has rules",
            ),
            ("of many others", Auto, &[(at("eth*"), "in")], "direct"),
            (
                "IPsec",
                Auto,
                &[(StackHook::Xfrm, "esp")],
                "stack: esp has rules",
            ),
            ("a bridge", Auto, &[(StackHook::Bridge, "br")], "direct"),
        ];
        for (what, mode, filters, expected) in rows {
            let (way, reason) = decide((mode, Families::NONE), "ens5", &stack(filters));
            let found = match reason.as_str() {
                "" => way.name().to_owned(),
                reason => format!("{}: {reason}", way.name()),
            };
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn what_is_bypassed_is_named_once() {
        let mut test = TestConfig::new()
            .identity("web", 300, "")
            .endpoint("a", "web", "10.1.1.1")
            .uplink("ens5", XdpMode::Auto);
        let filters = [
            (StackHook::Forward, "filter/forward"),
            (StackHook::Routing, "nat/post"),
            (StackHook::Bridge, "bridge/forward"),
        ];
        test.host.stack = stack(&filters);
        let found = |test: &TestConfig| bypassed(&test.config, &test.host);
        assert_eq!(found(&test), [""; 0], "one workload, and the stack's way");
        let mut test = test.endpoint("b", "web", "10.1.1.2");
        let between = |names: &str| {
            format!("packets between workloads bypass {names}: dpd's own policies decide there")
        };
        assert_eq!(found(&test), [between("bridge/forward, filter/forward")]);
        test.host.stack.filters_bridged = true;
        let all = between("bridge/forward, filter/forward, nat/post");
        assert_eq!(found(&test), [all.as_str()], "bridged frames meet them all");
        let direct = Interface::Uplink {
            xdp: XdpMode::Auto,
            forwarding: ForwardingMode::Direct,
            masquerade: Families::NONE,
            l2_announce: false,
        };
        test.config.interfaces.insert("ens5".to_owned(), direct);
        let uplink = "uplink ens5: forwarding = \"direct\" bypasses filter/forward, nat/post: with \"auto\" packets go through";
        assert_eq!(found(&test), [uplink, all.as_str()]);
        test.host.stack = HostStack::default();
        assert_eq!(found(&test), [""; 0], "nothing is there");
    }

    #[test]
    fn external_services_bypass_the_stack_whatever_the_uplinks_way() {
        let filters = [(StackHook::Forward, "filter/forward")];
        let named = "uplink ens5: what the network sends to external services bypasses filter/forward: the services' \
                     `sources` and dpd's own policies decide there";
        let stack_anyway = "uplink ens5: what the network sends to external services bypasses the stack, with forwarding = \
                            \"stack\" as well";
        let direct = "uplink ens5: forwarding = \"direct\" bypasses filter/forward: with \"auto\" packets go through";
        use ForwardingMode::{Auto, Direct, Stack};
        let rows: [(ForwardingMode, Filters<'_>, &[&str]); 6] = [
            (Auto, &[], &[]),
            (Auto, &filters, &[named]),
            (Stack, &[], &[stack_anyway]),
            (Stack, &filters, &[named]),
            (Direct, &[], &[]),
            (Direct, &filters, &[direct, named]),
        ];
        for (forwarding, filters, expected) in rows {
            let mut test = TestConfig::new().uplink("ens5", XdpMode::Auto).service(
                "s",
                "203.0.113.1:80/tcp",
                "10.9.0.1:80",
            );
            let uplink = Interface::Uplink {
                l2_announce: false,
                xdp: XdpMode::Auto,
                forwarding,
                masquerade: Families::NONE,
            };
            test.config.interfaces.insert("ens5".to_owned(), uplink);
            test.host.stack = stack(filters);
            let inner = bypassed(&test.config, &test.host);
            assert!(!inner.iter().any(|sentence| sentence.contains("external")));
            let test = test.external("s", "");
            assert_eq!(
                bypassed(&test.config, &test.host),
                expected,
                "{forwarding:?}"
            );
        }
    }

    #[test]
    fn what_is_at_an_endpoint_is_bypassed_where_packets_are_redirected() {
        let mut test = TestConfig::new()
            .identity("web", 300, "")
            .endpoint("a", "web", "10.1.1.1");
        let at = |name: &str| StackHook::Interface(name.to_owned());
        test.host.stack = stack(&[(at("lxc-*"), "in"), (at("ens5"), "out")]);
        let set = |test: &mut TestConfig, name: &str, qdisc: &str| {
            let link = test.host.links.get_mut(name).unwrap();
            link.qdisc = qdisc.to_owned();
        };
        set(&mut test, "lxc-a", "tbf");
        let found = |test: &TestConfig| bypassed(&test.config, &test.host);
        assert_eq!(found(&test), [""; 0], "nobody sends to it directly");
        let mut test = test
            .uplink("ens5", XdpMode::Auto)
            .endpoint("b", "web", "10.1.1.2");
        let chain = "packets that dpd delivers bypass in at interfaces of endpoints: dpd's own policies decide there";
        let qdiscs = |names: &str| {
            format!(
                "packets that dpd delivers bypass the qdisc of {names}: shape what a workload receives inside its own \
                 namespace, or where it is sent"
            )
        };
        assert_eq!(found(&test), [chain, &qdiscs("lxc-a (tbf)")]);
        set(&mut test, "lxc-b", "htb");
        assert_eq!(found(&test), [chain, &qdiscs("lxc-a (tbf), lxc-b (htb)")]);
        for unshaped in UNSHAPED {
            set(&mut test, "lxc-b", unshaped);
            assert_eq!(found(&test)[1], qdiscs("lxc-a (tbf)"), "{unshaped}");
        }
        // What goes to a bridge behind the veth, or to a tap, is queued at the host's side.
        let a = test.host.links.get_mut("lxc-a").unwrap();
        a.peer.as_mut().unwrap().is_bridge_port = true;
        assert_eq!(found(&test), [chain], "a bridge behind the veth");
        test.host.links.get_mut("lxc-a").unwrap().peer = None;
        assert_eq!(found(&test), [chain], "a tap");
    }

    #[test]
    fn a_direct_uplink_delivers_too() {
        let mut test = TestConfig::new()
            .identity("web", 300, "")
            .endpoint("a", "web", "10.1.1.1")
            .uplink("ens5", XdpMode::Auto);
        test.host.links.get_mut("lxc-a").unwrap().qdisc = "tbf".to_owned();
        assert_eq!(bypassed(&test.config, &test.host).len(), 1);
        test.host.stack = stack(&[(StackHook::Forward, "filter/forward")]);
        assert_eq!(bypassed(&test.config, &test.host), [""; 0], "by the stack");
        let test = test
            .service("s", "203.0.113.1:80/tcp", "10.1.1.1:80")
            .external("s", "");
        let found = bypassed(&test.config, &test.host);
        let is_named = |sentence: &String| sentence.contains("the qdisc of lxc-a (tbf)");
        assert!(found.iter().any(is_named), "an external service: {found:?}");
    }

    #[test]
    fn a_long_list_is_cut() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let stack = stack(&names.map(|name| (StackHook::Forward, name)));
        assert_eq!(list(stack.filters.iter()), "a, b, c, d and 2 more");
    }
}
