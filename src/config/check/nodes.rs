//! `[nodes.*]`: the other nodes and the prefixes of their workloads.

use std::collections::BTreeMap;

use super::fields::{Fields, refuse_repeats, values};
use crate::config::checked::RemoteNode;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::tree::Table;
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
        };
        nodes.insert(node.name.to_owned(), checked);
    }
    nodes
}
