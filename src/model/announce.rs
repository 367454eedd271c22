//! Addresses that uplinks answer for though no interface of the host has them (`l2_announce`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::host::Mac;

/// An uplink that announces, while its link is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncingLink {
    pub interface: String,
    pub ifindex: u32,
    pub mac: Mac,
    /// How often its link has come up.
    pub carrier_ups: u32,
    /// What it is to answer for, if nobody else does.
    pub addresses: BTreeSet<IpAddr>,
}

/// An address that an uplink announces, or is to announce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    pub interface: String,
    pub address: IpAddr,
    pub state: AnnouncementState,
    /// The MAC address of who has it, in a conflict.
    pub defender: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnouncementState {
    /// Whether anybody has it is not known yet.
    Probing,
    Announced,
    /// Somebody else on the link has it.
    Conflict,
}
