//! Problems of a configuration, as data and as text.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::printable::{is_invisible, printable};

/// The severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration can't be used.
    Error,
    /// The configuration is valid, but perhaps not what was intended.
    Warning,
}

/// One problem, with its location and a suggestion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub message: String,
    pub file: PathBuf,
    /// `None`: the problem concerns the file as a whole.
    pub excerpt: Option<Excerpt>,
    /// Related locations.
    pub notes: Vec<Note>,
    pub help: Option<String>,
}

/// A related location of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub message: String,
    pub file: PathBuf,
    pub excerpt: Excerpt,
}

/// A line of a file with a marked part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line as it is shown: without control characters; of a long line only the surroundings of the mark.
    pub text: String,
    /// The marked part of `text`, in characters.
    pub mark: Range<usize>,
}

impl Excerpt {
    /// The most characters of a line that are shown.
    const WIDTH: usize = 120;
    /// Characters shown before the mark in a longer line.
    const LEAD: usize = 40;

    /// The excerpt for the bytes `mark` of the line `text`, whose number is `line`.
    pub fn new(line: usize, text: &str, mark: Range<usize>) -> Self {
        let chars_before = |byte| text.char_indices().take_while(|(at, _)| *at < byte).count();
        let before = chars_before(mark.start);
        let marked = chars_before(mark.end).saturating_sub(before);
        let skipped = match text.chars().count() > Self::WIDTH {
            true => before.saturating_sub(Self::LEAD),
            false => 0,
        };
        let shown = text.chars().skip(skipped).take(Self::WIDTH);
        let text: String = shown
            .map(|c| if is_invisible(c) { ' ' } else { c })
            .collect();
        let first = before - skipped;
        let room = text.chars().count().saturating_sub(first);
        Excerpt {
            line,
            column: before + 1,
            mark: first..first + marked.min(room).max(1),
            text,
        }
    }

    /// Writes the location, the line, and the mark below it with its label.
    fn fmt_block(
        &self,
        f: &mut fmt::Formatter<'_>,
        gutter: usize,
        head: &str,
        (marker, label): (char, &str),
    ) -> fmt::Result {
        let edge = " ".repeat(gutter);
        let indent = " ".repeat(self.mark.start);
        let marks = marker.to_string().repeat(self.mark.len());
        let line = format!("{:gutter$} | {}", self.line, self.text);
        let marked = format!("{edge} | {indent}{marks} {label}");
        write!(f, "\n{edge}{head}:{}:{}", self.line, self.column)?;
        write!(f, "\n{edge} |\n{}\n{}", line.trim_end(), marked.trim_end())
    }
}

/// All problems of a configuration, in the order of their locations. At least one is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// The first error in one line: its place, what is wrong, and how many more there are.
    pub fn headline(&self) -> String {
        let mut errors = self.0.iter().filter(|p| p.severity == Severity::Error);
        let first = errors.next().map(Problem::headline).unwrap_or_default();
        match errors.count() {
            0 => first,
            more => format!("{first} (and {more} more)"),
        }
    }

    /// How many problems are errors.
    pub fn error_count(&self) -> usize {
        self.count(Severity::Error)
    }

    fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|p| p.severity == severity).count()
    }
}

impl Error for Problems {}

impl fmt::Display for Problems {
    /// A block for each problem, and a line with their number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}\n")?;
        }
        let plural = |n: usize, what| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        f.write_str(&plural(self.error_count(), "error"))?;
        match self.count(Severity::Warning) {
            0 => Ok(()),
            n => write!(f, ", {}", plural(n, "warning")),
        }
    }
}

impl Problem {
    /// `config.toml:6:12: there is no identity "cleint"`
    fn headline(&self) -> String {
        let place = match &self.excerpt {
            Some(excerpt) => format!(":{}:{}", excerpt.line, excerpt.column),
            None => String::new(),
        };
        format!("{}{place}: {}", path(&self.file), self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.message)?;
        let lines = self
            .excerpt
            .iter()
            .chain(self.notes.iter().map(|n| &n.excerpt));
        let gutter = lines.map(|e| e.line.to_string().len()).max().unwrap_or(1);
        let edge = " ".repeat(gutter);
        match &self.excerpt {
            Some(excerpt) => {
                let head = format!("--> {}", path(&self.file));
                excerpt.fmt_block(f, gutter, &head, ('^', ""))?;
            }
            None => write!(f, "\n{edge}--> {}", path(&self.file))?,
        }
        for note in &self.notes {
            let head = format!("::: {}", path(&note.file));
            note.excerpt
                .fmt_block(f, gutter, &head, ('-', &note.message))?;
        }
        match &self.help {
            Some(help) => write!(f, "\n{edge} = help: {help}"),
            None => Ok(()),
        }
    }
}

/// The name of a drop-in may have any characters.
fn path(path: &Path) -> String {
    printable(&path.display().to_string())
}
