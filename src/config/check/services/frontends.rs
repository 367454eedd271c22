//! The frontends of a service: whose they are, and whether the backends fit them.

use std::collections::BTreeMap;
use std::fmt::Display;

use ipnet::IpNet;

use super::backends::Backends;
use crate::config::check::fields::Fields;
use crate::config::checked::Service;
use crate::config::report::Report;
use crate::config::source::{Located, Span};
use crate::config::tree::{NamedTable, Value};
use crate::config::value::{self, AnyFrontend};
use crate::model::families::Families;
use crate::model::protocol::Protocol;
use crate::model::service::{Frontend, NodePort};

/// The frontends of one service.
pub struct Frontends {
    pub addresses: Vec<Located<Frontend>>,
    pub node_ports: Vec<Located<NodePort>>,
}

impl Frontends {
    pub fn read(fields: &mut Fields) -> Frontends {
        let list = fields.parsed_list("frontends", value::any_frontend);
        fields.refuse_empty(
            "frontends",
            "name at least one address, as \"192.0.2.1:53/udp\"",
        );
        let mut frontends = Frontends {
            addresses: Vec::new(),
            node_ports: Vec::new(),
        };
        for Located { value, span } in list.unwrap_or_default() {
            match value {
                AnyFrontend::Address(value) => frontends.addresses.push(Located { value, span }),
                AnyFrontend::Node(value) => frontends.node_ports.push(Located { value, span }),
            }
        }
        frontends
    }

    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.node_ports.is_empty()
    }

    /// Whether they answer in a family. Node ports do in those of the backends, which without any are not known.
    pub fn have(&self, is_ipv6: bool, backends: &Backends) -> bool {
        let mut addresses = self.addresses.iter();
        let is_served = backends.is_empty() || backends.may_have(is_ipv6);
        (is_served && !self.node_ports.is_empty())
            || addresses.any(|frontend| frontend.value.address.is_ipv6() == is_ipv6)
    }

    /// A frontend needs backends of its own family, and a backend a frontend.
    pub fn check_families(&self, backends: &Backends, report: &mut Report) {
        for frontend in &self.addresses {
            let is_ipv6 = frontend.value.address.is_ipv6();
            if !backends.is_empty() && !backends.may_have(is_ipv6) {
                let family = family(is_ipv6);
                report
                    .error(
                        frontend.span,
                        format!("no backend of this service is {family}, but this frontend is"),
                    )
                    .help(format!("add an {family} backend, or remove the frontend"));
            }
        }
        for backend in backends.addresses.iter().filter(|_| !self.is_empty()) {
            let is_ipv6 = backend.value.address.is_ipv6();
            if !self.have(is_ipv6, backends) {
                let family = family(is_ipv6);
                report.warning(
                    backend.span,
                    format!(
                        "this backend gets no connections: no frontend of the service is {family}"
                    ),
                );
            }
        }
    }

    /// Reports node ports of a service without backends, in whose families they would answer; returns whether there are some.
    pub fn refuse_no_backend(&self, service: &NamedTable, report: &mut Report) -> bool {
        let is_empty = |list: Located<&[Value]>| list.value.is_empty();
        let has_none = service.table.list("backends").is_some_and(is_empty);
        for node_port in self.node_ports.iter().filter(|_| has_none) {
            let message = format!(
                "{} needs a backend: it answers in the backends' families",
                node_port.value
            );
            report
                .error(node_port.span, message)
                .help("add a backend, or remove the frontend");
        }
        has_none && !self.node_ports.is_empty()
    }

    /// SCTP's CRC32c covers the ports, and a program can't update it: ports are not translated.
    pub fn check_sctp_ports(&self, backends: &Backends, report: &mut Report) {
        let addresses = self.addresses.iter().map(|frontend| {
            let Frontend { address, port, .. } = frontend.value;
            (
                frontend.value.protocol,
                Families::of(address),
                port,
                frontend.span,
            )
        });
        let node_ports = self.node_ports.iter().map(|frontend| {
            let NodePort { port, protocol } = frontend.value;
            (protocol, Families::BOTH, port, frontend.span)
        });
        for (protocol, families, port, span) in addresses.chain(node_ports) {
            if report.is_full() {
                return; // there are as many errors as frontends times backends
            }
            let other_ports = backends.ports().filter(|(of_backend, backend)| {
                !families.intersection(*of_backend).is_empty() && backend.value != port
            });
            for (_, backend) in other_ports.filter(|_| protocol == Protocol::Sctp) {
                report
                    .error(
                        backend.span,
                        format!(
                            "the backend of an sctp frontend must have the frontend's port, {port}"
                        ),
                    )
                    .note(span, "the frontend")
                    .help("dpd does not translate ports of sctp");
            }
        }
    }
}

pub fn family(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "IPv6" } else { "IPv4" }
}

/// The frontends of all services with their owners.
#[derive(Default)]
pub struct Claims<'t> {
    addresses: BTreeMap<Frontend, Claim<'t>>,
    node_ports: BTreeMap<NodePort, Claim<'t>>,
}

/// A frontend of a service.
struct Claim<'t> {
    span: Span,
    service: &'t str,
    /// Of the service's backends: a node port answers in these.
    families: Families,
}

impl<'t> Claims<'t> {
    pub fn add(
        &mut self,
        frontends: &Frontends,
        (name, service): (&'t str, &Service),
        report: &mut Report,
    ) {
        let families = service.families();
        for frontend in &frontends.addresses {
            claim(&mut self.addresses, frontend, (name, families), report);
        }
        for frontend in &frontends.node_ports {
            claim(&mut self.node_ports, frontend, (name, families), report);
        }
    }

    /// Reports the frontends on this node's addresses, as far as the file names them, that are node ports as well.
    pub fn check_own(&self, own: &BTreeMap<IpNet, Span>, report: &mut Report) {
        for (frontend, claim) in &self.addresses {
            let Frontend { port, protocol, .. } = *frontend;
            let node_port = NodePort { port, protocol };
            if let Some(other) = self.node_ports.get(&node_port)
                && other.families.covers(frontend.address)
                && own.contains_key(&IpNet::from(frontend.address))
            {
                let message = format!(
                    "the frontend {frontend} already belongs to `{}`: it is {node_port} at an address of this node",
                    other.service
                );
                report
                    .error(claim.span, message)
                    .note(other.span, "the node port")
                    .help("a frontend belongs to one service: remove one of the two");
            }
        }
    }
}

fn claim<'t, T: Ord + Copy + Display>(
    taken: &mut BTreeMap<T, Claim<'t>>,
    frontend: &Located<T>,
    (service, families): (&'t str, Families),
    report: &mut Report,
) {
    let value = frontend.value;
    if let Some(first) = taken.get(&value) {
        report
            .error(
                frontend.span,
                format!(
                    "the frontend {value} already belongs to `{}`",
                    first.service
                ),
            )
            .note(first.span, "first given here")
            .help("a frontend belongs to one service: remove one of the two");
    } else {
        let claim = Claim {
            span: frontend.span,
            service,
            families,
        };
        taken.insert(value, claim);
    }
}
