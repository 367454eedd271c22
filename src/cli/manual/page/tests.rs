//! The set of pages, and that they render without a warning.

use std::io::Write;
use std::process::{Command, Stdio};

use clap::CommandFactory;

use super::{COMMAND, Page, all};
use crate::cli::Cli;

fn pages() -> Vec<Page> {
    let mut command = Cli::command();
    command.build();
    all(&command)
}

#[test]
fn every_command_has_a_page_with_all_its_parts() {
    let pages = pages();
    let find = |name: &str| {
        let page = pages.iter().find(|page| page.name == name);
        page.unwrap_or_else(|| panic!("no page {name}"))
    };
    for name in [
        "dpd",
        "dpd-status",
        "dpd-ct",
        "dpd-ct-list",
        "dpd-policy-check",
    ] {
        assert_eq!(find(name).path(), format!("man/man8/{name}.8"));
    }
    assert_eq!(find("dpd.toml").path(), "man/man5/dpd.toml.5");
    for page in pages.iter().filter(|page| page.section == COMMAND) {
        let [describes, lists] = ["DESCRIPTION", "COMMANDS"]
            .map(|heading| page.text.contains(&format!("\n.SH \"{heading}\"\n")));
        assert!(describes || lists, "{}:\n{}", page.name, page.text);
        assert!(
            page.text.contains("\n.SH \"EXIT STATUS\"\n"),
            "{}",
            page.name
        );
    }
    let list = &find("dpd-ct-list").text;
    assert!(list.contains("\n\\fBdpd ct list [OPTIONS]\\fR\n"), "{list}");
    let group = &find("dpd-ct").text;
    assert!(group.contains("\\fBdpd-ct-flush\\fR(8)\n"), "{group}");
    let file = &find("dpd.toml").text;
    assert!(
        file.contains("\\fBconntrack.size\\fR (default: \\fB131072\\fR)\n"),
        "{file}"
    );
}

/// What a program says on a page that it reads.
fn complaints(program: &[&str], page: &Page) -> String {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("run {} (see tools/install-packages): {error}", program[0]));
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    let text = page.text.clone();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("wait for it");
    writer
        .join()
        .expect("join the writer")
        .expect("write the page");
    let output = if program[0] == "mandoc" {
        output.stdout
    } else {
        output.stderr
    };
    let output = String::from_utf8_lossy(&output).into_owned();
    // A page has no date, so that the same source always makes the same page.
    let lines = output.lines().filter(|line| !line.contains("missing date"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Both implementations, since Debian's `man` uses groff, and others' mandoc.
#[test]
fn pages_render_without_a_warning() {
    for page in pages() {
        for program in [
            &["groff", "-man", "-Tutf8", "-ww", "-z"][..],
            &["mandoc", "-Tlint", "-Wwarning"],
        ] {
            assert_eq!(
                complaints(program, &page),
                "",
                "{} by {program:?}",
                page.name
            );
        }
    }
}
