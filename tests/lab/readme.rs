//! The commands of README.md in the labs, as a reader types them from the checkout.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::page::{Shown, blocks, commands};
use crate::{ScriptedLab, text};

const PAGE: &str = include_str!("../../README.md");
const DEADLINE: Duration = Duration::from_secs(20);

/// `make` builds a release first; the rest of what it does.
const INSTEAD: [(&str, &str); 2] = [
    (
        "make lab-up",
        "{ netns-lab/lab up && netns-lab/lab start; }",
    ),
    ("make lab-down", "netns-lab/lab down"),
];

/// The command that is run for one that is shown.
fn line(lab: &ScriptedLab, shown: &Shown) -> String {
    let mut line = match (shown.prompt, shown.line) {
        // Flows without an end are for people.
        ("[node] # ", "dpd observe") => "netns-lab/lab enter node dpd observe --last 5".to_owned(),
        ("[node] # ", line) => format!("netns-lab/lab enter node {line}"),
        (_, line) => line.to_owned(),
    };
    for (wanted, instead) in INSTEAD {
        line = line.replace(wanted, instead);
    }
    // For both commands that stand for `make lab-up`.
    let topology = format!("LAB_TOPOLOGY={} ", lab.topology);
    match line.strip_prefix(&topology) {
        Some(rest) => format!("export {topology}; {rest}"),
        None => line,
    }
}

/// Runs it until it shows what the page does: a backend is picked at random.
fn run(lab: &ScriptedLab, shown: &Shown) {
    let line = line(lab, shown);
    let start = Instant::now();
    loop {
        let mut command = Command::new("bash");
        command
            .args(["-c", &line])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("LAB", &lab.name)
            .env("DPD", env!("CARGO_BIN_EXE_dpd"))
            .env_remove("LAB_TOPOLOGY")
            .env_remove("LAB_MTU")
            .stdin(Stdio::null());
        if line.ends_with('&') {
            // A server: it ends with the lab.
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            assert!(status.expect("run bash").success(), "{line}");
            return;
        }
        let output = command.output().expect("run bash");
        let printed = text(&output);
        if shown.is_in(&printed) && output.status.success() != shown.fails() {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{line}: {printed}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Follows a section; its tables are a drop-in, for others use the example meanwhile.
fn follow(heading: &str, topology: &'static str) {
    let lab = ScriptedLab::of(topology);
    let (mut commands_run, mut is_up) = (0, false);
    for block in blocks(PAGE) {
        if block.heading != heading {
            continue;
        }
        match block.language {
            "toml" if is_up => {
                let folder: &Path = &lab.folder().join("config.d");
                std::fs::write(folder.join("new"), block.text).expect("write a drop-in");
                std::fs::rename(folder.join("new"), folder.join("readme.toml"))
                    .expect("put it in place");
            }
            "console" => {
                for shown in commands(block.text, &["# ", "[node] # "]) {
                    run(&lab, &shown);
                    is_up = true;
                    commands_run += 1;
                }
            }
            _ => {} // a part of a file that is shown before
        }
    }
    assert!(commands_run > 3, "{heading} has commands");
    assert_eq!(
        lab.traces(),
        Vec::<String>::new(),
        "the last one removes it"
    );
}

#[test]
fn the_lab_is_used_as_the_readme_says() {
    follow("In the lab", "one-node");
}

#[test]
fn two_hosts_are_used_as_the_readme_says() {
    follow("Two hosts", "two-hosts");
}

#[test]
fn the_network_is_used_as_the_readme_says() {
    follow("The network", "north-south");
}
