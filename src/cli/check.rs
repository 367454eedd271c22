//! `dpd check`: whether a file is valid, and what the host lacks for it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::output;
use crate::config::{self, Config, Interface};
use crate::net;

pub fn run(file: &Path) -> Result<ExitCode> {
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(problems) => {
            // The problems are whole blocks of text, with the file's name in each.
            eprintln!("{}", problems.to_string().trim_end());
            return Ok(ExitCode::FAILURE);
        }
    };
    let host = net::snapshot().map(|world| net::checks(&loaded.config, &world));
    let host =
        host.unwrap_or_else(|error| vec![format!("this host can't be looked at: {error:#}")]);
    for warning in &loaded.warnings {
        eprintln!("{warning}\n");
    }
    for warning in host {
        eprintln!("warning: {warning}");
    }
    output::print(&format!(
        "{}: ok ({})\n",
        file.display(),
        counts(&loaded.config)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// `3 endpoints, 1 uplink, 1 node, 2 identities, 1 service, 1 policy`
fn counts(config: &Config) -> String {
    let interfaces = config.interfaces.values();
    let uplinks = interfaces
        .filter(|interface| matches!(interface, Interface::Uplink { .. }))
        .count();
    let endpoints = config.interfaces.len() - uplinks;
    [
        (endpoints, "endpoint", "endpoints"),
        (uplinks, "uplink", "uplinks"),
        (config.nodes.len(), "node", "nodes"),
        (config.identities.len(), "identity", "identities"),
        (config.services.len(), "service", "services"),
        (config.policies.len(), "policy", "policies"),
    ]
    .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
    .join(", ")
}
