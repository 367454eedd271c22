//! What changes between two generations, in the file's own words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::time::Duration;

use ipnet::IpNet;

use crate::model::catalog::Catalog;
use crate::model::policy::reserved;
use crate::model::state::{Aggregation, Delivery, Endpoint, Enforcement, Settings, State};
use crate::model::world::Mac;

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `+` comes, `~` becomes another, `-` goes.
    pub sign: char,
    pub text: String,
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sign, self.text)
    }
}

/// What a state holds, by name.
type Things = BTreeMap<String, Properties>;

/// (what, value), the same ones in the same order for all things of a kind.
type Properties = Vec<(&'static str, String)>;

/// The changes from `old` to `new` in the order of their names; none if packets can't tell the two apart.
///
/// A rule that only moves within its list is no change. An `old` of `State::default()` is an empty host.
pub fn diff(old: &State, new: &State) -> Vec<Change> {
    let (old, new) = (things(old), things(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| compare(name, old.get(name), new.get(name)))
        .collect()
}

fn compare(name: &str, old: Option<&Properties>, new: Option<&Properties>) -> Option<Change> {
    let (sign, properties) = match (old, new) {
        (Some(old), Some(new)) => ('~', turned(old, new)),
        (None, Some(new)) => (
            '+',
            new.iter()
                .map(|(what, value)| words(&[what, value]))
                .collect(),
        ),
        (_, None) => ('-', Vec::new()),
    };
    if sign == '~' && properties.is_empty() {
        return None;
    }
    let text = words(&[name, &properties.join(", ")]);
    Some(Change { sign, text })
}

/// `identity client → intruder` for each property that is another now.
fn turned(old: &Properties, new: &Properties) -> Vec<String> {
    let pairs = old.iter().zip(new).filter(|(old, new)| old != new);
    pairs
        .map(|((what, old), (_, new))| {
            words(&[what, &format!("{} → {}", or_none(old), or_none(new))])
        })
        .collect()
}

fn words(words: &[&str]) -> String {
    let words: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

fn or_none(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
}

fn things(state: &State) -> Things {
    let mut things = Things::new();
    name_services(state, &mut things);
    name_endpoints(state, &mut things);
    name_identities(&state.catalog, &mut things);
    name_rules(&state.catalog, &mut things);
    if state.settings != Settings::default() {
        name_settings(&state.settings, &mut things);
    }
    things
}

fn name_services(state: &State, things: &mut Things) {
    let services = &state.catalog.services;
    for info in services.values() {
        for frontend in &info.frontends {
            things.insert(format!("service {} {frontend}", info.name), Vec::new());
        }
    }
    for backend in state.backends.values() {
        let service = services.get(&backend.service).map_or("", |info| &info.name);
        let properties = vec![
            ("weight", backend.weight.to_string()),
            ("state", backend.state.to_string()),
        ];
        things.insert(
            format!("backend {} of {service}", backend.address),
            properties,
        );
    }
}

fn name_endpoints(state: &State, things: &mut Things) {
    for (interface, info) in &state.catalog.endpoints {
        let identity = state
            .catalog
            .identity_name(info.identity)
            .unwrap_or_default();
        let endpoint = info
            .ifindex
            .and_then(|ifindex| state.endpoints.get(&ifindex));
        let ifindex = match info.ifindex {
            Some(ifindex) => ifindex.to_string(),
            None => "waiting".to_owned(),
        };
        let mut properties = vec![
            ("identity", identity.to_owned()),
            ("addresses", addresses(&info.addresses)),
            ("ifindex", ifindex),
        ];
        properties.extend(attachment(endpoint));
        things.insert(format!("endpoint {interface}"), properties);
    }
}

fn attachment(endpoint: Option<&Endpoint>) -> [(&'static str, String); 5] {
    let of = |value: fn(&Endpoint) -> String| endpoint.map(value).unwrap_or_default();
    [
        (
            "delivery",
            of(|endpoint| delivery(endpoint.delivery).to_owned()),
        ),
        ("host MAC", of(|endpoint| mac(endpoint.host_mac))),
        ("MAC", of(|endpoint| mac(endpoint.mac))),
        (
            "ingress",
            of(|endpoint| enforcement(endpoint.ingress).to_owned()),
        ),
        (
            "egress",
            of(|endpoint| enforcement(endpoint.egress).to_owned()),
        ),
    ]
}

fn name_identities(catalog: &Catalog, things: &mut Things) {
    for (id, info) in &catalog.identities {
        if reserved::name(*id).is_none() {
            let properties = vec![("id", id.to_string()), ("labels", info.labels.join(" "))];
            things.insert(format!("identity {}", info.name), properties);
            continue;
        }
        for prefix in &info.addresses {
            things.insert(
                format!("address {} of {}", address(prefix), info.name),
                Vec::new(),
            );
        }
    }
}

fn name_rules(catalog: &Catalog, things: &mut Things) {
    let mut rules: Vec<_> = catalog.rules.values().collect();
    rules.sort_by_key(|rule| (&rule.policy, rule.direction, rule.index));
    for rule in rules {
        let name = format!("rule {}/{} {}", rule.policy, rule.direction, rule.text());
        let subject = catalog.identity_name(rule.subject).unwrap_or_default();
        // A second rule of the same words is a thing of its own.
        let same = (2..).map(|nth| format!("{name} ({nth})"));
        let mut free = std::iter::once(name.clone()).chain(same);
        if let Some(name) = free.find(|name| !things.contains_key(name)) {
            things.insert(name, vec![("subject", subject.to_owned())]);
        }
    }
}

fn name_settings(settings: &Settings, things: &mut Things) {
    let lifetime = |ns: u64| format!("{:?}", Duration::from_nanos(ns));
    let aggregation = match settings.aggregation {
        Aggregation::None => "none",
        Aggregation::Low => "low",
        Aggregation::Medium => "medium",
    };
    let values = [
        ("conntrack.tcp", lifetime(settings.tcp_ns)),
        ("conntrack.tcp_syn", lifetime(settings.tcp_syn_ns)),
        ("conntrack.tcp_close", lifetime(settings.tcp_close_ns)),
        ("conntrack.udp", lifetime(settings.udp_ns)),
        ("conntrack.udp_once", lifetime(settings.udp_once_ns)),
        ("conntrack.icmp", lifetime(settings.icmp_ns)),
        ("conntrack.per_endpoint", settings.per_endpoint.to_string()),
        ("conntrack.strict", settings.strict.to_string()),
        ("events.aggregation", aggregation.to_owned()),
        ("events.interval", lifetime(settings.interval_ns)),
        ("events.rate", settings.rate.to_string()),
        ("policy.audit", settings.audit.to_string()),
        ("policy.allow_host", settings.allow_host.to_string()),
    ];
    for (key, value) in values {
        things.insert(format!("setting {key}"), vec![("", value)]);
    }
}

fn addresses(prefixes: &BTreeSet<IpNet>) -> String {
    let addresses: Vec<String> = prefixes.iter().map(address).collect();
    addresses.join(" ")
}

/// A whole address without its length.
fn address(prefix: &IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

fn mac(mac: Mac) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

fn delivery(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Peer => "peer",
        Delivery::Direct => "direct",
        Delivery::Neighbour => "neighbour",
    }
}

fn enforcement(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Off => "off",
        Enforcement::DenyOnly => "deny only",
        Enforcement::On => "on",
    }
}
