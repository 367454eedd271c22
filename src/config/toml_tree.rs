//! The values of the TOML parser as a tree with locations in the file.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::source::Span;
use super::tree::{Data, Entry, Table, Value};

/// Converts the parser's values.
#[derive(Clone, Copy)]
pub(super) struct Converter {
    pub file: usize,
    /// The offset of the parsed text in the file.
    pub start: usize,
}

impl Converter {
    fn span(self, bytes: Range<usize>) -> Span {
        Span::new(self.file, self.start + bytes.start..self.start + bytes.end)
    }

    pub fn table(self, table: DeTable<'_>) -> Table<'_> {
        let entries = table.into_iter().map(|(key, value)| {
            let entry = Entry {
                key: self.span(key.span()),
                value: self.value(value),
            };
            (key.into_inner(), entry)
        });
        let mut entries: Vec<(Cow<'_, str>, Entry<'_>)> = entries.collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        Table(entries)
    }

    fn value(self, value: Spanned<DeValue<'_>>) -> Value<'_> {
        let span = self.span(value.span());
        let data = match value.into_inner() {
            DeValue::String(text) => Data::Text(text),
            DeValue::Integer(number) => Data::Number(whole_number(&number)),
            DeValue::Float(_) => Data::Float,
            DeValue::Boolean(switch) => Data::Switch(switch),
            DeValue::Datetime(_) => Data::Date,
            DeValue::Array(list) => {
                Data::List(list.into_iter().map(|item| self.value(item)).collect())
            }
            DeValue::Table(table) => Data::Table(self.table(table)),
        };
        Value { span, data }
    }
}

fn whole_number(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}
