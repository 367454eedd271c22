//! Reads the keys of one table: values, ranges and defaults.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::source::{Located, Span};
use crate::config::tree::{Data, Table};
use crate::config::value;
use crate::config::wrong::Parsed;

static EMPTY: Table<'static> = Table(Vec::new());

/// The keys of one table. An invalid value is reported, and its default is used.
pub(super) struct Fields<'a> {
    path: Path<'a>,
    table: &'a Table<'a>,
    pub report: &'a mut Report,
}

impl<'a> Fields<'a> {
    pub fn new(path: Path<'a>, table: &'a Table<'a>, report: &'a mut Report) -> Self {
        Fields {
            path,
            table,
            report,
        }
    }

    /// The keys of a top-level table; none if it is absent.
    pub fn section(root: &'a Table<'a>, name: &'a str, report: &'a mut Report) -> Self {
        let table = root.table(name).unwrap_or(&EMPTY);
        Fields::new(Path::ROOT.key(name), table, report)
    }

    pub fn switch(&mut self, key: &str, default: bool) -> bool {
        self.table
            .switch(key)
            .map_or(default, |switch| switch.value)
    }

    pub fn number(&mut self, key: &str, range: RangeInclusive<u32>, default: u32) -> u32 {
        self.optional_number(key, range).unwrap_or(default)
    }

    /// `None` if the key is missing, or wrong and reported.
    pub fn optional_number(&mut self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.table.number(key)?;
        let fitting = u32::try_from(number.value)
            .ok()
            .filter(|n| range.contains(n));
        if fitting.is_none() {
            let (least, most) = range.into_inner();
            let message = format!(
                "`{}.{key}` must be {} to {most}, not {}",
                self.path, least, number.value
            );
            self.report.error(number.span, message);
        }
        fitting
    }

    pub fn duration(
        &mut self,
        key: &str,
        range: &RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(duration) = self.parsed(key, value::duration) else {
            return default;
        };
        if !range.contains(&duration.value) {
            let (least, most) = (
                value::duration_text(*range.start()),
                value::duration_text(*range.end()),
            );
            let message = format!("`{}.{key}` must be {least} to {most}", self.path);
            self.report.error(duration.span, message);
        }
        duration.value
    }

    pub fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)], default: T) -> T {
        let value = self.parsed(key, |text| value::word(text, words));
        value.map_or(default, |value| value.value)
    }

    /// The value of a text; `None` if it is absent or invalid.
    pub fn parsed<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<Located<T>> {
        let text = self.table.text(key)?;
        parsed(text.value, text.span, parse, self.report)
    }

    /// The values of a list of texts, without the invalid ones; `None` if the list is absent.
    pub fn parsed_list<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<Vec<Located<T>>> {
        let list = self.table.list(key)?.value;
        let texts = list.iter().filter_map(|item| match &item.data {
            Data::Text(text) => Some((text, item.span)),
            _ => None,
        });
        Some(
            texts
                .filter_map(|(text, span)| parsed(text, span, &parse, self.report))
                .collect(),
        )
    }

    /// Reports a list that is empty.
    pub fn refuse_empty(&mut self, key: &str, help: &str) {
        if let Some(list) = self.table.list(key)
            && list.value.is_empty()
        {
            let message = format!("`{}.{key}` is empty", self.path);
            self.report.error(list.span, message).help(help);
        }
    }
}

/// The value of one text; an invalid one is reported.
pub(super) fn parsed<T>(
    text: &str,
    span: Span,
    parse: impl Fn(&str) -> Parsed<T>,
    report: &mut Report,
) -> Option<Located<T>> {
    match parse(text) {
        Ok(value) => Some(Located { value, span }),
        Err(wrong) => {
            report.wrong(span, wrong);
            None
        }
    }
}

/// The values of a list, without their locations.
pub(super) fn values<T>(list: Vec<Located<T>>) -> Vec<T> {
    list.into_iter().map(|item| item.value).collect()
}

/// Calls `twice` with the first location and the later item of every value that is in the list more than once.
pub(super) fn for_each_repeat<T, K: Ord>(
    list: &[Located<T>],
    key: impl Fn(&T) -> K,
    mut twice: impl FnMut(Span, &Located<T>),
) {
    let mut seen = BTreeMap::new();
    for item in list {
        let first = *seen.entry(key(&item.value)).or_insert(item.span);
        if first != item.span {
            twice(first, item);
        }
    }
}

/// Reports every value that is in the list more than once.
pub(super) fn refuse_repeats<T>(
    list: &[Located<T>],
    text: impl Fn(&T) -> String,
    report: &mut Report,
) {
    for_each_repeat(list, &text, |first, again| {
        report
            .error(again.span, format!("{} is given twice", text(&again.value)))
            .note(first, "first given here");
    });
}
