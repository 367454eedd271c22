//! The texts of a configuration, and locations in them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::checked::SourceLocation;
use super::problem::Excerpt;

/// The text of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// A range of bytes in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// Index into [`Files`].
    file: u32,
    start: u32,
    end: u32,
}

impl Span {
    pub fn new(file: usize, bytes: Range<usize>) -> Self {
        // There are very many spans.
        Span {
            file: short(file),
            start: short(bytes.start),
            end: short(bytes.end),
        }
    }

    /// Index into [`Files`].
    pub fn file(self) -> usize {
        self.file as usize
    }

    pub fn bytes(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A value and its location.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located<T> {
    pub value: T,
    pub span: Span,
}

/// The sources of one configuration, the main file first, and the starts of their lines.
pub(super) struct Files<'s> {
    sources: &'s [Source],
    /// Of 32 bits: there may be as many lines as bytes.
    line_starts: Vec<Vec<u32>>,
}

impl<'s> Files<'s> {
    pub fn new(sources: &'s [Source]) -> Self {
        let line_starts = sources.iter().map(|s| line_starts(&s.text)).collect();
        Files {
            sources,
            line_starts,
        }
    }

    /// The path of the main file, which names the configuration.
    pub fn main_path(&self) -> PathBuf {
        let main = self.sources.first();
        main.map(|main| main.path.clone()).unwrap_or_default()
    }

    pub fn path(&self, file: usize) -> &'s Path {
        &self.sources[file].path
    }

    pub fn source(&self, span: Span) -> &'s Source {
        &self.sources[span.file()]
    }

    /// The file of a span, and the line that it begins in.
    pub fn location(&self, span: Span) -> SourceLocation {
        SourceLocation {
            file: self.source(span).path.clone(),
            line: self.line_index(span) + 1,
        }
    }

    /// The bytes of the line that a span begins in, without the line's end.
    pub fn line(&self, span: Span) -> Range<usize> {
        let starts = &self.line_starts[span.file()];
        let text = &self.source(span).text;
        let index = self.line_index(span);
        let start = starts[index] as usize;
        let end = starts
            .get(index + 1)
            .map_or(text.len(), |end| *end as usize);
        start..start + text[start..end].trim_end_matches(['\n', '\r']).len()
    }

    /// The line that a span begins in, with the span marked.
    pub fn excerpt(&self, span: Span) -> Excerpt {
        let line = self.line(span);
        let in_line = |byte: usize| byte.clamp(line.start, line.end) - line.start;
        Excerpt::new(
            self.location(span).line,
            &self.source(span).text[line.clone()],
            in_line(span.bytes().start)..in_line(span.bytes().end),
        )
    }

    fn line_index(&self, span: Span) -> usize {
        // The first line starts at 0, so at least one line starts at or before any byte.
        self.line_starts[span.file()].partition_point(|start| *start <= span.start) - 1
    }
}

fn line_starts(text: &str) -> Vec<u32> {
    let newlines = || text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    let mut starts = Vec::with_capacity(newlines().count() + 1);
    starts.push(0);
    starts.extend(newlines().map(|(at, _)| short(at + 1)));
    starts
}

/// Files are smaller than 4 GiB.
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
