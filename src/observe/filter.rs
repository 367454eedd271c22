//! Filters of flows.
//!
//! Values of one kind are alternatives, different kinds must all match, and no exclusion may match.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::record::{protocol_name, verdict_name};
use crate::model::flow::{Flow, FlowPeer};

/// What must match, and what must not. The default matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    pub only: Terms,
    pub not: Terms,
}

/// Values by kind; an empty kind is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    /// The source.
    pub from: Vec<PeerTerm>,
    /// The destination, before or after DNAT.
    pub to: Vec<PeerTerm>,
    /// Either side.
    pub ip: Vec<IpNet>,
    /// Either side.
    pub port: Vec<u16>,
    /// The protocol's name, or its number.
    pub protocol: Vec<String>,
    /// `forwarded`, `dropped` or `audit`.
    pub verdict: Vec<String>,
    pub service: Vec<String>,
}

impl Filter {
    pub fn matches(&self, flow: &Flow) -> bool {
        self.only.kinds(flow).into_iter().flatten().all(|hit| hit)
            && !self.not.kinds(flow).into_iter().flatten().any(|hit| hit)
    }
}

impl Terms {
    /// For each kind whether one of its values matches; `None` if it has none.
    fn kinds(&self, flow: &Flow) -> [Option<bool>; 7] {
        let orig_ip = flow.orig_dst.map(|(ip, _)| ip);
        let orig_port = flow.orig_dst.map(|(_, port)| port);
        [
            any(&self.from, |peer| peer.matches(&flow.src, None)),
            any(&self.to, |peer| peer.matches(&flow.dst, orig_ip)),
            any(&self.ip, |prefix| {
                [Some(flow.src.ip), Some(flow.dst.ip), orig_ip]
                    .into_iter()
                    .flatten()
                    .any(|ip| prefix.contains(&ip))
            }),
            any(&self.port, |port| {
                *port == flow.src.port || *port == flow.dst.port || orig_port == Some(*port)
            }),
            any(&self.protocol, |protocol| {
                protocol.eq_ignore_ascii_case(&protocol_name(flow.protocol))
                    || protocol.parse() == Ok(flow.protocol)
            }),
            any(&self.verdict, |verdict| {
                verdict.eq_ignore_ascii_case(verdict_name(flow.verdict))
            }),
            any(&self.service, |service| {
                flow.service.as_deref() == Some(service)
            }),
        ]
    }
}

fn any<T>(terms: &[T], matches: impl FnMut(&T) -> bool) -> Option<bool> {
    (!terms.is_empty()).then(|| terms.iter().any(matches))
}

/// One side of a flow: an identity's name or number, or addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerTerm {
    Prefix(IpNet),
    Identity(String),
}

impl PeerTerm {
    /// `other` is a second address of the same side.
    fn matches(&self, peer: &FlowPeer, other: Option<IpAddr>) -> bool {
        match self {
            PeerTerm::Prefix(prefix) => {
                prefix.contains(&peer.ip) || other.is_some_and(|ip| prefix.contains(&ip))
            }
            PeerTerm::Identity(text) => *text == peer.name || text.parse() == Ok(peer.identity),
        }
    }
}

impl FromStr for PeerTerm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match parse_prefix(text) {
            Ok(prefix) => Ok(PeerTerm::Prefix(prefix)),
            Err(_) if text.is_empty() => Err("the name is empty".to_owned()),
            // No identity's name looks like these: it is a mistyped address.
            Err(error) if text.contains(['/', ':']) || is_dotted_number(text) => Err(error),
            Err(_) => Ok(PeerTerm::Identity(text.to_owned())),
        }
    }
}

fn is_dotted_number(text: &str) -> bool {
    text.contains('.') && text.chars().all(|c| c == '.' || c.is_ascii_digit())
}

/// Parses a prefix, or an address as a prefix of full length.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    text.parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse::<IpNet>())
        .map_err(|_| format!("{text:?} is not an address, nor a prefix such as 10.200.0.0/24"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::samples::{denied, reply, request};

    fn filter(only: &str, not: &str) -> Filter {
        let text = format!(r#"{{"only":{{{only}}},"not":{{{not}}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn filters() {
        // (sentence, only, not, matches [request, reply, denied])
        let rows = [
            ("no condition", "", "", [true, true, true]),
            (
                "a source's name",
                r#""from":[{"identity":"client"}]"#,
                "",
                [true, false, false],
            ),
            (
                "a source's number",
                r#""from":[{"identity":"20001"}]"#,
                "",
                [true, false, false],
            ),
            (
                "a source's prefix",
                r#""from":[{"prefix":"10.200.0.64/31"}]"#,
                "",
                [true, false, true],
            ),
            (
                "a name of no identity",
                r#""from":[{"identity":"clien"}]"#,
                "",
                [false, false, false],
            ),
            (
                "a destination's name",
                r#""to":[{"identity":"kube-dns"}]"#,
                "",
                [true, false, true],
            ),
            (
                "a destination by the service's address",
                r#""to":[{"prefix":"10.32.0.10/32"}]"#,
                "",
                [true, false, false],
            ),
            (
                "values of a kind are alternatives",
                r#""from":[{"identity":"client"},{"identity":"intruder"}]"#,
                "",
                [true, false, true],
            ),
            (
                "kinds must all match",
                r#""from":[{"identity":"client"}],"verdict":["dropped"]"#,
                "",
                [false, false, false],
            ),
            (
                "an address of either side",
                r#""ip":["10.200.0.64/32"]"#,
                "",
                [true, true, false],
            ),
            (
                "an address before DNAT",
                r#""ip":["10.32.0.0/24"]"#,
                "",
                [true, false, false],
            ),
            (
                "the other family never matches",
                r#""ip":["::/0"]"#,
                "",
                [false, false, false],
            ),
            (
                "a port of either side",
                r#""port":[54764]"#,
                "",
                [true, true, false],
            ),
            (
                "ports are alternatives",
                r#""port":[54764,40000]"#,
                "",
                [true, true, true],
            ),
            (
                "a protocol's name",
                r#""protocol":["tcp"]"#,
                "",
                [false, false, true],
            ),
            (
                "a protocol's name in capitals",
                r#""protocol":["UDP"]"#,
                "",
                [true, true, false],
            ),
            (
                "a protocol's number",
                r#""protocol":["17"]"#,
                "",
                [true, true, false],
            ),
            (
                "a verdict",
                r#""verdict":["dropped"]"#,
                "",
                [false, false, true],
            ),
            (
                "a service",
                r#""service":["kube-dns"]"#,
                "",
                [true, true, false],
            ),
            (
                "another service",
                r#""service":["kube-dn"]"#,
                "",
                [false, false, false],
            ),
            (
                "an exclusion",
                "",
                r#""verdict":["forwarded"]"#,
                [false, false, true],
            ),
            (
                "one match excludes",
                "",
                r#""verdict":["audit"],"port":[40000]"#,
                [true, true, false],
            ),
            (
                "a condition and an exclusion",
                r#""port":[53]"#,
                r#""from":[{"identity":"intruder"}]"#,
                [true, true, false],
            ),
            (
                "an exclusion has precedence",
                r#""protocol":["udp"]"#,
                r#""protocol":["udp"]"#,
                [false, false, false],
            ),
        ];
        for (sentence, only, not, expected) in rows {
            let filter = filter(only, not);
            let got = [request(), reply(), denied()].map(|flow| filter.matches(&flow));
            assert_eq!(got, expected, "{sentence}");
        }
    }

    #[test]
    fn peers() {
        let prefix = |text: &str| Ok(PeerTerm::Prefix(text.parse().unwrap()));
        let identity = |text: &str| Ok(PeerTerm::Identity(text.to_owned()));
        let rows = [
            ("10.200.0.64", prefix("10.200.0.64/32")),
            ("10.200.0.0/24", prefix("10.200.0.0/24")),
            ("fd00::64", prefix("fd00::64/128")),
            ("client", identity("client")),
            ("v1.2-dns", identity("v1.2-dns")),
            ("20001", identity("20001")),
            ("", Err("the name is empty".to_owned())),
        ];
        for (text, term) in rows {
            assert_eq!(text.parse(), term, "{text}");
        }
        for mistyped in [
            "10.200.0.256",
            "10.200.0.0/33",
            "fd00::g",
            "10.0.0.1:53",
            "a/b",
        ] {
            let error = mistyped.parse::<PeerTerm>().unwrap_err();
            assert!(error.contains("is not an address"), "{mistyped}: {error}");
        }
    }
}
