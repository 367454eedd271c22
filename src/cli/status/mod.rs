//! `dpd status`: the state of the daemon and the datapath, on one screen.

mod daemon;
mod drops;
mod health;
mod interfaces;
mod prefilter;
mod report;
mod screen;
mod sockets;

use std::process::ExitCode;

use anyhow::Result;

use super::node::Node;
use super::output::{self, Format};
use crate::observe::client;
use report::Status;

pub fn run(node: &Node, format: Format) -> Result<ExitCode> {
    let daemon = client::status(&node.socket);
    let datapath = node.reader();
    let is_found = daemon.is_ok() || datapath.is_ok();
    let mut status = Status::new(node, daemon, datapath);
    status.problems = health::problems(&status);
    output::print(&match format {
        Format::Table => screen::screen(&status),
        Format::Json => output::json(&status)?,
    })?;
    Ok(if is_found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
pub(super) mod tests;
