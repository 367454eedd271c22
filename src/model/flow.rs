//! A flow: one event of the datapath with names.

use std::net::IpAddr;
use std::time::SystemTime;

use super::policy::Direction;

/// The verdict on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Forwarded,
    Dropped,
    /// Policy would have dropped it; with `policy.audit` it was forwarded.
    Audit,
}

/// One event with names, as `observe`, the journal and their filters need it.
///
/// `src` and `dst` are those of the packet, also of a reply; only the text line swaps them for replies.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    pub time: SystemTime,
    pub verdict: Verdict,
    /// The name of the point, as `to-endpoint`.
    pub point: &'static str,
    /// The number and the words, as (133, "policy denied: no rule").
    pub drop_reason: Option<(u8, &'static str)>,
    /// The direction of the last policy lookup, seen from the local endpoint.
    pub direction: Direction,
    pub reply: bool,
    pub src: FlowPeer,
    pub dst: FlowPeer,
    /// The destination before DNAT; `None` if that is `dst`.
    pub orig_dst: Option<(IpAddr, u16)>,
    /// Name of the service that the connection goes through.
    pub service: Option<String>,
    /// IP protocol number.
    pub protocol: u8,
    /// The TCP header's flag byte; 0 for other protocols.
    pub tcp_flags: u8,
    pub ct_state: Option<&'static str>,
    /// The rule that decided here, as `dns-clients/ingress/0`.
    pub rule: Option<String>,
    pub egress_rule: Option<String>,
    pub ingress_rule: Option<String>,
    /// For a policy drop without a rule: `ingress kube-dns`, the direction and subject that has none.
    pub denied_by: Option<String>,
    /// The policies that put it under enforcement; empty if `policy.enforcement` alone does.
    pub enforced_by: Vec<String>,
    /// File and line of `rule`.
    pub rule_place: Option<(String, usize)>,
    /// The revision of the configuration for this packet.
    pub revision: u64,
    pub interface: String,
    /// Length of the packet from its network header on.
    pub bytes: u32,
    /// The number of packets that the event reports: more than 1 if repeats of the drop were suppressed.
    pub repeats: u32,
}

/// One side of a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowPeer {
    pub ip: IpAddr,
    /// 0 for protocols without ports.
    pub port: u16,
    pub identity: u32,
    /// The identity's name; its number as text if it has none.
    pub name: String,
}
