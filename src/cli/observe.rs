//! `dpd observe`: live flows, or the last ones.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::{env, io, process, thread};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::node::Node;
use super::output;
use crate::model::protocol::Protocol;
use crate::observe::client;
use crate::observe::filter::{Filter, PeerTerm, Terms, parse_prefix};
use crate::observe::line::{Colours, line};
use crate::observe::protocol::{Observe, Reply};

/// A filter that is given several times matches any of its values; different filters must all match.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show the last N flows that match the filters, and exit.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Continue with new flows; the default without --last.
    #[arg(short, long)]
    follow: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = FlowFormat::Compact)]
    output: FlowFormat,
    /// Colour the verdict; `auto`: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    color: When,

    /// Source: an identity's name or number, an address or a prefix.
    #[arg(long, value_name = "PEER", help_heading = "Filters")]
    from: Vec<PeerTerm>,
    /// Destination, before or after DNAT.
    #[arg(long, value_name = "PEER", help_heading = "Filters")]
    to: Vec<PeerTerm>,
    /// An address or prefix of either side.
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix, help_heading = "Filters")]
    ip: Vec<IpNet>,
    /// A port of either side.
    #[arg(long, help_heading = "Filters")]
    port: Vec<u16>,
    /// tcp, udp, sctp, icmp, icmpv6, or a number.
    #[arg(long, value_parser = parse_protocol, help_heading = "Filters")]
    protocol: Vec<String>,
    /// The verdict on the packet.
    #[arg(long, value_parser = VERDICTS, help_heading = "Filters")]
    verdict: Vec<String>,
    /// The name of the service.
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    service: Vec<String>,

    /// Not from this source.
    #[arg(long, value_name = "PEER", help_heading = "Filters")]
    not_from: Vec<PeerTerm>,
    /// Not to this destination.
    #[arg(long, value_name = "PEER", help_heading = "Filters")]
    not_to: Vec<PeerTerm>,
    /// With this address or prefix on neither side.
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix, help_heading = "Filters")]
    not_ip: Vec<IpNet>,
    /// With this port on neither side.
    #[arg(long, value_name = "PORT", help_heading = "Filters")]
    not_port: Vec<u16>,
    /// Not of this protocol.
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_protocol, help_heading = "Filters")]
    not_protocol: Vec<String>,
    /// Not with this verdict.
    #[arg(long, value_name = "VERDICT", value_parser = VERDICTS, help_heading = "Filters")]
    not_verdict: Vec<String>,
    /// Not through this service.
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    not_service: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FlowFormat {
    /// A line of text for each flow.
    Compact,
    /// A JSON object for each flow, on a line of its own.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

impl When {
    /// `auto`: stdout is a terminal with colours, and `NO_COLOR` (no-color.org) is not set.
    fn colours(self) -> Colours {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = || env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_wanted = match self {
            When::Always => true,
            When::Never => false,
            When::Auto => io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb(),
        };
        match is_wanted {
            true => Colours::Ansi,
            false => Colours::None,
        }
    }
}

const VERDICTS: [&str; 3] = ["forwarded", "dropped", "audit"];

fn parse_protocol(text: &str) -> Result<String, String> {
    if text.parse::<u8>().is_ok() {
        return Ok(text.to_owned());
    }
    let protocol: Protocol = text.to_ascii_lowercase().parse()?;
    Ok(protocol.name().to_owned())
}

pub fn run(node: &Node, arguments: Arguments) -> Result<()> {
    let format = arguments.output;
    let colours = arguments.color.colours();
    let zone = TimeZone::system();
    let request = arguments.into_request();
    let is_endless = request.follow;
    if is_endless {
        end_with_reader();
    }
    // The daemon gives a client little time to take the last flows, and a pager's user much to read them.
    let mut last = String::new();
    client::observe(&node.socket, request, |reply| {
        match reply {
            Reply::Flow(flow) => {
                let text = match format {
                    FlowFormat::Compact => line(&flow, &zone, colours),
                    FlowFormat::Json => serde_json::to_string(&flow)?,
                };
                match is_endless {
                    true => output::print(&(text + "\n"))?,
                    false => last.extend([text.as_str(), "\n"]),
                }
            }
            Reply::Lost(count) => {
                eprintln!("dpd: {count} flows are missing: this reader is too slow")
            }
            // Not a reply to this request.
            Reply::Status(_) | Reply::Error(_) => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    output::print(&last)?;
    if is_endless {
        bail!(
            "the daemon at {} has closed the connection",
            node.socket.display()
        );
    }
    Ok(())
}

/// Exits when the reader of stdout has closed it. The next write would fail, too, but it may never come:
/// `dpd observe --verdict dropped | head -1`.
fn end_with_reader() {
    let watch = || {
        let stdout = io::stdout();
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match poll(&mut fds, None) {
                Ok(_) => process::exit(0),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    };
    if let Err(error) = thread::Builder::new().spawn(watch) {
        log::debug!("watch stdout for its reader: {error}");
    }
}

impl Arguments {
    fn into_request(self) -> Observe {
        Observe {
            last: self.last.unwrap_or(0),
            follow: self.follow || self.last.is_none(),
            filter: Filter {
                only: Terms {
                    from: self.from,
                    to: self.to,
                    ip: self.ip,
                    port: self.port,
                    protocol: self.protocol,
                    verdict: self.verdict,
                    service: self.service,
                },
                not: Terms {
                    from: self.not_from,
                    to: self.not_to,
                    ip: self.not_ip,
                    port: self.not_port,
                    protocol: self.not_protocol,
                    verdict: self.not_verdict,
                    service: self.not_service,
                },
            },
        }
    }
}
