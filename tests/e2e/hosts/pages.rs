//! The pages about services for the network and masquerade: their files and commands, one after the other as a reader would use them.

use std::fs;

use crate::lab::{NetnsLab, eventually, text};

const PUBLISH: &str = include_str!("../../../docs/publish-a-service.md");
const INTERNET: &str = include_str!("../../../docs/out-to-the-internet.md");

/// Where the commands behind a prompt run.
const PROMPTS: [(&str, &str); 4] = [
    ("# ", "node-a"),
    ("node-b# ", "node-b"),
    ("client# ", "client"),
    ("world$ ", "world"),
];

/// A command of a page, with the output that it shows; `…` stands for any text.
struct Shown<'a> {
    place: &'static str,
    line: &'a str,
    output: Vec<&'a str>,
}

/// The language and the text of each fenced block, with the name of the lab's uplink.
fn blocks(page: &str) -> Vec<(String, String)> {
    let parts = page.split("\n```").skip(1).step_by(2);
    let blocks = parts.map(|part| part.split_once('\n').expect("a block"));
    let named = |(language, text): (&str, &str)| (language.into(), text.replace("ens5", "uplink0"));
    blocks.map(named).collect()
}

fn commands(block: &str) -> Vec<Shown<'_>> {
    let mut found: Vec<Shown> = Vec::new();
    for line in block.lines() {
        let mut prompts = PROMPTS.iter();
        let command = prompts.find_map(|(prompt, place)| Some((place, line.strip_prefix(prompt)?)));
        match (command, found.last_mut()) {
            (Some((place, line)), _) => found.push(Shown {
                place,
                line,
                output: Vec::new(),
            }),
            (None, Some(last)) => last.output.push(line),
            (None, None) => panic!("{line}: output of no command"),
        }
    }
    found
}

/// Whether the line has these parts in their order.
fn matches(line: &str, shown: &str) -> bool {
    let mut rest = line;
    let mut parts = shown.split('…').enumerate();
    let is_found = parts.all(|(number, part)| match rest.find(part) {
        Some(at) if number > 0 || at == 0 => {
            rest = &rest[at + part.len()..];
            true
        }
        _ => false,
    });
    is_found && (rest.is_empty() || shown.ends_with('…'))
}

#[test]
fn output_matches_what_is_shown() {
    for (line, shown, expected) in [
        ("web-a answers", "web-a answers", true),
        ("web-a answers you", "web-a answers", false),
        ("a web-a answers", "web-a answers", false),
        ("from a:1 (x) to b", "…a:… (x)…", true),
        ("from a:1 (y) to b", "…a:… (x)…", false),
        ("b a", "…a…b", false),
    ] {
        assert_eq!(matches(line, shown), expected, "{line:?} and {shown:?}");
    }
}

/// Runs a command until it shows what the page does: a backend is picked at random, and flows arrive with a delay.
fn run(lab: &NetnsLab, shown: &Shown) {
    let folder = env!("CARGO_BIN_EXE_dpd").trim_end_matches("/dpd");
    let line = format!("PATH={folder}:$PATH; {}", shown.line);
    let is_failure = |line: &&str| line.starts_with("curl: (") || line.starts_with("denied: ");
    let fails = shown.output.iter().any(is_failure);
    eventually(shown.line, || {
        let output = lab.run(shown.place, &line);
        let printed = text(&output);
        let has = |wanted: &&str| printed.lines().any(|line| matches(line, wanted));
        let is_shown = shown.output.iter().all(has) && output.status.success() != fails;
        is_shown.then_some(()).ok_or(printed)
    });
}

/// The file with these tables in place of its own of the same names.
fn with_tables(file: &str, tables: &str) -> String {
    let mut file: toml::Table = file.parse().expect("the file");
    let tables: toml::Table = tables.parse().expect("the page's tables");
    for (kind, named) in tables {
        let known = file.entry(kind).or_insert(toml::Table::new().into());
        let (toml::Value::Table(known), toml::Value::Table(named)) = (known, named) else {
            panic!("tables of tables");
        };
        known.extend(named);
    }
    file.to_string()
}

/// Follows a page from top to bottom. Its first file is a whole one, as the first of node-b is; later ones replace tables.
fn follow(page: &str) -> (NetnsLab, NetnsLab) {
    let (a, b) = NetnsLab::north_south_laid();
    let (mut has_file, mut commands_run) = ([false, false], 0);
    for (language, text) in blocks(page) {
        let is_b = text.starts_with("# node-b\n");
        let (lab, has_file) = if is_b {
            (&b, &mut has_file[1])
        } else {
            (&a, &mut has_file[0])
        };
        match language.as_str() {
            "toml" if *has_file => {
                let file = fs::read_to_string(lab.config()).expect("read the file");
                lab.save(&with_tables(&file, &text));
            }
            "toml" => {
                lab.save(&text);
                lab.start();
                *has_file = true;
            }
            "console" => {
                for shown in commands(&text) {
                    run(if shown.place == "node-b" { &b } else { &a }, &shown);
                    commands_run += 1;
                }
            }
            other => panic!("{other}: no language of these pages"),
        }
    }
    assert!(commands_run > 5, "the page has commands");
    (a, b)
}

#[test]
fn a_service_is_published_as_the_page_says() {
    let (a, _b) = follow(PUBLISH);
    assert_eq!(a.dropped("policy denied: no rule"), 0);
}

#[test]
fn workloads_reach_the_internet_as_the_page_says() {
    let (a, _b) = follow(INTERNET);
    assert_eq!(a.drops(), Vec::<String>::new());
}
