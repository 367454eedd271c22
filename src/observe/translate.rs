//! From events to flows: the numbers of an event become names of its configuration's catalog.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::bpf::state::conntrack;
use crate::bpf::state::events::Event;
use crate::model::catalog::{Catalog, RuleInfo};
use crate::model::drop_reason;
use crate::model::flow::{Flow, FlowPeer};
use crate::model::policy::{Direction, reserved};

/// Converts the kernel's monotonic time to wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: SystemTime,
    monotonic_ns: u64,
}

impl Clock {
    /// Both clocks, read together.
    pub fn read() -> Clock {
        Clock {
            wall: SystemTime::now(),
            monotonic_ns: conntrack::now_ns(),
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

/// The flow of an event, with the names of its configuration. `host_name` names an interface that the configuration does not
/// have; one without a name stands by its number.
pub fn flow(
    event: &Event,
    catalog: &Catalog,
    clock: Clock,
    host_name: impl Fn(u32) -> Option<String>,
) -> Flow {
    // The addresses at the two ends: a backend is shown by its own address in both directions.
    let (src, dst) = (event.src, event.new_dst);
    let is_translated = !event.reply && event.dst != dst;
    let orig_dst = is_translated.then_some((event.dst.ip(), event.dst.port()));
    let src_peer = peer(catalog, src.ip(), src.port(), event.src_identity);
    let dst_peer = peer(catalog, dst.ip(), dst.port(), event.dst_identity);
    // Policy applies to the connection: egress is the policy of the side that opened it, also for a dropped reply.
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
            .map(str::to_owned)
            .or_else(|| host_name(event.ifindex))
            .unwrap_or_else(|| event.ifindex.to_string()),
        bytes: event.length,
        repeats: event.repeats,
        src: src_peer,
        dst: dst_peer,
    }
}

/// The rule that allowed or denied the packet. Of a packet that both sides allow it is the rule of the side that was
/// checked last, or of the other if that one has none. A drop for another reason than policy has no rule.
fn deciding_rule<'a>(event: &Event, catalog: &'a Catalog) -> Option<&'a RuleInfo> {
    let (last, first) = match event.direction {
        Direction::Egress => (event.egress_rule, event.ingress_rule),
        Direction::Ingress => (event.ingress_rule, event.egress_rule),
    };
    match event.reason {
        0 => catalog
            .rules
            .get(&last)
            .or_else(|| catalog.rules.get(&first)),
        drop_reason::POLICY | drop_reason::POLICY_DENY => catalog.rules.get(&last),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog::EndpointInfo;
    use crate::model::flow::Verdict;

    #[test]
    fn an_interface_is_named_by_the_file_or_by_the_host_or_stands_by_its_number() {
        let at = |ifindex| Event {
            time_ns: 0,
            epoch: 1,
            protocol: 17,
            src: ([10, 0, 0, 1], 1).into(),
            dst: ([10, 0, 0, 2], 2).into(),
            new_src: ([10, 0, 0, 1], 1).into(),
            new_dst: ([10, 0, 0, 2], 2).into(),
            ifindex,
            length: 60,
            src_identity: 0,
            dst_identity: 0,
            service: 0,
            backend: 0,
            egress_rule: 0,
            ingress_rule: 0,
            repeats: 0,
            verdict: Verdict::Dropped,
            point: "from-endpoint",
            reason: 165,
            direction: Direction::Egress,
            reply: false,
            tcp_flags: 0,
            ct_state: None,
        };
        let mut catalog = Catalog::default();
        let endpoint = EndpointInfo {
            ifindex: Some(7),
            identity: 20001,
            addresses: [].into(),
            row: 1,
        };
        catalog.endpoints.insert("lxc-a".to_owned(), endpoint);
        let host = |ifindex: u32| {
            [(7, "veth7"), (8, "br0")]
                .into_iter()
                .find(|(known, _)| *known == ifindex)
        };
        for (ifindex, name) in [(7, "lxc-a"), (8, "br0"), (9, "9")] {
            let flow = flow(&at(ifindex), &catalog, Clock::read(), |ifindex| {
                host(ifindex).map(|(_, name)| name.to_owned())
            });
            assert_eq!(flow.interface, name);
        }
    }
}
