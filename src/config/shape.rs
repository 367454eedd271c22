//! Checks the tree against the schema: unknown keys, missing keys, and values of the wrong kind.

use std::borrow::Cow;

use super::path::Path;
use super::report::Report;
use super::schema::{Key, Need, ROOT, Shape};
use super::source::Span;
use super::suggest::did_you_mean;
use super::tree::{Data, Entry, Table, Value};

/// Reports every unknown key, missing key, and value of the wrong kind.
pub(super) fn check(root: &Table, report: &mut Report) {
    for (name, entry) in &root.0 {
        field(ROOT, Path::ROOT, name, entry, report);
    }
}

fn table(keys: &[Key], path: &Path<'_>, span: Span, table: &Table, report: &mut Report) {
    for (name, entry) in &table.0 {
        field(keys, path, name, entry, report);
    }
    let has = |key: &Key| table.has(key.name);
    let has_misplaced = keys
        .iter()
        .any(|key| matches!(key.need, Need::Never(_)) && has(key));
    let is_missing = |key: &&Key| matches!(key.need, Need::Required) && !has(key) && !has_misplaced;
    for key in keys.iter().filter(is_missing) {
        report
            .error(span, format!("`{path}` lacks the key `{}`", key.name))
            .help(format!("add `{} = {}`", key.name, example(&key.shape)));
    }
}

fn field(keys: &[Key], path: &Path<'_>, name: &str, entry: &Entry, report: &mut Report) {
    let Some(key) = keys.iter().find(|key| key.name == name) else {
        return unknown(keys, path, name, entry.key, report);
    };
    match key.need {
        Need::Required | Need::Optional => value(&key.shape, &path.key(name), &entry.value, report),
        Need::Never(instead) => {
            report
                .error(entry.key, format!("`{path}` can't have the key `{name}`"))
                .help(instead);
        }
    }
}

fn value(shape: &Shape, path: &Path<'_>, value: &Value, report: &mut Report) {
    match (shape, &value.data) {
        (Shape::Text | Shape::TextOr(_), Data::Text(_)) => {}
        (Shape::Switch, Data::Switch(_)) | (Shape::Number, Data::Number(Some(_))) => {}
        (Shape::Number, Data::Number(None)) => {
            report.error(
                value.span,
                format!("the number of `{path}` is far too large"),
            );
        }
        (Shape::List(item), Data::List(list)) => {
            for (index, element) in list.iter().enumerate() {
                self::value(item, &path.item(index), element, report);
            }
        }
        (Shape::Table(keys) | Shape::TextOr(keys), Data::Table(inner)) => {
            table(keys, path, value.span, inner, report);
        }
        (Shape::Named(keys), Data::Table(names)) => {
            for (name, entry) in &names.0 {
                named(keys, path, name, entry, report);
            }
        }
        (Shape::Texts, Data::Table(texts)) => {
            for (name, entry) in &texts.0 {
                text(path, name, entry, report);
            }
        }
        (_, data) => {
            let message = format!(
                "`{path}` is {} here, but takes {}",
                data.kind(),
                kind(shape)
            );
            let finding = report.error(value.span, message);
            match (shape, data) {
                (Shape::List(_), Data::Text(_)) => finding.help("write it in brackets: `[ … ]`"),
                (Shape::Named(_), Data::List(_)) => {
                    finding.help(format!("begin each with `[{path}.NAME]`"))
                }
                _ => finding,
            };
        }
    }
}

/// One string with a key that the user chooses. An unquoted key with a dot is a nested table in TOML.
fn text(path: &Path<'_>, name: &str, entry: &Entry, report: &mut Report) {
    if !matches!(entry.value.data, Data::Table(_)) {
        return value(&Shape::Text, &path.key(name), &entry.value, report);
    }
    let (mut whole, mut inner) = (name.escape_debug().to_string(), &entry.value.data);
    while let Data::Table(table) = inner
        && let Some((next, deeper)) = table.0.first()
    {
        whole = join(&whole, next);
        inner = &deeper.value.data;
    }
    report
        .error(
            entry.key,
            format!("`{path}` has no table inside of it: the dot separates two names"),
        )
        .help(format!("quote a key that has a dot: {whole:?} = \"…\""));
}

/// One table with a name that the user chooses.
fn named(keys: &[Key], path: &Path<'_>, name: &str, entry: &Entry, report: &mut Report) {
    let full = path.key(name);
    let Data::Table(inner) = &entry.value.data else {
        let message = format!(
            "`{full}` is {} here, but takes a table",
            entry.value.data.kind()
        );
        report
            .error(entry.key, message)
            .help(format!("begin it with `[{full}]`"));
        return;
    };
    let is_dotted = |(key, entry): &(Cow<'_, str>, Entry<'_>)| is_part_of_name(keys, key, entry);
    if !inner.0.iter().any(is_dotted) {
        return table(keys, &full, entry.value.span, inner, report);
    }
    let (dotted, own): (Vec<_>, Vec<_>) = inner.0.iter().cloned().partition(is_dotted);
    for (key, entry) in &dotted {
        self::dotted(path, &join(name, key), entry, report);
    }
    if !own.is_empty() {
        table(keys, &full, entry.value.span, &Table(own), report);
    }
}

/// Whether a nested table results from a dot in a name: then it has the keys of a named table.
fn is_part_of_name(keys: &[Key], name: &str, entry: &Entry) -> bool {
    let is_key = |name: &str| keys.iter().any(|key| key.name == name);
    let Data::Table(inner) = &entry.value.data else {
        return false;
    };
    let mut entries = inner.0.iter();
    !is_key(name) && entries.any(|(name, entry)| is_key(name) || is_part_of_name(keys, name, entry))
}

/// An unquoted name with a dot is a nested table in TOML.
fn dotted(path: &Path<'_>, name: &str, entry: &Entry, report: &mut Report) {
    // A name may have several dots.
    if let Data::Table(inner) = &entry.value.data
        && let [(next, deeper)] = &inner.0[..]
        && matches!(deeper.value.data, Data::Table(_))
    {
        return dotted(path, &join(name, next), deeper, report);
    }
    report
        .error(
            entry.key,
            format!("`{path}` has no table inside of a table: the dot separates two names"),
        )
        .help(format!("quote a name that has a dot: [{path}.{name:?}]"));
}

fn unknown(keys: &[Key], path: &Path<'_>, name: &str, span: Span, report: &mut Report) {
    let known = || {
        let offered = keys
            .iter()
            .filter(|key| !matches!(key.need, Need::Never(_)));
        offered.map(|key| key.name)
    };
    let message = match path.is_root() {
        true => format!("there is no key or table `{}`", name.escape_debug()),
        false => format!("`{path}` has no key `{}`", name.escape_debug()),
    };
    let help = did_you_mean(name, known())
        .unwrap_or_else(|| format!("it can have: {}", Vec::from_iter(known()).join(", ")));
    report.error(span, message).help(help);
}

/// The message for a key of a later version.
pub(super) fn not_supported(what: &str) -> String {
    format!("`{what}` is not supported by this version of dpd")
}

fn join(name: &str, next: &str) -> String {
    format!("{name}.{}", next.escape_debug())
}

fn kind(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text => "a string",
        Shape::Number => "a whole number",
        Shape::Switch => "true or false",
        Shape::List(_) => "a list",
        Shape::Table(_) | Shape::Named(_) | Shape::Texts => "a table",
        Shape::TextOr(_) => "a string or a table",
    }
}

fn example(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text | Shape::TextOr(_) => "\"…\"",
        Shape::Number => "…",
        Shape::Switch => "true",
        Shape::List(_) => "[ … ]",
        Shape::Table(_) | Shape::Named(_) | Shape::Texts => "{ … }",
    }
}
