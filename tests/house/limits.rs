//! docs/limits.md has the numbers of the source: each row names the map, the key or the constant that sets it.

use std::collections::BTreeMap;

use dpd::bpf::abi;
use libbpf_rs::ObjectBuilder;

use super::source::{Text, all, keep};

const PAGE: &str = include_str!("../../docs/limits.md");
const CONFIG: &str = include_str!("../../docs/config.md");

/// The maps of the object with their sizes.
fn maps() -> BTreeMap<String, u64> {
    let mut object = ObjectBuilder::default();
    let object = object.open_memory(abi::OBJECT).expect("open the object");
    let maps = object.maps();
    maps.map(|map| {
        let name = map.name().to_string_lossy().into_owned();
        (name, u64::from(map.max_entries()))
    })
    .collect()
}

/// The number in a cell: `131072`, `32 MiB`.
fn number(cell: &str) -> Option<u64> {
    let mut words = cell.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    match words.next() {
        Some("MiB") => Some(number << 20),
        None => Some(number),
        Some(_) => None,
    }
}

/// The value of an expression of integers: `1 << 20`, `4 * 1024 * 1024`, `10_000`, `[251, 65521]` (its last).
fn value(expression: &str) -> Option<u64> {
    let expression = expression.trim().trim_end_matches(']');
    let last = expression.rsplit([',', '[']).next()?;
    if let Some((left, right)) = last.split_once("<<") {
        return Some(value(left)? << value(right)?);
    }
    if let Some((left, right)) = last.rsplit_once('*') {
        return Some(value(left)? * value(right)?);
    }
    last.trim().replace('_', "").parse().ok()
}

/// What a line sets a constant to, in Rust or C: `NAME: TYPE = VALUE;`, `NAME = VALUE,`, `name: VALUE,`.
fn definition(line: &str, name: &str) -> Option<u64> {
    let line = line.split("//").next()?.split("/*").next()?;
    let (before, rest) = line.split_once(name)?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if before.ends_with(is_word) || rest.starts_with(is_word) {
        return None;
    }
    let rest = match rest.split_once(" = ") {
        Some((_, expression)) => expression,
        None => rest.strip_prefix(": ")?,
    };
    let end = rest.trim_end().trim_end_matches([' ', '}', ';']);
    value(end.trim().trim_end_matches(','))
}

/// Of all lines of code, without tests.
fn definitions(text: &Text, name: &str) -> Vec<u64> {
    let lines = text.code();
    lines
        .filter_map(|(_, line)| definition(line, name))
        .collect()
}

/// The numbers that the source has for a name in backticks.
fn known(names: &[&str], maps: &BTreeMap<String, u64>) -> Vec<u64> {
    match names {
        [path, name] if path.ends_with(".rs") => {
            let text = all().iter().find(|text| text.path == *path);
            text.map_or(Vec::new(), |text| definitions(text, name))
        }
        [map, ..] if map.starts_with("dpd_") => maps.get(*map).copied().into_iter().collect(),
        [key, ..] if key.contains('.') => {
            let row = CONFIG
                .lines()
                .find_map(|line| line.strip_prefix(&format!("| `{key}` | `")));
            let default = row.and_then(|row| row.split('`').next()?.parse().ok());
            default.into_iter().collect()
        }
        [name, ..] => {
            let files = ["src/", "bpf/"].map(|folder| {
                let of = all()
                    .iter()
                    .filter(move |text| text.path.starts_with(folder));
                of.flat_map(|text| definitions(text, name))
                    .collect::<Vec<_>>()
            });
            files.concat()
        }
        [] => Vec::new(),
    }
}

/// The rows whose number is of the kernel, or relative to another.
const OTHERS: [&str; 3] = ["half of each table", "the same", "36280"];

#[test]
fn every_limit_is_that_of_the_source() {
    let maps = maps();
    let (mut breaches, mut checked) = (Vec::new(), 0);
    for line in PAGE.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [what, count, source, edge] = cells[..] else {
            breaches.push(format!("{line}: four cells"));
            continue;
        };
        if what == "what" || OTHERS.contains(&count) {
            continue;
        }
        let names: Vec<&str> = source.split('`').skip(1).step_by(2).collect();
        let known = known(&names, &maps);
        checked += 1;
        if known.is_empty()
            || number(count).is_none_or(|count| known.iter().any(|known| *known != count))
        {
            breaches.push(format!("{what}: {count}, and {source} is {known:?}"));
        }
        if edge.is_empty() {
            breaches.push(format!("{what}: what happens at the edge?"));
        }
    }
    assert!(checked > 25, "the page has rows: {checked}");
    keep("docs/limits.md has the numbers of the source", breaches);
}

/// With the kernel's defaults, as `Documentation/networking/ip-sysctl.rst` has them.
#[test]
fn source_ports_are_those_outside_of_the_kernels_range() {
    let first = known(&["FIRST_PORT"], &maps());
    let [first] = first[..] else {
        panic!("FIRST_PORT is defined once: {first:?}");
    };
    let ports = (32768 - first) + (65535 - 60999);
    assert!(
        PAGE.contains(&format!("| {ports} | `net.ipv4.ip_local_port_range`")),
        "{ports}"
    );
}

#[test]
fn expressions_have_their_values() {
    for (text, name, expected) in [
        ("pub const A: usize = 1 << 20;", "A", Some(1 << 20)),
        ("const B: u64 = 32 << 20; // bytes", "B", Some(32 << 20)),
        ("\tC = 256,", "C", Some(256)),
        ("enum { D = 100 };", "D", Some(100)),
        ("    observers: 64,", "observers", Some(64)),
        (
            "pub const T: [u32; 3] = [251, 509, 65521];",
            "T",
            Some(65521),
        ),
        ("const E: usize = 4 * 1024;", "E", Some(4096)),
        ("const AA: usize = 1;", "A", None),
        ("if x > A {", "A", None),
    ] {
        assert_eq!(definition(text, name), expected, "{text}");
    }
}
