//! The sweeper: expired connections are taken away, off the packets' path.

use std::path::Path;

use anyhow::Result;

use crate::bpf::conntrack::{Tables, now_ns};
use crate::bpf::place;
use crate::bpf::sweep::Swept;
use crate::model::state::Settings;

/// One walk over all entries.
pub fn sweep(root: &Path, settings: &Settings) -> Result<Swept> {
    Tables::open(&place::readable(root))?.sweep(settings, now_ns())
}
