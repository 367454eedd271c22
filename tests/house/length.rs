//! A function fits a screen: at most 60 lines. Tests are exempt, since most of them are tables.

use super::source::{Text, below, keep, product};

const LIMIT: usize = 60;

#[test]
fn a_function_has_at_most_60_lines() {
    let rust = product().flat_map(|text| functions(text, rust_name));
    let c = below("bpf/", "").flat_map(|text| functions(text, c_name));
    let functions: Vec<Function> = rust.chain(c).collect();
    assert!(functions.len() > 1000, "the functions are found");
    let long = functions.iter().filter(|function| function.lines > LIMIT);
    let sentence = |function: &Function| format!("{}, {} lines", function.name, function.lines);
    keep(
        "a function that does not fit a screen is split by its steps",
        long.map(sentence).collect(),
    );
}

#[test]
fn functions_are_measured() {
    let rust = "fn one() -> u8 { 1 }\nimpl A {\n    pub(super) const fn two(\n        &self,\n    ) -> bool {\n        {\n        }\n        true\n    }\n}\ntrait B {\n    fn none(&self);\n}\n";
    let c = "static __always_inline int\none(struct a *b)\n{\n\tif (b) {\n\t}\n\treturn 0;\n}\nstruct d {\n\tint e;\n};\nint two(void)\n{\n}\n";
    let measure = |path: &str, text: &str, name: fn(&[&str], usize) -> Option<String>| {
        let text = Text {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let found = functions(&text, name).into_iter();
        found
            .map(|function| (function.name, function.lines))
            .collect::<Vec<_>>()
    };
    let row = |name: &str, lines| (name.to_owned(), lines);
    assert_eq!(
        measure("a.rs", rust, rust_name),
        [row("a.rs: one", 1), row("a.rs: two", 7)]
    );
    assert_eq!(
        measure("a.h", c, c_name),
        [row("a.h: one", 6), row("a.h: two", 3)]
    );
}

struct Function {
    /// `path: name`
    name: String,
    lines: usize,
}

/// The functions of a file: from the line with the name to the closing brace with the same indentation.
fn functions(text: &Text, name: fn(&[&str], usize) -> Option<String>) -> Vec<Function> {
    let lines: Vec<&str> = text.code().map(|(_, line)| line).collect();
    let mut functions = Vec::new();
    for start in 0..lines.len() {
        let Some(name) = name(&lines, start) else {
            continue;
        };
        let indent = lines[start].len() - lines[start].trim_start().len();
        let end_of = |line: &&str| {
            let (margin, rest) = line.split_at_checked(indent).unwrap_or((line, ""));
            margin.trim().is_empty() && (rest.trim_end() == "}" || is_declaration(rest))
        };
        let is_one_line = ["}", ";"]
            .iter()
            .any(|end| lines[start].trim_end().ends_with(end));
        let length = match is_one_line {
            true => 1,
            false => 1 + lines[start..].iter().position(end_of).unwrap_or_default(),
        };
        let has_body = lines[start..start + length]
            .iter()
            .any(|line| line.contains('{'));
        if has_body {
            functions.push(Function {
                name: format!("{}: {name}", text.path),
                lines: length,
            });
        }
    }
    functions
}

/// The last line of a declaration without a body: `) -> bool;`
fn is_declaration(line: &str) -> bool {
    line.starts_with(')') && line.trim_end().ends_with(';')
}

fn rust_name(lines: &[&str], at: usize) -> Option<String> {
    let mut words = lines[at].split_whitespace().peekable();
    let is_qualifier =
        |word: &&str| word.starts_with("pub") || ["const", "unsafe", "extern"].contains(word);
    while words.next_if(is_qualifier).is_some() {}
    (words.next()? == "fn").then(|| identifier(words.next().unwrap_or_default()))
}

/// A name at the start of a line or after its type, with its parameters behind it and a brace in a line of its own below.
fn c_name(lines: &[&str], at: usize) -> Option<String> {
    let line = lines[at];
    let (before, _) = line.split_once('(')?;
    let starts_here = line.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut below = lines[at..].iter().take_while(|line| !line.is_empty());
    let has_body = below.any(|line| *line == "{");
    let is_statement = line.trim_end().ends_with(';') || before.contains('=');
    let name = before.rsplit([' ', '*']).next()?;
    (starts_here && has_body && !is_statement && name != "SEC").then(|| identifier(name))
}

fn identifier(text: &str) -> String {
    let is_inside = |c: &char| c.is_alphanumeric() || *c == '_';
    text.chars().take_while(is_inside).collect()
}
