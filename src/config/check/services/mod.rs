//! `[services.*]`: frontends and backends.

mod algorithm;
mod backends;
mod external;
mod frontends;
mod members;

use std::collections::BTreeMap;
use std::time::Duration;

use super::addresses::own_addresses;
use super::fields::{Fields, values};
use crate::config::checked::Service;
use crate::config::name;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::tree::{NamedTable, Table};
use crate::config::value;
use crate::model::service::Locality;
use backends::Backends;
use frontends::{Claims, Frontends};
pub(super) use members::check as check_members;

pub(super) fn read(root: &Table, report: &mut Report) -> BTreeMap<String, Service> {
    let mut services = BTreeMap::new();
    let mut claims = Claims::default();
    for table in root.named("services") {
        if let Err(wrong) = name::name(table.name) {
            report.wrong(table.key, wrong);
        }
        let (frontends, service) = service(root, &table, report);
        claims.add(&frontends, (table.name, &service), report);
        services.insert(table.name.to_owned(), service);
    }
    claims.check_own(&own_addresses(root), report);
    services
}

fn service(root: &Table, table: &NamedTable, report: &mut Report) -> (Frontends, Service) {
    let section = Path::ROOT.key("services");
    let path = section.key(table.name);
    let backends = Backends::read(root, path, table.table, report);
    let mut fields = Fields::new(path, table.table, report);
    let frontends = Frontends::read(&mut fields);
    let (algorithm, table_size) = algorithm::read(table, &backends, &mut fields);
    let affinity = fields.parsed("affinity", value::duration);
    let drain_timeout = fields.parsed("drain_timeout", value::duration);
    let external = external::read(table, &frontends, &mut fields);
    let sources = external::sources(table, (&frontends, &backends), &mut fields);
    let locality = Locality::ALL.map(|locality| (locality.name(), locality));
    let locality = fields.word("locality", &locality, Locality::default());
    frontends.check_families(&backends, report);
    frontends.check_sctp_ports(&backends, report);
    if !frontends.refuse_no_backend(table, report) {
        backends.warn_of_none(table, report);
    }
    let addresses = frontends.addresses.iter().map(|frontend| frontend.value);
    let node_ports = frontends.node_ports.iter().map(|node_port| node_port.value);
    let service = Service {
        frontends: addresses.collect(),
        node_ports: node_ports.collect(),
        external,
        sources,
        locality,
        algorithm,
        table_size,
        affinity: affinity.map_or(Duration::ZERO, |affinity| affinity.value),
        drain_timeout: drain_timeout.map_or(Duration::ZERO, |timeout| timeout.value),
        backends: values(backends.addresses),
        identity_backends: values(backends.identities),
    };
    (frontends, service)
}
