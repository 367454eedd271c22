//! A flow as users see it: the fields of its JSON, in their order.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::drop_reason;
use crate::model::flow::{Flow, FlowPeer, Verdict};
use crate::model::protocol::Protocol;

/// One flow. `null` in JSON is what the packet does not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// RFC 3339 in UTC, with milliseconds.
    #[serde(with = "milliseconds")]
    pub time: Timestamp,
    /// `forwarded`, `dropped` or `audit`.
    pub verdict: Cow<'a, str>,
    pub point: Cow<'a, str>,
    pub drop_reason: Option<Cow<'a, str>>,
    pub drop_reason_code: Option<u8>,
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
    /// Its name as in the file; the number as text if it has none there.
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
    /// The policies that enforce in that direction.
    pub enforced_by: Vec<Cow<'a, str>>,
    /// The file and line of `rule`.
    pub config_file: Option<Cow<'a, str>>,
    pub config_line: Option<usize>,
    /// The revision that the packet was processed under.
    pub config_revision: u64,
    /// The number of packets in this flow: one, and the suppressed ones.
    pub repeats: u32,
}

impl<'a> From<&'a Flow> for Record<'a> {
    fn from(flow: &'a Flow) -> Self {
        let text = |field: &'a Option<String>| field.as_deref().map(Cow::from);
        let has_ports = has_ports(flow);
        let port = |port: u16| has_ports.then_some(port);
        let place = flow.rule_place.as_ref();
        Record {
            // A time that the calendar can't show is no reason to lose a flow.
            time: Timestamp::try_from(flow.time).unwrap_or(Timestamp::UNIX_EPOCH),
            verdict: verdict_name(flow.verdict).into(),
            point: flow.point.into(),
            drop_reason: flow.drop_reason.map(|(_, words)| words.into()),
            drop_reason_code: flow.drop_reason.map(|(code, _)| code),
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
            enforced_by: flow.enforced_by.iter().map(Cow::from).collect(),
            config_file: place.map(|(file, _)| file.as_str().into()),
            config_line: place.map(|(_, line)| *line),
            config_revision: flow.revision,
            repeats: flow.repeats,
        }
    }
}

impl Record<'_> {
    /// Whether policy denied the packet, or would have.
    pub fn is_policy_denied(&self) -> bool {
        matches!(
            self.drop_reason_code,
            Some(drop_reason::POLICY | drop_reason::POLICY_DENY)
        )
    }
}

/// The verdict's name in JSON and filters.
pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forwarded => "forwarded",
        Verdict::Dropped => "dropped",
        Verdict::Audit => "audit",
    }
}

/// The protocol's name as in the file, or its number as text.
pub fn protocol_name(number: u8) -> Cow<'static, str> {
    match Protocol::from_number(number) {
        Some(protocol) => protocol.name().into(),
        None => number.to_string().into(),
    }
}

/// A fragment whose first fragment was not seen has no ports, though its protocol does: both are 0.
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

/// From the lowest bit of the header's byte, which is also the usual order: `SYN ACK`.
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::observe::samples::{denied, reply, request};

    #[test]
    fn json() {
        let rows = [
            (
                "a request: every field in its order",
                request(),
                concat!(
                    r#"{"time":"2025-11-22T12:53:05.123Z","verdict":"forwarded","point":"to-endpoint","#,
                    r#""drop_reason":null,"drop_reason_code":null,"direction":"ingress","reply":false,"#,
                    r#""src_ip":"10.200.0.64","src_port":54764,"src_identity":20001,"src_name":"client","#,
                    r#""dst_ip":"10.200.0.44","dst_port":53,"dst_identity":18203,"dst_name":"kube-dns","#,
                    r#""orig_dst_ip":"10.32.0.10","orig_dst_port":53,"service":"kube-dns","protocol":"udp","#,
                    r#""tcp_flags":null,"ct_state":"unreplied","rule":"dns-clients/ingress/0","egress_rule":null,"#,
                    r#""ingress_rule":"dns-clients/ingress/0","interface":"lxc-coredns","bytes":72,"#,
                    r#""denied_by":null,"enforced_by":[],"config_file":"/etc/dpd/config.toml","config_line":42,"#,
                    r#""config_revision":7,"repeats":1}"#
                ),
            ),
            (
                "a drop: missing fields are null",
                denied(),
                concat!(
                    r#"{"time":"2025-11-22T12:53:09.001Z","verdict":"dropped","point":"from-endpoint","#,
                    r#""drop_reason":"policy denied: no rule","drop_reason_code":133,"direction":"ingress","reply":false,"#,
                    r#""src_ip":"10.200.0.65","src_port":40000,"src_identity":20002,"src_name":"intruder","#,
                    r#""dst_ip":"10.200.0.44","dst_port":53,"dst_identity":18203,"dst_name":"kube-dns","#,
                    r#""orig_dst_ip":null,"orig_dst_port":null,"service":null,"protocol":"tcp","#,
                    r#""tcp_flags":"SYN","ct_state":null,"rule":null,"egress_rule":null,"#,
                    r#""ingress_rule":null,"interface":"lxc-intruder","bytes":60,"#,
                    r#""denied_by":"ingress kube-dns","enforced_by":["dns-clients","lock-down"],"#,
                    r#""config_file":null,"config_line":null,"config_revision":7,"repeats":1}"#
                ),
            ),
        ];
        for (sentence, flow, text) in rows {
            let record = Record::from(&flow);
            assert_eq!(serde_json::to_string(&record).unwrap(), text, "{sentence}");
        }
    }

    #[test]
    fn json_parses_to_the_same_record() {
        let odd_name = Flow {
            interface: "a\"b\\c\nd\u{1}".to_owned(),
            protocol: 255,
            ..reply()
        };
        for flow in [request(), reply(), denied(), odd_name] {
            let record = Record::from(&flow);
            let text = serde_json::to_string(&record).unwrap();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
    }

    #[test]
    fn details() {
        let icmp = Flow {
            protocol: 1,
            ..request()
        };
        let record = Record::from(&icmp);
        assert_eq!(
            (record.src_port, record.dst_port, record.orig_dst_port),
            (None, None, None)
        );
        assert_eq!(record.protocol, "icmp");

        let unknown = Flow {
            protocol: 99,
            ..request()
        };
        assert_eq!(Record::from(&unknown).protocol, "99");

        let out_of_range = Flow {
            time: UNIX_EPOCH + Duration::from_secs(1 << 50),
            ..request()
        };
        assert_eq!(Record::from(&out_of_range).time, Timestamp::UNIX_EPOCH);
    }
}
