//! `[services.*]`: frontends and backends.

mod backends;
mod external;
mod frontends;

use std::collections::BTreeMap;
use std::time::Duration;

use super::addresses::own_addresses;
use super::fields::{Fields, values};
use crate::config::checked::Service;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::source::Located;
use crate::config::tree::{NamedTable, Table};
use crate::config::{name, shape, value};
use crate::model;
use crate::model::service::Locality;
use frontends::{Claims, Frontends};

#[derive(Clone, Copy)]
enum Algorithm {
    Random,
    Maglev,
}

pub(super) fn read(root: &Table, report: &mut Report) -> BTreeMap<String, Service> {
    let mut services = BTreeMap::new();
    let mut claims = Claims::default();
    for table in root.named("services") {
        if let Err(wrong) = name::name(table.name) {
            report.wrong(table.key, wrong);
        }
        let (frontends, service) = service(&table, report);
        claims.add(&frontends, (table.name, &service), report);
        services.insert(table.name.to_owned(), service);
    }
    claims.check_own(&own_addresses(root), report);
    services
}

fn service(table: &NamedTable, report: &mut Report) -> (Frontends, Service) {
    let section = Path::ROOT.key("services");
    let path = section.key(table.name);
    let backends = backends::read(path, table.table, report);
    let mut fields = Fields::new(path, table.table, report);
    let frontends = Frontends::read(&mut fields);
    check_algorithm(&mut fields);
    let external = external::read(table, &frontends, &mut fields);
    let sources = external::sources(table, (&frontends, &backends), &mut fields);
    let locality = Locality::ALL.map(|locality| (locality.name(), locality));
    let locality = fields.word("locality", &locality, Locality::default());
    frontends.check_families(&backends, report);
    frontends.check_sctp_ports(&backends, report);
    if !frontends.refuse_no_backend(table, report) {
        backends::warn_of_none(table, &backends, report);
    }
    let addresses = frontends.addresses.iter().map(|frontend| frontend.value);
    let node_ports = frontends.node_ports.iter().map(|node_port| node_port.value);
    let service = Service {
        frontends: addresses.collect(),
        node_ports: node_ports.collect(),
        external,
        sources,
        locality,
        algorithm: model::service::Algorithm::Random,
        table_size: None,
        backends: values(backends),
    };
    (frontends, service)
}

/// Checks how a backend is picked. Only a random pick for each connection is supported.
fn check_algorithm(fields: &mut Fields) {
    let words = [("random", Algorithm::Random), ("maglev", Algorithm::Maglev)];
    let algorithm = fields.parsed("algorithm", |text| value::word(text, &words));
    if let Some(Located {
        value: Algorithm::Maglev,
        span,
    }) = algorithm
    {
        let message = shape::not_supported("algorithm = \"maglev\"");
        fields
            .report
            .error(span, message)
            .help("use \"random\", or omit the key");
    }
    if let Some(affinity) = fields.parsed("affinity", value::duration)
        && affinity.value != Duration::ZERO
    {
        let message = shape::not_supported("affinity");
        fields
            .report
            .error(affinity.span, message)
            .help("use \"0s\", or omit the key");
    }
}
