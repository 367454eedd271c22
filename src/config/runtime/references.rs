//! What the tables of a file define for others, and what they refer to.

use crate::config::name;
use crate::config::source::{Located, Span};
use crate::config::tree::{Data, Table, Value};
use crate::config::value;
use crate::model::policy::Peer;

/// Something that one file may define and another refer to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Thing {
    /// By name.
    Identity(String),
    /// `KEY=VALUE` that some identity carries.
    Label(String),
}

/// The things that a file defines.
pub fn defined(root: &Table) -> Vec<Thing> {
    let mut things = Vec::new();
    for identity in root.named("identities") {
        things.push(Thing::Identity(identity.name.to_owned()));
        things.extend(
            texts(identity.table, "labels").map(|label| Thing::Label(label.value.to_owned())),
        );
    }
    things
}

/// The things that a file refers to, with the places.
pub fn referred(root: &Table) -> Vec<(Thing, Span)> {
    let identity = |name: Located<&str>| (Thing::Identity(name.value.to_owned()), name.span);
    let interfaces = root.named("interfaces");
    let mut things: Vec<_> = interfaces
        .filter_map(|interface| interface.table.text("identity").map(identity))
        .collect();
    for node in root.named("nodes") {
        let endpoints = node.table.table("endpoints");
        let endpoints = endpoints.map_or(&[][..], |table| &table.0);
        let named = endpoints.iter().filter_map(|(_, entry)| text(&entry.value));
        things.extend(named.map(identity));
    }
    for service in root.named("services") {
        let backends = service.table.list("backends");
        let backends = backends.map_or(&[][..], |list| list.value);
        let named = backends.iter().filter_map(|backend| match &backend.data {
            Data::Table(backend) => backend.text("identity"),
            _ => None,
        });
        things.extend(named.map(identity));
    }
    for policy in root.named("policies") {
        things.extend(policy.table.text("subject").map(identity));
        for (list, peers) in [("ingress", "from"), ("egress", "to")] {
            let rules = policy.table.list(list).map_or(&[][..], |list| list.value);
            things.extend(rules.iter().flat_map(|rule| of_rule(rule, peers)));
        }
    }
    things
}

fn of_rule<'t>(rule: &'t Value<'t>, peers: &str) -> Vec<(Thing, Span)> {
    let Data::Table(rule) = &rule.data else {
        return Vec::new();
    };
    let thing = |peer: Located<&str>| match value::peer(peer.value).ok()? {
        Peer::Identity(name) if name::RESERVED.contains(&name.as_str()) => None,
        Peer::Identity(name) => Some((Thing::Identity(name), peer.span)),
        Peer::Label { key, value } => Some((Thing::Label(format!("{key}={value}")), peer.span)),
        _ => None,
    };
    texts(rule, peers).filter_map(thing).collect()
}

fn texts<'t>(table: &'t Table, key: &str) -> impl Iterator<Item = Located<&'t str>> {
    let list = table.list(key).map_or(&[][..], |list| list.value);
    list.iter().filter_map(text)
}

fn text<'t>(value: &'t Value) -> Option<Located<&'t str>> {
    match &value.data {
        Data::Text(text) => Some(Located {
            value: &**text,
            span: value.span,
        }),
        _ => None,
    }
}
