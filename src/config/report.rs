//! Collects the findings of all checks, so that every problem is reported at once.

use super::printable::printable;
use super::problem::{Note, Problem, Severity};
use super::source::{Files, Span};
use super::wrong::Wrong;

/// The most errors that are reported, and the most warnings: a file may have millions.
const FINDINGS_MAX: usize = 1000;

/// The findings so far.
pub(super) struct Report {
    /// The most errors, and the most warnings, that are kept.
    max: usize,
    findings: Vec<Finding>,
    errors: usize,
    warnings: usize,
    /// Takes the details of a finding beyond the limit, which are not reported.
    excess: Option<Finding>,
}

/// A problem whose locations are still spans.
pub(super) struct Finding {
    severity: Severity,
    span: Span,
    message: String,
    notes: Vec<(Span, String)>,
    help: Option<String>,
}

impl Default for Report {
    fn default() -> Report {
        Report::with_max(FINDINGS_MAX)
    }
}

impl Report {
    /// Keeps so many errors, and so many warnings.
    pub fn with_max(max: usize) -> Report {
        Report {
            max,
            findings: Vec::new(),
            errors: 0,
            warnings: 0,
            excess: None,
        }
    }

    /// An empty one with the same limit, whose findings are to be appended to this one.
    pub fn part(&self) -> Report {
        Report::with_max(self.max)
    }

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

    /// Whether another error would not be reported, so that costly details of it are not needed.
    pub fn is_full(&self) -> bool {
        self.errors >= self.max
    }

    /// Adds the findings of another report.
    pub fn append(&mut self, other: Report) {
        for finding in other.findings {
            self.add(finding);
        }
        self.errors += other.errors.saturating_sub(other.max);
        self.warnings += other.warnings.saturating_sub(other.max);
    }

    /// The problems in the order of their locations.
    pub fn into_problems(mut self, files: &Files) -> Vec<Problem> {
        self.findings.sort_by_key(|f| f.span);
        let unreported = [
            (Severity::Error, "errors", self.errors),
            (Severity::Warning, "warnings", self.warnings),
        ];
        let unreported = unreported
            .into_iter()
            .filter_map(|(severity, what, found)| {
                let more = found.checked_sub(self.max).filter(|more| *more > 0)?;
                Some(Problem {
                    severity,
                    message: format!("{more} more {what} are not shown"),
                    file: files.main_path(),
                    excerpt: None,
                    notes: Vec::new(),
                    help: None,
                })
            });
        let reported = self
            .findings
            .into_iter()
            .map(|finding| finding.resolve(files));
        reported.chain(unreported).collect()
    }

    /// The errors that are kept.
    pub fn into_errors(self) -> impl Iterator<Item = Finding> {
        let findings = self.findings.into_iter();
        findings.filter(|finding| finding.severity == Severity::Error)
    }

    fn add(&mut self, finding: Finding) -> &mut Finding {
        let found = match finding.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *found += 1;
        let is_reported = *found <= self.max;
        if !is_reported {
            return self.excess.insert(finding);
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

    /// All its locations.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        let notes = self.notes.iter().map(|(span, _)| *span);
        std::iter::once(self.span).chain(notes)
    }

    /// With the lines of its locations.
    pub fn resolve(self, files: &Files) -> Problem {
        let notes = self.notes.into_iter().map(|(span, message)| Note {
            message: printable(&message),
            file: files.source(span).path.clone(),
            excerpt: files.excerpt(span),
        });
        Problem {
            severity: self.severity,
            message: printable(&self.message),
            file: files.source(self.span).path.clone(),
            excerpt: Some(files.excerpt(self.span)),
            notes: notes.collect(),
            help: self.help.as_deref().map(printable),
        }
    }

    /// What the user can do about it.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// A related location.
    pub fn note(&mut self, span: Span, message: impl Into<String>) -> &mut Self {
        self.notes.push((span, message.into()));
        self
    }
}
