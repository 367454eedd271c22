//! `[nodes.*]`: the other nodes, the prefixes of their workloads, and who is who among them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::fields::{Fields, for_each_repeat, parsed, refuse_repeats, values};
use super::identities;
use crate::config::checked::RemoteNode;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::source::Located;
use crate::config::tree::{Data, Table};
use crate::config::{name, value};
use crate::model::prefix;

pub(super) fn read(root: &Table, report: &mut Report) -> BTreeMap<String, RemoteNode> {
    let mut nodes = BTreeMap::new();
    for node in root.named("nodes") {
        if let Err(wrong) = name::name(node.name) {
            report.wrong(node.key, wrong);
        }
        let section = Path::ROOT.key("nodes");
        let mut fields = Fields::new(section.key(node.name), node.table, report);
        let addresses = fields
            .parsed_list("addresses", value::address)
            .unwrap_or_default();
        fields.refuse_empty("addresses", "name the host's own addresses");
        let cidrs = fields
            .parsed_list("cidrs", value::prefix)
            .unwrap_or_default();
        refuse_repeats(&addresses, ToString::to_string, report);
        refuse_repeats(&cidrs, |cidr| prefix::text(*cidr), report);
        let checked = RemoteNode {
            addresses: values(addresses),
            cidrs: values(cidrs),
            endpoints: endpoints(root, node.table, report),
        };
        nodes.insert(node.name.to_owned(), checked);
    }
    nodes
}

/// The identities of a node's workloads by address.
fn endpoints(root: &Table, node: &Table, report: &mut Report) -> BTreeMap<IpAddr, String> {
    let entries = node.table("endpoints").map_or(&[][..], |table| &table.0);
    let mut endpoints = Vec::new();
    for (address, entry) in entries {
        let Data::Text(identity) = &entry.value.data else {
            continue;
        };
        let named = Located {
            value: &**identity,
            span: entry.value.span,
        };
        identities::check_name(root, named, &[], report);
        let address = parsed(address, entry.key, value::remote_endpoint, report);
        endpoints.extend(address.map(|address| Located {
            value: (address.value, identity.clone().into_owned()),
            span: address.span,
        }));
    }
    // One address can be written in several ways.
    for_each_repeat(
        &endpoints,
        |(address, _)| *address,
        |first, again| {
            report
                .error(again.span, format!("{} is given twice", again.value.0))
                .note(first, "first given here");
        },
    );
    values(endpoints).into_iter().collect()
}
