//! Reads what the kernel holds: tables, connections, counters, programs and links.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};

use crate::model::conntrack::Connection;
use crate::model::state::State;
use crate::model::status::{
    Attachment, ConntrackCounts, EventLoss, MapStatus, Metric, ProgramStatus,
};

/// The pinned datapath of one node.
pub struct Reader;

impl Reader {
    /// Opens what is pinned below `root`.
    pub fn open(root: &Path) -> Result<Reader> {
        bail!("no datapath of dpd at {}: not built", root.display())
    }

    /// The live generation.
    pub fn epoch(&self) -> Result<u64> {
        bail!("not built")
    }

    /// The live tables and their catalog.
    pub fn state(&self) -> Result<State> {
        bail!("not built")
    }

    pub fn connections(&self) -> Result<Vec<Connection>> {
        bail!("not built")
    }

    pub fn conntrack_counts(&self) -> Result<ConntrackCounts> {
        bail!("not built")
    }

    /// Packets by rule number.
    pub fn rule_hits(&self) -> Result<BTreeMap<u32, u64>> {
        bail!("not built")
    }

    pub fn metrics(&self) -> Result<Vec<Metric>> {
        bail!("not built")
    }

    pub fn programs(&self) -> Result<Vec<ProgramStatus>> {
        bail!("not built")
    }

    pub fn maps(&self) -> Result<Vec<MapStatus>> {
        bail!("not built")
    }

    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        bail!("not built")
    }

    pub fn event_loss(&self) -> Result<EventLoss> {
        bail!("not built")
    }

    /// Forgets every connection; says how many there were.
    pub fn flush_connections(&self) -> Result<u64> {
        bail!("not built")
    }
}
