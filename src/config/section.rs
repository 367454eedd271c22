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
    let shares = (part..text.len()).step_by(part);
    let mut cuts: Vec<usize> = shares.filter_map(|share| cut_behind(text, share)).collect();
    cuts.dedup();
    cuts
}

/// The first header behind a place that names another table than the header before.
fn cut_behind(text: &str, place: usize) -> Option<usize> {
    let place = (place..text.len()).find(|place| text.is_char_boundary(*place))?;
    let (before, behind) = text.split_at(place);
    let mut last = before.rfind("\n[").map(|newline| &text[newline + 1..]);
    if last.is_none() && text.starts_with('[') {
        last = Some(text);
    }
    for (newline, _) in behind.match_indices("\n[") {
        let header = place + newline + 1;
        if last.is_none_or(|last| name(last) != name(&text[header..])) {
            return Some(header);
        }
        last = Some(&text[header..]);
    }
    None
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
        let table: &[(&str, usize, Option<&str>)] = &[
            ("", 0, None),
            ("a = 1\n", 3, None),
            ("a = 1\n[b]\n[c]\n", 0, Some("[b]\n[c]\n")),
            ("[a]\n[b]\n[c]\n", 0, Some("[b]\n[c]\n")),
            ("[a]\n[b]\n[c]\n", 4, Some("[c]\n")),
            ("[a]\n[b]\n[c]\n", 8, None),
            (
                "[a.b]\n[a.b.c]\n[[a.b.d]]\n[ a . c ]\n",
                1,
                Some("[ a . c ]\n"),
            ),
            ("[a.b]\n x = 'ö'\n[a]\n", 12, Some("[a]\n")),
            (" [a]\n [b]\n", 0, None),
        ];
        for (text, place, expected) in table {
            let cut = cut_behind(text, *place).map(|cut| &text[cut..]);
            assert_eq!(cut, *expected, "{text:?} behind {place}");
        }
    }

    #[test]
    fn parts_are_about_as_long_as_each_other() {
        let text = "[section.table]\nkey = 1\n[section.other]\nkey = 2\n".repeat(100);
        let cuts = cuts_by(1000, &text);
        assert_eq!(cuts.len(), text.len() / 1000);
        for (nth, cut) in (1..).zip(cuts) {
            let ideal = 1000 * nth;
            assert!((ideal..ideal + 50).contains(&cut), "cut {nth} at {cut}");
        }
    }

    #[test]
    fn what_can_not_be_cut_stays_whole() {
        assert!(cuts("\n[a]\n[b]\n").is_empty(), "a small text");
        let one_table = "[a.b]\nx = 1\n".repeat(100);
        assert!(cuts_by(100, &one_table).is_empty());
        let one_late = format!("{}\n[a]\n", "# words\n".repeat(100));
        assert_eq!(cuts_by(100, &one_late).len(), 1, "the same place for all");
    }
}
