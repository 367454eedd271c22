//! What changes between two generations, in the file's own words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::time::Duration;

use ipnet::IpNet;

use super::effect::Effect;
use crate::model::catalog::{Catalog, RuleInfo};
use crate::model::host::Mac;
use crate::model::policy::{Direction, reserved};
use crate::model::service::Frontend;
use crate::model::state::{Aggregation, Backend, Delivery, Endpoint, Enforcement, Settings, State};
use crate::parallel::both;

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `+` comes, `~` becomes another, `-` goes.
    pub sign: char,
    pub thing: Thing,
    /// The thing's properties as they will be, or how they change; empty where there is nothing to say.
    pub detail: String,
    /// What it does to connections that are there, where they have been counted.
    pub effect: Effect,
}

impl Change {
    /// The line without its sign and its effect.
    pub fn text(&self) -> String {
        words(&[self.thing.kind, &self.thing.name, &self.detail])
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sign, self.text())?;
        match self.effect.is_nothing() {
            true => Ok(()),
            false => write!(f, ": {}", self.effect),
        }
    }
}

/// What can change, as the file calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thing {
    /// `address`, `backend`, `endpoint`, `identity`, `node`, `policy`, `prefilter`, `rule`, `service`, `setting` or
    /// `uplink`.
    pub kind: &'static str,
    pub name: String,
}

impl Thing {
    pub(super) fn backend(backend: &Backend, catalog: &Catalog) -> Thing {
        let service = catalog.services.get(&backend.service);
        let service = service.map_or("", |info| info.name.as_str());
        Thing::new(
            "backend",
            format!("{} of service {service}", backend.address),
        )
    }

    pub(super) fn endpoint(interface: &str) -> Thing {
        Thing::new("endpoint", interface)
    }

    pub(super) fn identity(name: &str) -> Thing {
        Thing::new("identity", name)
    }

    pub(super) fn prefilter(prefix: &IpNet, table: &str) -> Thing {
        Thing::new("prefilter", format!("{} of {table}", address(prefix)))
    }

    pub(super) fn service(name: &str, frontend: &Frontend) -> Thing {
        Thing::new("service", format!("{name} {frontend}"))
    }

    pub(super) fn setting(key: &str) -> Thing {
        Thing::new("setting", key)
    }

    pub(super) fn new(kind: &'static str, name: impl Into<String>) -> Thing {
        Thing {
            kind,
            name: name.into(),
        }
    }
}

/// What a state holds.
type Things = BTreeMap<Thing, Properties>;

/// (what, value), in the same order for all things of a kind; only the last ones may be missing.
type Properties = Vec<(&'static str, String)>;

/// The changes from `old` to `new` in the order of their names; none if packets can't tell the two apart.
///
/// A rule that only moves within its list is no change. An `old` of `State::default()` is an empty host.
pub fn diff(old: &State, new: &State) -> Vec<Change> {
    let (old, new) = both(|| things(old, new), || things(new, old));
    let names: BTreeSet<&Thing> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter_map(|thing| compare(thing, old.get(thing), new.get(thing)))
        .collect()
}

/// The change of `conntrack.size`, which no table of a generation holds. So many connections find no room in the new ones,
/// at least.
pub fn resized(old: u32, new: u32, excess: u64) -> Option<Change> {
    (old != new).then(|| Change {
        sign: '~',
        thing: Thing::setting("conntrack.size"),
        detail: format!("{old} → {new}"),
        effect: Effect {
            forgotten: excess,
            is_least: true,
            ..Effect::default()
        },
    })
}

fn compare(thing: &Thing, old: Option<&Properties>, new: Option<&Properties>) -> Option<Change> {
    let (sign, properties) = match (old, new) {
        (Some(old), Some(new)) => ('~', turned(old, new)),
        (None, Some(new)) => ('+', given(new)),
        (_, None) => ('-', Vec::new()),
    };
    if sign == '~' && properties.is_empty() {
        return None;
    }
    Some(Change {
        sign,
        thing: thing.clone(),
        detail: properties.join(", "),
        effect: Effect::default(),
    })
}

fn given(properties: &Properties) -> Vec<String> {
    let given = properties.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(what, value)| words(&[what, value])).collect()
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

/// What a state holds, without most of what is the same in the other: of a large file one line changes, and words for
/// all the rest would be made in vain.
fn things(state: &State, other: &State) -> Things {
    let mut things = Things::new();
    name_services(state, other, &mut things);
    name_endpoints(state, &mut things);
    name_uplinks(&state.catalog, &mut things);
    name_nodes(&state.catalog, &mut things);
    name_identities(&state.catalog, &other.catalog, &mut things);
    name_rules(&state.catalog, &other.catalog, &mut things);
    for info in others(&state.catalog.prefilter, &other.catalog.prefilter) {
        things.insert(Thing::prefilter(&info.prefix, &info.table), Vec::new());
    }
    if state.settings != Settings::default() {
        name_settings(&state.settings, &mut things);
    }
    things
}

/// The rows that are not the same, by number and content, in the other table.
fn others<'a, T: PartialEq>(
    rows: &'a BTreeMap<u32, T>,
    other: &'a BTreeMap<u32, T>,
) -> impl Iterator<Item = &'a T> {
    let is_other = |(number, row): &(&u32, &T)| other.get(number) != Some(row);
    rows.iter().filter(is_other).map(|(_, row)| row)
}

fn name_services(state: &State, other: &State, things: &mut Things) {
    let (services, other_services) = (&state.catalog.services, &other.catalog.services);
    for info in others(services, other_services) {
        for frontend in &info.frontends {
            things.insert(Thing::service(&info.name, frontend), Vec::new());
        }
    }
    let name = |number| other_services.get(number).map(|info| &info.name);
    let renamed: BTreeSet<u32> = services
        .iter()
        .filter(|(number, info)| name(number) != Some(&info.name))
        .map(|(number, _)| *number)
        .collect();
    let is_other = |(number, backend): &(&u32, &Backend)| {
        renamed.contains(&backend.service) || other.backends.get(number) != Some(backend)
    };
    for (_, backend) in state.backends.iter().filter(is_other) {
        let properties = vec![
            ("weight", backend.weight.to_string()),
            ("state", backend.state.to_string()),
        ];
        things.insert(Thing::backend(backend, &state.catalog), properties);
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
        let mut properties = vec![
            ("identity", identity.to_owned()),
            ("addresses", addresses(&info.addresses)),
            ("ifindex", ifindex(info.ifindex)),
        ];
        properties.extend(endpoint.into_iter().flat_map(attachment));
        things.insert(Thing::endpoint(interface), properties);
    }
}

/// Last among an endpoint's properties: nothing is to be said of them while it is waited for.
fn attachment(endpoint: &Endpoint) -> [(&'static str, String); 5] {
    [
        ("delivery", delivery(endpoint.delivery).to_owned()),
        ("host MAC", mac(endpoint.src_mac)),
        ("MAC", mac(endpoint.dst_mac)),
        ("ingress", enforcement(endpoint.ingress).to_owned()),
        ("egress", enforcement(endpoint.egress).to_owned()),
    ]
}

fn name_uplinks(catalog: &Catalog, things: &mut Things) {
    for (interface, info) in &catalog.uplinks {
        let properties = vec![
            ("xdp", info.xdp.name().to_owned()),
            ("ifindex", ifindex(info.ifindex)),
        ];
        things.insert(Thing::new("uplink", interface), properties);
    }
}

fn name_nodes(catalog: &Catalog, things: &mut Things) {
    for (name, info) in &catalog.nodes {
        let own = info.addresses.iter().map(|own| IpNet::from(*own)).collect();
        let properties = vec![
            ("addresses", addresses(&own)),
            ("cidrs", addresses(&info.cidrs)),
        ];
        things.insert(Thing::new("node", name), properties);
    }
}

fn name_identities(catalog: &Catalog, other: &Catalog, things: &mut Things) {
    let endpoints = catalog.endpoints.values();
    let local: BTreeSet<IpNet> = endpoints
        .flat_map(|info| &info.addresses)
        .copied()
        .collect();
    let are_endpoints_same = catalog.endpoints == other.endpoints;
    for (id, info) in &catalog.identities {
        let is_same = are_endpoints_same && other.identities.get(id) == Some(info);
        if reserved::name(*id).is_none() && !is_same {
            // The endpoints tell theirs.
            let cidrs = info.addresses.difference(&local).copied().collect();
            let properties = vec![
                ("id", id.to_string()),
                ("labels", info.labels.join(" ")),
                ("cidrs", addresses(&cidrs)),
            ];
            things.insert(Thing::identity(&info.name), properties);
        }
    }
    let host = catalog.identities.get(&reserved::HOST);
    for prefix in host.into_iter().flat_map(|info| &info.addresses) {
        let name = format!("{} of host", address(prefix));
        things.insert(Thing::new("address", name), Vec::new());
    }
}

fn identity_names(catalog: &Catalog) -> impl Iterator<Item = (u32, &str)> {
    let identities = catalog.identities.iter();
    identities.map(|(id, info)| (*id, info.name.as_str()))
}

fn name_rules(catalog: &Catalog, other: &Catalog, things: &mut Things) {
    if catalog.rules == other.rules && identity_names(catalog).eq(identity_names(other)) {
        return;
    }
    let (lists, other_lists) = (RuleLists::of(catalog), RuleLists::of(other));
    for (number, thing) in lists.without(&other_lists).names() {
        let subject = catalog.rules.get(&number).map(|rule| rule.subject);
        let subject = subject.and_then(|subject| catalog.identity_name(subject));
        let properties = vec![("subject", subject.unwrap_or_default().to_owned())];
        things.insert(thing, properties);
    }
}

/// The rules by number.
pub(super) fn rules(catalog: &Catalog) -> BTreeMap<u32, Thing> {
    RuleLists::of(catalog).names()
}

/// The lists of rules by policy and direction, each in its order.
struct RuleLists<'a> {
    catalog: &'a Catalog,
    lists: BTreeMap<(&'a str, Direction), Vec<(u32, &'a RuleInfo)>>,
}

impl<'a> RuleLists<'a> {
    fn of(catalog: &'a Catalog) -> Self {
        let mut lists: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (number, rule) in &catalog.rules {
            let list = lists.entry((rule.policy.as_str(), rule.direction));
            list.or_default().push((*number, rule));
        }
        for list in lists.values_mut() {
            list.sort_by_key(|(_, rule)| rule.index);
        }
        RuleLists { catalog, lists }
    }

    fn subject(&self, rule: &RuleInfo) -> Option<&'a str> {
        self.catalog.identity_name(rule.subject)
    }

    /// Those that do not say the same, in the same order, in the other catalog; where in a file does not count.
    fn without(self, other: &RuleLists<'_>) -> Self {
        let is_same = |((a, of_a), (b, of_b)): (&(u32, &RuleInfo), &(u32, &RuleInfo))| {
            let are_peers = of_a.peers == of_b.peers && of_a.ports == of_b.ports;
            let is_subject = self.subject(of_a) == other.subject(of_b);
            a == b && are_peers && is_subject && of_a.action == of_b.action
        };
        let mut lists = self.lists.clone();
        lists.retain(|place, list| {
            let other = other.lists.get(place).map_or(&[][..], Vec::as_slice);
            list.len() != other.len() || !list.iter().zip(other).all(is_same)
        });
        RuleLists { lists, ..self }
    }

    fn names(self) -> BTreeMap<u32, Thing> {
        let mut names = BTreeMap::new();
        for ((policy, direction), list) in self.lists {
            let mut taken: BTreeMap<String, usize> = BTreeMap::new();
            for (number, rule) in list {
                let name = format!("{policy}/{direction} {}", rule.text());
                // A second rule of the same words is a thing of its own.
                let nth = taken.entry(name.clone()).or_default();
                *nth += 1;
                let name = match nth {
                    1 => name,
                    nth => format!("{name} ({nth})"),
                };
                names.insert(number, Thing::new("rule", name));
            }
        }
        names
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
        things.insert(Thing::setting(key), vec![("", value)]);
    }
}

fn ifindex(ifindex: Option<u32>) -> String {
    match ifindex {
        Some(ifindex) => ifindex.to_string(),
        None => "waiting".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Interface, XdpMode};
    use crate::plan::testing::{Lab, ip};

    fn lab() -> Lab {
        Lab::new()
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
    fn changes_are_said_in_the_files_words() {
        type Step = fn(Lab) -> Lab;
        let rows: [(&str, Step, &[&str]); 28] = [
            ("nothing", |lab| lab, &[]),
            (
                "a frontend more",
                |lab| {
                    lab.service(
                        "kube-dns",
                        "10.32.0.10:53/udp 10.32.0.10:53/tcp",
                        "10.200.0.44:53 10.200.0.45:53",
                    )
                },
                &["+ service kube-dns 10.32.0.10:53/tcp"],
            ),
            (
                "a backend less",
                |lab| lab.service("kube-dns", "10.32.0.10:53/udp", "10.200.0.44:53"),
                &["- backend 10.200.0.45:53 of service kube-dns"],
            ),
            (
                "a backend that drains",
                |lab| {
                    lab.service(
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
                "a service of another name",
                |mut lab| {
                    let service = lab.config.services.remove("kube-dns").unwrap();
                    lab.config.services.insert("dns".to_owned(), service);
                    lab
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
                |mut lab| {
                    lab.world.links.remove("lxc-client");
                    lab.endpoint("client", "kube-dns", "10.200.0.64 fd00:200::64")
                },
                &["~ endpoint lxc-client identity client → kube-dns, ingress off → on"],
            ),
            (
                "an endpoint of another address",
                |mut lab| {
                    lab.world.links.remove("lxc-client");
                    lab.endpoint("client", "client", "10.200.0.64 10.201.0.0/16")
                },
                &[
                    "~ endpoint lxc-client addresses 10.200.0.64 fd00:200::64 → 10.200.0.64 10.201.0.0/16",
                ],
            ),
            (
                "an interface that goes",
                |mut lab| {
                    lab.world.links.remove("lxc-client");
                    lab
                },
                &["~ endpoint lxc-client ifindex 10 → waiting"],
            ),
            (
                "an endpoint that is still waited for",
                |mut lab| {
                    lab.config.interfaces.remove("lxc-client");
                    let lab = lab.endpoint("new", "client", "10.200.0.70");
                    let mut gone = lab.clone();
                    gone.world.links.remove("lxc-new");
                    gone
                },
                &[
                    "- endpoint lxc-client",
                    "+ endpoint lxc-new identity client, addresses 10.200.0.70, ifindex waiting",
                ],
            ),
            (
                "the workload's MAC",
                |mut lab| {
                    let link = lab.world.links.get_mut("lxc-client").unwrap();
                    link.peer.as_mut().unwrap().mac = Some([2, 0, 0, 0, 1, 0xff]);
                    lab
                },
                &["~ endpoint lxc-client MAC 02:00:00:00:01:0a → 02:00:00:00:01:ff"],
            ),
            (
                "an identity's number",
                |lab| lab.identity("client", 20002, "app=client"),
                &["~ identity client id 20001 → 20002"],
            ),
            (
                "an identity's labels",
                |lab| lab.identity("client", 20001, ""),
                &["~ identity client labels app=client → none"],
            ),
            (
                "an identity more",
                |lab| lab.identity("intruder", 20003, "a=b c=d"),
                &["+ identity intruder id 20003, labels a=b c=d"],
            ),
            (
                "an identity's prefixes elsewhere",
                |lab| lab.cidrs("client", "10.200.2.0/24 10.200.1.44"),
                &["~ identity client cidrs 10.200.1.0/24 → 10.200.1.44 10.200.2.0/24"],
            ),
            (
                "an uplink that goes",
                |mut lab| {
                    lab.world.links.remove("ens5");
                    lab
                },
                &["~ uplink ens5 ifindex 11 → waiting"],
            ),
            (
                "an uplink's XDP",
                |mut lab| {
                    let xdp = XdpMode::Generic;
                    let uplink = Interface::Uplink { xdp };
                    lab.config.interfaces.insert("ens5".to_owned(), uplink);
                    lab
                },
                &["~ uplink ens5 xdp auto → generic"],
            ),
            (
                "an uplink more",
                |lab| lab.uplink("ens6", XdpMode::Off),
                &["+ uplink ens6 xdp off, ifindex 12"],
            ),
            (
                "an endpoint's interface that is an uplink now",
                |mut lab| {
                    let xdp = XdpMode::Auto;
                    let uplink = Interface::Uplink { xdp };
                    lab.config
                        .interfaces
                        .insert("lxc-client".to_owned(), uplink);
                    lab
                },
                &[
                    "- endpoint lxc-client",
                    "+ uplink lxc-client xdp auto, ifindex 10",
                ],
            ),
            (
                "another address of a node, and a node more",
                |lab| {
                    lab.node("node-b", "192.0.2.3 2001:db8::2", "")
                        .node("node-c", "192.0.2.4", "")
                },
                &[
                    "~ node node-b addresses 192.0.2.2 2001:db8::2 → 192.0.2.3 2001:db8::2, cidrs 10.200.1.0/24 → none",
                    "+ node node-c addresses 192.0.2.4",
                ],
            ),
            (
                "prefixes of the prefilter",
                |lab| lab.prefilter("abusers", "203.0.113.0/25 198.51.100.66"),
                &[
                    "- prefilter 203.0.113.0/24 of abusers",
                    "+ prefilter 203.0.113.0/25 of abusers",
                ],
            ),
            (
                "a prefix of the prefilter that another table has too",
                |lab| lab.prefilter("bogons", "198.51.100.66"),
                &[],
            ),
            (
                "an address of the host",
                |mut lab| {
                    lab.world.addresses = [ip("192.0.2.1"), ip("192.0.2.7")].into();
                    lab
                },
                &[
                    "+ address 192.0.2.7 of host",
                    "- address 2001:db8::1 of host",
                ],
            ),
            (
                "a rule of other words",
                |lab| {
                    lab.policy(
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
                |lab| {
                    lab.policy(
                        "dns",
                        "kube-dns",
                        Some("allow client 53/udp;deny any tcp;deny any tcp"),
                        None,
                    )
                },
                &["+ rule dns/ingress deny from any ports tcp (2) subject kube-dns"],
            ),
            (
                "rules that change places",
                |lab| {
                    lab.policy(
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
                |lab| {
                    lab.policy(
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
                |lab| lab.policy("closed", "client", None, Some("")),
                &["~ endpoint lxc-client egress off → on"],
            ),
            (
                "settings",
                |mut lab| {
                    lab.config.conntrack.udp = std::time::Duration::from_millis(1500);
                    lab.config.policy.audit = true;
                    lab
                },
                &[
                    "~ setting conntrack.udp 30s → 1.5s",
                    "~ setting policy.audit false → true",
                ],
            ),
        ];
        let old = lab().compile();
        for (what, step, expected) in rows {
            let new = step(lab()).compile_after(&old);
            assert_eq!(lines(&old, &new), *expected, "{what}");
        }
    }

    #[test]
    fn an_empty_host_gets_all_and_a_cleaned_one_keeps_nothing() {
        let state = lab().compile();
        let come = lines(&State::default(), &state);
        let gone = lines(&state, &State::default());
        assert!(come.iter().all(|line| line.starts_with("+ ")), "{come:#?}");
        assert!(gone.iter().all(|line| line.starts_with("- ")), "{gone:#?}");
        assert_eq!(come.len(), gone.len());
        assert!(
            come.contains(&"+ setting conntrack.tcp 8000s".to_owned()),
            "{come:#?}"
        );
        assert!(
            gone.contains(&"- setting conntrack.tcp".to_owned()),
            "{gone:#?}"
        );
    }
}
