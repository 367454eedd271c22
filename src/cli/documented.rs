//! Compares JSON output with docs/commands.md: every key has its row in the command's section, and no other row exists.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::observe::record::Record;

const PAGE: &str = include_str!("../../docs/commands.md");

/// The section of a command, from its heading to the next.
fn section(command: &str) -> &'static str {
    let heading = format!("\n## `dpd {command}`\n");
    let (_, rest) = PAGE
        .split_once(&heading)
        .unwrap_or_else(|| panic!("docs/commands.md has no section {command}"));
    rest.split("\n## ").next().unwrap_or_default()
}

/// The keys that the section's table of keys has, as `maps[].name`.
fn documented(command: &str) -> BTreeSet<&'static str> {
    let table = section(command)
        .split("| key | meaning |")
        .nth(1)
        .unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect()
}

/// The keys of a value, nested ones included.
fn keys(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let dot = if prefix.is_empty() { "" } else { "." };
                keys(&format!("{prefix}{dot}{key}"), value, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                keys(&format!("{prefix}[]"), item, found);
            }
        }
        _ => {
            found.insert(prefix.to_owned());
        }
    }
}

/// Compares the keys of a full sample with the page.
pub fn check(command: &str, sample: &impl Serialize) {
    let mut found = BTreeSet::new();
    let value = serde_json::to_value(sample).unwrap();
    keys("", &value, &mut found);
    // A list that is empty in one place of the sample and filled in another counts by its elements' keys.
    let is_list = |key: &&str| {
        found
            .iter()
            .any(|other| other.starts_with(&format!("{key}[].")))
    };
    let found: BTreeSet<&str> = found
        .iter()
        .map(String::as_str)
        .filter(|key| !is_list(key))
        .collect();
    assert_eq!(documented(command), found, "docs/commands.md, {command}");
}

#[test]
fn the_flow_of_the_page_is_valid() {
    let example = section("observe").split("```json\n").nth(1);
    let example = example.and_then(|rest| rest.split("\n```").next()).unwrap();
    let record: Record = serde_json::from_str(example).unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), example);
    check("observe", &record);
}
