//! A flow: one event of the datapath with its names.

use std::net::IpAddr;
use std::time::SystemTime;

use super::policy::Direction;

/// What was done with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Forwarded,
    Dropped,
    /// Policy would have dropped it; `policy.audit` let it pass.
    Audit,
}

/// One event, complete: what `observe`, the journal and their filters work on.
///
/// `src` and `dst` are the packet's own, a reply's too; only the line of prose turns a reply round.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    pub time: SystemTime,
    pub verdict: Verdict,
    /// The name of the point, as `to-endpoint`.
    pub point: &'static str,
    /// Cilium's number and our sentence, as (133, "policy denied: no rule").
    pub drop_reason: Option<(u8, &'static str)>,
    /// Whose policy side the packet met last here; seen from the local endpoint.
    pub direction: Direction,
    pub reply: bool,
    pub src: FlowPeer,
    pub dst: FlowPeer,
    /// Where the packet was sent to before translation; `None` if that is `dst`.
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
    /// And the policies that put it under enforcement; none if `policy.enforcement` does.
    pub enforced_by: Vec<String>,
    /// File and line of `rule`.
    pub rule_place: Option<(String, usize)>,
    /// Of the configuration that the packet met.
    pub revision: u64,
    pub interface: String,
    /// Length of the packet from its network header on.
    pub bytes: u32,
    /// How many the event stands for: 1, or more where the same drop was held back.
    pub repeats: u32,
}

/// One side of a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowPeer {
    pub ip: IpAddr,
    /// 0 for protocols without ports.
    pub port: u16,
    pub identity: u32,
    /// The identity's name; its number as text where it has none.
    pub name: String,
}
