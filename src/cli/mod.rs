//! The command line: its arguments, and the module that runs each command.

mod check;
mod conntrack;
mod endpoint;
mod identity;
mod manual;
mod node;
mod observe;
mod output;
mod plan;
mod policy;
mod poll;
mod reload;
mod service;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use crate::bpf::image::ProgramImage;
use crate::config::LogTarget;
use crate::logging;
use node::Node;
use output::Listing;

/// A Cilium-style eBPF datapath for bare-metal hosts, from one file.
#[derive(Debug, Parser)]
#[command(name = "dpd", version = version(), arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file; its drop-ins are in the folder of the same name with `.d` instead of `.toml`.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "DPD_CONFIG",
        hide_env_values = true,
        default_value = node::DEFAULT_CONFIG
    )]
    config: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground: make the datapath match the file, and follow the file and the host.
    Run,
    /// Make the daemon read the file at once, and wait for the result.
    Reload,
    /// Validate a configuration file; changes nothing and needs no root.
    Check(check::Arguments),
    /// Dry run: show what applying a file would change on this host, and which connections it would end.
    Plan {
        /// The file; default: the one of --config.
        file: Option<PathBuf>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show the state of the daemon, interfaces, programs and maps, and drops by reason.
    Status(Listing),
    /// Show services: frontends and their backends.
    #[command(subcommand)]
    Service(service::Command),
    /// Show the endpoints of local workloads, or wait for one.
    #[command(subcommand)]
    Endpoint(endpoint::Command),
    /// Show identities: numbers, names, labels, addresses.
    #[command(subcommand)]
    Identity(identity::Command),
    /// Show policy rules and their hits, or check a connection.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Show or delete the conntrack entries.
    #[command(subcommand)]
    Ct(conntrack::Command),
    /// Show flows: live, or the last ones.
    Observe(Box<observe::Arguments>),
    /// Detach and unpin everything of dpd on this host.
    Cleanup,
    /// Write the manual pages and the shells' completions into a folder.
    #[command(hide = true)]
    Manual(manual::Arguments),
}

/// The version, and the layout of the datapath that it pins: what decides whether another version can take over.
fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let layout = ProgramImage::own().version;
        format!("{} (datapath abi-{layout})", env!("CARGO_PKG_VERSION"))
    });
    &VERSION
}

/// Runs the command line of this process. Invalid arguments exit with 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        // The reader has closed the pipe: `dpd ct list | head`.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dpd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let config = cli.config.as_path();
    match cli.command {
        Command::Run => {
            // The log target is needed before the file is validated, whose problems are logged.
            let node = Node::find_quietly(config);
            logging::init(node.log)?;
            let done = crate::daemon::run(config, &node.bpf_root, node.runtime_config);
            return match done {
                // What goes to the journal by stderr has the priority of information.
                Err(error) if logging::uses_journal(node.log) => {
                    log::error!("{error:#}");
                    Ok(ExitCode::FAILURE)
                }
                done => done.map(|()| ExitCode::SUCCESS),
            };
        }
        Command::Check(arguments) => return check::run(config, &arguments),
        Command::Plan { file, listing } => {
            logging::init(LogTarget::Stderr)?;
            return plan::run(config, file.as_deref().unwrap_or(config), listing);
        }
        Command::Manual(arguments) => {
            manual::run(&arguments, Cli::command())?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => logging::init(LogTarget::Stderr)?,
    }
    let node = Node::find(config)?;
    match cli.command {
        Command::Run | Command::Check(_) | Command::Plan { .. } | Command::Manual(_) => {}
        Command::Reload => reload::run(&node)?,
        Command::Status(listing) => return status::run(&node, listing.output),
        Command::Service(command) => service::run(&node, &command)?,
        Command::Endpoint(command) => endpoint::run(&node, &command)?,
        Command::Identity(command) => identity::run(&node, &command)?,
        Command::Policy(command) => return policy::run(&node, &command),
        Command::Ct(command) => conntrack::run(&node, &command)?,
        Command::Observe(arguments) => observe::run(&node, *arguments)?,
        Command::Cleanup => {
            let node = node.certain()?;
            for removed in crate::reconcile::cleanup(&node.bpf_root, node.expedite_rcu)? {
                output::print(&format!("{removed}\n"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;
