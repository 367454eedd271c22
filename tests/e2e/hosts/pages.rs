//! The pages about services for the network and masquerade: their files and commands, one after the other as a reader would use them.

use std::fs;

use crate::common::page::{Shown, blocks, commands};
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

/// Runs a command until it shows what the page does: a backend is picked at random, and flows arrive with a delay.
pub fn run(lab: &NetnsLab, place: &str, shown: &Shown) {
    let folder = env!("CARGO_BIN_EXE_dpd").trim_end_matches("/dpd");
    let line = format!("PATH={folder}:$PATH; {}", shown.line);
    eventually(shown.line, || {
        let output = lab.run(place, &line);
        let printed = text(&output);
        let is_shown = shown.is_in(&printed) && output.status.success() != shown.fails();
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
    let prompts = PROMPTS.map(|(prompt, _)| prompt);
    // The name of the lab's uplink.
    let page = page.replace("ens5", "uplink0");
    for block in blocks(&page) {
        let text = block.text;
        let is_b = text.starts_with("# node-b\n");
        let (lab, has_file) = if is_b {
            (&b, &mut has_file[1])
        } else {
            (&a, &mut has_file[0])
        };
        match block.language {
            "toml" if *has_file => {
                let file = fs::read_to_string(lab.config()).expect("read the file");
                lab.save(&with_tables(&file, text));
            }
            "toml" => {
                lab.save(text);
                lab.start();
                *has_file = true;
            }
            "console" => {
                for shown in commands(text, &prompts) {
                    let place = PROMPTS.iter().find(|(prompt, _)| *prompt == shown.prompt);
                    let (_, place) = place.expect("a prompt of these pages");
                    run(if *place == "node-b" { &b } else { &a }, place, &shown);
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
