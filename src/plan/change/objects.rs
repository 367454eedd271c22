//! What a state consists of: its objects with their properties in words.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;

use super::object::Object;
use super::rules::RuleLists;
use crate::model::catalog::{Catalog, ServiceInfo, UplinkInfo};
use crate::model::conntrack::TableRooms;
use crate::model::families::Families;
use crate::model::host::mac_text;
use crate::model::policy::reserved;
use crate::model::prefix;
use crate::model::service::{Algorithm, Locality};
use crate::model::socket_ports::ranges;
use crate::model::state::{
    Aggregation, Backend, Delivery, Endpoint, Enforcement, HostAddresses, Settings, State,
};

/// The objects of a state.
pub type Objects = BTreeMap<Object, Properties>;

/// (name, value), in the same order for all objects of a kind; only the last ones may be missing.
pub type Properties = Vec<(&'static str, String)>;

/// The objects of a state, without most of those that the other state has too: usually one line of a large file changes, and
/// texts for all the rest would be built for nothing.
pub fn objects(state: &State, other: &State) -> Objects {
    let mut objects = Objects::new();
    name_services(state, other, &mut objects);
    name_endpoints(state, &mut objects);
    name_uplinks(state, &mut objects);
    name_announcements(state, &mut objects);
    name_nodes(&state.catalog, &mut objects);
    name_identities(&state.catalog, &other.catalog, &mut objects);
    name_rules(&state.catalog, &other.catalog, &mut objects);
    for prefix in &state.catalog.masquerade_except {
        objects.insert(Object::exception(prefix), Vec::new());
    }
    for info in differing(&state.catalog.prefilter, &other.catalog.prefilter) {
        objects.insert(Object::prefilter(&info.prefix, &info.table), Vec::new());
    }
    if state.settings != Settings::default() {
        name_settings(&state.settings, &mut objects);
        let services = state.catalog.host_services.to_string();
        objects.insert(Object::setting("host.services"), vec![("", services)]);
    }
    if !state.snat_ports.is_empty() {
        let ports = vec![("", ranges(&state.snat_ports))];
        objects.insert(Object::new("source ports", "of SNAT"), ports);
    }
    objects
}

/// The rows that differ, by number or content, from those of the other table.
fn differing<'a, T: PartialEq>(
    rows: &'a BTreeMap<u32, T>,
    other: &'a BTreeMap<u32, T>,
) -> impl Iterator<Item = &'a T> {
    let differs = |(number, row): &(&u32, &T)| other.get(number) != Some(row);
    rows.iter().filter(differs).map(|(_, row)| row)
}

fn name_services(state: &State, other: &State, objects: &mut Objects) {
    let (services, other_services) = (&state.catalog.services, &other.catalog.services);
    for info in differing(services, other_services) {
        for frontend in &info.frontends {
            objects.insert(Object::frontend(&info.name, frontend), Vec::new());
        }
        for node_port in &info.node_ports {
            objects.insert(Object::node_port(&info.name, *node_port), Vec::new());
        }
        let other = other_services
            .values()
            .find(|other| other.name == info.name);
        if is_special(info) || other.is_some_and(is_special) {
            objects.insert(Object::service(&info.name), service_properties(info));
        }
    }
    let name = |number| other_services.get(number).map(|info| &info.name);
    let renamed: BTreeSet<u32> = services
        .iter()
        .filter(|(number, info)| name(number) != Some(&info.name))
        .map(|(number, _)| *number)
        .collect();
    let differs = |(number, backend): &(&u32, &Backend)| {
        renamed.contains(&backend.service)
            || other.backends.get(number) != Some(backend)
            || by_identity(state, **number) != by_identity(other, **number)
    };
    for (number, backend) in state.backends.iter().filter(differs) {
        let identity = by_identity(state, *number).unwrap_or_default();
        let properties = vec![
            ("weight", backend.weight.to_string()),
            ("state", backend.state.to_string()),
            ("identity", identity.to_owned()),
        ];
        objects.insert(Object::backend(backend, &state.catalog), properties);
    }
}

/// The identity that a backend came by.
fn by_identity(state: &State, backend: u32) -> Option<&str> {
    let info = state.catalog.backends.get(&backend)?;
    info.identity.as_deref()
}

/// Whether anything but the workloads of a host and all backends is concerned, or a backend is not picked at random.
fn is_special(info: &ServiceInfo) -> bool {
    info.external
        || info.locality != Locality::default()
        || info.algorithm != Algorithm::default()
        || info.affinity_ns != 0
        || info.drain_timeout_ns != 0
}

fn service_properties(info: &ServiceInfo) -> Properties {
    let sources = match info.external && info.sources.is_empty() {
        true => "everybody".to_owned(),
        false => addresses(&info.sources),
    };
    let table_sizes: Vec<String> = info.table_sizes.iter().map(u32::to_string).collect();
    vec![
        ("external", info.external.to_string()),
        ("sources", sources),
        ("locality", info.locality.name().to_owned()),
        ("algorithm", info.algorithm.name().to_owned()),
        ("table size", table_sizes.join(" ")),
        ("affinity", duration(info.affinity_ns)),
        ("drain_timeout", duration(info.drain_timeout_ns)),
    ]
}

/// Empty: none.
fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0 => String::new(),
        some => lifetime(some),
    }
}

fn name_endpoints(state: &State, objects: &mut Objects) {
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
        properties.extend(endpoint.into_iter().flat_map(link_properties));
        objects.insert(Object::endpoint(interface), properties);
    }
}

/// Last among an endpoint's properties: a pending one has none of them.
fn link_properties(endpoint: &Endpoint) -> [(&'static str, String); 9] {
    [
        ("delivery", delivery(endpoint.delivery).to_owned()),
        ("host MAC", mac_text(endpoint.src_mac)),
        ("MAC", mac_text(endpoint.dst_mac)),
        ("MTU", endpoint.mtu.to_string()),
        ("neighbours at ifindex", endpoint.link_ifindex.to_string()),
        ("errors from", host_addresses(endpoint.host)),
        ("multicast", endpoint.multicast.to_string()),
        ("ingress", enforcement(endpoint.ingress).to_owned()),
        ("egress", enforcement(endpoint.egress).to_owned()),
    ]
}

fn name_uplinks(state: &State, objects: &mut Objects) {
    for (interface, info) in &state.catalog.uplinks {
        let mut properties = vec![
            ("xdp", info.xdp.name().to_owned()),
            ("forwarding", forwarding(info)),
            ("masquerade", masquerade(info).to_owned()),
            ("ifindex", ifindex(info.ifindex)),
        ];
        if !info.is_ethernet {
            properties.push(("link", "without Ethernet headers".to_owned()));
        }
        let uplink = info.ifindex.and_then(|index| state.uplinks.get(&index));
        if let Some(uplink) = uplink {
            properties.push(("reverse path", uplink.reverse_path.name().to_owned()));
            properties.push(("errors from", host_addresses(uplink.host)));
            properties.push(("SNAT to", host_addresses(uplink.snat)));
        }
        objects.insert(Object::new("uplink", interface), properties);
    }
}

fn name_announcements(state: &State, objects: &mut Objects) {
    for (row, mac) in &state.announced {
        let interface = state.catalog.interface_name(row.ifindex);
        let name = format!(
            "{} of uplink {}",
            row.address,
            interface.unwrap_or_default()
        );
        let properties = vec![("MAC", mac_text(*mac))];
        objects.insert(Object::new("announcement", name), properties);
    }
}

/// Nothing where there is none.
fn masquerade(info: &UplinkInfo) -> &'static str {
    match info.masquerade {
        Families::NONE => "",
        families => families.name(),
    }
}

fn host_addresses(host: HostAddresses) -> String {
    let ipv4 = host.ipv4.map(|v4| v4.to_string());
    let ipv6 = host.ipv6.map(|v6| v6.to_string());
    let all: Vec<String> = ipv4.into_iter().chain(ipv6).collect();
    all.join(" ")
}

/// `stack (nftables inet filter/forward has rules)`
fn forwarding(info: &UplinkInfo) -> String {
    let way = info.forwarding.name();
    match info.forwarding_reason.as_str() {
        "" => way.to_owned(),
        reason => format!("{way} ({reason})"),
    }
}

fn name_nodes(catalog: &Catalog, objects: &mut Objects) {
    for (name, info) in &catalog.nodes {
        let own = info.addresses.iter().map(|own| IpNet::from(*own)).collect();
        let properties = vec![
            ("addresses", addresses(&own)),
            ("cidrs", addresses(&info.cidrs)),
        ];
        objects.insert(Object::new("node", name), properties);
    }
}

fn name_identities(catalog: &Catalog, other: &Catalog, objects: &mut Objects) {
    let endpoints = catalog.endpoints.values();
    let local: BTreeSet<IpNet> = endpoints
        .flat_map(|info| &info.addresses)
        .copied()
        .collect();
    let are_endpoints_same = catalog.endpoints == other.endpoints;
    for (id, info) in &catalog.identities {
        let is_same = are_endpoints_same && other.identities.get(id) == Some(info);
        if reserved::name(*id).is_none() && !is_same {
            // The local ones are properties of the endpoints.
            let cidrs = info.addresses.difference(&local).copied().collect();
            let properties = vec![
                ("id", id.to_string()),
                ("labels", info.labels.join(" ")),
                ("cidrs", addresses(&cidrs)),
            ];
            objects.insert(Object::identity(&info.name), properties);
        }
    }
    let host = catalog.identities.get(&reserved::HOST);
    for prefix in host.into_iter().flat_map(|info| &info.addresses) {
        let name = format!("{} of host", prefix::text(*prefix));
        objects.insert(Object::new("address", name), Vec::new());
    }
}

fn identity_names(catalog: &Catalog) -> impl Iterator<Item = (u32, &str)> {
    let identities = catalog.identities.iter();
    identities.map(|(id, info)| (*id, info.name.as_str()))
}

fn name_rules(catalog: &Catalog, other: &Catalog, objects: &mut Objects) {
    if catalog.rules == other.rules && identity_names(catalog).eq(identity_names(other)) {
        return;
    }
    let (lists, other_lists) = (RuleLists::of(catalog), RuleLists::of(other));
    for (number, thing) in lists.without(&other_lists).names() {
        let subject = catalog.rules.get(&number).map(|rule| rule.subject);
        let subject = subject.and_then(|subject| catalog.identity_name(subject));
        let properties = vec![("subject", subject.unwrap_or_default().to_owned())];
        objects.insert(thing, properties);
    }
}

fn lifetime(ns: u64) -> String {
    format!("{:?}", Duration::from_nanos(ns))
}

fn name_settings(settings: &Settings, objects: &mut Objects) {
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
        ("conntrack.per_endpoint", per_endpoint(settings)),
        ("conntrack.strict", settings.strict.to_string()),
        ("events.aggregation", aggregation.to_owned()),
        ("events.interval", lifetime(settings.interval_ns)),
        ("events.rate", settings.rate.to_string()),
        ("policy.audit", settings.audit.to_string()),
        ("policy.allow_host", settings.allow_host.to_string()),
    ];
    for (key, value) in values {
        objects.insert(Object::setting(key), vec![("", value)]);
    }
}

fn per_endpoint(settings: &Settings) -> String {
    if settings.endpoint_share == TableRooms::default() {
        return settings.per_endpoint.to_string();
    }
    "half of each table".to_owned()
}

fn ifindex(ifindex: Option<u32>) -> String {
    match ifindex {
        Some(ifindex) => ifindex.to_string(),
        None => "pending".to_owned(),
    }
}

fn addresses(prefixes: &BTreeSet<IpNet>) -> String {
    let addresses: Vec<String> = prefixes
        .iter()
        .map(|prefix| prefix::text(*prefix))
        .collect();
    addresses.join(" ")
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
