//! Maglev tables: each starts a row of its own.

use std::collections::BTreeMap;

use crate::bpf::abi;
use crate::model::maglev::{MaglevKey, MaglevTable, MaglevTables, ROW_COLUMNS};
use crate::model::service::Frontend;
use crate::model::state::ServiceEntry;

const _: () = assert!(abi::maglev_row_size::MAGLEV_ROW_SIZE.0 as usize == ROW_COLUMNS);

/// The rows that a table has.
pub fn maglev_row_count(table: &MaglevTable) -> usize {
    table.columns.len().div_ceil(ROW_COLUMNS)
}

/// The rows of a table, with their indices.
pub fn maglev_rows(table: &MaglevTable) -> impl Iterator<Item = (u32, abi::maglev_row)> {
    let chunks = table.columns.chunks(ROW_COLUMNS);
    (table.first_row..).zip(chunks).map(|(index, chunk)| {
        let mut row = abi::maglev_row::default();
        row.column[..chunk.len()].copy_from_slice(chunk);
        (index, row)
    })
}

/// The tables that services have, of all rows. A table whose rows are missing is skipped.
pub fn decode_maglev(
    services: &BTreeMap<Frontend, ServiceEntry>,
    rows: &[(u32, abi::maglev_row)],
) -> MaglevTables {
    let columns: Vec<u16> = rows.iter().flat_map(|(_, row)| row.column).collect();
    let mut tables = MaglevTables::new();
    for (frontend, entry) in services {
        if entry.maglev_size == 0 || entry.lut_count == 0 {
            continue;
        }
        let key = MaglevKey {
            service: entry.service,
            is_ipv4: frontend.address.is_ipv4(),
            protocol: frontend.protocol,
        };
        let first = entry.maglev_first as usize * ROW_COLUMNS;
        if !tables.contains_key(&key)
            && let Some(own) = columns.get(first..first + entry.maglev_size as usize)
        {
            let table = MaglevTable {
                first_row: entry.maglev_first,
                columns: own.into(),
                backends: None,
            };
            tables.insert(key, table);
        }
    }
    tables
}
