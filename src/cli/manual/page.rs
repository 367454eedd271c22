//! The manual pages: dpd(8), one for each command, and dpd.toml(5).

use clap::Command;

use super::man;

const COMMANDS: &str = include_str!("../../../docs/commands.md");
const CONFIG: &str = include_str!("../../../docs/config.md");

/// The sections of the manual: configuration files, and commands of the administrator.
const FILES: u8 = 5;
const COMMAND: u8 = 8;

pub struct Page {
    /// As `dpd-ct-list`.
    pub name: String,
    pub section: u8,
    pub text: String,
}

impl Page {
    /// Below `/usr/share`.
    pub fn path(&self) -> String {
        let Page { name, section, .. } = self;
        format!("man/man{section}/{name}.{section}")
    }
}

/// All pages. The command must be built, so that it knows its full name.
pub fn all(command: &Command) -> Vec<Page> {
    let mut pages = vec![of_the_file()];
    add_commands(command, &mut pages);
    pages
}

fn add_commands(command: &Command, pages: &mut Vec<Page>) {
    let name = name_of(command).replace(' ', "-");
    let about = command.get_about().map(ToString::to_string);
    let mut text = head(&name, COMMAND, &about.unwrap_or_default());
    text += &man::heading("SYNOPSIS");
    text += &synopsis(command);
    text += &body(command);
    let others = if name == "dpd" {
        "**dpd.toml**(5)"
    } else {
        "**dpd**(8), **dpd.toml**(5)"
    };
    text += &man::heading("SEE ALSO");
    text += &man::from_markdown(others);
    pages.push(Page {
        name,
        section: COMMAND,
        text,
    });
    for child in children(command) {
        add_commands(child, pages);
    }
}

/// From the description to the exit status.
fn body(command: &Command) -> String {
    let mut text = String::new();
    let name = name_of(command);
    let description = match name {
        "dpd" => introduction(COMMANDS),
        _ => section(COMMANDS, &format!("`{name}`")),
    };
    if !description.is_empty() {
        text += &man::heading("DESCRIPTION");
        text += &man::from_markdown(description);
    }
    let mut children = children(command).peekable();
    if children.peek().is_some() {
        text += &man::heading("COMMANDS");
    }
    for child in children {
        let about = child.get_about().map(ToString::to_string);
        let page = format!("**{}**(8)", name_of(child).replace(' ', "-"));
        text += &man::tagged(&page, &about.unwrap_or_default());
    }
    text += &man::heading("OPTIONS OF EVERY COMMAND");
    text += &man::from_markdown(section(COMMANDS, "Options of every command"));
    text += &man::heading("EXIT STATUS");
    text + &man::from_markdown(section(COMMANDS, "Exit status"))
}

fn of_the_file() -> Page {
    let name = "dpd.toml";
    let mut text = head(name, FILES, "configuration of the datapath dpd");
    text += &man::heading("DESCRIPTION");
    let (_, rest) = CONFIG.split_once('\n').unwrap_or_default();
    text += &man::from_markdown(rest);
    text += &man::heading("SEE ALSO");
    text += &man::from_markdown("**dpd**(8), **dpd-check**(8), **dpd-plan**(8)");
    Page {
        name: name.to_owned(),
        section: FILES,
        text,
    }
}

fn head(name: &str, section: u8, about: &str) -> String {
    man::title(name, section, env!("CARGO_PKG_VERSION"))
        + &man::heading("NAME")
        + &man::summary(name, about.trim_end_matches('.'))
}

fn synopsis(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    man::from_markdown(&format!("`{}`", usage.trim_start_matches("Usage: ")))
}

/// The command with those above it: `dpd ct list`.
fn name_of(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(command.get_name())
}

fn children(command: &Command) -> impl Iterator<Item = &Command> {
    let shown = |child: &&Command| child.get_name() != "help" && !child.is_hide_set();
    command.get_subcommands().filter(shown)
}

/// What a document has between its title and its first heading.
fn introduction(document: &'static str) -> &'static str {
    let (_, rest) = document.split_once('\n').unwrap_or_default();
    rest.split("\n## ").next().unwrap_or_default()
}

/// What a document has below a heading; empty without it.
fn section(document: &'static str, heading: &str) -> &'static str {
    let of_heading = |part: &&str| part.lines().next() == Some(heading);
    let part = document.split("\n## ").skip(1).find(of_heading);
    let (_, text) = part
        .and_then(|part| part.split_once('\n'))
        .unwrap_or_default();
    text
}

#[cfg(test)]
mod tests;
