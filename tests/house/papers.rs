//! What is written about the tree: it leads somewhere, and only to what a reader has.

use dpd::bpf::load::map_policy;

use super::source::{all, keep};

/// Folders of every Linux host, and of systemd's and Rust's own words.
const KNOWN_PLACES: [&str; 13] = [
    "bin", "boot", "dev", "etc", "lib", "mnt", "proc", "run", "sbin", "sys", "tmp", "usr", "var",
];

/// The absolute paths in a line: a slash behind a space or a quote, and a word behind it.
fn absolute_paths(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices('/').filter_map(move |(at, _)| {
        let before = line[..at].chars().next_back().unwrap_or(' ');
        let path = &line[at..];
        let end = path[1..].find(|c: char| !c.is_alphanumeric() && !"/._-".contains(c));
        let path = &path[..end.map_or(path.len(), |end| end + 1)];
        let is_path = path[1..].contains('/') && path[1..].starts_with(|c: char| c.is_lowercase());
        (" \"'`(=I".contains(before) && is_path).then_some(path)
    })
}

#[test]
fn a_path_is_one_that_every_host_has() {
    let mut breaches = Vec::new();
    // Tests make up files, and what they make up need not be anywhere.
    let texts = all().iter().filter(|text| !text.path.starts_with("tests/"));
    for text in texts {
        for (number, line) in text.text.lines().enumerate() {
            for path in absolute_paths(line) {
                let first = path[1..].split('/').next().unwrap_or_default();
                if !KNOWN_PLACES.contains(&first) {
                    breaches.push(format!("{}:{}: {path}", text.path, number + 1));
                }
            }
        }
    }
    keep("nothing points to a folder of one machine", breaches);
}

/// Documents of other projects that we name.
const OTHERS: [&str; 1] = ["JOURNAL_NATIVE_PROTOCOL.md"];

#[test]
fn a_document_that_is_named_is_there() {
    let mut breaches = Vec::new();
    for text in all() {
        for (number, line) in text.text.lines().enumerate() {
            for (end, _) in line.match_indices(".md") {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                let name = line[..end]
                    .rsplit(|c| !is_name(c))
                    .next()
                    .unwrap_or_default();
                let file = format!("{name}.md");
                let is_there = all().iter().any(|text| text.name() == file);
                if !name.is_empty() && !is_there && !OTHERS.contains(&file.as_str()) {
                    breaches.push(format!("{}:{}: {file}", text.path, number + 1));
                }
            }
        }
    }
    keep("a reader finds the document that is named", breaches);
}

/// The targets of a page's links into the tree.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let targets = targets.filter(|target| !target.contains("://"));
    targets.map(|target| target.split('#').next().unwrap_or_default())
}

#[test]
fn every_link_leads_somewhere() {
    let mut breaches = Vec::new();
    for text in all().iter().filter(|text| text.path.ends_with(".md")) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&text.path);
        let folder = folder.parent().expect("a file lies in a folder");
        for target in links(&text.text).filter(|target| !folder.join(target).exists()) {
            breaches.push(format!("{}: {target}", text.path));
        }
    }
    keep("a link leads to a file of the tree", breaches);
}

#[test]
fn every_link_to_a_heading_has_it() {
    let mut breaches = Vec::new();
    for text in all().iter().filter(|text| text.path.ends_with(".md")) {
        let targets = text.text.split("](").skip(1);
        let targets = targets.filter_map(|rest| rest.split(')').next()?.split_once('#'));
        for (file, heading) in targets.filter(|(file, _)| !file.contains("://")) {
            let name = file.rsplit('/').next().unwrap_or_default();
            let name = if name.is_empty() { text.name() } else { name };
            let pages = all().iter().filter(|page| page.name() == name);
            let mut headings = pages.flat_map(|page| page.text.lines().filter_map(anchor));
            if !headings.any(|known| known == heading) {
                breaches.push(format!("{}: {file}#{heading}", text.path));
            }
        }
    }
    keep("a link to a heading leads to one", breaches);
}

/// The name by which a heading is linked to.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

#[test]
fn the_indices_lead_to_every_document() {
    let index = include_str!("../../docs/README.md");
    let readme = include_str!("../../README.md");
    let mut breaches = Vec::new();
    for text in all().iter().filter(|text| text.path.ends_with(".md")) {
        let is_led_to = match text.path.strip_prefix("docs/") {
            Some("README.md") | None => {
                text.path == "README.md" || links(readme).any(|target| target == text.path)
            }
            Some(page) => links(index).any(|target| target == page),
        };
        if !is_led_to {
            breaches.push(text.path.clone());
        }
    }
    keep(
        "docs/README.md links to every page of docs, README.md to it and to all other documents",
        breaches,
    );
}

/// Pinned ones and those of a generation: who writes them, who reads them, and what an upgrade does to them.
#[test]
fn every_map_has_its_row() {
    let page = all().iter().find(|text| text.path == "ARCHITECTURE.md");
    let page = &page.expect("ARCHITECTURE.md").text;
    let maps = map_policy::DATAPATH.iter().map(|policy| policy.name);
    let missing = maps.filter(|map| !page.contains(&format!("\n| `{map}`")));
    keep(
        "ARCHITECTURE.md has a row for each map",
        missing.map(str::to_owned).collect(),
    );
}

#[test]
fn nothing_is_explained_by_a_tracker() {
    let mut breaches = Vec::new();
    for text in all() {
        for (number, line) in text.text.lines().enumerate() {
            let line = line.to_lowercase();
            let numbered = |word: &str| {
                let mut rests = line.split(word).skip(1);
                rests.any(|rest| {
                    rest.trim_start_matches('#')
                        .starts_with(|c: char| c.is_ascii_digit())
                })
            };
            if numbered("issue ") || numbered("ticket ") || numbered("fixes #") {
                breaches.push(format!("{}:{}", text.path, number + 1));
            }
        }
    }
    keep(
        "a number of a tracker says nothing to who has only the tree: say what it is",
        breaches,
    );
}
