//! Lookup in the compiled ipcache, with the result that the kernel's trie gives: the longest prefix.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::state::{IpcacheEntry, State};

/// The entry of an address.
pub fn find(state: &State, address: IpAddr) -> Option<&IpcacheEntry> {
    find_with_prefix(state, address).map(|(_, entry)| entry)
}

/// The entry of an address, with its prefix.
pub fn find_with_prefix(state: &State, address: IpAddr) -> Option<(IpNet, &IpcacheEntry)> {
    covering(address).find_map(|prefix| Some((prefix, state.ipcache.get(&prefix)?)))
}

/// The prefixes that contain an address, the longest first.
pub fn covering(address: IpAddr) -> impl Iterator<Item = IpNet> {
    let lengths = (0..=IpNet::from(address).prefix_len()).rev();
    lengths
        .filter_map(move |length| IpNet::new(address, length).ok())
        .map(|prefix| prefix.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::ip;

    #[test]
    fn nothing_is_found_in_an_empty_table() {
        assert_eq!(find(&State::default(), ip("10.0.0.1")), None);
    }
}
