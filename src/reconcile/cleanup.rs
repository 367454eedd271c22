//! `dpd cleanup`: removes all that dpd has attached and pinned.

use std::path::Path;

use anyhow::{Context, Result};

use super::hooks::detach_all;
use super::sockets;
use crate::bpf::attach;
use crate::bpf::sys::expedited_rcu::{self, ExpeditedRcu};
use crate::bpf::sys::lock;
use crate::bpf::sys::pins::Pins;
use crate::bpf::takeover::datapath_dir;

/// Removes everything of dpd from this host, with expedited grace periods if those may be used; returns what that was, a line
/// each.
///
/// # Errors
/// If a daemon is at work on it, the root is on no bpffs, or the kernel refuses.
pub fn cleanup(root: &Path, may_expedite_rcu: bool) -> Result<Vec<String>> {
    // Without permission to look, `exists` would be false.
    let is_there = root
        .try_exists()
        .with_context(|| format!("read {} (as root?)", root.display()))?;
    if !is_there {
        return Ok(Vec::new());
    }
    let lock = lock::lock(root)?;
    expedited_rcu::recover(root);
    let mut removed = Vec::new();
    let all = Pins::all(root);
    let held = all.iter().map(|pins| attach::held(pins).len()).sum();
    let expedited = may_expedite_rcu
        .then(|| ExpeditedRcu::begin(root, held))
        .flatten();
    for pins in &all {
        for ifindex in attach::held(pins) {
            if let Some(mechanism) = detach_all(pins, ifindex)? {
                removed.push(format!(
                    "programs of interface {ifindex} ({})",
                    mechanism.name()
                ));
            }
        }
    }
    drop(expedited);
    for pins in &all {
        if sockets::detach_all(pins)? {
            removed.push("programs for the host's sockets".to_owned());
        }
    }
    for pins in all {
        datapath_dir::remove(&pins)?;
        removed.push(format!(
            "pinned maps and programs in {}",
            pins.version().display()
        ));
    }
    lock::remove_root(root, &lock)?;
    Ok(removed)
}
