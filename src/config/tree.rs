//! What the files say, before anything of it is understood: TOML values with their places, several files joined.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::report::Report;
use super::section;
use super::source::{Located, Source, Span};
use crate::parallel::each;

#[derive(Clone, Debug)]
pub(super) struct Value<'s> {
    /// A table's is its header, or the whole of an inline table.
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
    /// What it is, for messages.
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

/// The keys of a table, in order, each once; most tables have few, and a map would take much more memory for those. A
/// getter gives `None` for a key that is absent or of another kind, which the shape has reported.
#[derive(Clone, Debug, Default)]
pub(super) struct Table<'s>(pub Vec<(Cow<'s, str>, Entry<'s>)>);

#[derive(Clone, Debug)]
pub(super) struct Entry<'s> {
    /// Where the key stands.
    pub key: Span,
    pub value: Value<'s>,
}

/// A table with the name that it stands under.
pub(super) struct NamedTable<'t> {
    pub name: &'t str,
    /// Where the name stands.
    pub key: Span,
    /// Where the table stands.
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

/// Parses the sources and joins their tables. `None`: a text is no TOML, so that nothing can be said about its meaning.
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

fn parse<'s>(file: usize, source: &'s Source, report: &mut Report) -> Option<Table<'s>> {
    parse_parts(file, &source.text).or_else(|| parse_whole(file, source, report))
}

/// A large text in parts, at the same time.
fn parse_parts(file: usize, text: &str) -> Option<Table<'_>> {
    let cuts = section::cuts(text);
    (!cuts.is_empty()).then(|| parse_cut(file, text, &cuts))?
}

/// A text that is cut before lines which look like headers. Where each part is a whole text, none begins in the middle of
/// anything, and together they are what the whole text is, unless they say the same thing twice.
///
/// `None`: it is not so, or can't be seen so easily; then the whole tells what it is.
fn parse_cut<'s>(file: usize, text: &'s str, cuts: &[usize]) -> Option<Table<'s>> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(text.len()));
    let parts: Vec<Range<usize>> = starts.zip(ends).map(|(start, end)| start..end).collect();
    let tables = each(&parts, |part| parse_part(file, text, part.clone()));
    let mut tables = tables.into_iter();
    let first = tables.next()??;
    tables.try_fold(first, |whole, part| join_parts(text, whole, part?))
}

/// `None`: both say something of the same key, other than that different tables stand below it.
fn join_parts<'s>(text: &str, mut whole: Table<'s>, part: Table<'s>) -> Option<Table<'s>> {
    for (name, new) in part.0 {
        match whole.0.binary_search_by(|(old, _)| old.cmp(&name)) {
            Err(place) => whole.0.insert(place, (name, new)),
            Ok(place) => join_headed(text, &mut whole.0[place].1, new)?,
        }
    }
    Some(whole)
}

/// Adds what stands below a table's name in a later part, if at most one of the two is the table's own header.
fn join_headed<'s>(text: &str, old: &mut Entry<'s>, new: Entry<'s>) -> Option<()> {
    let is_own = match (header(text, old)?, header(text, &new)?) {
        (Header::Own, Header::Own) => return None,
        (_, new) => new == Header::Own,
    };
    let (Data::Table(below), Data::Table(more)) = (&mut old.value.data, new.value.data) else {
        return None;
    };
    below.0.extend(more.0);
    below.0.sort_by(|(one, _), (other, _)| one.cmp(other));
    if is_own {
        (old.key, old.value.span) = (new.key, new.value.span);
    }
    let has_repeats = below.0.windows(2).any(|pair| pair[0].0 == pair[1].0);
    (!has_repeats).then_some(())
}

/// The header that a name of the top stands in.
#[derive(PartialEq)]
enum Header {
    /// `[name]`
    Own,
    /// `[name.below]`
    Below,
}

/// `None`: it stands in no header.
fn header(text: &str, entry: &Entry) -> Option<Header> {
    let (key, value) = (entry.key, entry.value.span);
    // The span of a table without a header of its own is the name's.
    let is_in_header = text[..key.bytes().start]
        .trim_end_matches([' ', '\t'])
        .ends_with('[');
    match value == key {
        true => is_in_header.then_some(Header::Below),
        false => text[value.bytes().start..]
            .starts_with('[')
            .then_some(Header::Own),
    }
}

fn parse_part(file: usize, text: &str, part: Range<usize>) -> Option<Table<'_>> {
    let places = Places {
        file,
        start: part.start,
    };
    let (table, errors) = DeTable::parse_recoverable(&text[part]);
    errors.is_empty().then(|| places.table(table.into_inner()))
}

fn parse_whole<'s>(file: usize, source: &'s Source, report: &mut Report) -> Option<Table<'s>> {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    let mut is_toml = true;
    let mut last = None;
    for error in errors {
        let end = source.text.len();
        let span = Span::new(file, error.span().unwrap_or(end..end));
        if error.message() == "duplicate key" {
            // The tree stays right, so that the rest can be checked too.
            report_duplicate(source, span, report);
            continue;
        }
        is_toml = false;
        // What follows on the same line is mostly an echo of the first error.
        let is_echo = last.is_some_and(|last| is_one_line(&source.text, last, span.bytes().start));
        if !is_echo {
            report.error(span, format!("this is not TOML: {}", error.message()));
        }
        last = Some(span.bytes().start);
    }
    is_toml.then(|| Places { file, start: 0 }.table(table.into_inner()))
}

fn is_one_line(text: &str, one: usize, other: usize) -> bool {
    let between = text.as_bytes().get(one.min(other)..one.max(other));
    between.is_some_and(|between| !between.contains(&b'\n'))
}

/// A file that holds nothing is one that somebody is writing just now, or has cut off. A drop-in may be all comments.
fn refuse_empty(file: usize, source: &Source, table: &Table, report: &mut Report) {
    let is_main = file == 0;
    if source.text.trim().is_empty() || is_main && table.0.is_empty() {
        let message = match is_main {
            true => "the file is empty: no table and no key stands in it",
            false => "the drop-in is empty",
        };
        let help = match is_main {
            true => "to take everything away that dpd has put on this host, run `dpd cleanup`",
            false => "remove it, or put a comment into it",
        };
        report.error(Span::new(file, 0..0), message).help(help);
    }
}

fn report_duplicate(source: &Source, span: Span, report: &mut Report) {
    let text = &source.text;
    let name = text.get(span.bytes()).unwrap_or_default();
    let is_told = !report.is_full();
    let finding = report.error(span, format!("`{name}` is given twice"));
    finding.help("keep one of the two, or give one of them another name");
    if !is_told {
        return;
    }
    if let Some(first) = first_line_like(text, span.bytes().start) {
        finding.note(Span::new(span.file(), first), "first given here");
    }
}

/// The nearest line above that begins with the same key or header as the line of `at`.
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

/// What a line says before its value: `key` of `key = 1`, `[table` of `[table]`.
fn opening(line: &str) -> &str {
    &line[..line.find(['=', ']', '\n']).unwrap_or(line.len())]
}

/// Makes the parser's values ours, with their places.
#[derive(Clone, Copy)]
struct Places {
    file: usize,
    /// Where in the file the parsed text begins.
    start: usize,
}

impl Places {
    fn span(self, bytes: Range<usize>) -> Span {
        Span::new(self.file, self.start + bytes.start..self.start + bytes.end)
    }

    fn table(self, table: DeTable<'_>) -> Table<'_> {
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

/// Of two entries of the same name only tables can be joined.
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
                .help("files join their tables, but a key has one place: take one out");
        }
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the whole text is, if it is right.
    fn whole(text: &str) -> Option<String> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let places = Places { file: 3, start: 0 };
        errors
            .is_empty()
            .then(|| format!("{:?}", places.table(table.into_inner())))
    }

    /// How often a text, cut at each choice of lines that look like headers, was put together again. It must then be what the whole is.
    fn joined(text: &str) -> usize {
        let lines: Vec<usize> = text.match_indices("\n[").map(|(at, _)| at + 1).collect();
        let choices = 1..1 << lines.len();
        let join = |choice: &usize| {
            let chosen = lines.iter().enumerate();
            let chosen = chosen.filter(|(nth, _)| choice >> nth & 1 == 1);
            let cuts: Vec<usize> = chosen.map(|(_, cut)| *cut).collect();
            let joined = parse_cut(3, text, &cuts).map(|table| format!("{table:?}"));
            if joined.is_some() {
                assert_eq!(joined, whole(text), "{text:?} cut at {cuts:?}");
            }
            joined.is_some()
        };
        choices.filter(join).count()
    }

    #[test]
    fn parts_are_what_the_whole_is() {
        let texts = [
            "[a]\nx = 1\n[b]\ny = 2\n",
            "x = 1\ny.z = \"2\"\n\n[b.c]\nl = [1, { d = 1.5 }]\n[b]\n[a]\nwhen = 1979-05-27\n",
            "[c.d]\nx = 1\n[a]\n[\"b\"]\r\n'x y' = 'z'\r\n",
            "[a.x]\n[b]\n[a.y]\n[b.z]\n[a.w.v]\n[c]\n[a.u]\nx = { y = 1 }\n",
            "[a.x]\n[b]\n[a]\nz = 1\n[c]\n[a.y]\n",
            "[a]\nz = 1\n[b]\n[a.x]\n[a.y]\n",
            "[ a . x ]\n[b]\n[ a.y]\n[\"a\".z]\n",
            "[a.x]\n[[a.y]]\n[a.\"z\"]\n",
        ];
        for text in texts {
            let choices = (1 << text.matches("\n[").count()) - 1;
            assert_eq!(joined(text), choices, "{text:?} is put together always");
        }
    }

    #[test]
    fn what_parts_can_not_tell_is_left_to_the_whole() {
        let texts = [
            ("a string of lines", "[a]\nx = \"\"\"\n[b]\n\"\"\"\n"),
            (
                "a string of lines that hold one",
                "[a]\nx = \"\"\"\n[b]\ny = '\"\"\"'\n",
            ),
            ("a list of lists", "x = [\n[1],\n[2]\n]\n"),
            ("a table that is given twice", "[a]\n[b]\n[a]\n"),
            ("one below that is given twice", "[a.b]\n[a.b]\n"),
            ("one that goes on", "[a.b]\n[a.b.c]\n"),
            ("a list of tables that goes on", "[[a]]\n[[a]]\n"),
            ("a table in the last of a list", "[[a]]\n[a.b]\n"),
            ("a list that is a table too", "[a.b]\n[[a]]\n"),
            ("a key that is a table too", "a = 1\n[a]\n"),
            ("a dotted key that is a table too", "a.b = 1\n[a.c]\n"),
            ("one behind a bracket", "# see [\na.b = 1\n[a]\n"),
            ("an inline table that is a table too", "a = {}\n[a.c]\n"),
            ("a list of values that is a table too", "a = [1]\n[a.c]\n"),
            ("a key below that is a table too", "[a]\nb = 1\n[a.b]\n"),
            ("a part of nonsense", "[a]\n[b]\nx =\n"),
            ("a header of nonsense", "[a]\n[b\n"),
        ];
        for (what, text) in texts {
            let last = text.rfind("\n[").unwrap() + 1;
            assert!(parse_cut(0, text, &[last]).is_none(), "{what}");
            joined(text);
        }
    }

    #[test]
    fn a_large_text_is_parsed_in_parts() {
        let text = "[a.x]\ny = 1\n".to_owned();
        assert!(parse_parts(3, &text).is_none(), "a small one is not");
        let names = (0..10_000).map(|name| format!("[section.name{name}]\nkey = {name}\n"));
        let text = text + &names.collect::<String>();
        let parts = parse_parts(3, &text).map(|table| format!("{table:?}"));
        assert!(parts.is_some() && parts == whole(&text));
    }
}
