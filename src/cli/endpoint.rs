//! `dpd endpoint`: the endpoints of local workloads.

mod wait;

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use super::identity::{name_of, prefix_text};
use super::node::Node;
use super::output::{self, Listing, Row};
use crate::bpf::reader::Part;
use crate::model::state::{Enforcement, State};
use crate::model::status::{Attachment, EndpointCounts};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all endpoints of the file, pending ones included.
    List(#[command(flatten)] Listing),
    /// Wait until an endpoint is served: the live configuration has it, and its interface has the programs.
    ///
    /// It also waits for what does not exist yet: its table in the file, its interface, the daemon. Create the interface
    /// down, wait, then set it up: so no packet passes unjudged.
    Wait(wait::Arguments),
}

pub fn run(node: &Node, command: &Command) -> Result<()> {
    match command {
        Command::List(listing) => list(node, *listing),
        Command::Wait(arguments) => wait::run(node, arguments),
    }
}

fn list(node: &Node, listing: Listing) -> Result<()> {
    let reader = node.reader()?;
    let rows = rows(
        &reader.parts(&[Part::Endpoints])?,
        &reader.endpoint_counts()?,
        &reader.attachments()?,
    );
    output::print(&output::render(listing.output, &rows)?)
}

#[derive(Debug, Serialize)]
pub struct EndpointRow {
    interface: String,
    ifindex: Option<u32>,
    /// `attached`, `detached` (exists without dpd's programs) or `pending` (does not exist, or is skipped).
    state: &'static str,
    addresses: Vec<String>,
    identity: u32,
    identity_name: String,
    /// `off`, `deny-only` or `on`; `None` while it is pending.
    ingress_enforcement: Option<&'static str>,
    egress_enforcement: Option<&'static str>,
    #[serde(flatten)]
    counts: EndpointCounts,
    /// Packets in both directions.
    drops: u64,
}

impl Row for EndpointRow {
    const HEADER: &[&str] = &[
        "INTERFACE",
        "IFINDEX",
        "STATE",
        "ADDRESSES",
        "IDENTITY",
        "INGRESS",
        "EGRESS",
        "PACKETS-IN",
        "BYTES-IN",
        "PACKETS-OUT",
        "BYTES-OUT",
        "TO-STACK",
        "DROPS",
    ];

    fn lines(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.interface.clone(),
            self.ifindex
                .map(|index| index.to_string())
                .unwrap_or_default(),
            self.state.to_owned(),
            self.addresses.join(", "),
            format!("{} ({})", self.identity, self.identity_name),
            self.ingress_enforcement.unwrap_or_default().to_owned(),
            self.egress_enforcement.unwrap_or_default().to_owned(),
            self.counts.packets_in.to_string(),
            self.counts.bytes_in.to_string(),
            self.counts.packets_out.to_string(),
            self.counts.bytes_out.to_string(),
            self.counts.to_stack.to_string(),
            self.drops.to_string(),
        ]]
    }
}

/// All endpoints, by interface.
pub fn rows(
    state: &State,
    counts: &BTreeMap<u32, EndpointCounts>,
    attachments: &[Attachment],
) -> Vec<EndpointRow> {
    let endpoints = state.catalog.endpoints.iter();
    endpoints
        .map(|(interface, info)| {
            let entry = info.ifindex.and_then(|index| state.endpoints.get(&index));
            let counts = info.ifindex.and_then(|index| counts.get(&index));
            let counts = counts.copied().unwrap_or_default();
            let has_programs = || attachments.iter().any(|a| Some(a.ifindex) == info.ifindex);
            EndpointRow {
                interface: interface.clone(),
                ifindex: info.ifindex,
                state: match info.ifindex {
                    None => "pending",
                    Some(_) if has_programs() => "attached",
                    Some(_) => "detached",
                },
                addresses: info.addresses.iter().map(prefix_text).collect(),
                identity: info.identity,
                identity_name: name_of(&state.catalog, info.identity),
                ingress_enforcement: entry.map(|entry| enforcement(entry.ingress)),
                egress_enforcement: entry.map(|entry| enforcement(entry.egress)),
                drops: counts.drops_in + counts.drops_out,
                counts,
            }
        })
        .collect()
}

/// The name of an enforcement mode in listings.
pub fn enforcement(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Off => "off",
        Enforcement::DenyOnly => "deny-only",
        Enforcement::On => "on",
    }
}
