//! The daemon: makes the datapath match the file and keeps it so.

use std::path::Path;

/// Runs until a signal ends it.
pub fn run(_config_path: &Path) -> anyhow::Result<()> {
    anyhow::bail!("the daemon is not built")
}
