//! The TOML values of a file with their locations, before they are checked.

use std::borrow::Cow;

use super::source::{Located, Span};

#[derive(Clone, Debug)]
pub(super) struct Value<'s> {
    /// Of a table: its header, or the whole of an inline table.
    pub span: Span,
    pub data: Data<'s>,
}

#[derive(Clone, Debug)]
pub(super) enum Data<'s> {
    Text(Cow<'s, str>),
    /// `None`: it does not fit 64 bits.
    Number(Option<i64>),
    Float,
    Switch(bool),
    Date,
    List(Vec<Value<'s>>),
    Table(Table<'s>),
}

impl Data<'_> {
    /// Its kind in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Data::Text(_) => "a string",
            Data::Number(_) => "a whole number",
            Data::Float => "a number with a point",
            Data::Switch(_) => "true or false",
            Data::Date => "a date",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }
}

/// The keys of a table, sorted, each once. Most tables have few keys, for which a map would take much more memory. A getter
/// returns `None` for a key that is absent or of another kind, which `shape` reports.
#[derive(Clone, Debug, Default)]
pub(super) struct Table<'s>(pub Vec<(Cow<'s, str>, Entry<'s>)>);

#[derive(Clone, Debug)]
pub(super) struct Entry<'s> {
    /// The location of the key.
    pub key: Span,
    pub value: Value<'s>,
}

/// A table with its name.
pub(super) struct NamedTable<'t> {
    pub name: &'t str,
    /// The location of the name.
    pub key: Span,
    /// The location of the table.
    pub span: Span,
    pub table: &'t Table<'t>,
}

impl<'s> Table<'s> {
    pub fn get(&self, key: &str) -> Option<&Entry<'s>> {
        let place = self.0.binary_search_by(|(name, _)| (**name).cmp(key));
        place.ok().map(|place| &self.0[place].1)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn text(&self, key: &str) -> Option<Located<&str>> {
        self.find(key, |data| match data {
            Data::Text(text) => Some(&**text),
            _ => None,
        })
    }

    pub fn number(&self, key: &str) -> Option<Located<i64>> {
        self.find(key, |data| match data {
            Data::Number(number) => *number,
            _ => None,
        })
    }

    pub fn switch(&self, key: &str) -> Option<Located<bool>> {
        self.find(key, |data| match data {
            Data::Switch(switch) => Some(*switch),
            _ => None,
        })
    }

    pub fn list(&self, key: &str) -> Option<Located<&[Value<'s>]>> {
        self.find(key, |data| match data {
            Data::List(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    pub fn table(&self, key: &str) -> Option<&Table<'s>> {
        self.find(key, |data| match data {
            Data::Table(table) => Some(table),
            _ => None,
        })
        .map(|table| table.value)
    }

    /// The tables under `key` with their names, as `[identities.NAME]`.
    pub fn named(&self, key: &str) -> impl Iterator<Item = NamedTable<'_>> {
        let entries = self.table(key).into_iter().flat_map(|table| &table.0);
        entries.filter_map(|(name, entry)| match &entry.value.data {
            Data::Table(table) => Some(NamedTable {
                name,
                key: entry.key,
                span: entry.value.span,
                table,
            }),
            _ => None,
        })
    }

    fn find<'t, T>(
        &'t self,
        key: &str,
        pick: impl FnOnce(&'t Data<'s>) -> Option<T>,
    ) -> Option<Located<T>> {
        let value = &self.get(key)?.value;
        pick(&value.data).map(|picked| Located {
            value: picked,
            span: value.span,
        })
    }
}
