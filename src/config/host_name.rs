//! The name of this host, the default of `node.name`.

use std::fs;

use super::name;

/// The kernel's name of this host; `localhost` if it can't be read, or is not allowed as a name of a node.
pub(super) fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        name if name::name(name).is_ok() => name.to_owned(),
        _ => "localhost".to_owned(), // the kernel accepts any bytes
    }
}
