//! Makes the kernel's tables equal to the wanted state.

use std::path::Path;

/// Detaches and unpins all that is ours below `root`; says what it took away.
pub fn cleanup(_root: &Path) -> anyhow::Result<Vec<String>> {
    anyhow::bail!("cleanup is not built")
}
