//! The conntrack tables, a row each, and how many entries they have.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapHandle, OpenMapMut};

use crate::bpf::abi;
use crate::model::conntrack::TableRooms;

/// A conntrack table.
#[derive(Clone, Copy, Debug)]
pub struct CtTable {
    pub name: &'static str,
    /// The number by which programs know it.
    pub index: abi::ct_table,
}

/// In the order in which [`super::conntrack::Tables`] has the maps.
pub const CT_TABLES: [CtTable; 3] = [
    CtTable {
        name: "dpd_ct_tcp",
        index: abi::ct_table::CT_TABLE_TCP,
    },
    CtTable {
        name: "dpd_ct_other",
        index: abi::ct_table::CT_TABLE_OTHER,
    },
    CtTable {
        name: "dpd_ct_unreplied",
        index: abi::ct_table::CT_TABLE_UNREPLIED,
    },
];

/// The conntrack table of this name.
pub fn find(name: &str) -> Option<&'static CtTable> {
    CT_TABLES.iter().find(|table| table.name == name)
}

/// How many connections the tables have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// `conntrack.size`
    pub connections: u32,
}

impl Sizes {
    fn entries(self, table: &CtTable) -> u32 {
        // A connection has two.
        TableRooms::of(self.connections)
            .at(table.index.0 as usize)
            .saturating_mul(2)
    }

    /// How many of these connections, by the table's name, have no room. More are lost if a table evicts early, as the
    /// kernel's LRU does.
    pub fn excess(self, by_table: &BTreeMap<&'static str, u64>) -> u64 {
        let excess = |(name, connections): (&&str, &u64)| {
            let room = find(name).map_or(0, |table| self.entries(table) / 2);
            connections.saturating_sub(room.into())
        };
        by_table.iter().map(excess).sum()
    }

    /// Sets the number of entries of an object's map, if it is a conntrack table.
    pub(in crate::bpf) fn set(self, map: &mut OpenMapMut<'_>, name: &str) -> Result<()> {
        let Some(table) = find(name) else {
            return Ok(());
        };
        let entries = self.entries(table);
        map.set_max_entries(entries)
            .with_context(|| format!("size map {name} for {entries} entries"))
    }

    /// The sizes with which the first of the tables was created.
    pub(in crate::bpf) fn of(tcp: &MapHandle) -> Sizes {
        Sizes {
            connections: tcp.max_entries() / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excess_is_counted_for_each_table_separately() {
        let sizes = Sizes { connections: 1024 };
        let rows = [
            ("nothing", [0, 0, 0], 0),
            ("all are full", [1024, 512, 256], 0),
            ("room in one is none in another", [0, 0, 300], 44),
            ("two are too small", [1030, 500, 300], 6 + 44),
        ];
        for (sentence, counts, excess) in rows {
            let names = CT_TABLES.iter().map(|table| table.name);
            let by_table = names.zip(counts).collect();
            assert_eq!(sizes.excess(&by_table), excess, "{sentence}");
        }
    }
}
