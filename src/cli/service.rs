//! `dpd service`: frontends and their backends, as the kernel holds them.

use anyhow::{Result, bail};
use clap::Subcommand;
use serde::Serialize;

use super::node::Node;
use super::output::{self, Listing, Row};
use crate::model::state::State;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all services.
    List(#[command(flatten)] Listing),
    /// Show one service.
    Get {
        /// Its name or number.
        name: String,
        #[command(flatten)]
        listing: Listing,
    },
}

pub fn run(node: &Node, command: &Command) -> Result<()> {
    let rows = rows(&node.reader()?.state()?);
    let (rows, listing) = match command {
        Command::List(listing) => (rows, listing),
        Command::Get { name, listing } => (get(rows, name)?, listing),
    };
    output::print(&output::render(listing.output, &rows)?)
}

/// One frontend.
#[derive(Debug, Serialize)]
pub struct ServiceRow {
    service: String,
    id: u32,
    /// `10.32.0.10:53/udp`
    frontend: String,
    backends: Vec<BackendRow>,
}

#[derive(Debug, Serialize)]
struct BackendRow {
    id: u32,
    address: String,
    state: String,
    weight: u16,
}

impl Row for ServiceRow {
    const HEADER: &[&str] = &[
        "SERVICE",
        "ID",
        "FRONTEND → BACKEND",
        "BACKEND-ID",
        "STATE",
        "WEIGHT",
        "BACKENDS",
    ];

    fn lines(&self) -> Vec<Vec<String>> {
        let line = |to: &str, id: String, state: &str, weight: String| {
            vec![
                self.service.clone(),
                self.id.to_string(),
                format!("{} → {to}", self.frontend),
                id,
                state.to_owned(),
                weight,
                self.backends.len().to_string(),
            ]
        };
        if self.backends.is_empty() {
            return vec![line("none", String::new(), "", String::new())];
        }
        let of_backend = |backend: &BackendRow| {
            let (id, weight) = (backend.id.to_string(), backend.weight.to_string());
            line(&backend.address, id, &backend.state, weight)
        };
        self.backends.iter().map(of_backend).collect()
    }
}

/// All frontends, by service.
pub fn rows(state: &State) -> Vec<ServiceRow> {
    let mut rows: Vec<ServiceRow> = state
        .services
        .iter()
        .map(|(frontend, entry)| {
            let name = state.catalog.services.get(&entry.service);
            let backends = state.backends.iter().filter(|(_, backend)| {
                // There is no NAT between the families.
                backend.service == entry.service
                    && backend.address.is_ipv4() == frontend.address.is_ipv4()
            });
            ServiceRow {
                service: name.map_or_else(|| entry.service.to_string(), |info| info.name.clone()),
                id: entry.service,
                frontend: frontend.to_string(),
                backends: backends
                    .map(|(id, backend)| BackendRow {
                        id: *id,
                        address: backend.address.to_string(),
                        state: backend.state.to_string(),
                        weight: backend.weight,
                    })
                    .collect(),
            }
        })
        .collect();
    rows.sort_by(|a, b| a.service.cmp(&b.service));
    rows
}

pub fn get(mut rows: Vec<ServiceRow>, name: &str) -> Result<Vec<ServiceRow>> {
    rows.retain(|row| row.service == name || row.id.to_string() == name);
    if rows.is_empty() {
        bail!("the datapath has no service {name:?}: see `dpd service list`");
    }
    Ok(rows)
}
