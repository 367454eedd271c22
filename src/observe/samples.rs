//! Flows for tests.

use std::time::{Duration, UNIX_EPOCH};

use crate::model::flow::{Flow, FlowPeer, Verdict};
use crate::model::policy::Direction;

pub const UDP: u8 = 17;
pub const TCP: u8 = 6;

/// A client's query to a DNS server through its service, on 22 November 2025, 12:53:05.123 UTC.
pub fn request() -> Flow {
    Flow {
        time: UNIX_EPOCH + Duration::from_millis(1_763_815_985_123),
        verdict: Verdict::Forwarded,
        point: "to-endpoint",
        drop_reason: None,
        direction: Direction::Ingress,
        reply: false,
        src: peer("10.200.0.64", 54764, 20001, "client"),
        dst: peer("10.200.0.44", 53, 18203, "kube-dns"),
        orig_dst: Some(("10.32.0.10".parse().unwrap(), 53)),
        service: Some("kube-dns".to_owned()),
        protocol: UDP,
        tcp_flags: 0,
        ct_state: Some("unreplied"),
        rule: Some("dns-clients/ingress/0".to_owned()),
        egress_rule: None,
        ingress_rule: Some("dns-clients/ingress/0".to_owned()),
        denied_by: None,
        enforced_by: Vec::new(),
        rule_place: Some(("/etc/dpd/config.toml".to_owned(), 42)),
        revision: 7,
        interface: "lxc-coredns".to_owned(),
        bytes: 72,
        repeats: 1,
    }
}

/// Its reply.
pub fn reply() -> Flow {
    let request = request();
    Flow {
        time: request.time + Duration::from_millis(1),
        direction: Direction::Egress,
        reply: true,
        src: request.dst,
        dst: request.src,
        orig_dst: None,
        ct_state: Some("replied"),
        interface: "lxc-client".to_owned(),
        ..self::request()
    }
}

/// An intruder's SYN to the same server, which no rule allows.
pub fn denied() -> Flow {
    Flow {
        time: UNIX_EPOCH + Duration::from_millis(1_763_815_989_001),
        verdict: Verdict::Dropped,
        point: "from-endpoint",
        drop_reason: Some((133, "policy denied: no rule")),
        src: peer("10.200.0.65", 40000, 20002, "intruder"),
        orig_dst: None,
        service: None,
        protocol: TCP,
        tcp_flags: 0x02,
        ct_state: None,
        rule: None,
        ingress_rule: None,
        denied_by: Some("ingress kube-dns".to_owned()),
        enforced_by: vec!["dns-clients".to_owned(), "lock-down".to_owned()],
        rule_place: None,
        interface: "lxc-intruder".to_owned(),
        bytes: 60,
        ..request()
    }
}

pub fn peer(ip: &str, port: u16, identity: u32, name: &str) -> FlowPeer {
    FlowPeer {
        ip: ip.parse().unwrap(),
        port,
        identity,
        name: name.to_owned(),
    }
}
