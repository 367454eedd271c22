//! Conflicts of `nodes.*.endpoints`: each address belongs to one node, is inside of its `cidrs`, and has one identity.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::prefixes::{Owned, Prefixes, check_overlaps};
use crate::config::report::Report;
use crate::config::source::Span;
use crate::config::tree::{Data, Table};
use crate::config::value;
use crate::model::prefix;

/// The workloads of other nodes that have a valid address.
pub(super) struct RemoteEndpoints<'t> {
    endpoints: Vec<Owned<'t>>,
    /// The identity of each.
    identities: Vec<&'t str>,
    /// The nodes that have `cidrs`.
    with_cidrs: BTreeMap<&'t str, Span>,
}

impl<'t> RemoteEndpoints<'t> {
    pub fn of(root: &'t Table) -> RemoteEndpoints<'t> {
        let mut found = RemoteEndpoints {
            endpoints: Vec::new(),
            identities: Vec::new(),
            with_cidrs: BTreeMap::new(),
        };
        for node in root.named("nodes") {
            let cidrs = node.table.get("cidrs");
            found
                .with_cidrs
                .extend(cidrs.map(|cidrs| (node.name, cidrs.key)));
            let endpoints = node.table.table("endpoints");
            for (address, entry) in endpoints.iter().flat_map(|table| &table.0) {
                if let Data::Text(identity) = &entry.value.data
                    && let Ok(address) = value::remote_endpoint(address)
                {
                    found.identities.push(identity);
                    found.endpoints.push(Owned {
                        prefix: IpNet::from(address),
                        owner: node.name,
                        span: entry.key,
                    });
                }
            }
        }
        found
    }

    pub fn owned(&self) -> &[Owned<'t>] {
        &self.endpoints
    }

    /// An address that `cidrs` of another identity name as well. A prefix around it is fine: the longest decides.
    pub fn check_identities(&self, cidrs: &[Owned], report: &mut Report) {
        if self.endpoints.is_empty() {
            return;
        }
        let cidrs = cidrs.iter().rev().map(|cidr| (cidr.prefix, cidr));
        let cidrs: BTreeMap<IpNet, &Owned> = cidrs.collect();
        for (endpoint, identity) in self.endpoints.iter().zip(&self.identities) {
            if let Some(cidr) = cidrs.get(&endpoint.prefix)
                && cidr.owner != *identity
            {
                let message = format!(
                    "{} has the identity `{identity}` here, and `{}` by its `cidrs`",
                    prefix::text(endpoint.prefix),
                    cidr.owner
                );
                report
                    .error(endpoint.span, message)
                    .note(cidr.span, "the identity's")
                    .help("an address has one identity: remove one of the two");
            }
        }
    }

    /// An address outside of the node's `cidrs`, or inside of another node's.
    pub fn check_nodes(&self, cidrs: &Prefixes, report: &mut Report) {
        for endpoint in &self.endpoints {
            let address = prefix::text(endpoint.prefix);
            let node = endpoint.owner;
            match (cidrs.around(endpoint.prefix), self.with_cidrs.get(node)) {
                (Some(cidr), _) if cidr.owner == node => {}
                (Some(cidr), _) => {
                    let message = format!(
                        "{address} of the node `{node}` is inside of the `cidrs` of the node `{}`",
                        cidr.owner
                    );
                    report
                        .error(endpoint.span, message)
                        .note(cidr.span, "the other node's")
                        .help("a workload is behind one node: give it to that one, or remove the prefix there");
                }
                (None, Some(own)) => {
                    let message =
                        format!("{address} is outside of the `cidrs` of the node `{node}`");
                    report
                        .error(endpoint.span, message)
                        .note(*own, "the node's")
                        .help("add a prefix that contains it there, or remove it");
                }
                (None, None) => {}
            }
        }
    }

    /// An address of two nodes.
    pub fn check_repeats(mut self, report: &mut Report) {
        check_overlaps("node", &mut self.endpoints, report);
    }
}
