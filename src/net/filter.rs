//! Traffic control's filters at an interface's hooks, whoever put them there.

use anyhow::{Context, Result};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcHandle, TcMessage};

use super::rtnetlink::Rtnetlink;

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

/// Whether an interface of the calling thread's namespace has filters on its clsact qdisc. One without the qdisc, or
/// one that is gone, has none.
pub fn has_filters(ifindex: u32) -> Result<bool> {
    let mut rtnetlink = Rtnetlink::open().context("open an rtnetlink socket")?;
    for hook in HOOKS {
        let mut question = TcMessage::default();
        question.header.index = ifindex as i32;
        question.header.parent = hook;
        let filters = rtnetlink
            .dump(RouteNetlinkMessage::GetTrafficFilter(question))
            .with_context(|| format!("list the filters of interface {ifindex}"))?;
        if !filters.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
