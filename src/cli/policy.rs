//! `dpd policy`: the rules as the kernel holds them, and their verdict on a connection.

mod check;
mod peer;

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use super::identity::{find, name_of};
use super::node::Node;
use super::output::{self, Listing, Row};
use crate::bpf::reader::Part;
use crate::model::state::State;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all rules, each with its line in the file and its hits.
    List {
        /// Only rules of policies for this identity (name or number).
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
        /// Only rules without hits.
        #[arg(long)]
        unused: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show whether policy allows a connection, and by which rule; the exit status is 4 if it is denied.
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
    let state = reader.parts(&[Part::Policy])?;
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
    /// Entries of the policy map that it has; 0: a deny rule of the same peers covers it, or no identity is its peer.
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
        "LOCATION",
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
