//! `[interfaces.*]`: endpoints and uplinks.

use std::collections::BTreeMap;

use super::fields::{Fields, refuse_repeats, values};
use super::identities;
use crate::config::checked::Interface;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::tree::{NamedTable, Table};
use crate::config::{name, value};
use crate::model::catalog::MAX_ENDPOINTS;
use crate::model::families::Families;
use crate::model::forwarding::ForwardingMode;
use crate::model::prefix;
use crate::model::xdp::XdpMode;

#[derive(Clone, Copy)]
enum Role {
    Endpoint,
    Uplink,
}

pub(super) fn read(root: &Table, report: &mut Report) -> BTreeMap<String, Interface> {
    let mut interfaces = BTreeMap::new();
    for interface in root.named("interfaces") {
        if let Err(wrong) = name::interface_name(interface.name) {
            report.wrong(interface.key, wrong);
        }
        let words = [("endpoint", Role::Endpoint), ("uplink", Role::Uplink)];
        let section = Path::ROOT.key("interfaces");
        let path = section.key(interface.name);
        let mut fields = Fields::new(path, interface.table, report);
        let role = fields.parsed("role", |text| value::word(text, &words));
        let Some(role) = role else { continue };
        let checked = match role.value {
            Role::Endpoint => {
                refuse_keys(
                    path,
                    &interface,
                    "an endpoint",
                    &["xdp", "forwarding", "masquerade", "l2_announce"],
                    report,
                );
                endpoint(root, path, &interface, report)
            }
            Role::Uplink => {
                let others = ["addresses", "identity", "multicast"];
                refuse_keys(path, &interface, "an uplink", &others, report);
                uplink(path, &interface, report)
            }
        };
        interfaces.insert(interface.name.to_owned(), checked);
    }
    interfaces
}

/// Reports the first endpoint above the limit.
pub(super) fn check_count(root: &Table, report: &mut Report) {
    let mut endpoints = root.named("interfaces").filter(|interface| {
        let role = interface.table.text("role");
        role.is_some_and(|role| role.value == "endpoint")
    });
    if let Some(beyond) = endpoints.nth(MAX_ENDPOINTS as usize) {
        report
            .error(
                beyond.key,
                format!("a host has at most {MAX_ENDPOINTS} endpoints, and this is one more"),
            )
            .help("move workloads to another host");
    }
}

/// Warns of tables that have no effect without an uplink.
pub(super) fn check_uplinks(root: &Table, report: &mut Report) {
    let has_uplink = root.named("interfaces").any(|interface| {
        interface
            .table
            .text("role")
            .is_some_and(|role| role.value == "uplink")
    });
    if has_uplink {
        return;
    }
    let is_external = |service: &NamedTable| {
        let external = service.table.switch("external");
        external.is_some_and(|external| external.value)
    };
    let losses = [
        (
            root.named("nodes").next(),
            "no packet comes from another host",
        ),
        (root.named("prefilter").next(), "nothing is filtered"),
        (
            root.named("services").find(is_external),
            "the network reaches no service",
        ),
    ];
    for (first, loss) in losses {
        if let Some(first) = first {
            report
                .warning(first.key, format!("no interface is an uplink: {loss}"))
                .help("add the host's NIC, as [interfaces.NAME] with `role = \"uplink\"`");
        }
    }
}

/// Reports keys of the other role.
fn refuse_keys(path: Path, interface: &NamedTable, role: &str, keys: &[&str], report: &mut Report) {
    for key in keys {
        if let Some(entry) = interface.table.get(key) {
            report
                .error(
                    entry.key,
                    format!("`{path}` is {role}, and can't have the key `{key}`"),
                )
                .help("remove it, or give the interface the other role");
        }
    }
}

fn uplink(path: Path, interface: &NamedTable, report: &mut Report) -> Interface {
    let xdp = XdpMode::ALL.map(|mode| (mode.name(), mode));
    let forwarding = ForwardingMode::ALL.map(|mode| (mode.name(), mode));
    let families = Families::ALL.map(|families| (families.name(), families));
    let mut fields = Fields::new(path, interface.table, report);
    let (xdp, forwarding, masquerade) = (
        fields.word("xdp", &xdp, XdpMode::default()),
        fields.word("forwarding", &forwarding, ForwardingMode::default()),
        fields.word("masquerade", &families, Families::default()),
    );
    let l2_announce = fields.switch("l2_announce", false);
    if !masquerade.is_empty() && forwarding == ForwardingMode::Stack {
        refuse_stack(interface, report);
    }
    Interface::Uplink {
        xdp,
        forwarding,
        masquerade,
        l2_announce,
    }
}

/// The stack drops what has an address of the host for its source.
fn refuse_stack(interface: &NamedTable, report: &mut Report) {
    let [Some(masquerade), Some(forwarding)] =
        ["masquerade", "forwarding"].map(|key| interface.table.get(key))
    else {
        return;
    };
    let message =
        "masquerade goes past the host's stack, and can't be with `forwarding = \"stack\"`";
    report
        .error(masquerade.key, message)
        .note(forwarding.key, "the way of all packets by this uplink")
        .help("remove `forwarding`, or let a netfilter rule masquerade");
}

fn endpoint(root: &Table, path: Path, interface: &NamedTable, report: &mut Report) -> Interface {
    for (key, example) in [("addresses", "[\"192.0.2.10\"]"), ("identity", "\"NAME\"")] {
        if !interface.table.has(key) {
            report
                .error(
                    interface.span,
                    format!("`{path}` is an endpoint, and lacks the key `{key}`"),
                )
                .help(format!("add `{key} = {example}`"));
        }
    }
    let mut fields = Fields::new(path, interface.table, report);
    let addresses = fields
        .parsed_list("addresses", value::endpoint_prefix)
        .unwrap_or_default();
    fields.refuse_empty(
        "addresses",
        "name the addresses that the workload may send from",
    );
    let multicast = fields.switch("multicast", false);
    refuse_repeats(&addresses, |prefix| prefix::text(*prefix), report);
    let identity = interface.table.text("identity");
    if let Some(name) = identity {
        identities::check_name(root, name, &[], report);
    }
    Interface::Endpoint {
        addresses: values(addresses),
        identity: identity
            .map(|name| name.value.to_owned())
            .unwrap_or_default(),
        multicast,
    }
}
