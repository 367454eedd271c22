//! The keys of `[daemon]` alone, for the command line, which needs them of a file that it does not check.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::read;
use super::report::Report;
use super::source::Source;
use super::tree::Data;

/// A value of a key of `[daemon]`; other kinds are left to the check of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    Text(String),
    Switch(bool),
}

/// The scalars of `[daemon]`, however it is written; none if there is no such table. `None`: the text is not valid TOML.
pub fn daemon_keys(text: &str) -> Option<BTreeMap<String, Scalar>> {
    let source = Source {
        path: PathBuf::new(),
        text: text.trim_start_matches('\u{feff}').to_owned(),
    };
    let mut report = Report::default();
    let whole = read::parse(0, &source, &mut report).filter(|_| !report.has_errors())?;
    let Some(Data::Table(daemon)) = whole.get("daemon").map(|entry| &entry.value.data) else {
        return Some(BTreeMap::new());
    };
    let scalars = daemon.0.iter().filter_map(|(key, entry)| {
        let scalar = match &entry.value.data {
            Data::Text(text) => Scalar::Text(text.to_string()),
            Data::Switch(switch) => Scalar::Switch(*switch),
            _ => return None,
        };
        Some((key.to_string(), scalar))
    });
    Some(scalars.collect())
}
