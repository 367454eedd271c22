//! What `dpd status` shows, collected from the daemon and from the kernel.

use std::net::IpAddr;

use anyhow::Result;
use serde::Serialize;

use super::daemon::{ConfigStatus, Daemon, DropIn};
use super::drops::{self, Drops};
use super::interfaces::{self, InterfaceStatus};
use super::prefilter::Prefilter;
use super::sockets;
use crate::bpf::reader::Reader;
use crate::bpf::takeover::datapath_dir;
use crate::cli::node::Node;
use crate::model::conntrack::Tally;
use crate::model::status::{
    ConntrackCounts, DaemonStatus, DriftCounts, EventLoss, MapStatus, ProgramStatus,
    SocketAttachment,
};
use crate::observe::record::protocol_name;

/// What could not be read is empty, and the reason is among the warnings.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    /// What is wrong; empty: all is well.
    pub problems: Vec<String>,
    pub daemon: Daemon,
    pub config: ConfigStatus,
    /// The runtime drop-ins, by the daemon's status.
    pub drop_ins: Vec<DropIn>,
    /// The directory of the live datapath, of whatever version.
    pub datapath: Option<String>,
    pub interfaces: Vec<InterfaceStatus>,
    /// The programs by which services answer the host's own sockets.
    pub sockets: Vec<SocketAttachment>,
    pub programs: Vec<ProgramStatus>,
    pub maps: Vec<MapStatus>,
    pub conntrack: Option<Conntrack>,
    pub prefilter: Prefilter,
    pub drops: Vec<Drops>,
    /// The time that the recent drops cover, a minute at most; `None` without a daemon.
    pub drops_recent_seconds: Option<u64>,
    /// Errors and resets that were not sent to their receiver: too many a second.
    pub responses_limited: u64,
    pub event_loss: Loss,
    /// `None` without a daemon.
    pub drift: Option<DriftCounts>,
    pub warnings: Vec<String>,
    /// What may be intended.
    pub hints: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Conntrack {
    #[serde(flatten)]
    pub counts: ConntrackCounts,
    /// By protocol, then state.
    pub connections: Vec<Connections>,
    /// `null`: no connection has one.
    pub source_ports: Option<SourcePorts>,
}

/// The source ports of SNAT, where most are in use.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct SourcePorts {
    pub total: u32,
    pub used: u64,
    pub free: u64,
    /// The host's address.
    pub source: IpAddr,
    /// `203.0.113.9:443/tcp`
    pub destination: String,
}

impl SourcePorts {
    fn new(tally: &Tally) -> Option<SourcePorts> {
        let (peer, used) = tally.busiest_snat()?;
        let protocol = protocol_name(peer.protocol);
        Some(SourcePorts {
            total: tally.source_ports,
            used,
            free: tally.free_source_ports(),
            source: peer.source,
            destination: format!("{}/{protocol}", peer.destination),
        })
    }

    /// A quarter or less is free. Where new connections get none, those that have one need no other.
    pub fn is_tight(&self) -> bool {
        self.total > 0 && self.free * 4 <= u64::from(self.total)
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Connections {
    pub protocol: String,
    pub state: &'static str,
    pub connections: u64,
}

/// Lost events, by cause.
#[derive(Debug, Default, Serialize)]
pub(super) struct Loss {
    #[serde(flatten)]
    pub kernel: EventLoss,
    pub observers: u64,
    pub journal: u64,
}

impl Conntrack {
    pub fn new((tally, counts): (Tally, ConntrackCounts)) -> Conntrack {
        let source_ports = SourcePorts::new(&tally);
        let rows = tally.by_state.into_iter();
        Conntrack {
            counts,
            source_ports,
            connections: rows
                .map(|((protocol, state), connections)| Connections {
                    protocol: protocol_name(protocol).into_owned(),
                    state: state.name(),
                    connections,
                })
                .collect(),
        }
    }
}

impl Status {
    pub fn new(node: &Node, daemon: Result<DaemonStatus>, datapath: Result<Reader>) -> Status {
        let mut status = Status {
            problems: Vec::new(),
            daemon: Daemon::new(&daemon),
            config: ConfigStatus::of(node),
            drop_ins: Vec::new(),
            datapath: datapath_dir::find_live(&node.bpf_root)
                .map(|pins| pins.version().display().to_string()),
            interfaces: Vec::new(),
            sockets: Vec::new(),
            programs: Vec::new(),
            maps: Vec::new(),
            conntrack: None,
            prefilter: Prefilter::default(),
            drops: Vec::new(),
            drops_recent_seconds: None,
            responses_limited: 0,
            event_loss: Loss::default(),
            drift: None,
            warnings: Vec::new(),
            hints: Vec::new(),
        };
        let daemon = daemon.ok();
        if let Some(daemon) = &daemon {
            status.take_daemon(daemon);
        }
        match datapath {
            Ok(reader) => status.take_datapath(&reader, daemon.as_ref()),
            Err(error) => {
                status.config.is_unreadable = daemon.is_some(); // a running daemon has a datapath
                status.warnings.push(format!("{error:#}"));
            }
        }
        status
    }

    fn take_daemon(&mut self, daemon: &DaemonStatus) {
        self.config.take(daemon);
        self.drop_ins = daemon.drop_ins.iter().map(DropIn::new).collect();
        self.event_loss.observers = daemon.observers_lost;
        self.event_loss.journal = daemon.journal_lost;
        self.drift = Some(daemon.drift);
        self.interfaces = interfaces::pending(&daemon.pending);
        self.drops_recent_seconds = daemon.recent_drops.as_ref().map(|drops| drops.seconds);
        self.warnings.clone_from(&daemon.warnings);
        self.hints.clone_from(&daemon.hints);
    }

    fn take_datapath(&mut self, reader: &Reader, daemon: Option<&DaemonStatus>) {
        self.config.revision = self.read("revision", reader.epoch());
        if let Some(catalog) = self.read("catalog", reader.catalog()) {
            if self.daemon.pid.is_none() {
                // Without a daemon only the catalog has the file of the datapath.
                self.config.path.clone_from(&catalog.config);
            }
            let hits = self.read("counters of the prefilter", reader.prefilter_hits());
            let malformed = self.read("count of malformed frames", reader.xdp_malformed());
            self.prefilter = Prefilter::new(
                &catalog,
                &hits.unwrap_or_default(),
                malformed.unwrap_or_default(),
            );
            self.interfaces = interfaces::all(&catalog, reader.attachments_of(&catalog));
            let announcements = daemon.map(|daemon| &daemon.announcements[..]);
            interfaces::add_announcements(&mut self.interfaces, announcements.unwrap_or_default());
        }
        self.sockets = sockets::attached(reader);
        self.programs = self.read("programs", reader.programs()).unwrap_or_default();
        self.maps = self.read("maps", reader.maps()).unwrap_or_default();
        let conntrack = self.read("connections", reader.conntrack());
        self.conntrack = conntrack.map(Conntrack::new);
        let metrics = self.read("counters", reader.metrics()).unwrap_or_default();
        let recent = daemon.and_then(|daemon| daemon.recent_drops.as_ref());
        self.drops = drops::by_reason(&metrics, recent);
        let limited = self.read("count of responses", reader.responses_limited());
        self.responses_limited = limited.unwrap_or_default();
        let loss = self.read("event loss", reader.event_loss());
        self.event_loss.kernel = loss.unwrap_or_default();
    }

    /// A part that can't be read is a warning, and the others are shown.
    fn read<T>(&mut self, what: &str, read: Result<T>) -> Option<T> {
        read.map_err(|error| {
            let warning = format!("the datapath's {what} can't be read: {error:#}");
            self.warnings.push(warning);
        })
        .ok()
    }
}
