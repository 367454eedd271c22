//! No address may be two things: two endpoints', an endpoint's and a service's, an endpoint's and the host's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::report::Report;
use crate::config::source::{Located, Span};
use crate::config::tree::{Data, Table, Value};
use crate::config::value;

/// A prefix of an endpoint.
struct Owned<'t> {
    prefix: IpNet,
    interface: &'t str,
    span: Span,
}

type Owners<'e, 't> = BTreeMap<IpNet, &'e Owned<'t>>;

pub(super) fn check(root: &Table, report: &mut Report) {
    let endpoints = endpoints(root);
    check_overlaps(&endpoints, report);
    let endpoints: Owners = endpoints
        .iter()
        .map(|owned| (owned.prefix, owned))
        .collect();

    let frontends = texts(root, "services", "frontends", |text| {
        value::frontend(text).ok().map(|f| f.address)
    });
    for frontend in &frontends {
        if let Some(owner) = owner(&endpoints, frontend.value) {
            let message = format!(
                "the service address {} is the endpoint `{}`'s",
                frontend.value, owner.interface
            );
            report
                .error(frontend.span, message)
                .note(owner.span, "the endpoint's")
                .help("give the service an address that no workload has");
        }
    }
    check_backends(root, &frontends, report);
    for address in node_addresses(root) {
        if let Some(owner) = owner(&endpoints, address.value) {
            let message = format!(
                "the node's address {} is the endpoint `{}`'s",
                address.value, owner.interface
            );
            report
                .error(address.span, message)
                .note(owner.span, "the endpoint's");
        }
    }
}

/// A packet is translated once: a service behind a service would never be reached.
fn check_backends(root: &Table, frontends: &[Located<IpAddr>], report: &mut Report) {
    let services: BTreeMap<_, _> = frontends.iter().map(|f| (f.value, f.span)).collect();
    for backend in backends(root) {
        if let Some(frontend) = services.get(&backend.value) {
            report
                .error(
                    backend.span,
                    format!("the backend's address {} is a service's", backend.value),
                )
                .note(*frontend, "the service's")
                .help("name the workload's own address");
        }
    }
}

/// Reports a prefix that lies in one of another endpoint. `endpoints` is in order, so an outer prefix comes first.
fn check_overlaps(endpoints: &[Owned], report: &mut Report) {
    let mut around: Vec<&Owned> = Vec::new();
    for inner in endpoints {
        while around
            .last()
            .is_some_and(|outer| !outer.prefix.contains(&inner.prefix))
        {
            around.pop();
        }
        if let Some(&outer) = around.last()
            && outer.interface != inner.interface
        {
            // The later of the two in the file is the one that is wrong.
            let (first, second) = match outer.span < inner.span {
                true => (outer, inner),
                false => (inner, outer),
            };
            let message = match first.prefix == second.prefix {
                true => format!(
                    "{} is the endpoint `{}`'s already",
                    value::prefix_text(second.prefix),
                    first.interface
                ),
                false => format!(
                    "{} overlaps {} of the endpoint `{}`",
                    value::prefix_text(second.prefix),
                    value::prefix_text(first.prefix),
                    first.interface
                ),
            };
            report
                .error(second.span, message)
                .note(first.span, "first given here");
        }
        around.push(inner);
    }
}

/// The endpoint that an address is of.
fn owner<'e, 't>(endpoints: &Owners<'e, 't>, address: IpAddr) -> Option<&'e Owned<'t>> {
    let around = std::iter::successors(Some(IpNet::from(address)), IpNet::supernet);
    around
        .into_iter()
        .find_map(|prefix| endpoints.get(&prefix).copied())
}

fn endpoints(root: &Table) -> Vec<Owned<'_>> {
    let mut endpoints = Vec::new();
    for interface in root.named("interfaces") {
        let addresses = interface
            .table
            .list("addresses")
            .map_or(&[][..], |list| list.value);
        let prefixes = located(addresses, |text| value::endpoint_prefix(text).ok());
        endpoints.extend(prefixes.map(|prefix| Owned {
            prefix: prefix.value,
            interface: interface.name,
            span: prefix.span,
        }));
    }
    endpoints.sort_by_key(|owned| (order(owned.prefix), owned.span));
    endpoints
}

/// IPv4 first, then by first address, the wider prefix first.
fn order(prefix: IpNet) -> (IpAddr, u8) {
    (prefix.network(), prefix.prefix_len())
}

fn backends(root: &Table) -> Vec<Located<IpAddr>> {
    let lists = root
        .named("services")
        .filter_map(|service| service.table.list("backends"));
    let backends = lists
        .flat_map(|list| list.value)
        .filter_map(|backend| match &backend.data {
            Data::Text(text) => Some(Located {
                value: text.as_str(),
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

fn node_addresses(root: &Table) -> Vec<Located<IpAddr>> {
    let list = root.table("node").and_then(|node| node.list("addresses"));
    let addresses = list.map_or(&[][..], |list| list.value);
    located(addresses, |text| value::address(text).ok()).collect()
}

fn texts<T>(
    root: &Table,
    tables: &str,
    key: &str,
    parse: impl Fn(&str) -> Option<T> + Copy,
) -> Vec<Located<T>> {
    let lists = root.named(tables).filter_map(|named| named.table.list(key));
    lists.flat_map(|list| located(list.value, parse)).collect()
}

fn located<T>(
    list: &[Value],
    parse: impl Fn(&str) -> Option<T>,
) -> impl Iterator<Item = Located<T>> {
    list.iter().filter_map(move |item| match &item.data {
        Data::Text(text) => parse(text).map(|value| Located {
            value,
            span: item.span,
        }),
        _ => None,
    })
}
