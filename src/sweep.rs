//! Sweeping: expired connections are deleted, off the packets' path.

use std::path::Path;

use anyhow::Result;

use crate::bpf::state::conntrack::{Tables, now_ns};
use crate::bpf::state::sweep::Swept;
use crate::bpf::takeover::datapath_dir;
use crate::model::state::Settings;

/// One walk over all entries, unless the last one found the tables empty and nothing was inserted since.
pub fn sweep(root: &Path, settings: &Settings, last: Option<Swept>) -> Result<Swept> {
    let tables = Tables::open(&datapath_dir::readable(root))?;
    match last {
        Some(last) if last.counts.present == 0 && last.counts.inserted == tables.inserted()? => {
            tables.reset_endpoint_conns()?;
            Ok(Swept { deleted: 0, ..last })
        }
        _ => tables.sweep(settings, now_ns()),
    }
}
