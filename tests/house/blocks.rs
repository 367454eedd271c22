//! Commands in the documents: each block of them is run by a test, or says why none does.

use crate::common::page::{blocks, comment};

use super::source::{Text, all, below, keep};

/// README.md, and the pages of docs/.
fn pages() -> impl Iterator<Item = &'static Text> {
    let readme = all().iter().filter(|text| text.path == "README.md");
    readme.chain(below("docs/", ".md"))
}

/// The languages of blocks with commands.
const SHELLS: [&str; 2] = ["console", "sh"];

#[test]
fn every_block_of_commands_is_run_or_says_why_not() {
    let mut breaches = Vec::new();
    for page in pages() {
        for block in blocks(&page.text) {
            if !SHELLS.contains(&block.language) {
                continue;
            }
            let first = block.text.lines().next().unwrap_or_default();
            if let Err(why) = check(&page.path, block.mark.unwrap_or_default()) {
                breaches.push(format!("{}: {first}: {why}", page.path));
            }
        }
    }
    keep(
        "before a block of commands stands `<!-- run: TEST -->` or `<!-- not run: REASON -->`",
        breaches,
    );
}

/// Whether a mark holds: the test is there and reads the page, or there is a reason.
fn check(page: &str, mark: &str) -> Result<(), String> {
    if let Some(reason) = mark.strip_prefix("not run: ") {
        return match reason.split_whitespace().count() {
            0 | 1 => Err("no reason".to_owned()),
            _ => Ok(()),
        };
    }
    let Some(test) = mark.strip_prefix("run: ") else {
        return Err(format!("the mark {mark:?}"));
    };
    let test = all().iter().find(|text| text.path == test);
    let test = test.ok_or_else(|| format!("{mark}: there is no such file"))?;
    match test.text.contains(page) && test.text.contains("#[test]") {
        true => Ok(()),
        false => Err(format!("{mark}: it does not read the page")),
    }
}

#[test]
fn a_mark_needs_its_test_or_a_reason() {
    for (mark, is_right) in [
        ("run: tests/package/main.rs", true),
        ("run: tests/package/deb.rs", false),
        ("run: tests/no.rs", false),
        ("not run: needs Incus", true),
        ("not run: ", false),
        ("", false),
    ] {
        assert_eq!(check("docs/install.md", mark).is_ok(), is_right, "{mark}");
    }
}

#[test]
fn a_comment_of_a_page_is_such_a_mark() {
    let mut breaches = Vec::new();
    for page in pages() {
        for line in page.text.lines().filter(|line| line.contains("<!--")) {
            let mark = comment(line).unwrap_or_default();
            if !mark.starts_with("run: ") && !mark.starts_with("not run: ") {
                breaches.push(format!("{}: {line}", page.path));
            }
        }
    }
    keep("a comment of a page marks commands", breaches);
}
