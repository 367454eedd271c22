//! The memory of the maps of a configuration.

use serde::Serialize;

/// One map, or one table of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapBudget {
    pub name: String,
    pub kind: String,
    /// Its capacity; of a map that grows, the most entries that this configuration can cause.
    pub entries: u64,
    pub key_size: u32,
    pub value_size: u32,
    /// Bytes of one copy.
    pub bytes: u64,
    /// The most copies that exist at once, during a change.
    pub copies: u32,
    pub peak_bytes: u64,
}

/// All maps of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// The possible CPUs of this host: some maps have a value for each.
    pub cpus: u32,
    pub maps: Vec<MapBudget>,
    /// Of all maps, one copy each.
    pub bytes: u64,
    /// Of all maps during a change.
    pub peak_bytes: u64,
}
