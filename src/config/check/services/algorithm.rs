//! How a backend is picked for a new connection.

use super::backends::Backends;
use super::frontends::family;
use crate::config::check::fields::Fields;
use crate::config::report::Report;
use crate::config::source::Located;
use crate::config::tree::NamedTable;
use crate::model::maglev::{TABLE_SIZES, table_size};
use crate::model::service::Algorithm;

/// The algorithm, and the size of its tables if the file has one.
pub fn read(
    service: &NamedTable,
    backends: &Backends,
    fields: &mut Fields,
) -> (Algorithm, Option<u32>) {
    let words = Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm));
    let algorithm = fields.word("algorithm", &words, Algorithm::default());
    let size = pinned_size(service, fields);
    let pinned = size.as_ref().map(|size| size.value);
    if algorithm == Algorithm::Maglev {
        // Of those by identity nothing is known here.
        if backends.identities.is_empty() {
            let count = |is_ipv6| backends.count(is_ipv6);
            refuse_too_many(service, pinned, count, fields.report);
        }
    } else if let Some(size) = size.filter(|_| is_random(service)) {
        let message = format!(
            "`services.{}.table_size` needs `algorithm = \"maglev\"`",
            service.name
        );
        let help = "add the key, or remove this one: a random pick needs no such table";
        fields.report.error(size.span, message).help(help);
    }
    (algorithm, pinned)
}

/// Whether the file says so; not if its value is wrong, which has been reported.
fn is_random(service: &NamedTable) -> bool {
    match service.table.text("algorithm") {
        Some(algorithm) => algorithm.value == Algorithm::Random.name(),
        None => !service.table.has("algorithm"),
    }
}

/// `None` for 0, too: the size follows the number of backends.
fn pinned_size(service: &NamedTable, fields: &mut Fields) -> Option<Located<u32>> {
    let size = service
        .table
        .number("table_size")
        .filter(|size| size.value != 0)?;
    let span = size.span;
    let known = TABLE_SIZES.into_iter();
    let found = known.clone().find(|known| i64::from(*known) == size.value);
    if found.is_none() {
        let sizes: Vec<String> = known.map(|size| size.to_string()).collect();
        let message = format!(
            "`services.{}.table_size` must be 0 or one of {}, not {}",
            service.name,
            sizes.join(", "),
            size.value
        );
        let help = "omit the key for a size by the number of backends";
        fields.report.error(span, message).help(help);
    }
    found.map(|value| Located { value, span })
}

/// Each backend has a column at least, in the table of its family. `count` is how many there are, of IPv6 or not.
pub fn refuse_too_many(
    service: &NamedTable,
    pinned: Option<u32>,
    count: impl Fn(bool) -> usize,
    report: &mut Report,
) {
    for is_ipv6 in [false, true] {
        let count = count(is_ipv6);
        let size = pinned.unwrap_or_else(|| table_size(count));
        if count <= size as usize {
            continue;
        }
        let mut sizes = TABLE_SIZES.into_iter();
        let help = match sizes.find(|size| count <= *size as usize) {
            Some(enough) => format!("use {enough} or more, or omit the key"),
            None => "use `algorithm = \"random\"`, or several services".to_owned(),
        };
        let message = format!(
            "`services.{}` has {count} {} backends, more than a Maglev table of {size} columns has room for",
            service.name,
            family(is_ipv6)
        );
        let size = service
            .table
            .number("table_size")
            .filter(|_| pinned.is_some());
        let span = size.map_or(service.key, |size| size.span);
        report.error(span, message).help(help);
    }
}
