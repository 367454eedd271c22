//! Conflicts of addresses: each belongs to one endpoint, one service, this node, another node or a workload of it, or one
//! identity's `cidrs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::prefixes::{Owned, Prefixes, check_overlaps, located, owned, whole};
use super::remote_endpoints::RemoteEndpoints;
use crate::config::report::Report;
use crate::config::source::{Located, Span};
use crate::config::tree::{Data, Table};
use crate::config::value;
use crate::model::link_local;
use crate::model::prefix;

pub(super) fn check(root: &Table, report: &mut Report) {
    let mut endpoints = owned(root, "interfaces", "addresses", value::endpoint_prefix);
    // Unique on their link alone: two workloads may have the same.
    endpoints.retain(|owned| !link_local::is_of_a_link(owned.prefix));
    check_overlaps("endpoint", &mut endpoints, report);
    let frontends = owned(root, "services", "frontends", |text| {
        whole(value::frontend(text).map(|frontend| frontend.address))
    });
    let mut node_cidrs = owned(root, "nodes", "cidrs", value::prefix);
    check_overlaps("node", &mut node_cidrs, report);
    let mut nodes = owned(root, "nodes", "addresses", |text| {
        whole(value::address(text))
    });
    check_overlaps("node", &mut nodes, report);

    check_backends(root, &frontends, report);
    let local = Local {
        endpoints: Prefixes::new(endpoints),
        node: own_addresses(root),
    };
    local.check_frontends(&frontends, report);
    local.check_own(report);
    let frontends = Prefixes::new(frontends);
    local.check_nodes(&nodes, &frontends, report);
    let identities = owned(root, "identities", "cidrs", value::prefix);
    let nodes = Prefixes::new(nodes);
    local.check_identities(&identities, &frontends, &nodes, report);
    let remote = RemoteEndpoints::of(root);
    remote.check_identities(&identities, report);
    remote.check_nodes(&Prefixes::new(node_cidrs), report);
    for endpoint in remote.owned() {
        let conflict = local.conflict(endpoint.prefix, &frontends, &nodes);
        report_conflict("node", endpoint, conflict, report);
    }
    remote.check_repeats(report);
}

/// The addresses of this host.
struct Local<'t> {
    endpoints: Prefixes<'t>,
    /// The addresses of this node that the file names.
    node: BTreeMap<IpNet, Span>,
}

impl Local<'_> {
    fn check_frontends(&self, frontends: &[Owned], report: &mut Report) {
        for frontend in frontends {
            if let Some(endpoint) = self.endpoints.around(frontend.prefix) {
                let message = format!(
                    "the service address {} belongs to the endpoint `{}`",
                    frontend.prefix.addr(),
                    endpoint.owner
                );
                report
                    .error(frontend.span, message)
                    .note(endpoint.span, "the endpoint's")
                    .help("give the service an address that no workload has");
            }
        }
    }

    fn check_own(&self, report: &mut Report) {
        for (address, span) in &self.node {
            if let Some(endpoint) = self.endpoints.around(*address) {
                let message = format!(
                    "the node's address {} belongs to the endpoint `{}`",
                    address.addr(),
                    endpoint.owner
                );
                report
                    .error(*span, message)
                    .note(endpoint.span, "the endpoint's");
            }
        }
    }

    fn check_nodes(&self, nodes: &[Owned], frontends: &Prefixes, report: &mut Report) {
        for node in nodes {
            let found = if let Some(endpoint) = self.endpoints.around(node.prefix) {
                let whose = format!("the endpoint `{}`", endpoint.owner);
                Some((whose, endpoint.span, "the endpoint's"))
            } else if let Some(frontend) = frontends.around(node.prefix) {
                let whose = format!("the service `{}`", frontend.owner);
                Some((whose, frontend.span, "the service's"))
            } else {
                let own = self.node.get(&node.prefix);
                own.map(|span| ("this node".to_owned(), *span, "this node's"))
            };
            if let Some((whose, span, note)) = found {
                let address = node.prefix.addr();
                let message = format!("{address} of the node `{}` belongs to {whose}", node.owner);
                report
                    .error(node.span, message)
                    .note(span, note)
                    .help("name addresses that the other host alone has");
            }
        }
    }

    /// The `cidrs` of an identity are remote: local addresses have an identity already, and a service address has none.
    fn check_identities(
        &self,
        cidrs: &[Owned],
        frontends: &Prefixes,
        nodes: &Prefixes,
        report: &mut Report,
    ) {
        for cidr in cidrs {
            let conflict = self.conflict(cidr.prefix, frontends, nodes);
            report_conflict("identity", cidr, conflict, report);
        }
    }

    /// What a remote prefix conflicts with: the clause, the location, and the help.
    fn conflict(&self, prefix: IpNet, frontends: &Prefixes, nodes: &Prefixes) -> Option<Conflict> {
        if let Some(endpoint) = self.endpoints.around(prefix) {
            return Some((
                format!("belongs to the endpoint `{}`", endpoint.owner),
                (endpoint.span, "the endpoint's"),
                "an endpoint has the identity of its interface: remove it",
            ));
        }
        if let Some(endpoint) = self.endpoints.inside(prefix) {
            let inside = prefix::text(endpoint.prefix);
            return Some((
                format!("contains {inside} of the endpoint `{}`", endpoint.owner),
                (endpoint.span, "the endpoint's"),
                "name prefixes that contain no local endpoint",
            ));
        }
        if let Some(frontend) = frontends.inside(prefix) {
            let (address, service) = (frontend.prefix.addr(), frontend.owner);
            let (what, help) = match prefix == frontend.prefix {
                true => (
                    format!("belongs to the service `{service}`"),
                    "rules see the backend, not the service: remove it",
                ),
                false => (
                    format!("contains {address} of the service `{service}`"),
                    "rules see the backend, not the service: name prefixes without it",
                ),
            };
            return Some((what, (frontend.span, "the service's"), help));
        }
        if let Some(span) = self.node.get(&prefix) {
            return Some((
                "belongs to this node".to_owned(),
                (*span, "this node's"),
                "the identity of this node is `host`: remove it",
            ));
        }
        let node = nodes.around(prefix)?;
        Some((
            format!("belongs to the node `{}`", node.owner),
            (node.span, "the node's"),
            "the identity of other nodes is `remote-node`: remove it",
        ))
    }
}

/// What a prefix does, the location of the other owner with its label, and the help.
type Conflict = (String, (Span, &'static str), &'static str);

/// Reports a remote prefix of an owner of that kind.
fn report_conflict(kind: &str, owned: &Owned, conflict: Option<Conflict>, report: &mut Report) {
    if let Some((what, (span, note), help)) = conflict {
        let text = prefix::text(owned.prefix);
        let message = format!("{text} of the {kind} `{}` {what}", owned.owner);
        report
            .error(owned.span, message)
            .note(span, note)
            .help(help);
    }
}

/// A packet is translated once: a service as the backend of a service would never be reached.
fn check_backends(root: &Table, frontends: &[Owned], report: &mut Report) {
    let services: BTreeMap<_, _> = frontends
        .iter()
        .map(|frontend| (frontend.prefix.addr(), frontend.span))
        .collect();
    for backend in backends(root) {
        if let Some(frontend) = services.get(&backend.value) {
            report
                .error(
                    backend.span,
                    format!(
                        "the backend's address {} belongs to a service",
                        backend.value
                    ),
                )
                .note(*frontend, "the service's")
                .help("name the workload's own address");
        }
    }
}

fn backends(root: &Table) -> Vec<Located<IpAddr>> {
    let lists = root
        .named("services")
        .filter_map(|service| service.table.list("backends"));
    let backends = lists
        .flat_map(|list| list.value)
        .filter_map(|backend| match &backend.data {
            Data::Text(text) => Some(Located {
                value: &**text,
                span: backend.span,
            }),
            Data::Table(table) => table.text("address"),
            _ => None,
        });
    let address = |text: Located<&str>| {
        let socket = value::backend(text.value).ok()?;
        Some(Located {
            value: socket.ip(),
            span: text.span,
        })
    };
    backends.filter_map(address).collect()
}

/// The addresses of this node that the file names.
pub(super) fn own_addresses(root: &Table) -> BTreeMap<IpNet, Span> {
    let list = root.table("node").and_then(|node| node.list("addresses"));
    let addresses = list.map_or(&[][..], |list| list.value);
    located(addresses, |text| whole(value::address(text)).ok())
        .map(|address| (address.value, address.span))
        .collect()
}
