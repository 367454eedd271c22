//! `dpd check`: validates a file, and shows what the host lacks for it, or the memory of its maps.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::node::Node;
use super::output::{self, Format};
use crate::bpf::load::budget;
use crate::bpf::state::ct_table::Sizes;
use crate::bpf::sys::{requirements, write_access};
use crate::config::{self, Config, InEffect, Interface, Loaded, Problem, Problems, Severity};
use crate::model::budget::Budget;
use crate::model::catalog::Catalog;
use crate::model::host::HostState;
use crate::model::state::State;
use crate::net;
use crate::plan::{self, Inputs};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The file to check; default: the one of --config.
    file: Option<PathBuf>,
    /// Print the memory of the file's maps, instead of what the host lacks for it.
    #[arg(long)]
    budget: bool,
    /// Output format of the budget.
    #[arg(short, long, value_enum, default_value_t = Format::Table, requires = "budget")]
    output: Format,
}

pub fn run(config: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let file = arguments.file.as_deref().unwrap_or(config);
    let in_effect = Node::find_quietly(config).drop_ins_in_effect();
    let Some(loaded) = load(file, &in_effect) else {
        return Ok(ExitCode::FAILURE);
    };
    let state = compile(&loaded.config)?;
    if arguments.budget {
        print_budget(&state, &loaded.config, arguments.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_host(file, &loaded)
}

fn print_host(file: &Path, loaded: &Loaded) -> Result<ExitCode> {
    let config = &loaded.config;
    if let Some(lacks) = requirements::lacks() {
        eprintln!("warning: dpd does not start: {lacks}");
    }
    print_write_access(&config.daemon.bpf_root);
    match net::snapshot() {
        Ok(host) => {
            let (host, _) = host.named_by(config.interfaces.keys());
            let refused = refused_links(loaded, &host);
            if !refused.0.is_empty() {
                eprintln!("{refused}");
                return Ok(ExitCode::FAILURE);
            }
            print_advice(config, host);
        }
        Err(error) => eprintln!("warning: the host can't be checked: {error:#}"),
    }
    output::print(&format!("{}: ok ({})\n", file.display(), counts(config)))?;
    Ok(ExitCode::SUCCESS)
}

/// The interfaces of this host that can't have the role that the file gives them.
fn refused_links(loaded: &Loaded, host: &HostState) -> Problems {
    let refused = plan::links::unusable(&loaded.config, host);
    let problems = refused.into_iter().map(|link| {
        let path = ["interfaces", link.interface, link.key];
        let (file, excerpt) = config::locate(&loaded.sources, &path).unzip();
        Problem {
            severity: Severity::Error,
            message: format!("interface {} is refused: {}", link.interface, link.reason),
            file: file.unwrap_or_else(|| loaded.config.path.clone()),
            excerpt,
            notes: Vec::new(),
            help: Some(link.help.to_owned()),
        }
    });
    Problems(problems.collect())
}

/// Who else could change what is pinned.
fn print_write_access(root: &Path) {
    match write_access::check(root) {
        Ok(()) => {
            if let Some(warning) = write_access::warning(root) {
                eprintln!("warning: {warning}");
            }
        }
        Err(error) => eprintln!("warning: dpd does not start: {error:#}"),
    }
}

/// What the host lacks for the file, and what concerns dpd there.
fn print_advice(config: &Config, host: HostState) {
    let stack = net::host_stack();
    let unreadable = stack.as_ref().err().map(|error| format!("{error:#}"));
    let stack = stack.unwrap_or_default();
    let host = HostState { stack, ..host };
    let mut warnings = net::checks(config, &host);
    warnings.extend(plan::warnings(config, &host));
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    for note in net::absent(config, &host) {
        eprintln!("note: {note}");
    }
    match unreadable {
        None => print_forwarding(config, &host),
        Some(error) => eprintln!(
            "note: which way packets leave by the uplinks is not checked, which needs root: {error}"
        ),
    }
}

/// Which way packets leave by each uplink, and why.
fn print_forwarding(config: &Config, host: &HostState) {
    for (name, interface) in &config.interfaces {
        let Interface::Uplink {
            forwarding,
            masquerade,
            ..
        } = interface
        else {
            continue;
        };
        let (way, reason) = plan::forwarding::decide(
            (*forwarding, *masquerade),
            host.kernel_name(name),
            &host.stack,
        );
        let reason = match reason.as_str() {
            "" => "no chain and no XFRM policy concerns forwarded packets",
            reason => reason,
        };
        eprintln!("note: uplink {name}: forwarding {}: {reason}", way.name());
    }
    for hint in net::world_routes()
        .map(|world| plan::translators::hints(config, host, world))
        .unwrap_or_default()
    {
        eprintln!("note: {hint}");
    }
}

/// What the file would make, on a host that has all its interfaces.
fn compile(config: &Config) -> Result<State> {
    let state = plan::compile(Inputs {
        config,
        host: &plan::assumed_host(config),
        previous: &Catalog::default(),
        previous_maglev: &Default::default(),
        now_ns: 0,
    });
    Ok(state?)
}

fn print_budget(state: &State, config: &Config, format: Format) -> Result<()> {
    let connections = config.conntrack.size;
    let budget = budget::budget(Sizes { connections }, state)?;
    output::print(&match format {
        Format::Json => output::json(&budget)?,
        Format::Table => table(&budget),
    })
}

fn table(budget: &Budget) -> String {
    let header = [
        "MAP", "KIND", "ENTRIES", "KEY", "VALUE", "MEMORY", "COPIES", "PEAK",
    ];
    let maps = budget.maps.iter().map(|map| {
        vec![
            map.name.clone(),
            map.kind.clone(),
            map.entries.to_string(),
            map.key_size.to_string(),
            map.value_size.to_string(),
            output::size(map.bytes),
            map.copies.to_string(),
            output::size(map.peak_bytes),
        ]
    });
    format!(
        "{}\ntotal {}, and {} during a change ({} CPUs)\n",
        output::table(&header, maps),
        output::size(budget.bytes),
        output::size(budget.peak_bytes),
        budget.cpus
    )
}

/// A valid configuration, with its warnings and the skipped runtime drop-ins on stderr; `None` if it is invalid, with the problems on stderr.
pub fn load(file: &Path, in_effect: &InEffect) -> Option<Loaded> {
    match config::load_once(file, in_effect) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("{warning}\n");
            }
            for drop_in in &loaded.drop_ins {
                if let Some(reason) = drop_in.reason() {
                    let path = drop_in.path.display();
                    eprintln!("warning: the runtime drop-in {path} is skipped:\n{reason}\n");
                }
            }
            Some(loaded)
        }
        Err(problems) => {
            // Each problem is a block of text with the file's name.
            eprintln!("{}", problems.to_string().trim_end());
            None
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::documented;
    use crate::model::budget::MapBudget;

    #[test]
    fn every_key_is_documented() {
        let map = MapBudget {
            name: "policy".to_owned(),
            kind: "LpmTrie".to_owned(),
            entries: 4,
            key_size: 16,
            value_size: 8,
            bytes: 176,
            copies: 3,
            peak_bytes: 528,
        };
        let budget = Budget {
            cpus: 2,
            maps: vec![map],
            bytes: 176,
            peak_bytes: 528,
        };
        documented::check("check", &budget);
    }
}
