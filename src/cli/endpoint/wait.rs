//! `dpd endpoint wait`: until an endpoint is served, for tools that create workloads.
//!
//! It reads the kernel, like the listings, so it needs the daemon only for the reason why something is missing.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::bpf::reader::Reader;
use crate::cli::node::Node;
use crate::cli::output::{self, span};
use crate::cli::poll::poll;
use crate::config::parse_duration;
use crate::model::catalog::Catalog;
use crate::net;
use crate::observe::client;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The name of its interface.
    name: String,
    /// Fail if it is not served by then: 250ms, 5s, 10m, 3h. Default: wait without end.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// What an endpoint lacks to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// No configuration is live.
    Configuration,
    /// The live configuration does not have it.
    Declaration,
    /// The live configuration has it as an uplink.
    Role,
    /// Its interface does not exist in this network namespace.
    Interface,
    /// Its interface exists, and is no endpoint of the live configuration yet.
    Row,
    /// It has not both programs.
    Programs,
}

/// # Errors
/// If the time is over, or the datapath can't be read.
pub fn run(node: &Node, arguments: &Arguments) -> Result<()> {
    let name = &arguments.name;
    let mut endpoint = Waited { name, live: None };
    match poll(arguments.timeout, || endpoint.look(node))? {
        Ok(revision) => output::print(&format!("endpoint {name} is served, revision {revision}\n")),
        Err(missing) => bail!(
            "endpoint {name} is not served after {}: {}",
            span(arguments.timeout.unwrap_or_default()),
            explain(missing, node, name)
        ),
    }
}

struct Waited<'a> {
    name: &'a str,
    /// The live catalog with its epoch: reading it takes long with a large file.
    live: Option<(u64, Catalog)>,
}

impl Waited<'_> {
    /// The revision that serves it, or what is missing.
    fn look(&mut self, node: &Node) -> Result<Result<u64, Missing>> {
        let Some(reader) = Reader::find(&node.bpf_root)? else {
            return Ok(Err(Missing::Configuration));
        };
        let epoch = reader.epoch()?;
        if epoch == 0 {
            return Ok(Err(Missing::Configuration));
        }
        let catalog = match self.live.take() {
            Some((known, catalog)) if known == epoch => catalog,
            _ => reader.catalog()?,
        };
        // By its name now: the live configuration may still have one that was replaced.
        let ifindex = net::ifindex(self.name);
        let missing = missing(&catalog, self.name, ifindex, |ifindex| {
            reader.has_endpoint_programs(ifindex)
        });
        self.live = Some((epoch, catalog));
        Ok(missing.map_or(Ok(epoch), Err))
    }
}

/// `ifindex`: of the interface that has the name now.
fn missing(
    catalog: &Catalog,
    name: &str,
    ifindex: Option<u32>,
    has_programs: impl Fn(u32) -> bool,
) -> Option<Missing> {
    let Some(endpoint) = catalog.endpoints.get(name) else {
        return Some(match catalog.uplinks.contains_key(name) {
            true => Missing::Role,
            false => Missing::Declaration,
        });
    };
    let Some(ifindex) = ifindex else {
        return Some(Missing::Interface);
    };
    if endpoint.ifindex != Some(ifindex) {
        return Some(Missing::Row);
    }
    (!has_programs(ifindex)).then_some(Missing::Programs)
}

/// What is missing, and why.
fn explain(missing: Missing, node: &Node, name: &str) -> String {
    let what = match missing {
        Missing::Configuration => "no configuration is live",
        Missing::Declaration => "the live configuration does not have it",
        Missing::Role => "the live configuration has it as an uplink",
        Missing::Interface => "its interface does not exist in this network namespace",
        Missing::Row => "its interface is not attached",
        Missing::Programs => "its interface has lost its programs",
    };
    let why = match client::status(&node.socket) {
        Err(error) if client::is_down(&error) => {
            Some("no daemon is running: `systemctl start dpd`".to_owned())
        }
        Err(error) => Some(format!("{error:#}")),
        Ok(status) => status.last_error.or_else(|| advice(missing, node, name)),
    };
    match why {
        Some(why) => format!("{what}: {why}"),
        None => what.to_owned(),
    }
}

/// What to do where the daemon has no error to report.
fn advice(missing: Missing, node: &Node, name: &str) -> Option<String> {
    match missing {
        Missing::Declaration | Missing::Role => Some(format!(
            "{} needs [interfaces.{name}] with role = \"endpoint\"",
            node.config.display()
        )),
        Missing::Row => Some("`dpd status` shows its state".to_owned()),
        Missing::Configuration | Missing::Interface | Missing::Programs => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog::{EndpointInfo, UplinkInfo};
    use crate::model::forwarding::Forwarding;
    use crate::model::xdp::XdpMode;

    #[test]
    fn an_endpoint_is_served_once_nothing_is_missing() {
        let endpoint = |ifindex| EndpointInfo {
            ifindex,
            identity: 300,
            addresses: Default::default(),
            row: 1,
        };
        let uplink = UplinkInfo {
            ifindex: Some(2),
            is_ethernet: true,
            xdp: XdpMode::Auto,
            forwarding: Forwarding::Direct,
            forwarding_reason: String::new(),
            masquerade: Default::default(),
            announced: Default::default(),
        };
        let catalog = Catalog {
            endpoints: [("lxc-a", Some(7)), ("lxc-late", None)]
                .map(|(name, ifindex)| (name.to_owned(), endpoint(ifindex)))
                .into(),
            uplinks: [("ens5".to_owned(), uplink)].into(),
            ..Catalog::default()
        };
        let rows = [
            ("it is served", "lxc-a", Some(7), true, None),
            (
                "it has one program",
                "lxc-a",
                Some(7),
                false,
                Some(Missing::Programs),
            ),
            (
                "it was replaced, and the live row is the old one's",
                "lxc-a",
                Some(8),
                true,
                Some(Missing::Row),
            ),
            ("it is gone", "lxc-a", None, true, Some(Missing::Interface)),
            (
                "it is pending, and is there now",
                "lxc-late",
                Some(9),
                true,
                Some(Missing::Row),
            ),
            (
                "it is pending",
                "lxc-late",
                None,
                true,
                Some(Missing::Interface),
            ),
            (
                "an uplink is no endpoint",
                "ens5",
                Some(2),
                true,
                Some(Missing::Role),
            ),
            (
                "the file lacks it",
                "lxc-b",
                Some(10),
                true,
                Some(Missing::Declaration),
            ),
        ];
        for (sentence, name, ifindex, has_programs, expected) in rows {
            let found = missing(&catalog, name, ifindex, |_| has_programs);
            assert_eq!(found, expected, "{sentence}");
        }
    }
}
