//! Prefixes as text.

use ipnet::IpNet;

/// A prefix in the file's spelling: a single address without its length.
pub fn text(prefix: IpNet) -> String {
    match prefix.prefix_len() == prefix.max_prefix_len() {
        true => prefix.addr().to_string(),
        false => prefix.to_string(),
    }
}
