//! Markdown, as the documents use it, as text with the macros of man(7), which groff and mandoc render alike.

use std::iter::Peekable;
use std::str::Lines;

/// The first lines of a page. There is no date, so that the same source always makes the same page.
pub fn title(name: &str, section: u8, version: &str) -> String {
    let name = code(&name.to_uppercase());
    format!(".TH {name} {section} \"\" \"dpd {version}\" \"dpd\"\n")
}

pub fn heading(text: &str) -> String {
    format!(".SH {}\n", argument(text))
}

/// The line by which `apropos` finds the page.
pub fn summary(name: &str, about: &str) -> String {
    format!("{} \\- {}\n", code(name), inline(about))
}

/// A term and its explanation, both in Markdown.
pub fn tagged(term: &str, text: &str) -> String {
    format!(".TP\n{}\n{}\n", line(term), line(text))
}

/// The text below a heading.
pub fn from_markdown(text: &str) -> String {
    let mut out = String::new();
    // A heading is followed by a paragraph in any case.
    let mut paragraph = "";
    let mut lines = text.lines().peekable();
    while let Some(first) = lines.next() {
        // A comment says which test runs the commands below it.
        if first.trim().is_empty() || first.starts_with("<!--") {
            continue;
        }
        if first.starts_with("```") {
            let block = lines.by_ref().take_while(|line| !line.starts_with("```"));
            out += &format!("{paragraph}.RS 4\n.nf\n{}.fi\n.RE\n", verbatim(block));
        } else if let Some(text) = first.strip_prefix("## ") {
            out += &heading(text);
            paragraph = "";
            continue;
        } else if let Some(text) = first.strip_prefix("### ") {
            out += &format!(".SS {}\n", argument(text));
            paragraph = "";
            continue;
        } else if first.starts_with('|') {
            out += &table(first, &mut lines);
        } else if let Some(item) = first.strip_prefix("- ") {
            out += &format!(".IP \\(bu 2\n{}\n", line(&joined(item, &mut lines)));
        } else {
            out += &format!("{paragraph}{}\n", line(&joined(first, &mut lines)));
        }
        paragraph = ".PP\n";
    }
    out
}

/// A paragraph's or an item's lines as one.
fn joined(first: &str, lines: &mut Peekable<Lines<'_>>) -> String {
    let is_inside = |line: &&str| {
        let starts_another = ["- ", "|", "```", "#", "<!--"]
            .iter()
            .any(|mark| line.starts_with(mark));
        !line.trim().is_empty() && !starts_another
    };
    let mut text = first.trim().to_owned();
    while let Some(next) = lines.next_if(is_inside) {
        text = text + " " + next.trim();
    }
    text
}

fn verbatim<'a>(block: impl Iterator<Item = &'a str>) -> String {
    block.map(|line| guarded(code(line)) + "\n").collect()
}

/// Each row is a term, with the columns between the first and the last in parentheses, and the last as its explanation: that
/// fits any width of terminal.
fn table(header: &str, lines: &mut Peekable<Lines<'_>>) -> String {
    let titles = cells(header);
    let mut out = match titles[..] {
        ["key", "meaning"] => ".PP\nKeys in JSON:\n".to_owned(),
        _ => String::new(),
    };
    while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
        let row = cells(row);
        let (Some(term), Some(text)) = (row.first(), row.last()) else {
            continue;
        };
        if term.starts_with("---") {
            continue;
        }
        let between = titles.iter().zip(&row).take(row.len() - 1).skip(1);
        let between = between.filter(|(_, cell)| !cell.is_empty());
        let notes = between.map(|(title, cell)| format!(" ({title}: {cell})"));
        out += &tagged(&(term.to_string() + &notes.collect::<String>()), text);
    }
    out
}

fn cells(row: &str) -> Vec<&str> {
    let row = row.trim().trim_matches('|');
    row.split('|').map(str::trim).collect()
}

/// A line of text; never taken for a macro.
fn line(text: &str) -> String {
    guarded(inline(text))
}

fn guarded(text: String) -> String {
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// A macro's argument: a heading, whose code is not emphasised.
fn argument(text: &str) -> String {
    format!("\"{}\"", code(&text.replace('`', "")).replace('"', "\\(dq"))
}

/// Code and strong text are bold, emphasis is italic; of links the text stays.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (made, after) = if let Some((inner, after)) = enclosed(rest, "`", "`") {
            (format!("\\fB{}\\fR", code(inner)), after)
        } else if let Some((inner, after)) = enclosed(rest, "**", "**") {
            (format!("\\fB{}\\fR", inline(inner)), after)
        } else if let Some((inner, after)) = enclosed(rest, "*", "*") {
            (format!("\\fI{}\\fR", inline(inner)), after)
        } else if let Some((inner, after)) = link(rest) {
            (inline(inner), after)
        } else {
            (prose(first), &rest[first.len_utf8()..])
        };
        out += &made;
        rest = after;
    }
    out
}

/// The text between two marks at the start, and what follows.
fn enclosed<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, &'a str)> {
    let (inner, after) = text.strip_prefix(open)?.split_once(close)?;
    let is_text = !inner.is_empty() && !inner.starts_with(' ');
    is_text.then_some((inner, after))
}

/// The text of a link at the start, and what follows.
fn link(text: &str) -> Option<(&str, &str)> {
    let (inner, after) = text.strip_prefix('[')?.split_once("](")?;
    let (_, after) = after.split_once(')')?;
    (!inner.contains('[')).then_some((inner, after))
}

fn code(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '-' => "\\-".to_owned(),
            '\'' => "\\(aq".to_owned(),
            '`' => "\\(ga".to_owned(),
            other => prose(other),
        })
        .collect()
}

/// The characters that groff would replace by typographic ones, and those that are not ASCII.
fn prose(c: char) -> String {
    match c {
        '\\' => "\\(rs".to_owned(),
        '~' => "\\(ti".to_owned(),
        '^' => "\\(ha".to_owned(),
        c if c.is_ascii() => c.to_string(),
        c => format!("\\[u{:04X}]", c as u32),
    }
}

#[cfg(test)]
mod tests;
