//! The documentation matches the program: every key once, valid examples, errors as shown.

use std::fs;
use std::path::{Path, PathBuf};

use dpd::config::{Source, keys, load, parse};

const PAGE: &str = include_str!("../docs/config.md");
const BESIDE: &str = include_str!("../docs/beside-other-tools.md");
const BALANCING: &str = include_str!("../docs/load-balancing.md");
const PUBLISH: &str = include_str!("../docs/publish-a-service.md");
const INTERNET: &str = include_str!("../docs/out-to-the-internet.md");
const FIRST: &str = include_str!("../docs/first-service.md");

/// The texts of a page's fenced blocks of a language.
fn blocks(page: &'static str, language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    let parts = page.split(opening.as_str()).skip(1);
    parts.filter_map(|part| part.split("```").next()).collect()
}

/// The keys that open a row of a table of keys.
fn documented_keys() -> Vec<&'static str> {
    let tables = PAGE.split("\n| key | default | meaning |\n").skip(1);
    let rows = tables.flat_map(|table| table.lines().take_while(|line| line.starts_with('|')));
    rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next())
        .collect()
}

#[test]
fn every_key_has_one_row() {
    let mut known = keys();
    let mut documented = documented_keys();
    known.sort();
    documented.sort();
    assert_eq!(documented, known);
}

#[test]
fn every_example_of_a_page_is_valid() {
    for (path, page, least) in [
        ("docs/config.md", PAGE, 6),
        ("docs/beside-other-tools.md", BESIDE, 3),
        ("docs/load-balancing.md", BALANCING, 1),
        ("docs/publish-a-service.md", PUBLISH, 4),
        ("docs/out-to-the-internet.md", INTERNET, 2),
        ("docs/first-service.md", FIRST, 1),
    ] {
        let examples = blocks(page, "toml");
        assert!(examples.len() >= least, "{path} has examples");
        for text in examples {
            // The first service is a drop-in of the example, whose client it names.
            let text = match path {
                "docs/first-service.md" => format!("{text}[identities.client]\nid = 20001\n"),
                _ => text.to_owned(),
            };
            let source = Source {
                path: PathBuf::from(path),
                text: text.clone(),
            };
            if let Err(problems) = parse(vec![source]) {
                panic!("{text}\n{problems}");
            }
        }
    }
}

/// The configurations in a folder and below it.
fn examples(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => examples(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect()
}

#[test]
fn every_example_file_is_valid_and_in_the_index() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = examples(&root.join("examples"));
    let index = include_str!("../docs/README.md");
    for path in &found {
        load(path).unwrap_or_else(|problems| panic!("{problems}"));
    }
    // Those that people start from; a second host's file is next to the first's.
    for wanted in ["config.toml", "two-hosts/node-a.toml", "edge.toml"] {
        assert!(
            found.contains(&root.join("examples").join(wanted)),
            "{found:?}"
        );
        assert!(index.contains(&format!("../examples/{wanted}")), "{wanted}");
    }
    assert_eq!(
        found.len(),
        4,
        "an example has its row in docs/README.md: {found:?}"
    );
    for path in examples(&root.join("netns-lab")) {
        load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

#[test]
fn errors_look_as_the_page_shows_them() {
    let example = include_str!("../examples/config.toml");
    let main = Source {
        path: PathBuf::from("/etc/dpd/config.toml"),
        text: example.replacen("identity  = \"client\"", "identity  = \"cleint\"", 1),
    };
    let drop_in = Source {
        path: PathBuf::from("/etc/dpd/config.d/more.toml"),
        text: "[services.more]\nfrontends = [\"10.32.0.10:53/udp\"]\nbackends = [\"10.200.0.44:53\"]\n"
            .to_owned(),
    };
    let problems = parse(vec![main, drop_in]).expect_err("two mistakes");
    let shown = blocks(PAGE, "text");
    assert_eq!(shown, [format!("{problems}\n")]);
}
