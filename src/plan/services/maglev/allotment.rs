//! Which rows of the kernel's table each Maglev table has. A table whose backends have not changed is the one of the previous
//! generation: computing those of many services takes longer than the rest of the plan.

use std::sync::Arc;

use super::table::maglev_table;
use crate::model::maglev::{MaglevBackend, MaglevKey, MaglevTable, MaglevTables, rows};
use crate::parallel::each;

/// The wanted tables, one after the other.
#[derive(Debug, Default)]
pub struct Allotment {
    wanted: Vec<Wanted>,
    rows: u32,
}

#[derive(Debug)]
struct Wanted {
    key: MaglevKey,
    first_row: u32,
    size: u32,
    backends: Arc<[MaglevBackend]>,
}

impl Allotment {
    /// Returns the first row of the table of these backends, which are in the order of their addresses; 0 if there are none.
    pub fn add(&mut self, key: MaglevKey, size: u32, backends: &Arc<[MaglevBackend]>) -> u32 {
        if backends.is_empty() {
            return 0;
        }
        let first_row = self.rows;
        self.rows += rows(size);
        self.wanted.push(Wanted {
            key,
            first_row,
            size,
            backends: backends.clone(),
        });
        first_row
    }

    /// The tables; those that `previous` has are not computed again.
    pub fn tables(self, previous: &MaglevTables) -> MaglevTables {
        let (mut tables, mut others) = (MaglevTables::new(), Vec::new());
        for wanted in self.wanted {
            match wanted.find(previous) {
                Some(columns) => {
                    tables.insert(wanted.key, wanted.table(columns));
                }
                None => others.push(wanted),
            }
        }
        let computed = each(&others, Wanted::compute);
        let computed = others.into_iter().zip(computed);
        tables.extend(computed.map(|(wanted, columns)| (wanted.key, wanted.table(columns))));
        tables
    }
}

impl Wanted {
    fn find(&self, previous: &MaglevTables) -> Option<Arc<[u16]>> {
        let before = previous.get(&self.key)?;
        let is_same = before.columns.len() == self.size as usize
            && before.backends.as_ref() == Some(&self.backends);
        is_same.then(|| before.columns.clone())
    }

    fn compute(&self) -> Arc<[u16]> {
        maglev_table(&self.backends, self.key.protocol, self.size).into()
    }

    fn table(&self, columns: Arc<[u16]>) -> MaglevTable {
        MaglevTable {
            first_row: self.first_row,
            columns,
            backends: Some(self.backends.clone()),
        }
    }
}
