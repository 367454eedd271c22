//! Text of the file in messages: on a terminal and in the journal, as it is.

/// Characters that are invisible on a terminal, or change how others are shown: controls, joiners, direction marks.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text with its invisible characters escaped.
pub(super) fn printable(text: &str) -> String {
    let escape = |c: char| match is_invisible(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}
