//! A flow as users see it: the fields of its JSON, by their names and in their order.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::drop_reason;
use crate::model::flow::{Flow, FlowPeer, Verdict};
use crate::model::protocol::Protocol;

/// One flow. `null` in JSON is what a packet does not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// RFC 3339 in UTC, with milliseconds.
    #[serde(with = "milliseconds")]
    pub time: Timestamp,
    /// `forwarded`, `dropped` or `audit`.
    pub verdict: Cow<'a, str>,
    pub point: Cow<'a, str>,
    pub drop_reason: Option<Cow<'a, str>>,
    pub direction: Cow<'a, str>,
    pub reply: bool,
    pub src_ip: IpAddr,
    pub src_port: Option<u16>,
    pub src_identity: u32,
    pub src_name: Cow<'a, str>,
    pub dst_ip: IpAddr,
    pub dst_port: Option<u16>,
    pub dst_identity: u32,
    pub dst_name: Cow<'a, str>,
    pub orig_dst_ip: Option<IpAddr>,
    pub orig_dst_port: Option<u16>,
    pub service: Option<Cow<'a, str>>,
    /// Its name as the file spells it; the number as text if it has none there.
    pub protocol: Cow<'a, str>,
    /// The names of the set flags, as `SYN ACK`.
    pub tcp_flags: Option<Cow<'a, str>>,
    pub ct_state: Option<Cow<'a, str>>,
    pub rule: Option<Cow<'a, str>>,
    pub egress_rule: Option<Cow<'a, str>>,
    pub ingress_rule: Option<Cow<'a, str>>,
    pub interface: Cow<'a, str>,
    pub bytes: u32,
    /// For a policy drop without a rule: the direction and subject that has none.
    pub denied_by: Option<Cow<'a, str>>,
    /// How many packets it stands for.
    pub repeats: u32,
}

impl<'a> From<&'a Flow> for Record<'a> {
    fn from(flow: &'a Flow) -> Self {
        let text = |field: &'a Option<String>| field.as_deref().map(Cow::from);
        let has_ports = has_ports(flow);
        let port = |port: u16| has_ports.then_some(port);
        Record {
            // A clock that stands outside of the calendar is no reason to lose a flow.
            time: Timestamp::try_from(flow.time).unwrap_or(Timestamp::UNIX_EPOCH),
            verdict: verdict_name(flow.verdict).into(),
            point: flow.point.into(),
            drop_reason: flow.drop_reason.map(|(_, words)| words.into()),
            direction: flow.direction.to_string().into(),
            reply: flow.reply,
            src_ip: flow.src.ip,
            src_port: port(flow.src.port),
            src_identity: flow.src.identity,
            src_name: name_of(&flow.src),
            dst_ip: flow.dst.ip,
            dst_port: port(flow.dst.port),
            dst_identity: flow.dst.identity,
            dst_name: name_of(&flow.dst),
            orig_dst_ip: flow.orig_dst.map(|(ip, _)| ip),
            orig_dst_port: flow.orig_dst.and_then(|(_, number)| port(number)),
            service: text(&flow.service),
            protocol: protocol_name(flow.protocol),
            tcp_flags: tcp_flags(flow),
            ct_state: flow.ct_state.map(Cow::from),
            rule: text(&flow.rule),
            egress_rule: text(&flow.egress_rule),
            ingress_rule: text(&flow.ingress_rule),
            interface: flow.interface.as_str().into(),
            bytes: flow.bytes,
            denied_by: text(&flow.denied_by),
            repeats: flow.repeats,
        }
    }
}

impl Record<'_> {
    /// Whether it was policy that refused the packet, or would have.
    pub fn is_policy_denied(&self) -> bool {
        self.drop_reason.as_deref() == Some(drop_reason::words(POLICY_DENIED))
    }
}

/// The drop reason of a packet that no rule allows.
const POLICY_DENIED: u8 = 133;

/// The verdict as JSON and filters spell it.
pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forwarded => "forwarded",
        Verdict::Dropped => "dropped",
        Verdict::Audit => "audit",
    }
}

/// The protocol's name as the file spells it, or its number as text.
pub fn protocol_name(number: u8) -> Cow<'static, str> {
    match Protocol::from_number(number) {
        Some(protocol) => protocol.name().into(),
        None => number.to_string().into(),
    }
}

/// A later fragment whose first was not seen is of a protocol with ports, but has none itself: both are 0.
fn has_ports(flow: &Flow) -> bool {
    Protocol::from_number(flow.protocol).is_some_and(Protocol::has_ports)
        && (flow.src.port, flow.dst.port) != (0, 0)
}

fn name_of(peer: &FlowPeer) -> Cow<'_, str> {
    if peer.name.is_empty() {
        peer.identity.to_string().into()
    } else {
        peer.name.as_str().into()
    }
}

/// From the lowest bit of the header's byte, which is also how people say them: `SYN ACK`.
const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

fn tcp_flags(flow: &Flow) -> Option<Cow<'static, str>> {
    if flow.protocol != Protocol::Tcp.number() || flow.tcp_flags == 0 {
        return None;
    }
    let set: Vec<&str> = TCP_FLAGS
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| flow.tcp_flags & (1 << bit) != 0)
        .map(|(_, name)| name)
        .collect();
    Some(set.join(" ").into())
}

/// RFC 3339 with exactly three digits of a second.
mod milliseconds {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{time:.3}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}
