//! What a takeover does with a map that is pinned already.

/// By the map of the datapath that is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTakeover {
    /// A new map: the daemon writes it from the configuration.
    Create,
    /// Its map if the layout is the same, else a new one: what is lost is rebuilt.
    Adopt,
    /// Its map if the version is the same, else a new one: the map has no types by which layouts could be compared.
    AdoptOfSameVersion,
    /// Its map if the layout is the same, else a new one to which the rows are migrated.
    Migrate,
    /// The same; an entry is migrated with its reverse entry, and the size may differ.
    MigrateConntrack,
}

impl OnTakeover {
    pub fn is_migrated(self) -> bool {
        matches!(self, OnTakeover::Migrate | OnTakeover::MigrateConntrack)
    }
}
