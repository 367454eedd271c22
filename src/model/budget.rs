//! What the maps of a configuration take in memory.

use serde::Serialize;

/// One map, or one table of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapBudget {
    pub name: String,
    pub kind: String,
    /// Entries that it has room for; of a map that grows, those that this configuration can make it have.
    pub entries: u64,
    pub key_size: u32,
    pub value_size: u32,
    /// Bytes of one.
    pub bytes: u64,
    /// How many there are at most at once, while a change is being made.
    pub copies: u32,
    pub peak_bytes: u64,
}

/// All maps of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// CPUs that this host can have: some maps hold a value for each.
    pub cpus: u32,
    pub maps: Vec<MapBudget>,
    /// Of all maps, one of each.
    pub bytes: u64,
    /// Of all maps while a change is being made.
    pub peak_bytes: u64,
}
