//! Every mistake in a file has its own message, with location and help, and all of them are reported at once.

mod files;
mod identities;
mod interfaces;
mod keys;
mod policies;
mod remote;
mod report;
mod services;
mod settings;
mod syntax;

use std::path::PathBuf;

use dpd::config::{Problem, Problems, Severity, Source, parse};

/// A name, a file, and its problems: `line:first..after-last column message [notes] (help)`.
type Row = (&'static str, &'static str, &'static [&'static str]);

fn check(rows: &[Row]) {
    for (name, file, expected) in rows {
        let problems = problems_of(file);
        let found: Vec<_> = problems.0.iter().map(brief).collect();
        assert_eq!(found, *expected, "{name}:\n{file}\n{problems}");
        assert!(problems.error_count() > 0, "{name}: {problems}");
    }
}

fn problems_of(file: &str) -> Problems {
    match parse(vec![source("dpd.toml", file)]) {
        Ok(config) => panic!("this file is accepted:\n{file}\nas {config:?}"),
        Err(problems) => problems,
    }
}

/// The file of a row starts on the line after its quote.
fn source(path: &str, text: &str) -> Source {
    Source {
        path: PathBuf::from(path),
        text: text.strip_prefix('\n').unwrap_or(text).to_owned(),
    }
}

fn brief(problem: &Problem) -> String {
    let mut text = String::new();
    if let Some(location) = &problem.excerpt {
        let (line, column) = (location.line, location.column);
        text += &format!("{line}:{column}..{} ", column + location.mark.len());
    }
    if problem.severity == Severity::Warning {
        text += "warning: ";
    }
    text += &problem.message;
    for note in &problem.notes {
        let (line, column) = (note.excerpt.line, note.excerpt.column);
        text += &format!(" [{line}:{column} {}]", note.message);
    }
    if let Some(help) = &problem.help {
        text += &format!(" ({help})");
    }
    text
}
