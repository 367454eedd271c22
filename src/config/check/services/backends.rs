//! The backends of a service.

use crate::config::check::fields::{Fields, for_each_repeat, parsed};
use crate::config::checked::Backend;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::source::Located;
use crate::config::tree::{Data, NamedTable, Table, Value};
use crate::config::value;
use crate::model::service::BackendState;

pub fn read(path: Path, service: &Table, report: &mut Report) -> Vec<Located<Backend>> {
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

pub fn warn_of_none(service: &NamedTable, backends: &[Located<Backend>], report: &mut Report) {
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
