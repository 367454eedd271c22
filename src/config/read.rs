//! Parses the files and joins their tables.

use std::ops::Range;

use toml::de::DeTable;

use super::parallel_toml;
use super::pieces;
use super::report::Report;
use super::source::{Source, Span};
use super::toml_tree::Converter;
use super::tree::{Data, Entry, Table};

/// The largest part that is parsed without a check of its syntax before, which takes less memory.
const PART_MAX: usize = 1 << 20;

/// Parses the sources and joins their tables. `None`: a text is no valid TOML, so its values can't be checked.
pub(super) fn read<'s>(sources: &'s [Source], report: &mut Report) -> Option<Table<'s>> {
    let mut whole = (!sources.is_empty()).then(Table::default);
    for (file, source) in sources.iter().enumerate() {
        let parsed = parse(file, source, report);
        if let Some(table) = &parsed {
            refuse_empty(file, source, table, report);
        }
        whole = whole.zip(parsed).map(|(mut whole, table)| {
            join(&mut whole, table, "", report);
            whole
        });
    }
    whole
}

/// Parses one drop-in, which is not the first of the files. `None`: it is no valid TOML.
pub(super) fn parse_drop_in<'s>(
    file: usize,
    source: &'s Source,
    report: &mut Report,
) -> Option<Table<'s>> {
    let table = parse(file, source, report)?;
    refuse_empty(file, source, &table, report);
    Some(table)
}

/// Adds many later files' tables. Neighbours are joined first, since a join takes time for each entry of both tables.
pub(super) fn join_all<'s>(whole: &mut Table<'s>, tables: Vec<Table<'s>>, report: &mut Report) {
    let mut tables = tables;
    while tables.len() > 1 {
        let mut halved = Vec::with_capacity(tables.len().div_ceil(2));
        let mut rest = tables.into_iter();
        while let Some(mut one) = rest.next() {
            if let Some(other) = rest.next() {
                join(&mut one, other, "", report);
            }
            halved.push(one);
        }
        tables = halved;
    }
    if let Some(tables) = tables.pop() {
        join(whole, tables, "", report);
    }
}

/// Parses one text. `None`: it is no valid TOML, which is reported.
pub(super) fn parse<'s>(file: usize, source: &'s Source, report: &mut Report) -> Option<Table<'s>> {
    let text = &source.text;
    if let Some(table) = parallel_toml::parse(file, text, PART_MAX) {
        return Some(table);
    }
    if text.len() <= pieces::SMALL {
        return parse_whole(file, source, report);
    }
    if !pieces::check(file, text, report) {
        return None;
    }
    parallel_toml::parse(file, text, usize::MAX).or_else(|| {
        let is_fine = pieces::check_size(file, text, report);
        is_fine.then(|| parse_whole(file, source, report))?
    })
}

fn parse_whole<'s>(file: usize, source: &'s Source, report: &mut Report) -> Option<Table<'s>> {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    let mut is_toml = true;
    let mut last = None;
    for error in errors {
        let end = source.text.len();
        let span = Span::new(file, error.span().unwrap_or(end..end));
        if error.message() == "duplicate key" {
            // The tree is still valid, so the rest can be checked too.
            report_duplicate(source, span, report);
            continue;
        }
        is_toml = false;
        // Another error on the same line mostly follows from the first.
        let is_consequence =
            last.is_some_and(|last| is_one_line(&source.text, last, span.bytes().start));
        if !is_consequence {
            report.error(span, format!("this is not TOML: {}", error.message()));
        }
        last = Some(span.bytes().start);
    }
    is_toml.then(|| Converter { file, start: 0 }.table(table.into_inner()))
}

fn is_one_line(text: &str, one: usize, other: usize) -> bool {
    let between = text.as_bytes().get(one.min(other)..one.max(other));
    between.is_some_and(|between| !between.contains(&b'\n'))
}

/// An empty file is probably truncated, or just being written. A drop-in may consist of comments.
fn refuse_empty(file: usize, source: &Source, table: &Table, report: &mut Report) {
    let is_main = file == 0;
    if source.text.trim().is_empty() || is_main && table.0.is_empty() {
        let message = match is_main {
            true => "the file is empty: it has no table and no key",
            false => "the drop-in is empty",
        };
        let help = match is_main {
            true => "to remove everything that dpd has put on this host, run `dpd cleanup`",
            false => "remove it, or put a comment into it",
        };
        report.error(Span::new(file, 0..0), message).help(help);
    }
}

fn report_duplicate(source: &Source, span: Span, report: &mut Report) {
    let text = &source.text;
    let name = text.get(span.bytes()).unwrap_or_default();
    let is_reported = !report.is_full();
    let finding = report.error(span, format!("`{name}` is given twice"));
    finding.help("keep one of the two, or give one of them another name");
    if !is_reported {
        return;
    }
    if let Some(first) = first_line_like(text, span.bytes().start) {
        finding.note(Span::new(span.file(), first), "first given here");
    }
}

/// The nearest line above that starts with the same key or header as the line of `at`.
fn first_line_like(text: &str, at: usize) -> Option<Range<usize>> {
    let (above, _) = text.split_at_checked(at)?;
    let start = above.rfind('\n').map_or(0, |newline| newline + 1);
    let opening = opening(&text[start..]);
    if at - start >= opening.len() {
        return None;
    }
    let mut end = start;
    for line in text[..start].split_inclusive('\n').rev() {
        end -= line.len();
        if self::opening(line).trim() == opening.trim() {
            return Some(end..end + self::opening(line).trim_end().len());
        }
    }
    None
}

/// The part of a line before its value: `key` of `key = 1`, `[table` of `[table]`.
fn opening(line: &str) -> &str {
    &line[..line.find(['=', ']', '\n']).unwrap_or(line.len())]
}

/// Adds a later file's tables to those of the files before it.
fn join<'s>(whole: &mut Table<'s>, table: Table<'s>, path: &str, report: &mut Report) {
    let mut joined = Vec::with_capacity(whole.0.len() + table.0.len());
    let mut olds = std::mem::take(&mut whole.0).into_iter().peekable();
    for (name, new) in table.0 {
        while let Some(before) = olds.next_if(|(old, _)| *old < name) {
            joined.push(before);
        }
        match olds.next_if(|(old, _)| *old == name) {
            None => joined.push((name, new)),
            Some((name, old)) => {
                let path = match path {
                    "" => name.to_string(),
                    path => format!("{path}.{name}"),
                };
                joined.push((name, join_entries(old, new, &path, report)));
            }
        }
    }
    joined.extend(olds);
    whole.0 = joined;
}

/// Of two entries with the same name only tables can be joined.
fn join_entries<'s>(
    mut old: Entry<'s>,
    new: Entry<'s>,
    path: &str,
    report: &mut Report,
) -> Entry<'s> {
    match (&mut old.value.data, new.value.data) {
        (Data::Table(old), Data::Table(new)) => join(old, new, path, report),
        _ => {
            report
                .error(new.key, format!("`{path}` is given twice"))
                .note(old.key, "first given here")
                .help("files join their tables, but a key can be set in one file only: remove one");
        }
    }
    old
}
