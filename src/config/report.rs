//! Gathers what the checks find, so that all of it is told at once.

use super::name;
use super::problem::{Excerpt, Note, Problem, Severity};
use super::source::{Files, Span};

/// Errors that are told at once, and warnings: a file of eight million slips is to be answered too.
const FINDINGS_MAX: usize = 1000;

/// What has been found so far.
#[derive(Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    errors: usize,
    warnings: usize,
    /// What is over the bound is written here, and forgotten.
    spare: Option<Finding>,
}

/// A problem whose places are still spans.
pub(super) struct Finding {
    severity: Severity,
    span: Span,
    message: String,
    notes: Vec<(Span, String)>,
    help: Option<String>,
}

/// Why a text is no value of its kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub message: String,
    pub help: Option<String>,
}

/// The meaning of a text, or why it has none.
pub(super) type Parsed<T> = Result<T, Wrong>;

impl Wrong {
    pub fn new(message: impl Into<String>) -> Self {
        Wrong {
            message: message.into(),
            help: None,
        }
    }

    pub fn help(self, help: impl Into<String>) -> Self {
        Wrong {
            help: Some(help.into()),
            ..self
        }
    }
}

impl Report {
    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Finding {
        self.add(Finding::new(Severity::Error, span, message.into()))
    }

    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Finding {
        self.add(Finding::new(Severity::Warning, span, message.into()))
    }

    pub fn wrong(&mut self, span: Span, wrong: Wrong) -> &mut Finding {
        let finding = self.error(span, wrong.message);
        finding.help = wrong.help;
        finding
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether one error more would not be told: then nothing costly needs to be found out about it.
    pub fn is_full(&self) -> bool {
        self.errors >= FINDINGS_MAX
    }

    /// Takes over what another one has found.
    pub fn append(&mut self, other: Report) {
        for finding in other.findings {
            self.add(finding);
        }
        self.errors += other.errors.saturating_sub(FINDINGS_MAX);
        self.warnings += other.warnings.saturating_sub(FINDINGS_MAX);
    }

    /// The problems in the order of their places.
    pub fn into_problems(mut self, files: &Files) -> Vec<Problem> {
        self.findings.sort_by_key(|f| f.span);
        let resolve = |finding: Finding| {
            let notes = finding.notes.into_iter().map(|(span, message)| Note {
                message: printable(&message),
                file: files.source(span).path.clone(),
                excerpt: excerpt(files, span),
            });
            Problem {
                severity: finding.severity,
                message: printable(&finding.message),
                file: files.source(finding.span).path.clone(),
                excerpt: Some(excerpt(files, finding.span)),
                notes: notes.collect(),
                help: finding.help.as_deref().map(printable),
            }
        };
        let untold = [
            (Severity::Error, "errors", self.errors),
            (Severity::Warning, "warnings", self.warnings),
        ];
        let untold = untold.into_iter().filter_map(|(severity, what, found)| {
            let more = found.checked_sub(FINDINGS_MAX).filter(|more| *more > 0)?;
            Some(Problem {
                severity,
                message: format!("there are more {what} than are told here: {more} more"),
                file: files.main_path(),
                excerpt: None,
                notes: Vec::new(),
                help: None,
            })
        });
        let told = self.findings.into_iter().map(resolve);
        told.chain(untold).collect()
    }

    fn add(&mut self, finding: Finding) -> &mut Finding {
        let found = match finding.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *found += 1;
        let is_told = *found <= FINDINGS_MAX;
        if !is_told {
            return self.spare.insert(finding);
        }
        let index = self.findings.len();
        self.findings.push(finding);
        &mut self.findings[index]
    }
}

impl Finding {
    fn new(severity: Severity, span: Span, message: String) -> Finding {
        Finding {
            severity,
            span,
            message,
            notes: Vec::new(),
            help: None,
        }
    }

    /// What the user can do about it.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Another place that has to do with it.
    pub fn note(&mut self, span: Span, message: impl Into<String>) -> &mut Self {
        self.notes.push((span, message.into()));
        self
    }
}

/// Names of the file stand in messages, with whatever is in them.
pub(super) fn printable(text: &str) -> String {
    let escape = |c: char| match name::is_unseen(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

fn excerpt(files: &Files, span: Span) -> Excerpt {
    let line = files.line(span);
    let in_line = |byte: usize| byte.clamp(line.start, line.end) - line.start;
    Excerpt::new(
        files.location(span).line,
        &files.source(span).text[line.clone()],
        in_line(span.bytes().start)..in_line(span.bytes().end),
    )
}

/// Candidates that are looked at for one name: a file of ten thousand slips is to be answered too.
const SUGGESTIONS_MAX: usize = 1000;

/// The candidate that `name` was probably meant to be.
pub(super) fn suggest<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let name = name.to_lowercase();
    let allowed = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .take(SUGGESTIONS_MAX)
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= 4 * allowed)
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The help line for a name that nothing has.
pub(super) fn did_you_mean<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    suggest(name, candidates).map(|near| format!("did you mean `{near}`?"))
}
