//! The users' pages say what the program does: every command, every option, every drop reason, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;
use dpd::cli::Cli;
use dpd::model::drop_reason;

use super::parity::constants;
use super::source::all;

const COMMANDS: &str = include_str!("../../docs/commands.md");
const DATAPATH: &str = include_str!("../../docs/datapath.md");
const TROUBLESHOOTING: &str = include_str!("../../docs/troubleshooting.md");

/// The text below each second-level heading.
fn sections(page: &str) -> BTreeMap<String, &str> {
    let parts = page.split("\n## ").skip(1);
    parts
        .map(|part| part.split_once('\n').unwrap_or((part, "")))
        .map(|(head, text)| (head.replace('`', ""), text))
        .collect()
}

/// What the first cells of a section's tables have in backticks.
fn rows(section: &str) -> BTreeSet<&str> {
    let cells = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

/// Every command that does something, as `dpd ct list`, with its options.
fn commands(command: &clap::Command, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    let mut children = command
        .get_subcommands()
        .filter(|child| child.get_name() != "help")
        .peekable();
    if children.peek().is_none() {
        let arguments = command
            .get_arguments()
            .filter(|argument| !argument.is_global_set());
        found.insert(path.to_owned(), arguments.flat_map(spellings).collect());
    }
    for child in children {
        commands(child, &format!("{path} {}", child.get_name()), found);
    }
}

/// An argument as the page spells it: `--last N`, `-f`, `<NAME>`.
fn spellings(argument: &clap::Arg) -> Vec<String> {
    let values = argument.get_value_names().unwrap_or_default();
    let value = values
        .first()
        .map(|name| name.as_str())
        .filter(|_| argument.get_action().takes_values());
    let Some(long) = argument.get_long() else {
        let name = value.unwrap_or_default();
        return vec![if argument.is_required_set() {
            format!("<{name}>")
        } else {
            format!("[{name}]")
        }];
    };
    // All listings have their format; the page calls it so.
    let value = value.map(|name| if long == "output" { "FORMAT" } else { name });
    let mut spelt = vec![value.map_or(format!("--{long}"), |name| format!("--{long} {name}"))];
    spelt.extend(argument.get_short().map(|short| format!("-{short}")));
    spelt
}

fn all_commands() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    commands(&Cli::command(), "dpd", &mut found);
    found
}

#[test]
fn every_command_has_its_section() {
    let sections = sections(COMMANDS);
    let documented = sections.keys().filter(|head| head.starts_with("dpd "));
    let documented: BTreeSet<&String> = documented.collect();
    assert_eq!(documented, all_commands().keys().collect());
}

#[test]
fn every_option_stands_in_its_commands_section() {
    let sections = sections(COMMANDS);
    let general: BTreeSet<&str> = rows(sections["Options of every command"]);
    for (command, options) in all_commands() {
        let Some(section) = sections.get(&command) else {
            continue; // the test of the sections says so
        };
        let documented = rows(section);
        for option in &options {
            let is_documented =
                documented.contains(option.as_str()) || general.contains(option.as_str());
            assert!(is_documented, "docs/commands.md: {command} lacks {option}");
        }
        for option in documented
            .iter()
            .filter(|word| word.starts_with(['-', '<', '[']))
        {
            assert!(
                options.contains(*option),
                "docs/commands.md: {command} has no {option}"
            );
        }
    }
}

#[test]
fn options_of_every_command_are_those_of_the_program() {
    let documented = rows(sections(COMMANDS)["Options of every command"]);
    let mut real: BTreeSet<String> = ["-h", "--help", "-V", "--version"]
        .map(str::to_owned)
        .into();
    let command = Cli::command();
    real.extend(command.get_arguments().flat_map(spellings));
    real.extend(["-o".to_owned(), "--output FORMAT".to_owned()]);
    assert_eq!(documented, real.iter().map(String::as_str).collect());
}

#[test]
fn every_drop_reason_has_its_row() {
    let section = sections(TROUBLESHOOTING)["Drop reasons"];
    let mut documented = BTreeMap::new();
    for line in section.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, number, words, meaning, advice, _] = cells[..]
            && let Ok(number) = number.parse::<i64>()
        {
            let is_said = |cell: &str| !cell.is_empty() && cell != "–";
            assert!(
                is_said(meaning) && is_said(advice),
                "{number}: cause and remedy"
            );
            assert!(
                documented.insert(number, words.to_owned()).is_none(),
                "{number} stands once"
            );
        }
    }
    let made = constants("reason")
        .into_values()
        .filter(|number| *number != 0);
    let made = made.map(|number| (number, drop_reason::words(number as u8).to_owned()));
    assert_eq!(documented, made.collect());
}

#[test]
fn reasons_are_called_by_their_words() {
    // What the pages put in backticks behind "dropped:" is what a flow line says.
    for (path, page) in [
        ("docs/datapath.md", DATAPATH),
        ("docs/limits.md", include_str!("../../docs/limits.md")),
    ] {
        for (place, _) in page.match_indices("dropped: `") {
            let rest = &page[place + "dropped: `".len()..];
            let words = rest.split('`').next().unwrap_or_default();
            let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
            let is_known = drop_reason::REASONS
                .iter()
                .any(|(_, known)| *known == words);
            assert!(is_known, "{path}: {words:?} is no reason");
        }
    }
}

/// In the picture of a packet's path.
#[test]
fn the_picture_has_programs_that_are_there() {
    let picture = DATAPATH
        .split("```")
        .find(|part| part.starts_with("mermaid"));
    let picture = picture.expect("docs/datapath.md has a picture");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names: BTreeSet<&str> = picture
        .split(|c| !is_name(c) && c != '*')
        .filter(|word| word.starts_with("dpd_") || word.starts_with("tail_"))
        .collect();
    let sources: Vec<&str> = all()
        .iter()
        .filter_map(|text| text.path.strip_prefix("bpf/")?.strip_suffix(".bpf.c"))
        .collect();
    for name in &names {
        let own = name.trim_start_matches("dpd_").trim_start_matches("tail_");
        let is_there = match own.strip_suffix('*') {
            Some(start) => sources.iter().any(|source| source.starts_with(start)),
            None => sources.contains(&own),
        };
        assert!(is_there, "{name}");
    }
    for step in ["tail_lb", "tail_ct", "tail_policy", "tail_deliver"] {
        assert!(names.contains(step), "{step}: {names:?}");
    }
}
