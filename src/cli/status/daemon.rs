//! The lines on the daemon and its file.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::bpf::takeover::datapath_dir;
use crate::cli::node::Node;
use crate::cli::output::span;
use crate::model::status::{DaemonStatus, DropInStatus};
use crate::observe::client;

#[derive(Debug, Serialize)]
pub(super) struct Daemon {
    /// `up`, `down` or `unreachable`.
    pub state: &'static str,
    pub pid: Option<u32>,
    pub version: Option<String>,
    pub uptime_seconds: Option<u64>,
    pub reloads: Option<u64>,
    /// Why its status is missing.
    pub error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ConfigStatus {
    pub path: String,
    /// The live generation; `None` without a datapath.
    pub revision: Option<u64>,
    pub applied_seconds_ago: Option<u64>,
    pub last_error: Option<String>,
    /// There is a live generation, and its revision can't be read.
    #[serde(skip)]
    pub is_unreadable: bool,
    /// The live datapath is another version's, which this one can't read: its directory.
    #[serde(skip)]
    pub other_version: Option<String>,
}

/// A runtime drop-in.
#[derive(Debug, Serialize)]
pub(super) struct DropIn {
    pub path: String,
    /// `in_effect` or `skipped`.
    pub state: &'static str,
    /// Why it is skipped.
    pub reason: Option<String>,
}

impl DropIn {
    pub fn new(status: &DropInStatus) -> DropIn {
        DropIn {
            path: status.path.clone(),
            state: match status.reason {
                None => "in_effect",
                Some(_) => "skipped",
            },
            reason: status.reason.clone(),
        }
    }

    pub fn is_skipped(&self) -> bool {
        self.reason.is_some()
    }
}

impl Daemon {
    pub fn new(status: &Result<DaemonStatus>) -> Daemon {
        match status {
            Ok(status) => Daemon {
                state: "up",
                pid: Some(status.pid),
                version: Some(status.version.clone()),
                uptime_seconds: Some(status.uptime_seconds),
                reloads: Some(status.reloads),
                error: None,
            },
            Err(error) => Daemon {
                state: if client::is_down(error) {
                    "down"
                } else {
                    "unreachable"
                },
                pid: None,
                version: None,
                uptime_seconds: None,
                reloads: None,
                error: Some(format!("{error:#}")),
            },
        }
    }

    pub fn text(&self, config: &ConfigStatus) -> String {
        match (self.pid, &self.version, self.uptime_seconds) {
            (Some(pid), Some(version), Some(uptime)) => {
                let uptime = ago(uptime);
                format!("{}, pid {pid}, version {version}, for {uptime}", self.state)
            }
            _ => {
                let error = self.error.as_deref().unwrap_or("unknown reason");
                let rest = match (&config.revision, &config.other_version) {
                    _ if self.state != "down" => String::new(),
                    (Some(_), _) => "; the datapath still works".to_owned(),
                    (None, Some(other)) => format!(
                        "; the datapath of another version of dpd ({other}) still works, which this one can't read"
                    ),
                    (None, None) => "; there is no datapath either".to_owned(),
                };
                format!("{} ({error}){rest}", self.state)
            }
        }
    }
}

impl ConfigStatus {
    /// As far as it is known without the daemon and the datapath.
    pub fn of(node: &Node) -> ConfigStatus {
        ConfigStatus {
            path: node.config.display().to_string(),
            revision: None,
            applied_seconds_ago: None,
            last_error: None,
            is_unreadable: false,
            other_version: datapath_dir::find_other_version(&node.bpf_root),
        }
    }

    pub fn take(&mut self, daemon: &DaemonStatus) {
        self.path.clone_from(&daemon.config);
        self.applied_seconds_ago = Some(daemon.applied_seconds_ago);
        self.last_error.clone_from(&daemon.last_error);
    }

    pub fn text(&self) -> String {
        let revision = match self.revision {
            Some(revision) => format!("revision {revision}"),
            None if self.is_unreadable => "the revision can't be read".to_owned(),
            None => "nothing is applied".to_owned(),
        };
        let applied = self
            .applied_seconds_ago
            .map(|seconds| format!(", applied {} ago", ago(seconds)));
        format!("{}, {revision}{}", self.path, applied.unwrap_or_default())
    }
}

pub(super) fn ago(seconds: u64) -> String {
    span(Duration::from_secs(seconds))
}
