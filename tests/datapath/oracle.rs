//! The verdict of `dpd policy check`, compared with what the programs do under random small configurations.

use std::net::IpAddr;

use dpd::model::flow::Verdict as FlowVerdict;
use dpd::model::policy::{Action, Direction};
use dpd::model::state::State;
use dpd::plan::policy::{Decision, Verdict, verdict};

use crate::common::packet::{self, Packet, echo_request};
use crate::common::runner::{Answer, Node, host_mac, workload_mac};
use crate::lab::*;
use crate::random::{Rng, policy};

const UPLINK: &str = "ens5";
const CONFIGURATIONS: usize = 40;
const QUESTIONS: usize = 25;

fn configuration(rng: &mut Rng) -> String {
    let start = CONFIG.find("[identities]").expect("the lab has identities");
    let end = CONFIG.find("[conntrack]").expect("the lab has a conntrack");
    let mut text = CONFIG[..start].to_owned();
    text += &format!(
        r#"
[interfaces.ens5]
role = "uplink"

[nodes.node-b]
addresses = ["192.0.2.2", "2001:db8::2"]

[identities]
client = {{ id = 20001, labels = ["tier={}"] }}
kube-dns = {{ id = 18203, labels = ["tier={}"] }}
intruder = {{ id = 20002, labels = ["tier=back"] }}
web = {{ id = 20003, labels = ["tier=front"] }}
office = {{ id = 20005, cidrs = ["198.51.100.{}", "2001:db8:ffff::/64"] }}

[policy]
enforcement = "{}"
audit = {}
allow_host = {}
"#,
        rng.pick(&["front", "back"]),
        rng.pick(&["front", "back"]),
        rng.pick(&["0/24", "4/30", "128/25"]),
        rng.pick(&["default", "default", "default", "always", "never"]),
        rng.below(5) == 0,
        rng.below(3) > 0,
    );
    let policies = 1 + rng.below(4);
    for number in 0..policies {
        text += &policy(rng, number);
    }
    text + "\n" + &CONFIG[end..]
}

/// Who speaks: from which interface's workload; the host; or the network.
#[derive(Clone, Copy, Debug)]
enum Place {
    Workload(&'static str),
    Host,
    Network,
}

fn ends(family: &Family) -> Vec<(IpAddr, Place)> {
    let out = |v4: &str, v6: &str| ip(if family.is_v4() { v4 } else { v6 });
    vec![
        (family.client, Place::Workload(CLIENT)),
        (family.dns, Place::Workload(DNS)),
        (family.web, Place::Workload(WEB)),
        (family.intruder, Place::Workload(INTRUDER)),
        (family.host, Place::Host),
        (family.world, Place::Network),
        (out("198.51.100.130", "2001:db8:ffff:1::1"), Place::Network),
        (out("192.0.2.2", "2001:db8::2"), Place::Network),
        (out("203.0.113.9", "2001:db8:1::9"), Place::Network),
    ]
}

struct Question {
    from: (IpAddr, Place),
    to: (IpAddr, Place),
    protocol: u8,
    port: u16,
    packet: Packet,
}

fn question(rng: &mut Rng, family: &Family, source_port: u16) -> Question {
    let ends = ends(family);
    let (from, to) = loop {
        let (from, to) = (ends[rng.below(ends.len())], ends[rng.below(ends.len())]);
        let meets_us = matches!(from.1, Place::Workload(_)) || matches!(to.1, Place::Workload(_));
        if from.0 != to.0 && meets_us {
            break (from, to);
        }
    };
    let port = [53, 55, 80, 443, 1023, 1024, 8085, 9000][rng.below(8)];
    let (source, destination) = (at(from.0, source_port), at(to.0, port));
    let (protocol, port, packet) = match rng.below(4) {
        0 => (6, port, packet::tcp(source, destination).syn()),
        1 => (132, port, packet::sctp(source, destination)),
        2 => {
            let protocol = if family.is_v4() { 1 } else { 58 };
            (protocol, 0, echo_request(from.0, to.0, source_port, 1))
        }
        _ => (17, port, packet::udp(source, destination)),
    };
    Question {
        from,
        to,
        protocol,
        port,
        packet,
    }
}

fn run(node: &Node, question: &Question) -> Answer {
    let packet = question.packet.clone();
    match (question.from.1, question.to.1) {
        (Place::Workload(interface), _) => {
            let packet = packet.macs(workload_mac(interface), host_mac(interface));
            node.from_container(interface, &packet.build())
        }
        (Place::Host, Place::Workload(interface)) => {
            let packet = packet.macs(host_mac(interface), workload_mac(interface));
            node.to_container(interface, &packet.build())
        }
        _ => {
            let packet = packet.macs(workload_mac(UPLINK), host_mac(UPLINK));
            node.from_netdev(UPLINK, &packet.build())
        }
    }
}

/// The answer in words: what became of the packet, and the rules of both sides.
fn expected(state: &State, verdict: &Verdict) -> String {
    let label = |decision: Option<Decision>| {
        let rule = decision.and_then(|decision| decision.rule);
        rule.map_or("-".to_owned(), |rule| state.catalog.rules[&rule].label())
    };
    let refusal = verdict.refusal();
    // Who is refused at the sender is not asked about at the receiver.
    let ingress = match refusal {
        Some((Direction::Egress, _)) => None,
        _ => verdict.ingress,
    };
    let outcome = match refusal {
        None => "forwarded".to_owned(),
        Some((direction, decision)) => {
            let word = if state.settings.audit {
                "audit"
            } else {
                "dropped"
            };
            let reason = if decision.rule.is_some() { 181 } else { 133 };
            format!("{word} {reason} {direction}")
        }
    };
    format!("{outcome}, {} {}", label(verdict.egress), label(ingress))
}

fn reported(answer: &Answer) -> String {
    let [flow] = answer.events.as_slice() else {
        return format!("{} events", answer.events.len());
    };
    let rule = |rule: &Option<String>| rule.clone().unwrap_or("-".to_owned());
    let reason = flow.drop_reason.map_or(0, |(number, _)| number);
    let outcome = match flow.verdict {
        FlowVerdict::Forwarded => "forwarded".to_owned(),
        FlowVerdict::Dropped => format!("dropped {reason} {}", flow.direction),
        FlowVerdict::Audit => format!("audit {reason} {}", flow.direction),
    };
    format!(
        "{outcome}, {} {}",
        rule(&flow.egress_rule),
        rule(&flow.ingress_rule)
    )
}

#[test]
fn the_answer_of_a_check_is_what_becomes_of_the_packet() {
    let mut rng = Rng(20_261_122);
    let first = configuration(&mut rng);
    let node = Node::new(&first);
    let mut text = first;
    let (mut source_port, mut denied) = (1024, 0);
    for _ in 0..CONFIGURATIONS {
        let state = node.state();
        for _ in 0..QUESTIONS {
            source_port += 1;
            let family = families()[rng.below(2)];
            let question = question(&mut rng, &family, source_port);
            let (from, to) = (question.from.0, question.to.0);
            let verdict = verdict(&state, from, to, question.protocol, question.port);
            denied += usize::from(verdict.action() == Action::Deny);
            let answer = run(&node, &question);
            assert_eq!(
                reported(&answer),
                expected(&state, &verdict),
                "{from} to {to}, protocol {} port {}, of\n{text}",
                question.protocol,
                question.port
            );
        }
        text = configuration(&mut rng);
        node.reload(&text);
    }
    let asked = CONFIGURATIONS * QUESTIONS;
    assert!(
        (asked / 10..asked * 9 / 10).contains(&denied),
        "{denied} of {asked} denied: the rng are of no use"
    );
}
