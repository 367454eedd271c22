//! `[prefilter.*]`: prefixes that are dropped on the uplinks.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::addresses::own_addresses;
use super::fields::{Fields, for_each_repeat, values};
use super::prefixes::{Owned, Prefixes, owned, whole};
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::source::{Located, Span};
use crate::config::tree::Table;
use crate::config::{name, value};
use crate::model::prefix;

pub(super) fn read(root: &Table, report: &mut Report) -> BTreeMap<String, Vec<IpNet>> {
    let nodes = owned(root, "nodes", "addresses", |text| {
        whole(value::address(text))
    });
    let hosts = Hosts {
        own: Prefixes::new(own_addresses(root).into_iter().map(unnamed).collect()),
        nodes: Prefixes::new(nodes),
    };
    let mut tables = BTreeMap::new();
    for table in root.named("prefilter") {
        if let Err(wrong) = name::name(table.name) {
            report.wrong(table.key, wrong);
        }
        let section = Path::ROOT.key("prefilter");
        let mut fields = Fields::new(section.key(table.name), table.table, report);
        let deny = fields
            .parsed_list("deny", value::any_prefix)
            .unwrap_or_default();
        for_each_repeat(
            &deny,
            |prefix| *prefix,
            |first, again| {
                let text = prefix::text(again.value);
                fields
                    .report
                    .warning(again.span, format!("{text} appears twice in this list"))
                    .note(first, "first given here");
            },
        );
        for prefix in &deny {
            hosts.warn(prefix, report);
        }
        tables.insert(table.name.to_owned(), values(deny));
    }
    tables
}

/// An address of this node, which has no other owner.
fn unnamed((prefix, span): (IpNet, Span)) -> Owned<'static> {
    Owned {
        prefix,
        owner: "",
        span,
    }
}

/// Addresses that a prefix of the prefilter should not contain.
struct Hosts<'t> {
    own: Prefixes<'t>,
    nodes: Prefixes<'t>,
}

impl Hosts<'_> {
    /// Warns of a prefix that blocks a whole family, another node or this one.
    fn warn(&self, prefix: &Located<IpNet>, report: &mut Report) {
        let text = prefix::text(prefix.value);
        if prefix.value.prefix_len() == 0 {
            let family = match prefix.value {
                IpNet::V4(_) => "IPv4",
                IpNet::V6(_) => "IPv6",
            };
            report
                .warning(
                    prefix.span,
                    format!("{text} drops all {family} traffic from the uplinks"),
                )
                .help("this includes ssh to this host");
        } else if let Some(node) = self.nodes.inside(prefix.value) {
            let (address, name) = (node.prefix.addr(), node.owner);
            report
                .warning(
                    prefix.span,
                    format!("{text} contains {address} of the node `{name}`, and cuts it off"),
                )
                .note(node.span, "the node's");
        } else if let Some(own) = self.own.inside(prefix.value) {
            let address = own.prefix.addr();
            report
                .warning(
                    prefix.span,
                    format!("{text} contains {address}, which belongs to this node"),
                )
                .note(own.span, "this node's");
        }
    }
}
