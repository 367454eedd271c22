//! Parses a large file in parallel: `parse` is the only entry.
//!
//! The reason: parsing is the longest step of a reload of the large file of docs/performance.md. Parsed in one piece, a change of
//! one line takes 40 to 100 ms longer, and without tables staged early it misses the aim of 400 ms.
//!
//! 1. The text is cut before lines that look like headers of other tables (`cuts`).
//! 2. The parts are parsed on all CPUs.
//! 3. The trees are joined (`join_parts`). Whenever the result could differ from that of the whole text, it is discarded, and
//!    the caller parses the whole.

use std::ops::Range;

use toml::de::DeTable;

use super::toml_tree::Converter;
use super::tree::{Data, Entry, Table};
use crate::parallel::each;

/// Parses a large text in parts, in parallel.
///
/// `None`: the text is small, has a part larger than `part_max`, has errors, or is not known to mean the same in parts.
/// Then it has to be parsed as a whole, which also finds the errors.
pub(super) fn parse(file: usize, text: &str, part_max: usize) -> Option<Table<'_>> {
    let cuts = cuts(PART, text);
    let ends = cuts.iter().copied().chain([text.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let mut sizes = starts.zip(ends).map(|(start, end)| end - start);
    let is_fine = !cuts.is_empty() && sizes.all(|size| size <= part_max);
    is_fine.then(|| parse_cut(file, text, &cuts))?
}

/// Parses a text that is cut before lines which look like headers.
///
/// If every part is valid TOML, no cut is inside a value, and the parts together are the whole text, unless two of them define
/// the same key. `None`: a part is invalid, or two parts share a key in a way that is not obviously right.
fn parse_cut<'s>(file: usize, text: &'s str, cuts: &[usize]) -> Option<Table<'s>> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(text.len()));
    let parts: Vec<Range<usize>> = starts.zip(ends).map(|(start, end)| start..end).collect();
    let tables = each(&parts, |part| parse_part(file, text, part.clone()));
    let mut tables = tables.into_iter();
    let first = tables.next()??;
    tables.try_fold(first, |whole, part| join_parts(text, whole, part?))
}

/// `None`: both define the same key, and not just different tables below it.
fn join_parts<'s>(text: &str, mut whole: Table<'s>, part: Table<'s>) -> Option<Table<'s>> {
    for (name, new) in part.0 {
        match whole.0.binary_search_by(|(old, _)| old.cmp(&name)) {
            Err(place) => whole.0.insert(place, (name, new)),
            Ok(place) => join_headed(text, &mut whole.0[place].1, new)?,
        }
    }
    Some(whole)
}

/// Adds the tables below a table's name in a later part, if at most one of the two parts has the table's own header.
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

/// The header that a top-level name is in.
#[derive(PartialEq)]
enum Header {
    /// `[name]`
    Own,
    /// `[name.below]`
    Below,
}

/// `None`: it is in no header.
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
    let converter = Converter {
        file,
        start: part.start,
    };
    let table = DeTable::parse(&text[part]).ok()?; // the first error is enough
    Some(converter.table(table.into_inner()))
}

/// The approximate size of a part in bytes: its tree fits into a CPU cache. A text that is not much larger gains nothing from
/// more threads.
const PART: usize = 128 << 10;

/// The starts of the second part and the later ones: each at the header of another table than the header before, so that
/// `[policies.web]` and `[[policies.web.ingress]]` are never separated. A line that looks like a header may be part of a string.
fn cuts(part: usize, text: &str) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut last = text.starts_with('[').then_some(text);
    let mut due = part;
    for (newline, _) in text.match_indices("\n[") {
        let header = newline + 1;
        let before = last.replace(&text[header..]);
        let is_other = before.is_none_or(|before| name(before) != name(&text[header..]));
        if header >= due && is_other {
            cuts.push(header);
            due = header + part;
        }
    }
    cuts
}

/// The first two names of a header: `policies.web` of `[[policies.web.ingress]]`.
fn name(header: &str) -> (&str, &str) {
    let line = header.trim_start_matches('[');
    let line = line.split([']', '\n']).next().unwrap_or_default();
    let mut names = line.split('.').map(str::trim);
    let mut next = || names.next().unwrap_or_default();
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_at_the_header_of_another_table() {
        let table: &[(&str, usize, &[&str])] = &[
            ("", 1, &[]),
            ("a = 1\n", 1, &[]),
            ("a = 1\n[b]\n[c]\n", 1, &["[b]\n[c]\n", "[c]\n"]),
            ("[a]\n[b]\n[c]\n", 1, &["[b]\n[c]\n", "[c]\n"]),
            ("[a]\n[b]\n[c]\n", 5, &["[c]\n"]),
            ("[a]\n[b]\n[c]\n", 9, &[]),
            (
                "[a.b]\n[a.b.c]\n[[a.b.d]]\n[ a . c ]\n",
                1,
                &["[ a . c ]\n"],
            ),
            ("[a.b]\n x = 'ö'\n[a]\n", 10, &["[a]\n"]),
            (" [a]\n [b]\n", 1, &[]),
        ];
        for (text, part, expected) in table {
            let cuts = cuts(*part, text);
            let cuts: Vec<&str> = cuts.into_iter().map(|cut| &text[cut..]).collect();
            assert_eq!(cuts, *expected, "{text:?} by {part}");
        }
    }

    #[test]
    fn parts_are_about_as_long_as_each_other() {
        let text = "[section.table]\nkey = 1\n[section.other]\nkey = 2\n".repeat(100);
        let cuts = cuts(1000, &text);
        assert!(cuts.len() >= text.len() / 1050, "{cuts:?}");
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        for (start, end) in starts.zip(&cuts) {
            assert!((1000..1050).contains(&(end - start)), "{start} to {end}");
        }
    }

    #[test]
    fn a_text_that_can_not_be_cut_stays_whole() {
        assert!(cuts(PART, "\n[a]\n[b]\n").is_empty(), "a small text");
        let one_table = "[a.b]\nx = 1\n".repeat(100);
        assert!(cuts(100, &one_table).is_empty());
        let one_late = format!("{}\n[a]\n", "# words\n".repeat(100));
        assert_eq!(cuts(100, &one_late).len(), 1);
    }

    /// The tree of the whole text, if it is valid.
    fn whole(text: &str) -> Option<String> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let converter = Converter { file: 3, start: 0 };
        errors
            .is_empty()
            .then(|| format!("{:?}", converter.table(table.into_inner())))
    }

    /// The number of choices of cuts at lines that look like headers for which the parts could be joined. The result must then equal
    /// the whole.
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
    fn joined_parts_equal_the_whole() {
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
            assert_eq!(joined(text), choices, "{text:?} is always joined");
        }
    }

    #[test]
    fn ambiguous_parts_are_left_to_the_whole() {
        let texts = [
            ("a multi-line string", "[a]\nx = \"\"\"\n[b]\n\"\"\"\n"),
            (
                "a multi-line string that contains one",
                "[a]\nx = \"\"\"\n[b]\ny = '\"\"\"'\n",
            ),
            ("a list of lists", "x = [\n[1],\n[2]\n]\n"),
            ("a table that is given twice", "[a]\n[b]\n[a]\n"),
            ("a table below that is given twice", "[a.b]\n[a.b]\n"),
            ("a table that continues", "[a.b]\n[a.b.c]\n"),
            ("a list of tables that continues", "[[a]]\n[[a]]\n"),
            ("a table in the last of a list", "[[a]]\n[a.b]\n"),
            ("a list that is a table too", "[a.b]\n[[a]]\n"),
            ("a key that is a table too", "a = 1\n[a]\n"),
            ("a dotted key that is a table too", "a.b = 1\n[a.c]\n"),
            ("a dotted key after a bracket", "# see [\na.b = 1\n[a]\n"),
            ("an inline table that is a table too", "a = {}\n[a.c]\n"),
            ("a list of values that is a table too", "a = [1]\n[a.c]\n"),
            ("a key below that is a table too", "[a]\nb = 1\n[a.b]\n"),
            ("an invalid part", "[a]\n[b]\nx =\n"),
            ("an invalid header", "[a]\n[b\n"),
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
        assert!(parse(3, &text, usize::MAX).is_none(), "a small one is not");
        let names = (0..10_000).map(|name| format!("[section.name{name}]\nkey = {name}\n"));
        let text = text + &names.collect::<String>();
        let parts = parse(3, &text, usize::MAX).map(|table| format!("{table:?}"));
        assert!(parts.is_some() && parts == whole(&text));
    }
}
