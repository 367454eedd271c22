//! What the workloads of a service's identities are for it: none, none of a family, or too many.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::algorithm;
use super::frontends::family;
use crate::config::check::prefixes::located;
use crate::config::checked::{Config, Service};
use crate::config::members::Members;
use crate::config::report::Report;
use crate::config::tree::{Data, NamedTable, Table};
use crate::config::value;
use crate::model::service::Algorithm;

/// Warns of identities that no single address has, and of frontends in whose family there is none; reports more than a Maglev table
/// has room for. An endpoint whose interface is pending counts, since the file has it.
pub fn check(root: &Table, config: &Config, report: &mut Report) {
    let members = Members::new(config, |_| true);
    for table in root.named("services") {
        if let Some(service) = config.services.get(table.name)
            && !service.identity_backends.is_empty()
        {
            warn_of_identities(&table, &members, report);
            warn_of_frontends(&table, service, &members, report);
            refuse_too_many(&table, service, &members, report);
        }
    }
}

fn warn_of_identities(service: &NamedTable, members: &Members, report: &mut Report) {
    let list = service.table.list("backends");
    let identities = list.into_iter().flat_map(|list| list.value);
    let identities = identities.filter_map(|backend| match &backend.data {
        Data::Table(backend) => backend.text("identity"),
        _ => None,
    });
    for identity in identities {
        if members.of(identity.value).next().is_some() {
            continue;
        }
        let message = format!(
            "no workload has the identity `{}` by a single address: it is no backend",
            identity.value
        );
        report.warning(identity.span, message).help(
            "add an endpoint with it, or an address to [nodes.NAME.endpoints]; prefixes of endpoints and `cidrs` of identities are \
             no backends",
        );
    }
}

fn warn_of_frontends(
    table: &NamedTable,
    service: &Service,
    members: &Members,
    report: &mut Report,
) {
    let backends = members.backends(service);
    let has: BTreeSet<bool> = backends
        .iter()
        .map(|backend| backend.backend.address.is_ipv6())
        .collect();
    if has.is_empty() {
        return;
    }
    let frontends = table
        .table
        .list("frontends")
        .map_or(&[][..], |list| list.value);
    let address = |text: &str| value::frontend(text).ok().map(|frontend| frontend.address);
    let unserved =
        located(frontends, address).filter(|at| !has.contains(&IpAddr::is_ipv6(&at.value)));
    for frontend in unserved {
        let family = family(frontend.value.is_ipv6());
        let message = format!(
            "this frontend has no backend: no workload of the service's identities has an {family} address"
        );
        let help = format!("add an {family} address to one of them, or remove the frontend");
        report.warning(frontend.span, message).help(help);
    }
}

fn refuse_too_many(table: &NamedTable, service: &Service, members: &Members, report: &mut Report) {
    if service.algorithm == Algorithm::Maglev {
        let backends = members.backends(service);
        let count = |is_ipv6| {
            let addresses = backends.iter().map(|found| found.backend.address);
            addresses
                .filter(|address| address.is_ipv6() == is_ipv6)
                .count()
        };
        algorithm::refuse_too_many(table, service.table_size, count, report);
    }
}
