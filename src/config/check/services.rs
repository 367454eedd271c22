//! `[services.*]`: frontends and backends.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fields::{Fields, for_each_repeat, parsed, values};
use crate::config::checked::{Backend, Service};
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::source::{Located, Span};
use crate::config::tree::{Data, NamedTable, Table, Value};
use crate::config::{name, shape, value};
use crate::model::protocol::Protocol;
use crate::model::service::{BackendState, Frontend};

#[derive(Clone, Copy)]
enum Algorithm {
    Random,
    Maglev,
}

pub(super) fn read(root: &Table, report: &mut Report) -> BTreeMap<String, Service> {
    let mut services = BTreeMap::new();
    let mut taken = BTreeMap::new();
    for service in root.named("services") {
        if let Err(wrong) = name::name(service.name) {
            report.wrong(service.key, wrong);
        }
        let section = Path::ROOT.key("services");
        let path = section.key(service.name);
        let mut fields = Fields::new(path, service.table, report);
        let frontends = fields
            .parsed_list("frontends", value::frontend)
            .unwrap_or_default();
        fields.refuse_empty(
            "frontends",
            "name at least one address, as \"192.0.2.1:53/udp\"",
        );
        check_algorithm(&mut fields);
        for frontend in &frontends {
            claim(&mut taken, frontend, service.name, report);
        }
        let backends = backends(path, service.table, report);
        check_families(&frontends, &backends, report);
        check_sctp_ports(&frontends, &backends, report);
        warn_of_no_backend(&service, &backends, report);
        let service_value = Service {
            frontends: values(frontends),
            backends: values(backends),
        };
        services.insert(service.name.to_owned(), service_value);
    }
    services
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

fn claim<'t>(
    taken: &mut BTreeMap<Frontend, (Span, &'t str)>,
    frontend: &Located<Frontend>,
    service: &'t str,
    report: &mut Report,
) {
    if let Some((first, other)) = taken.get(&frontend.value) {
        report
            .error(
                frontend.span,
                format!(
                    "the frontend {} already belongs to `{other}`",
                    frontend.value
                ),
            )
            .note(*first, "first given here")
            .help("a frontend belongs to one service: remove one of the two");
    } else {
        taken.insert(frontend.value, (frontend.span, service));
    }
}

fn backends(path: Path, service: &Table, report: &mut Report) -> Vec<Located<Backend>> {
    let list = service.list("backends").map_or(&[][..], |list| list.value);
    let path = path.key("backends");
    let backends = list.iter().enumerate();
    let backends: Vec<_> = backends
        .filter_map(|(index, item)| backend(path.item(index), item, report))
        .collect();
    for_each_repeat(
        &backends,
        |backend| backend.address,
        |first, again| {
            report
                .error(
                    again.span,
                    format!("the backend {} is given twice", again.value.address),
                )
                .note(first, "first given here")
                .help("to give a backend more connections, raise its `weight`");
        },
    );
    backends
}

fn backend(path: Path, item: &Value, report: &mut Report) -> Option<Located<Backend>> {
    match &item.data {
        Data::Text(text) => {
            let address = parsed(text, item.span, value::backend, report)?;
            let value = Backend {
                address: address.value,
                weight: 1,
                state: BackendState::Active,
            };
            Some(Located {
                value,
                span: item.span,
            })
        }
        Data::Table(table) => {
            let words = [
                BackendState::Active,
                BackendState::Draining,
                BackendState::Maintenance,
            ]
            .map(|state| (state.to_string(), state));
            let words = words
                .each_ref()
                .map(|(word, state)| (word.as_str(), *state));
            let mut fields = Fields::new(path, table, report);
            let address = fields.parsed("address", value::backend);
            let weight = fields.number("weight", 0..=u16::MAX.into(), 1);
            let state = fields.word("state", &words, BackendState::Active);
            let address = address?;
            let value = Backend {
                address: address.value,
                weight: u16::try_from(weight).unwrap_or(1),
                state,
            };
            Some(Located {
                value,
                span: address.span,
            })
        }
        _ => None,
    }
}

/// A frontend needs backends of its own family.
fn check_families(
    frontends: &[Located<Frontend>],
    backends: &[Located<Backend>],
    report: &mut Report,
) {
    let family = |is_v6| if is_v6 { "IPv6" } else { "IPv4" };
    // Whether there is one of IPv4, and of IPv6.
    let of_backends = [false, true].map(|is_v6| {
        let mut backends = backends.iter();
        backends.any(|backend| backend.value.address.is_ipv6() == is_v6)
    });
    let of_frontends = [false, true].map(|is_v6| {
        let mut frontends = frontends.iter();
        frontends.any(|frontend| frontend.value.address.is_ipv6() == is_v6)
    });
    for frontend in frontends {
        let is_v6 = frontend.value.address.is_ipv6();
        if !of_backends[usize::from(is_v6)] && !backends.is_empty() {
            let family = family(is_v6);
            report
                .error(
                    frontend.span,
                    format!("no backend of this service is {family}, but this frontend is"),
                )
                .help(format!("add an {family} backend, or remove the frontend"));
        }
    }
    for backend in backends {
        let is_v6 = backend.value.address.is_ipv6();
        if !of_frontends[usize::from(is_v6)] && !frontends.is_empty() {
            let family = family(is_v6);
            report.warning(
                backend.span,
                format!("this backend gets no connections: no frontend of the service is {family}"),
            );
        }
    }
}

/// SCTP's CRC32c covers the ports, and a program can't update it: ports are not translated.
fn check_sctp_ports(
    frontends: &[Located<Frontend>],
    backends: &[Located<Backend>],
    report: &mut Report,
) {
    for frontend in frontends
        .iter()
        .filter(|f| f.value.protocol == Protocol::Sctp)
    {
        if report.is_full() {
            return; // there are as many errors as frontends times backends
        }
        let is_same_family =
            |b: &&Located<Backend>| b.value.address.is_ipv6() == frontend.value.address.is_ipv6();
        for backend in backends.iter().filter(is_same_family) {
            if backend.value.address.port() != frontend.value.port {
                let port = frontend.value.port;
                report
                    .error(
                        backend.span,
                        format!(
                            "the backend of an sctp frontend must have the frontend's port, {port}"
                        ),
                    )
                    .note(frontend.span, "the frontend")
                    .help("dpd does not translate ports of sctp");
            }
        }
    }
}

fn warn_of_no_backend(service: &NamedTable, backends: &[Located<Backend>], report: &mut Report) {
    let is_usable =
        |b: &Located<Backend>| b.value.weight > 0 && b.value.state != BackendState::Maintenance;
    // An invalid backend has been reported, and might have been usable.
    let list = service.table.list("backends");
    let list = list.filter(|list| list.value.len() == backends.len());
    if let Some(list) = list.filter(|_| !backends.iter().any(is_usable)) {
        report
            .warning(
                list.span,
                format!(
                    "`services.{}` has no backend for new connections",
                    service.name
                ),
            )
            .help("new connections are rejected at once");
    }
}
