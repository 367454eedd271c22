//! Where a large text can be cut into parts that are parsed at the same time.

/// Bytes of a part, about: what the parser makes of it fits into a cache, and a text that is not much larger is parsed as quickly
/// in one piece.
const PART: usize = 128 << 10;

/// Where the second part begins, and those behind it: each at the header of another table than the one before, so that what
/// belongs together is not cut, as `[policies.web]` and `[[policies.web.ingress]]`. What looks like a header may turn out to
/// be a line of a string. None: the text is to be taken whole.
pub(super) fn cuts(text: &str) -> Vec<usize> {
    cuts_by(PART, text)
}

fn cuts_by(part: usize, text: &str) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut last = text.starts_with('[').then_some(text);
    let mut due = part;
    for (newline, _) in text.match_indices("\n[") {
        let header = newline + 1;
        let before = last.replace(&text[header..]);
        let is_other = before.is_none_or(|before| name(before) != name(&text[header..]));
        if header >= due && is_other {
            cuts.push(header);
            due = header + part;
        }
    }
    cuts
}

/// The first two words of a header: `policies.web` of `[[policies.web.ingress]]`.
fn name(header: &str) -> (&str, &str) {
    let line = header.trim_start_matches('[');
    let line = line.split([']', '\n']).next().unwrap_or_default();
    let mut words = line.split('.').map(str::trim);
    let mut next = || words.next().unwrap_or_default();
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_where_another_table_begins() {
        let table: &[(&str, usize, &[&str])] = &[
            ("", 1, &[]),
            ("a = 1\n", 1, &[]),
            ("a = 1\n[b]\n[c]\n", 1, &["[b]\n[c]\n", "[c]\n"]),
            ("[a]\n[b]\n[c]\n", 1, &["[b]\n[c]\n", "[c]\n"]),
            ("[a]\n[b]\n[c]\n", 5, &["[c]\n"]),
            ("[a]\n[b]\n[c]\n", 9, &[]),
            (
                "[a.b]\n[a.b.c]\n[[a.b.d]]\n[ a . c ]\n",
                1,
                &["[ a . c ]\n"],
            ),
            ("[a.b]\n x = 'ö'\n[a]\n", 10, &["[a]\n"]),
            (" [a]\n [b]\n", 1, &[]),
        ];
        for (text, part, expected) in table {
            let cuts = cuts_by(*part, text);
            let cuts: Vec<&str> = cuts.into_iter().map(|cut| &text[cut..]).collect();
            assert_eq!(cuts, *expected, "{text:?} by {part}");
        }
    }

    #[test]
    fn parts_are_about_as_long_as_each_other() {
        let text = "[section.table]\nkey = 1\n[section.other]\nkey = 2\n".repeat(100);
        let cuts = cuts_by(1000, &text);
        assert!(cuts.len() >= text.len() / 1050, "{cuts:?}");
        let begins = std::iter::once(0).chain(cuts.iter().copied());
        for (begin, end) in begins.zip(&cuts) {
            assert!((1000..1050).contains(&(end - begin)), "{begin} to {end}");
        }
    }

    #[test]
    fn what_can_not_be_cut_stays_whole() {
        assert!(cuts("\n[a]\n[b]\n").is_empty(), "a small text");
        let one_table = "[a.b]\nx = 1\n".repeat(100);
        assert!(cuts_by(100, &one_table).is_empty());
        let one_late = format!("{}\n[a]\n", "# words\n".repeat(100));
        assert_eq!(cuts_by(100, &one_late).len(), 1);
    }
}
