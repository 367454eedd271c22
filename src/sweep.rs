//! The sweeper: expired connections are taken away, off the packets' path.

use std::path::Path;

use anyhow::Result;

use crate::bpf::conntrack::{Tables, now_ns};
use crate::bpf::place;
use crate::bpf::sweep::Swept;
use crate::model::state::Settings;

/// One walk over all entries. There is nothing to walk over where the last one found nothing and nothing has come since.
pub fn sweep(root: &Path, settings: &Settings, last: Option<Swept>) -> Result<Swept> {
    let tables = Tables::open(&place::readable(root))?;
    match last {
        Some(last) if last.counts.present == 0 && last.counts.inserted == tables.inserted()? => {
            tables.note_that_none_is_open()?;
            Ok(Swept { deleted: 0, ..last })
        }
        _ => tables.sweep(settings, now_ns()),
    }
}
