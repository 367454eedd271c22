//! Problems of a file as a whole, and of its encoding.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::problem::{Excerpt, Problem, Severity};
use super::source::Source;

/// The result of reading, or the problem that prevents it.
pub type Reading<T> = Result<T, Box<Problem>>;

/// The text of a file.
///
/// # Errors
/// If it is not UTF-8.
pub(super) fn source_of(path: &Path, bytes: Vec<u8>) -> Reading<Source> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source {
            path: path.to_owned(),
            // Some editors write a byte order mark, which is no part of the first line.
            text: match text.strip_prefix('\u{feff}') {
                Some(rest) => rest.to_owned(),
                None => text,
            },
        }),
        Err(error) => Err(not_utf8(
            path,
            error.as_bytes(),
            error.utf8_error().valid_up_to(),
        )),
    }
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Box<Problem> {
    let (message, help) = match error.kind() {
        ErrorKind::NotFound => (
            "the file is missing: it is a dangling link, or was just removed".to_owned(),
            None,
        ),
        ErrorKind::PermissionDenied => (
            "this user may not read the file".to_owned(),
            Some("run as root, or give the user permission".to_owned()),
        ),
        _ => (format!("the file can't be read: {error}"), None),
    };
    problem(path, message, help)
}

fn not_utf8(path: &Path, bytes: &[u8], valid: usize) -> Box<Problem> {
    let (before, after) = bytes.split_at(valid);
    let start = before
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    let end = after
        .iter()
        .position(|b| *b == b'\n')
        .map_or(bytes.len(), |at| valid + at);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let text = String::from_utf8_lossy(&bytes[start..end]);
    let column = valid - start;
    let mark = column..column + char::REPLACEMENT_CHARACTER.len_utf8();
    let message = "the file is not UTF-8 from here on".to_owned();
    let mut problem = problem(path, message, Some("save it as UTF-8".to_owned()));
    problem.excerpt = Some(Excerpt::new(line, &text, mark));
    problem
}

pub(super) fn problem(path: &Path, message: String, help: Option<String>) -> Box<Problem> {
    Box::new(Problem {
        severity: Severity::Error,
        message,
        file: path.to_owned(),
        excerpt: None,
        notes: Vec::new(),
        help,
    })
}
