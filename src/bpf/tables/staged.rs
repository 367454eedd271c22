//! A generation that is written and not live.

use std::collections::BTreeMap;
use std::path::Path;

use libbpf_rs::MapHandle;

use crate::bpf::sys::pins;

/// Its epoch, its inner maps in the order of `TABLES`, and its pins.
#[derive(Debug)]
pub struct Staged {
    pub(super) epoch: u64,
    pub(super) inner: Vec<MapHandle>,
    pub(super) pins: BTreeMap<String, Option<u64>>,
}

impl Staged {
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// The pins in a directory with their inodes.
pub(super) fn pinned(dir: &Path) -> BTreeMap<String, Option<u64>> {
    let names = pins::names(dir).into_iter();
    names
        .map(|name| {
            let inode = pins::inode(&dir.join(&name));
            (name, inode)
        })
        .collect()
}
