//! `dpd policy`: the rules as the kernel holds them, and what they say of a connection.

mod check;
mod party;

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use super::Listing;
use super::identity::{find, name_of};
use super::node::Node;
use super::output::{self, Row};
use crate::model::state::State;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// All rules, with the place in the file that made each, and its hits.
    List {
        /// Only those that protect this identity (name or number).
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
        /// Only those that never let a connection through nor refused a packet.
        #[arg(long)]
        unused: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// Whether policy lets a connection be made, and the rule that says so; the status is 4 if not.
    Check(check::Arguments),
}

pub fn run(node: &Node, command: &Command) -> Result<ExitCode> {
    let (identity, unused, listing) = match command {
        Command::Check(arguments) => return check::run(node, arguments),
        Command::List {
            identity,
            unused,
            listing,
        } => (identity, *unused, listing),
    };
    let reader = node.reader()?;
    let state = reader.state()?;
    let mut rows = rows(&state, &reader.rule_hits()?);
    if let Some(name) = identity {
        let subject = find(&state.catalog, name)?;
        rows.retain(|row| row.subject_identity == subject);
    }
    rows.retain(|row| !unused || row.hits == 0);
    output::print(&output::render(listing.output, &rows)?)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize)]
pub struct RuleRow {
    id: u32,
    /// `dns-clients/ingress/0`
    rule: String,
    policy: String,
    direction: String,
    index: usize,
    subject: String,
    subject_identity: u32,
    action: String,
    peers: Vec<String>,
    /// Empty: all traffic.
    ports: Vec<String>,
    /// Rows of the kernel's table that it made; 0: a deny of the same peers covers it, or nobody is its peer.
    entries: usize,
    hits: u64,
    file: String,
    line: usize,
}

impl Row for RuleRow {
    const HEADER: &[&str] = &[
        "ID",
        "RULE",
        "SUBJECT",
        "DIRECTION",
        "ACTION",
        "PEERS",
        "PORTS",
        "ENTRIES",
        "HITS",
        "PLACE",
    ];

    fn lines(&self) -> Vec<Vec<String>> {
        let ports = match self.ports.as_slice() {
            [] => "all".to_owned(),
            ports => ports.join(", "),
        };
        vec![vec![
            self.id.to_string(),
            self.rule.clone(),
            format!("{} ({})", self.subject_identity, self.subject),
            self.direction.clone(),
            self.action.clone(),
            self.peers.join(", "),
            ports,
            self.entries.to_string(),
            self.hits.to_string(),
            format!("{}:{}", self.file, self.line),
        ]]
    }
}

/// All rules, by name.
pub fn rows(state: &State, hits: &BTreeMap<u32, u64>) -> Vec<RuleRow> {
    let mut entries: HashMap<u32, usize> = HashMap::new();
    for entry in state.policy.values() {
        *entries.entry(entry.rule).or_default() += 1;
    }
    let mut rows: Vec<RuleRow> = state
        .catalog
        .rules
        .iter()
        .map(|(id, info)| RuleRow {
            id: *id,
            rule: info.label(),
            policy: info.policy.clone(),
            direction: info.direction.to_string(),
            index: info.index,
            subject: name_of(&state.catalog, info.subject),
            subject_identity: info.subject,
            action: info.action.to_string(),
            peers: info.peers.clone(),
            ports: info.ports.clone(),
            entries: entries.get(id).copied().unwrap_or(0),
            hits: hits.get(id).copied().unwrap_or(0),
            file: info.file.clone(),
            line: info.line,
        })
        .collect();
    rows.sort_by(|a, b| {
        let key = |row: &RuleRow| (row.policy.clone(), row.direction.clone(), row.index);
        key(a).cmp(&key(b))
    });
    rows
}
