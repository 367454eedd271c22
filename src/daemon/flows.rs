//! From events to flows: numbers become names.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::bpf::abi;
use crate::bpf::events::Event;
use crate::model::catalog::Catalog;
use crate::model::drop_reason;
use crate::model::flow::{Flow, FlowPeer};
use crate::model::policy::{Direction, reserved};

/// Turns the kernel's monotonic time into the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: SystemTime,
    monotonic_ns: u64,
}

impl Clock {
    /// Both clocks read together.
    pub fn read() -> Clock {
        Clock {
            wall: SystemTime::now(),
            monotonic_ns: crate::bpf::conntrack::now_ns(),
        }
    }

    fn time(&self, monotonic_ns: u64) -> SystemTime {
        let difference = Duration::from_nanos(self.monotonic_ns.abs_diff(monotonic_ns));
        let time = if monotonic_ns <= self.monotonic_ns {
            self.wall.checked_sub(difference)
        } else {
            self.wall.checked_add(difference)
        };
        time.unwrap_or(self.wall)
    }
}

/// The flow of an event, with the names of its configuration.
pub fn flow(event: &Event, catalog: &Catalog, clock: Clock) -> Flow {
    // Who sent it and who gets it: a backend shows as itself, both ways.
    let (src, dst) = (event.src, event.new_dst);
    let is_translated = !event.reply && event.dst != dst;
    let orig_dst = is_translated.then_some((event.dst.ip(), event.dst.port()));
    let rule = |number: u32| rule_label(catalog, number);
    let (egress_rule, ingress_rule) = (rule(event.egress_rule), rule(event.ingress_rule));
    let decided = match event.direction {
        Direction::Egress => egress_rule.clone(),
        Direction::Ingress => ingress_rule.clone(),
    };
    let src_peer = peer(catalog, src.ip(), src.port(), event.src_identity);
    let dst_peer = peer(catalog, dst.ip(), dst.port(), event.dst_identity);
    // Policy is asked about the connection: its egress is that of the side that began, also where a reply was dropped.
    let subject = match (event.direction, event.reply) {
        (Direction::Egress, false) | (Direction::Ingress, true) => &src_peer.name,
        (Direction::Ingress, false) | (Direction::Egress, true) => &dst_peer.name,
    };
    let denied_by = (event.reason == REASON_POLICY && decided.is_none())
        .then(|| format!("{} {subject}", event.direction));
    Flow {
        time: clock.time(event.time_ns),
        verdict: event.verdict,
        point: event.point,
        drop_reason: (event.reason != 0).then(|| (event.reason, drop_reason::words(event.reason))),
        direction: event.direction,
        reply: event.reply,
        orig_dst,
        service: catalog
            .services
            .get(&event.service)
            .map(|service| service.name.clone()),
        protocol: event.protocol,
        tcp_flags: event.tcp_flags,
        ct_state: event.ct_state,
        rule: decided,
        egress_rule,
        ingress_rule,
        denied_by,
        interface: catalog
            .interface_name(event.ifindex)
            .map_or_else(|| event.ifindex.to_string(), str::to_owned),
        bytes: event.length,
        repeats: event.repeats,
        src: src_peer,
        dst: dst_peer,
    }
}

/// `enum reason` in `bpf/abi.h`: no rule allows it.
const REASON_POLICY: u8 = abi::reason::REASON_POLICY.0 as u8;

fn rule_label(catalog: &Catalog, number: u32) -> Option<String> {
    catalog.rules.get(&number).map(|rule| rule.label())
}

fn peer(catalog: &Catalog, ip: IpAddr, port: u16, identity: u32) -> FlowPeer {
    let name = catalog
        .identity_name(identity)
        .or_else(|| reserved::name(identity))
        .map_or_else(|| identity.to_string(), str::to_owned);
    FlowPeer {
        ip,
        port,
        identity,
        name,
    }
}
