//! What the host's stack does with packets that it forwards, and what packets past it would miss: nftables, iptables-legacy
//! and XFRM policies. Reading changes nothing: no table is created by being looked for.

mod iptables;
mod nftables;
mod unsupported;
mod xfrm;

use std::fs;

use anyhow::{Context, Result};

use crate::model::forwarding::HostStack;

/// Set while a bridge hands its frames to the chains of IP.
const BRIDGE_CALLS: [&str; 2] = [
    "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
];

/// The stack of the calling thread's network namespace.
///
/// # Errors
/// If netlink fails, as without `CAP_NET_ADMIN`.
pub fn host_stack() -> Result<HostStack> {
    let mut filters = nftables::filters().context("read the host's nftables chains")?;
    filters.extend(iptables::filters().context("read the host's iptables-legacy tables")?);
    filters.extend(xfrm::policies().context("read the host's XFRM policies")?);
    let is_set = |switch: &&str| fs::read_to_string(switch).is_ok_and(|text| text.trim() == "1");
    Ok(HostStack {
        filters: filters.into_iter().collect(),
        filters_bridged: BRIDGE_CALLS.iter().any(is_set),
    })
}
