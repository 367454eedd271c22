//! The file system of pins.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h
const MAGIC: u64 = 0xcafe_4a11;
/// Of a directory that dpd creates: its group may read the maps.
pub(super) const OWN_MODE: u32 = 0o750;

/// Whether a path is on a bpffs; one that can't be read is not.
pub(super) fn is_bpffs(path: &Path) -> bool {
    let stat = rustix::fs::statfs(path);
    stat.is_ok_and(|stat| stat.f_type as u64 == MAGIC)
}

/// Creates directories that root alone may write, whatever the umask.
pub(in crate::bpf) fn dir_builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(OWN_MODE);
    builder
}
