//! `dpd ct`: the tracked connections, and those of the host's own sockets.

mod sockets;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use super::identity::name_of;
use super::node::Node;
use super::output::{self, Listing, Row, span};
use crate::bpf::reader::Part;
use crate::model::catalog::Catalog;
use crate::model::conntrack::Connection;
use crate::model::protocol::Protocol;
use crate::observe::record::protocol_name;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all connections.
    List(#[command(flatten)] Listing),
    /// Delete all connections; those that policy allows are created again by their next packet.
    Flush,
}

pub fn run(node: &Node, command: &Command) -> Result<()> {
    let listing = match command {
        Command::List(listing) => listing,
        Command::Flush => {
            let count = node.certain()?.reader()?.flush_connections()?;
            let noun = if count == 1 {
                "connection"
            } else {
                "connections"
            };
            return output::print(&format!("{count} {noun} deleted\n"));
        }
    };
    let reader = node.reader()?;
    let state = reader.parts(&[Part::Ipcache])?;
    let mut connections = reader.connections()?;
    match sockets::of_host(&reader) {
        Ok(sockets) => sockets::join(&mut connections, &sockets, &state),
        Err(error) => log::warn!("sockets of the host are not listed: {error:#}"),
    }
    let rows = rows(&state.catalog, connections);
    output::print(&output::render(listing.output, &rows)?)
}

/// One connection: its original tuple, and the tuple after NAT.
#[derive(Debug, Serialize)]
pub struct ConnectionRow {
    protocol: String,
    src_ip: IpAddr,
    src_port: Option<u16>,
    src_identity: u32,
    src_name: String,
    dst_ip: IpAddr,
    dst_port: Option<u16>,
    dst_identity: u32,
    dst_name: String,
    /// Of ICMP echo.
    icmp_id: Option<u16>,
    state: &'static str,
    service: Option<String>,
    service_id: Option<u32>,
    backend_id: Option<u32>,
    /// The destination after DNAT: the backend of the service.
    dnat_ip: Option<IpAddr>,
    dnat_port: Option<u16>,
    /// The source after SNAT: of a hairpin, by masquerade, or of a client of an external service.
    snat_ip: Option<IpAddr>,
    snat_port: Option<u16>,
    /// `None`: the packets of this socket of the host do not pass dpd.
    packets: Option<u64>,
    bytes: Option<u64>,
    reply_packets: Option<u64>,
    reply_bytes: Option<u64>,
    remaining_seconds: Option<f64>,
    age_seconds: Option<f64>,
    egress_rule: Option<String>,
    ingress_rule: Option<String>,
}

impl Row for ConnectionRow {
    const HEADER: &[&str] = &[
        "PROTOCOL",
        "SOURCE",
        "DESTINATION",
        "NAT",
        "SERVICE",
        "STATE",
        "PACKETS",
        "BYTES",
        "REPLIES",
        "REPLY-BYTES",
        "REMAINING",
        "AGE",
    ];

    fn lines(&self) -> Vec<Vec<String>> {
        let src = address(self.src_ip, self.src_port);
        let dst = address(self.dst_ip, self.dst_port);
        let translations = [
            self.dnat_ip
                .map(|ip| format!("{dst} → {}", address(ip, self.dnat_port))),
            self.snat_ip
                .map(|ip| format!("{src} → {}", address(ip, self.snat_port))),
        ];
        let protocol = match self.icmp_id {
            Some(id) => format!("{} id {id}", self.protocol),
            None => self.protocol.clone(),
        };
        vec![vec![
            protocol,
            format!("{src} ({})", self.src_name),
            format!("{dst} ({})", self.dst_name),
            translations
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", "),
            self.service.clone().unwrap_or_default(),
            self.state.to_owned(),
            number_text(self.packets),
            number_text(self.bytes),
            number_text(self.reply_packets),
            number_text(self.reply_bytes),
            span_text(self.remaining_seconds),
            span_text(self.age_seconds),
        ]]
    }
}

/// All connections, by protocol, source and destination.
pub fn rows(catalog: &Catalog, mut connections: Vec<Connection>) -> Vec<ConnectionRow> {
    connections.sort_by_key(|connection| (connection.protocol, connection.src, connection.dst));
    connections
        .iter()
        .map(|connection| row(catalog, connection))
        .collect()
}

fn row(catalog: &Catalog, connection: &Connection) -> ConnectionRow {
    let has_ports = Protocol::from_number(connection.protocol).is_some_and(Protocol::has_ports);
    let port = |address: SocketAddr| has_ports.then_some(address.port());
    let is_icmp = [Protocol::Icmp, Protocol::Icmpv6]
        .into_iter()
        .any(|icmp| icmp.number() == connection.protocol);
    // 0 means none in every map.
    let number = |id: u32| (id != 0).then_some(id);
    let rule = |id: u32| {
        let info = catalog.rules.get(&id);
        number(id).map(|id| info.map_or_else(|| id.to_string(), |info| info.label()))
    };
    let service = number(connection.service).map(|id| match catalog.services.get(&id) {
        Some(info) => info.name.clone(),
        None => id.to_string(),
    });
    let counted = connection.is_tracked;
    ConnectionRow {
        protocol: protocol_name(connection.protocol).into_owned(),
        src_ip: connection.src.ip(),
        src_port: port(connection.src),
        src_identity: connection.src_identity,
        src_name: name_of(catalog, connection.src_identity),
        dst_ip: connection.dst.ip(),
        dst_port: port(connection.dst),
        dst_identity: connection.dst_identity,
        dst_name: name_of(catalog, connection.dst_identity),
        // Of an echo one port of the tuple is the id, the other is 0.
        icmp_id: is_icmp.then(|| connection.src.port().max(connection.dst.port())),
        state: connection.state.name(),
        service,
        service_id: number(connection.service),
        backend_id: number(connection.backend_id),
        dnat_ip: connection.backend.map(|address| address.ip()),
        dnat_port: connection.backend.and_then(port),
        snat_ip: connection.source_translation.map(|address| address.ip()),
        snat_port: connection.source_translation.and_then(port),
        packets: counted.then_some(connection.packets),
        bytes: counted.then_some(connection.bytes),
        reply_packets: counted.then_some(connection.reply_packets),
        reply_bytes: counted.then_some(connection.reply_bytes),
        remaining_seconds: counted.then(|| seconds(connection.remaining_ns)),
        age_seconds: counted.then(|| seconds(connection.age_ns)),
        egress_rule: rule(connection.egress_rule),
        ingress_rule: rule(connection.ingress_rule),
    }
}

fn number_text(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

fn span_text(seconds: Option<f64>) -> String {
    let span = seconds.map(|seconds| span(Duration::from_secs_f64(seconds)));
    span.unwrap_or_default()
}

/// Rounded to milliseconds, for reading.
fn seconds(nanoseconds: u64) -> f64 {
    (nanoseconds / 1_000_000) as f64 / 1000.0
}

fn address(ip: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(ip, port).to_string(),
        None => ip.to_string(),
    }
}
