//! The tc filters on an interface's clsact hooks, dpd's and others.

use anyhow::{Context, Result};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcHandle, TcMessage};

use super::netlink::Netlink;

/// The two hooks of a clsact qdisc (`TC_H_CLSACT`, `TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS` of linux/pkt_sched.h).
const HOOKS: [TcHandle; 2] = [
    TcHandle {
        major: 0xffff,
        minor: 0xfff2,
    },
    TcHandle {
        major: 0xffff,
        minor: 0xfff3,
    },
];

/// Whether an interface of the calling thread's namespace has filters on its clsact qdisc. An interface that has no
/// such qdisc, or does not exist, has none.
///
/// # Errors
/// If netlink fails.
pub fn has_filters(ifindex: u32) -> Result<bool> {
    let mut rtnetlink = Netlink::route().context("open an rtnetlink socket")?;
    for hook in HOOKS {
        let mut request = TcMessage::default();
        request.header.index = ifindex as i32;
        request.header.parent = hook;
        let filters = rtnetlink
            .dump(RouteNetlinkMessage::GetTrafficFilter(request))
            .with_context(|| format!("list the filters of interface {ifindex}"))?;
        if !filters.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
