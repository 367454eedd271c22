//! Collects the findings of all checks, so that every problem is reported at once.

use super::printable::printable;
use super::problem::{Note, Problem, Severity};
use super::source::{Files, Span};
use super::wrong::Wrong;

/// The most errors that are reported, and the most warnings: a file may have millions.
const FINDINGS_MAX: usize = 1000;

/// The findings so far.
#[derive(Default)]
pub(super) struct Report {
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

    /// Whether another error would not be reported, so that costly details of it are not needed.
    pub fn is_full(&self) -> bool {
        self.errors >= FINDINGS_MAX
    }

    /// Adds the findings of another report.
    pub fn append(&mut self, other: Report) {
        for finding in other.findings {
            self.add(finding);
        }
        self.errors += other.errors.saturating_sub(FINDINGS_MAX);
        self.warnings += other.warnings.saturating_sub(FINDINGS_MAX);
    }

    /// The problems in the order of their locations.
    pub fn into_problems(mut self, files: &Files) -> Vec<Problem> {
        self.findings.sort_by_key(|f| f.span);
        let resolve = |finding: Finding| {
            let notes = finding.notes.into_iter().map(|(span, message)| Note {
                message: printable(&message),
                file: files.source(span).path.clone(),
                excerpt: files.excerpt(span),
            });
            Problem {
                severity: finding.severity,
                message: printable(&finding.message),
                file: files.source(finding.span).path.clone(),
                excerpt: Some(files.excerpt(finding.span)),
                notes: notes.collect(),
                help: finding.help.as_deref().map(printable),
            }
        };
        let unreported = [
            (Severity::Error, "errors", self.errors),
            (Severity::Warning, "warnings", self.warnings),
        ];
        let unreported = unreported
            .into_iter()
            .filter_map(|(severity, what, found)| {
                let more = found.checked_sub(FINDINGS_MAX).filter(|more| *more > 0)?;
                Some(Problem {
                    severity,
                    message: format!("{more} more {what} are not shown"),
                    file: files.main_path(),
                    excerpt: None,
                    notes: Vec::new(),
                    help: None,
                })
            });
        let reported = self.findings.into_iter().map(resolve);
        reported.chain(unreported).collect()
    }

    fn add(&mut self, finding: Finding) -> &mut Finding {
        let found = match finding.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *found += 1;
        let is_reported = *found <= FINDINGS_MAX;
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
