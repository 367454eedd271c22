//! docs/troubleshooting.md: its commands on a host with the example's configuration, one after the other.

use crate::common::page::{blocks, commands};
use crate::hosts::pages::run;
use crate::lab::NetnsLab;

const PAGE: &str = include_str!("../../docs/troubleshooting.md");

/// Where the commands behind a prompt run.
const PROMPTS: [(&str, &str); 3] = [
    ("# ", "node"),
    ("client# ", "client"),
    ("intruder# ", "intruder"),
];

#[test]
fn the_pages_commands_lead_from_symptoms_to_causes() {
    let lab = NetnsLab::started();
    let prompts = PROMPTS.map(|(prompt, _)| prompt);
    let consoles = blocks(PAGE);
    let consoles = consoles.iter().filter(|block| block.language == "console");
    let mut commands_run = 0;
    for shown in consoles.flat_map(|block| commands(block.text, &prompts)) {
        let place = PROMPTS.iter().find(|(prompt, _)| *prompt == shown.prompt);
        let (_, place) = place.expect("a prompt of this page");
        run(&lab, place, &shown);
        commands_run += 1;
    }
    assert!(commands_run > 5, "the page has commands");
}
