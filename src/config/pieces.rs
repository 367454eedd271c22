//! Checks the syntax of a large file piece by piece, so that its errors take little memory.
//!
//! The TOML parser needs 50 times the memory of a text, and several hundred times that of a text that is all errors. Here a text is
//! cut between statements (a header, or a key with its value), which are parsed in pieces. One error of a piece is enough to refuse the
//! file, so the whole is only parsed if every piece is valid.

use std::ops::Range;

use toml::de::DeTable;
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use super::report::Report;
use super::source::Span;

/// Texts up to this size are parsed in one piece.
pub(super) const SMALL: usize = 256 << 10;
/// Of a larger piece, which is one statement, only the first error is found.
const ALL_ERRORS_MAX: usize = 1 << 20;
/// The most tokens of a statement, and of a text that can't be parsed in parts: one for each three bytes. A token takes 50 bytes of
/// memory and more; a list of addresses has one for each 3.5 bytes.
const TOKEN_BYTES: usize = 3;
/// Fewer tokens are always fine.
const TOKENS_MIN: usize = 512 << 10;

/// What is wrong with the structure of a piece may be right in the whole: a table that continues one of an earlier piece.
const STRUCTURE: [&str; 2] = ["duplicate key", "cannot extend value of type"];

/// Reports the syntax errors of a text; returns whether there are none.
pub(super) fn check(file: usize, text: &str, report: &mut Report) -> bool {
    let pieces = match cut(text) {
        Ok(pieces) => pieces,
        Err(at) => {
            refuse(file, at, text, report);
            return false;
        }
    };
    let mut is_valid = true;
    for piece in pieces {
        for (at, message) in errors(text, piece) {
            is_valid = false;
            report.error(Span::new(file, at), format!("this is not TOML: {message}"));
        }
        if report.is_full() {
            break;
        }
    }
    is_valid
}

/// Whether a text without syntax errors may be parsed as a whole; if not, this is reported.
pub(super) fn check_size(file: usize, text: &str, report: &mut Report) -> bool {
    let is_fine = Source::new(text).lex().nth(limit(text)).is_none();
    if !is_fine {
        refuse(file, 0..0, text, report);
    }
    is_fine
}

fn refuse(file: usize, at: Range<usize>, text: &str, report: &mut Report) {
    let most = limit(text);
    let message = format!(
        "from here on are more than {most} names, values and separators: this is not a configuration"
    );
    let finding = report.error(Span::new(file, at), message);
    finding.help("a configuration has at least 3 bytes for each; long lists can be split into several tables");
}

fn limit(text: &str) -> usize {
    (text.len() / TOKEN_BYTES).max(TOKENS_MIN)
}

/// The pieces of a text, each of whole statements. The error is the start of a statement with too many tokens.
fn cut(text: &str) -> Result<Vec<Range<usize>>, Range<usize>> {
    let limit = limit(text);
    let mut pieces = Vec::new();
    let (mut piece, mut statement) = (0, 0);
    let (mut depth, mut tokens, mut is_header) = (0_usize, 0, false);
    for token in Source::new(text).lex() {
        if tokens == 0 {
            is_header = token.kind() == TokenKind::LeftSquareBracket;
        }
        tokens += 1;
        if tokens > limit {
            return Err(statement..statement);
        }
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => depth += 1,
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                depth = depth.saturating_sub(1);
            }
            TokenKind::Newline if depth == 0 || is_header => {
                statement = token.span().end();
                (depth, tokens) = (0, 0);
                if statement - piece >= SMALL {
                    pieces.push(piece..statement);
                    piece = statement;
                }
            }
            _ => {}
        }
    }
    pieces.push(piece..text.len());
    Ok(pieces)
}

/// The syntax errors of a piece, one for each line.
fn errors(text: &str, piece: Range<usize>) -> Vec<(Range<usize>, String)> {
    let start = piece.start;
    let found = match piece.len() > ALL_ERRORS_MAX {
        true => DeTable::parse(&text[piece.clone()])
            .err()
            .into_iter()
            .collect(),
        false => DeTable::parse_recoverable(&text[piece.clone()]).1,
    };
    let mut errors: Vec<(Range<usize>, String)> = Vec::new();
    for error in found {
        let message = error.message();
        if STRUCTURE.iter().any(|start| message.starts_with(start)) {
            continue;
        }
        let at = error
            .span()
            .map_or(piece.end..piece.end, |at| start + at.start..start + at.end);
        let is_consequence = errors.last().is_some_and(|(last, _)| {
            let between = text
                .as_bytes()
                .get(last.start.min(at.start)..last.start.max(at.start));
            between.is_some_and(|between| !between.contains(&b'\n'))
        });
        if !is_consequence {
            errors.push((at, message.to_owned()));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> usize {
        let mut report = Report::default();
        let is_valid = check(0, text, &mut report);
        assert_eq!(is_valid, !report.has_errors());
        report.into_errors().count()
    }

    #[test]
    fn pieces_are_whole_statements() {
        let list = format!(
            "deny = [\n{}]\n",
            "  \"10.0.0.1\", # ]\n".repeat(SMALL / 10)
        );
        let string = format!("x = \"\"\"\n{}\"\"\"\n", "[a]\n".repeat(SMALL));
        let text = format!("[a]\n{list}[b]\n{string}[c]\n{list}");
        let pieces = cut(&text).unwrap();
        let starts = pieces
            .iter()
            .map(|piece| text[piece.start..].get(..3).unwrap_or_default());
        assert_eq!(Vec::from_iter(starts), ["[a]", "[b]", "[c]", ""]);
        assert_eq!(pieces.last().unwrap().end, text.len());
        assert_eq!(problems(&text), 0);
    }

    #[test]
    fn what_continues_in_a_later_piece_is_no_error() {
        let filler = format!("x = '''{}'''\n", "y".repeat(SMALL));
        let text = format!("[[a]]\n{filler}[a.b]\nx = 1\n[[a]]\n[a.b]\n[c]\n[c.d]\n");
        assert_eq!(cut(&text).unwrap().len(), 2);
        assert_eq!(problems(&text), 0);
    }

    #[test]
    fn errors_are_found_up_to_the_limit() {
        let filler = "# words\n".repeat(SMALL);
        assert_eq!(problems(&format!("x =\n{filler}[b\n{filler}y = zz z\n")), 3);
        assert_eq!(problems(&"=\n".repeat(SMALL)), 1000);
        assert_eq!(
            problems(&format!("[b\n{filler}x =\n")),
            2,
            "a header ends with its line"
        );
    }

    #[test]
    fn too_many_tokens_are_refused() {
        for text in ["[", "a=[", "a={b=", "a.", ",", "1 "] {
            let many = text.repeat(2 << 20);
            assert_eq!(problems(&many), 1, "{text}");
        }
        let mut report = Report::default();
        assert!(!check_size(0, &"a=1\n".repeat(1 << 20), &mut report));
        assert!(check_size(0, &"aaaaa=11111\n".repeat(100_000), &mut report));
    }
}
