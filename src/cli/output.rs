//! Tables and JSON on stdout.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::observe::line::printable;

/// The output format of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// The options of every listing.
#[derive(Clone, Copy, Debug, Args)]
pub struct Listing {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// A row of a listing: an object in JSON, cells in the table.
pub trait Row: Serialize {
    const HEADER: &[&str];

    /// The row's lines in the table, each as long as the header.
    fn lines(&self) -> Vec<Vec<String>>;
}

/// The whole listing as text.
pub fn render<R: Row>(format: Format, rows: &[R]) -> Result<String> {
    match format {
        Format::Table => Ok(table(R::HEADER, rows.iter().flat_map(Row::lines))),
        Format::Json => json(&rows),
    }
}

/// Aligned columns, separated by two spaces, without trailing spaces. A hundred thousand lines take a moment.
pub fn table(header: &[&str], lines: impl IntoIterator<Item = Vec<String>>) -> String {
    let header = header.iter().map(|word| (*word).to_owned()).collect();
    let cell = |cell: String| match cell.as_str() {
        "" => "-".to_owned(),
        text => match printable(text) {
            Cow::Borrowed(_) => cell,
            Cow::Owned(escaped) => escaped,
        },
    };
    let lines = lines.into_iter();
    let lines = lines.map(|cells| cells.into_iter().map(cell).collect());
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(lines).collect();
    let mut widths = vec![0; lines[0].len()];
    for cells in &lines {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.width().max(*width);
        }
    }
    let mut table = String::new();
    for cells in &lines {
        for (width, cell) in widths.iter().zip(cells) {
            table.push_str(cell);
            let space = width + 2 - cell.width();
            table.extend(std::iter::repeat_n(' ', space));
        }
        table.truncate(table.trim_end().len());
        table.push('\n');
    }
    table
}

/// Indented, for reading.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value).context("write JSON")?;
    Ok(text + "\n")
}

/// Writes to stdout.
///
/// # Errors
/// See [`is_broken_pipe`] for a reader that has closed it.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("write to stdout")
}

/// Whether the error means that the reader of stdout has closed it.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// A span of time in its two largest units.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0 if !duration.is_zero() => format!("{}ms", duration.as_millis()),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A number of bytes in a readable unit.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut rest = bytes as f64 / 1024.0;
    if rest < 1.0 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    while rest >= 1023.95 && unit + 1 < UNITS.len() {
        rest /= 1024.0;
        unit += 1;
    }
    format!("{rest:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let rows = [
            (0, "0s"),
            (1, "1ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (59_999, "59s"),
            (60_000, "1m00s"),
            (3_599_000, "59m59s"),
            (8_000_000, "2h13m"),
            (86_400_000, "1d00h"),
            (900_000_000, "10d10h"),
        ];
        for (milliseconds, text) in rows {
            assert_eq!(span(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn sizes() {
        let rows = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (100 << 20, "100.0 MiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (5 << 39, "2.5 TiB"),
            (4096 << 40, "4096.0 TiB"),
        ];
        for (bytes, text) in rows {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_table_is_aligned_plain_and_safe() {
        let lines = [["a", "", "1"], ["long name", "x\ny", "2"]];
        let lines = lines.map(|cells| cells.map(str::to_owned).to_vec());
        assert_eq!(
            table(&["NAME", "WHAT", "N"], lines),
            "NAME       WHAT  N\na          -     1\nlong name  x\\ny  2\n"
        );
        assert_eq!(table(&["NAME", "N"], []), "NAME  N\n");
    }
}
