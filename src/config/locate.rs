//! Finds a key in the texts of a configuration, for a problem that shows only on the host.

use std::path::PathBuf;

use super::problem::Excerpt;
use super::read;
use super::report::Report;
use super::source::{Files, Source};
use super::tree::{Data, Table};

/// The file and the line of the last key of `path` that is there; `None`: none is.
pub fn locate(sources: &[Source], path: &[&str]) -> Option<(PathBuf, Excerpt)> {
    let root = read::read(sources, &mut Report::default())?;
    let (mut table, mut found) = (Some(&root), None);
    for key in path {
        let Some(entry) = table.and_then(|table: &Table| table.get(key)) else {
            break;
        };
        found = Some(entry.key);
        table = match &entry.value.data {
            Data::Table(table) => Some(table),
            _ => None,
        };
    }
    let files = Files::new(sources);
    found.map(|span| (files.source(span).path.clone(), files.excerpt(span)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_the_file_that_has_them() {
        let source = |path: &str, text: &str| Source {
            path: path.into(),
            text: text.to_owned(),
        };
        let sources = [
            source("a.toml", "[node]\nname = \"a\"\n"),
            source("b.toml", "\n[interfaces.tun0]\nrole = \"uplink\"\n"),
        ];
        let rows = [
            (&["interfaces", "tun0", "role"][..], Some(("b.toml", 3))),
            (&["interfaces", "tun0", "xdp"], Some(("b.toml", 2))),
            (&["node", "name"], Some(("a.toml", 2))),
            (&["services", "web"], None),
        ];
        for (path, expected) in rows {
            let found = locate(&sources, path);
            let found = found.map(|(file, excerpt)| (file.display().to_string(), excerpt.line));
            let expected = expected.map(|(file, line)| (file.to_owned(), line));
            assert_eq!(found, expected, "{path:?}");
        }
    }
}
