//! `dpd policy check`: the verdict of the live tables on a connection, looked up as the datapath does.

mod target;
mod traffic;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::super::identity::name_of;
use super::super::node::Node;
use super::super::output::{self, Format, Listing};
use super::peer::{self, Peer};
use crate::model::policy::{Action, Direction};
use crate::model::protocol::Protocol;
use crate::model::state::{AddressScope, Enforcement, State};
use crate::observe::line::printable;
use crate::plan::policy::{Decision, Verdict, verdict};
use target::{Refusal, Target};
use traffic::Traffic;

/// The exit status of a denied connection.
const DENIED: u8 = 4;

/// PEER is an identity's name or number, the interface of an endpoint, an address or prefix, `cidr:PREFIX`,
/// `label:KEY=VALUE`, `any`, `host`, `remote-node` or `world`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The side that opens the connection.
    #[arg(long, value_name = "PEER")]
    from: String,
    /// The destination; the address of a service means its backends.
    #[arg(long, value_name = "PEER")]
    to: String,
    /// The destination port: `53/udp`; `icmp` and `icmpv6` have none.
    #[arg(value_name = "PORT/PROTO")]
    traffic: Traffic,
    #[command(flatten)]
    listing: Listing,
}

pub fn run(node: &Node, arguments: &Arguments) -> Result<ExitCode> {
    let reader = node.reader()?;
    let revision = reader.epoch()?;
    let report = check(&reader.state()?, revision, arguments)?;
    output::print(&match arguments.listing.output {
        Format::Table => report.to_string(),
        Format::Json => output::json(&report)?,
    })?;
    Ok(match report.verdict {
        "denied" => ExitCode::from(DENIED),
        _ => ExitCode::SUCCESS,
    })
}

/// The verdict, with the rule of the first case.
#[derive(Debug, Serialize)]
struct Report {
    verdict: &'static str,
    rule: Option<String>,
    config_file: Option<String>,
    config_line: Option<usize>,
    denied_by: Option<String>,
    enforced_by: Vec<String>,
    config_revision: u64,
    /// Each kind of sender to each kind of receiver, denied ones first.
    cases: Vec<Case>,
}

/// One kind of sender to one kind of receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Case {
    /// `allowed`, `denied`, or `audit`: denied, but policy.audit lets it pass.
    verdict: &'static str,
    src_ip: IpAddr,
    src_identity: u32,
    src_name: String,
    dst_ip: IpAddr,
    dst_port: Option<u16>,
    dst_identity: u32,
    dst_name: String,
    /// The service's address, if `--to` is one.
    orig_dst_ip: Option<IpAddr>,
    orig_dst_port: Option<u16>,
    service: Option<String>,
    /// The network's client reaches a backend on another host with an address of this one. Masquerade is not shown: it
    /// depends on the host's route.
    snat: bool,
    protocol: String,
    /// The deciding rule: the one that denies, or the one that allows at the receiver, else at the sender.
    rule: Option<String>,
    config_file: Option<String>,
    config_line: Option<usize>,
    /// Denied without a rule: the direction and subject that has none, or what refuses it before policy.
    denied_by: Option<String>,
    #[serde(skip)]
    refusal: Option<Refusal>,
    enforced_by: Vec<String>,
    /// `None`: no policy applies on this host.
    egress: Option<Side>,
    ingress: Option<Side>,
}

/// The verdict of one side's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Side {
    subject: String,
    subject_identity: u32,
    /// `off`, `deny-only` or `on`
    enforcement: &'static str,
    action: Action,
    /// In words.
    why: String,
    rule: Option<String>,
    config_file: Option<String>,
    config_line: Option<usize>,
    /// The policies that enforce on the subject.
    enforced_by: Vec<String>,
}

fn check(state: &State, revision: u64, arguments: &Arguments) -> Result<Report> {
    let receivers = peer::find(state, &arguments.to, &BTreeSet::new())?;
    let sources = target::sources(state, &receivers, arguments.traffic);
    let senders = peer::find(state, &arguments.from, &sources)?;
    let mut cases = Vec::new();
    for from in &senders {
        for to in &receivers {
            if !may_meet(from.address, to.address, arguments.traffic.protocol) {
                continue;
            }
            for target in target::targets(state, from, to.address, arguments.traffic)? {
                let case = case(state, from, to.address, &target, arguments.traffic);
                if !cases.contains(&case) {
                    cases.push(case);
                }
            }
        }
    }
    cases.sort_by_key(|case| case.verdict == "allowed");
    let Some(first) = cases.first().cloned() else {
        bail!(
            "{:?} and {:?} have no addresses of one family for {}",
            arguments.from,
            arguments.to,
            arguments.traffic
        );
    };
    Ok(Report {
        verdict: first.verdict,
        rule: first.rule,
        config_file: first.config_file,
        config_line: first.config_line,
        denied_by: first.denied_by,
        enforced_by: first.enforced_by,
        config_revision: revision,
        cases,
    })
}

/// Both addresses are of one family, and ICMP is that of the family.
fn may_meet(from: IpAddr, to: IpAddr, protocol: Protocol) -> bool {
    from.is_ipv4() == to.is_ipv4()
        && match protocol {
            Protocol::Icmp => from.is_ipv4(),
            Protocol::Icmpv6 => from.is_ipv6(),
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp => true,
        }
}

fn case(state: &State, from: &Peer, orig_dst: IpAddr, target: &Target, traffic: Traffic) -> Case {
    let (src, dst) = (from.address, target.to.ip());
    let verdict = match target.refusal {
        None => verdict(state, src, dst, traffic.protocol.number(), target.to.port()),
        Some(_) => Verdict::default(),
    };
    let side = |direction, decision: Option<Decision>, address| {
        decision.map(|decision| side(state, direction, &decision, address))
    };
    let egress = side(Direction::Egress, verdict.egress, src);
    let ingress = side(Direction::Ingress, verdict.ingress, dst);
    let refusal = verdict.refusal().map(|(direction, _)| direction);
    let decides = match refusal {
        Some(Direction::Egress) => egress.as_ref(),
        Some(Direction::Ingress) => ingress.as_ref(),
        None => [&ingress, &egress]
            .into_iter()
            .flatten()
            .find(|side| side.rule.is_some()),
    };
    let lacks_rule = refusal.filter(|_| decides.is_some_and(|side| side.rule.is_none()));
    let port = |port: u16| traffic.protocol.has_ports().then_some(port);
    let receiver = crate::plan::ipcache::find(state, dst).map_or(0, |entry| entry.identity);
    let is_served = target.service.is_some();
    Case {
        verdict: match (refusal, state.settings.audit) {
            _ if target.refusal.is_some() => "denied",
            (None, _) => "allowed",
            (Some(_), false) => "denied",
            (Some(_), true) => "audit",
        },
        src_ip: src,
        src_identity: from.entry.identity,
        src_name: name_of(&state.catalog, from.entry.identity),
        dst_ip: dst,
        dst_port: port(target.to.port()),
        dst_identity: receiver,
        dst_name: name_of(&state.catalog, receiver),
        orig_dst_ip: is_served.then_some(orig_dst),
        orig_dst_port: port(traffic.port).filter(|_| is_served),
        service: target.service.clone(),
        snat: target.is_snat,
        protocol: traffic.protocol.to_string(),
        rule: decides.and_then(|side| side.rule.clone()),
        config_file: decides.and_then(|side| side.config_file.clone()),
        config_line: decides.and_then(|side| side.config_line),
        denied_by: target.refusal.as_ref().map(Refusal::name).or_else(|| {
            let lacks = lacks_rule.zip(decides);
            lacks.map(|(direction, side)| format!("{direction} {}", side.subject))
        }),
        refusal: target.refusal.clone(),
        enforced_by: match (lacks_rule, decides) {
            (Some(_), Some(side)) => side.enforced_by.clone(),
            _ => Vec::new(),
        },
        egress,
        ingress,
    }
}

fn side(state: &State, direction: Direction, decision: &Decision, address: IpAddr) -> Side {
    let rule = decision
        .rule
        .and_then(|rule| state.catalog.rules.get(&rule));
    let enforcement = enforcement_of(state, direction, address);
    let enforced_by = state.catalog.enforced_by(decision.subject, direction);
    let why = match (rule, decision.action, enforcement) {
        (Some(rule), action, _) => format!("{action} by rule {}", rule.label()),
        (None, Action::Deny, _) if enforced_by.is_empty() => {
            "no rule, and policy.enforcement is always".to_owned()
        }
        (None, Action::Deny, _) => format!("no rule; enforced by {}", enforced_by.join(", ")),
        (None, Action::Allow, Enforcement::Off) => "not enforced".to_owned(),
        (None, Action::Allow, Enforcement::DenyOnly) => "no rule denies it".to_owned(),
        (None, Action::Allow, Enforcement::On) => "policy.allow_host allows the host".to_owned(),
    };
    Side {
        subject: name_of(&state.catalog, decision.subject),
        subject_identity: decision.subject,
        enforcement: super::super::endpoint::enforcement(enforcement),
        action: decision.action,
        why,
        rule: rule.map(|rule| rule.label()),
        config_file: rule.map(|rule| rule.file.clone()),
        config_line: rule.map(|rule| rule.line),
        enforced_by: enforced_by.to_vec(),
    }
}

/// Of the endpoint that has the address.
fn enforcement_of(state: &State, direction: Direction, address: IpAddr) -> Enforcement {
    let scope = crate::plan::ipcache::find(state, address).map(|entry| entry.scope);
    let endpoint = match scope {
        Some(AddressScope::Endpoint { ifindex }) => state.endpoints.get(&ifindex),
        _ => None,
    };
    endpoint.map_or(Enforcement::Off, |endpoint| match direction {
        Direction::Ingress => endpoint.ingress,
        Direction::Egress => endpoint.egress,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cases.iter().try_for_each(|case| writeln!(f, "{case}"))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = match self.dst_port {
            Some(port) => format!("{port}/{}", self.protocol),
            None => self.protocol.clone(),
        };
        let service = self.service.iter().map(|service| format!("{service} "));
        let mut lines = vec![format!(
            "{}: {} ({}) -> {}{} ({}) {traffic}",
            self.verdict,
            self.src_ip,
            self.src_name,
            service.collect::<String>(),
            self.dst_ip,
            self.dst_name
        )];
        for (direction, side) in [("egress", &self.egress), ("ingress", &self.ingress)] {
            let Some(side) = side else { continue };
            let place = side.config_file.iter().zip(side.config_line);
            let place: String = place
                .map(|(file, line)| format!(" ({file}:{line})"))
                .collect();
            lines.push(format!(
                "  {direction} of {}: {}{place}",
                side.subject, side.why
            ));
        }
        if self.egress.is_none() && self.ingress.is_none() {
            lines.push(match &self.refusal {
                Some(refusal) => format!("  {}: {}", refusal.name(), refusal.why()),
                None => "  no policy applies on this host".to_owned(),
            });
        }
        if self.snat {
            lines.push("  by SNAT: the other host sees an address of this one".to_owned());
        }
        let lines: Vec<_> = lines.iter().map(|line| printable(line)).collect();
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests;
