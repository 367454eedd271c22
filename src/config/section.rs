//! Where a large text can be cut into parts that are parsed at the same time.

/// Bytes below which a text is parsed as quickly in one piece.
const LARGE: usize = 128 << 10;
/// Cuts of one text. Whoever mixes the sections of a file more than this is not helped by threads.
const CUTS_MAX: usize = 16;

/// Where the headers' first word becomes another: `[services.a]` behind `[identities.z]`. What looks like a header may turn
/// out to be a line of a string. None: the text is to be taken whole.
pub(super) fn cuts(text: &str) -> Vec<usize> {
    match text.len() < LARGE {
        true => Vec::new(),
        false => all_cuts(text),
    }
}

fn all_cuts(text: &str) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut section = match text.starts_with('[') {
        true => first_word(text),
        false => "",
    };
    for (newline, _) in text.match_indices("\n[") {
        let header = newline + 1;
        let found = first_word(&text[header..]);
        if found == section {
            continue;
        }
        if cuts.len() == CUTS_MAX {
            return Vec::new();
        }
        section = found;
        cuts.push(header);
    }
    cuts
}

/// `services` of `[services.web]` and of `[[services]]`.
fn first_word(header: &str) -> &str {
    let header = header.trim_start_matches('[');
    let end = header.find(['.', ']', '\n']).unwrap_or(header.len());
    header[..end].trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_begins_with_another_section() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("a = 1\n", &[]),
            ("x = 1\n[a]\nx = 1\n[a.b]\n", &["[a]\nx = 1\n[a.b]\n"]),
            ("[a]\nx = 1\n[a.b]\n[b]\n", &["[b]\n"]),
            ("a = 1\n[b]\n[c]\n", &["[b]\n[c]\n", "[c]\n"]),
            ("# words\n\n[ a . b ]\n[a]\n", &["[ a . b ]\n[a]\n"]),
            (
                "\n[[a]]\nx = 1\n[[a]]\n[b]",
                &["[[a]]\nx = 1\n[[a]]\n[b]", "[b]"],
            ),
            (" [a]\n [b]\n", &[]),
        ];
        for (text, expected) in table {
            let cuts: Vec<&str> = all_cuts(text).into_iter().map(|cut| &text[cut..]).collect();
            assert_eq!(cuts, *expected, "{text:?}");
        }
    }

    #[test]
    fn small_and_mixed_texts_stay_whole() {
        assert!(cuts("\n[a]\n[b]\n").is_empty());
        assert!(all_cuts(&"\n[a]\n[b]".repeat(CUTS_MAX)).is_empty());
    }
}
