//! `dpd identity`: identities with their numbers, names, labels and addresses.

use anyhow::{Context, Result};
use clap::Subcommand;
use serde::Serialize;

use super::node::Node;
use super::output::{self, Listing, Row};
use crate::model::catalog::Catalog;
use crate::model::policy::reserved;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all identities, reserved ones included.
    List(#[command(flatten)] Listing),
    /// Show one identity.
    Get {
        /// Its number or its name.
        #[arg(value_name = "ID-or-NAME")]
        name: String,
        #[command(flatten)]
        listing: Listing,
    },
}

pub fn run(node: &Node, command: &Command) -> Result<()> {
    let catalog = node.reader()?.catalog()?;
    let (rows, listing) = match command {
        Command::List(listing) => (rows(&catalog), listing),
        Command::Get { name, listing } => {
            let id = find(&catalog, name)?;
            let mut rows = rows(&catalog);
            rows.retain(|row| row.id == id);
            (rows, listing)
        }
    };
    output::print(&output::render(listing.output, &rows)?)
}

#[derive(Debug, Serialize)]
pub struct IdentityRow {
    id: u32,
    name: String,
    labels: Vec<String>,
    addresses: Vec<String>,
}

impl Row for IdentityRow {
    const HEADER: &[&str] = &["ID", "NAME", "LABELS", "ADDRESSES"];

    fn lines(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.id.to_string(),
            self.name.clone(),
            self.labels.join(", "),
            self.addresses.join(", "),
        ]]
    }
}

/// All identities, by number.
pub fn rows(catalog: &Catalog) -> Vec<IdentityRow> {
    let row = |(id, info): (&u32, &crate::model::catalog::IdentityInfo)| IdentityRow {
        id: *id,
        name: info.name.clone(),
        labels: info.labels.clone(),
        addresses: info.addresses.iter().map(prefix_text).collect(),
    };
    catalog.identities.iter().map(row).collect()
}

/// A prefix, or its only address.
pub fn prefix_text(prefix: &ipnet::IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

/// The number of an identity given by name or number.
pub fn find(catalog: &Catalog, name: &str) -> Result<u32> {
    let by_number = || {
        name.parse()
            .ok()
            .filter(|id| catalog.identities.contains_key(id))
    };
    catalog
        .find_identity(name)
        .or_else(by_number)
        .with_context(|| format!("the datapath has no identity {name:?}: see `dpd identity list`"))
}

/// An identity's name; its number as text where it has none.
pub fn name_of(catalog: &Catalog, id: u32) -> String {
    let name = catalog.identity_name(id).or_else(|| reserved::name(id));
    name.map_or_else(|| id.to_string(), str::to_owned)
}
