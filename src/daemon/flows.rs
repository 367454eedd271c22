//! From events to flows: numbers become names.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::bpf::state::events::Event;
use crate::model::catalog::{Catalog, RuleInfo};
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
            monotonic_ns: crate::bpf::state::conntrack::now_ns(),
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
    let src_peer = peer(catalog, src.ip(), src.port(), event.src_identity);
    let dst_peer = peer(catalog, dst.ip(), dst.port(), event.dst_identity);
    // Policy is asked about the connection: its egress is that of the side that began, also where a reply was dropped.
    let subject = match (event.direction, event.reply) {
        (Direction::Egress, false) | (Direction::Ingress, true) => &src_peer,
        (Direction::Ingress, false) | (Direction::Egress, true) => &dst_peer,
    };
    let rule = deciding_rule(event, catalog);
    let lacks_rule = event.reason == drop_reason::POLICY && rule.is_none();
    let denied_by = lacks_rule.then(|| format!("{} {}", event.direction, subject.name));
    let enforced_by = match lacks_rule {
        true => catalog.enforced_by(subject.identity, event.direction),
        false => &[],
    };
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
        rule: rule.map(RuleInfo::label),
        egress_rule: catalog.rules.get(&event.egress_rule).map(RuleInfo::label),
        ingress_rule: catalog.rules.get(&event.ingress_rule).map(RuleInfo::label),
        denied_by,
        enforced_by: enforced_by.to_vec(),
        rule_place: rule.map(|rule| (rule.file.clone(), rule.line)),
        revision: event.epoch,
        interface: catalog
            .interface_name(event.ifindex)
            .map_or_else(|| event.ifindex.to_string(), str::to_owned),
        bytes: event.length,
        repeats: event.repeats,
        src: src_peer,
        dst: dst_peer,
    }
}

/// The rule by which the packet was let through or refused. What passes both sides was let through by the one that it
/// met last, or by the other where that one asks nothing; and a packet may be dropped for what no rule has to do with.
fn deciding_rule<'a>(event: &Event, catalog: &'a Catalog) -> Option<&'a RuleInfo> {
    let (met_last, other) = match event.direction {
        Direction::Egress => (event.egress_rule, event.ingress_rule),
        Direction::Ingress => (event.ingress_rule, event.egress_rule),
    };
    match event.reason {
        0 => catalog
            .rules
            .get(&met_last)
            .or_else(|| catalog.rules.get(&other)),
        drop_reason::POLICY | drop_reason::POLICY_DENY => catalog.rules.get(&met_last),
        _ => None,
    }
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
