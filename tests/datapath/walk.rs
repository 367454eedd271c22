//! Walks packets through a node, step after step, and says at the end which steps went wrong.
#![allow(
    clippy::wrong_self_convention,
    reason = "the hooks' names say where packets come from"
)]

use dpd::model::flow::{Flow, Verdict as FlowVerdict};

use crate::common::packet::{Packet, diff, parse, summary, verify};
use crate::common::runner::{Answer, Merged, Node, Verdict, host_mac, workload_mac};

/// What is to become of a packet.
#[derive(Clone, Debug)]
pub enum Expect {
    /// It reaches this workload: its TTL is one lower, its MACs are those of the link.
    Delivered(&'static str, Packet),
    /// It goes on as it came.
    Passed,
    /// It is sent to another interface as it came.
    Linked,
    /// It goes on changed; MACs and TTL stay.
    PassedAs(Packet),
    /// It leaves by the kernel's own routes: its TTL is one lower, its MACs are for the kernel to set.
    Routed(Packet),
    /// Dropped and counted under this reason.
    Dropped(u8),
    /// Dropped and counted, and the sender gets this instead.
    Refused(u8, Packet),
    /// Dropped and counted, and its receiver gets this instead: a workload, or who is behind the kernel's own routes. At the
    /// receiver's own hook it goes on.
    Ended(u8, Option<&'static str>, Packet),
    /// The sender gets this.
    Answered(Packet),
    /// The sender gets this frame.
    AnsweredFrame(Vec<u8>),
}

/// A node, and what went wrong so far.
pub struct Walk {
    node: Node,
    place: String,
    failures: Vec<String>,
}

#[derive(Clone, Copy)]
enum Hook {
    FromContainer,
    ToContainer,
    FromNetdev,
    FromL3dev,
    ToNetdev,
    Xdp,
}

impl Walk {
    /// `place` stands before each failure's sentence.
    pub fn new(place: impl ToString, config_toml: &str) -> Walk {
        Walk {
            node: Node::new(config_toml),
            place: place.to_string(),
            failures: Vec::new(),
        }
    }

    /// The workload behind the interface sends a packet.
    pub fn from(&mut self, says: &str, interface: &str, packet: &Packet, expect: Expect) -> Answer {
        let frame = packet
            .clone()
            .macs(workload_mac(interface), host_mac(interface))
            .build();
        self.from_frame(says, interface, &frame, expect)
    }

    /// As `from`, with MACs of the row's own.
    pub fn from_frame(
        &mut self,
        says: &str,
        interface: &str,
        frame: &[u8],
        expect: Expect,
    ) -> Answer {
        self.step(says, Hook::FromContainer, interface, frame, &expect)
    }

    /// As `from`, of a packet that stands for many segments.
    pub fn from_merged(
        &mut self,
        says: &str,
        interface: &str,
        packet: &Packet,
        merged: Merged,
        expect: Expect,
    ) -> Answer {
        let frame = packet
            .clone()
            .macs(workload_mac(interface), host_mac(interface))
            .build();
        let answer = self.node.from_container_merged(interface, &frame, merged);
        self.check_packet(
            says,
            Hook::FromContainer,
            interface,
            &frame,
            &expect,
            answer,
        )
    }

    /// As `net`, of a packet that stands for many segments.
    pub fn net_merged(
        &mut self,
        says: &str,
        interface: &str,
        packet: &Packet,
        merged: Merged,
        expect: Expect,
    ) -> Answer {
        let frame = packet
            .clone()
            .macs(workload_mac(interface), host_mac(interface))
            .build();
        let answer = self.node.from_netdev_merged(interface, &frame, merged);
        self.check_packet(says, Hook::FromNetdev, interface, &frame, &expect, answer)
    }

    /// The host's stack sends a packet to the workload.
    pub fn to(&mut self, says: &str, interface: &str, packet: &Packet, expect: Expect) -> Answer {
        let frame = packet
            .clone()
            .macs(host_mac(interface), workload_mac(interface))
            .build();
        self.step(says, Hook::ToContainer, interface, &frame, &expect)
    }

    /// A packet comes from the network.
    pub fn net(&mut self, says: &str, interface: &str, packet: &Packet, expect: Expect) -> Answer {
        let frame = packet
            .clone()
            .macs(workload_mac(interface), host_mac(interface))
            .build();
        self.net_frame(says, interface, &frame, expect)
    }

    /// As `net`, with MACs of the row's own.
    pub fn net_frame(
        &mut self,
        says: &str,
        interface: &str,
        frame: &[u8],
        expect: Expect,
    ) -> Answer {
        self.step(says, Hook::FromNetdev, interface, frame, &expect)
    }

    /// A packet comes from the network by an uplink without Ethernet headers.
    pub fn l3(&mut self, says: &str, interface: &str, packet: &Packet, expect: Expect) -> Answer {
        let frame = packet
            .clone()
            .macs(workload_mac(interface), host_mac(interface))
            .build();
        self.step(says, Hook::FromL3dev, interface, &frame, &expect)
    }

    /// A packet leaves for the network.
    pub fn out(&mut self, says: &str, interface: &str, packet: &Packet, expect: Expect) -> Answer {
        let frame = packet
            .clone()
            .macs(host_mac(interface), workload_mac(interface))
            .build();
        self.step(says, Hook::ToNetdev, interface, &frame, &expect)
    }

    /// A frame meets the XDP program.
    pub fn wire(&mut self, says: &str, frame: &[u8], expect: Expect) -> Answer {
        self.step(says, Hook::Xdp, "lo", frame, &expect)
    }

    /// The host's stack sends a packet to a workload, which it got at another interface.
    pub fn forwarded(
        &mut self,
        says: &str,
        arrived_at: &str,
        to: &str,
        packet: &Packet,
        expect: Expect,
    ) -> Answer {
        let frame = packet.clone().macs(host_mac(to), workload_mac(to)).build();
        let answer = self.node.to_container_from(arrived_at, to, &frame, 0);
        self.check_packet(says, Hook::ToContainer, to, &frame, &expect, answer)
    }

    pub fn reload(&self, config_toml: &str) {
        self.node.reload(config_toml);
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Notes what is wrong with something other than packets.
    pub fn check(&mut self, says: &str, right: bool, got: impl std::fmt::Debug) {
        if !right {
            self.failures
                .push(format!("{}: {says}: got {got:?}", self.place));
        }
    }

    /// The last answer was reported so; nothing else was.
    pub fn reported(&mut self, says: &str, answer: &Answer, lines: &[&str]) {
        let got: Vec<String> = answer.events.iter().map(line_of).collect();
        self.check(&format!("{says}: expected {lines:?}"), got == lines, &got);
    }

    /// Panics with every failure.
    pub fn end(self) {
        let count = self.failures.len();
        assert!(
            count == 0,
            "{count} steps went wrong:\n\n{}\n",
            self.failures.join("\n\n")
        );
    }

    fn step(
        &mut self,
        says: &str,
        hook: Hook,
        interface: &str,
        frame: &[u8],
        expect: &Expect,
    ) -> Answer {
        let answer = match hook {
            Hook::FromContainer => self.node.from_container(interface, frame),
            Hook::ToContainer => self.node.to_container(interface, frame),
            Hook::FromNetdev => self.node.from_netdev(interface, frame),
            Hook::FromL3dev => self.node.from_l3dev(interface, frame),
            Hook::ToNetdev => self.node.to_netdev(interface, frame),
            Hook::Xdp => self.node.xdp_entry(frame),
        };
        self.check_packet(says, hook, interface, frame, expect, answer)
    }

    /// Notes what is wrong with an answer.
    fn check_packet(
        &mut self,
        says: &str,
        hook: Hook,
        interface: &str,
        frame: &[u8],
        expect: &Expect,
        answer: Answer,
    ) -> Answer {
        let reply = match expect {
            Expect::Dropped(reason) | Expect::Refused(reason, _) | Expect::Ended(reason, ..) => {
                is_told(*reason, hook, interface, &answer)
            }
            _ => Ok(()),
        };
        if let Err(problem) = compare(frame, interface, hook, expect, &answer).and(reply) {
            let hook = match hook {
                Hook::FromContainer => "from",
                Hook::ToContainer => "to",
                Hook::FromNetdev => "from the network at",
                Hook::FromL3dev => "from the network, as without Ethernet headers, at",
                Hook::ToNetdev => "for the network at",
                Hook::Xdp => "XDP at",
            };
            self.failures.push(format!(
                "{}: {says}\n  {hook} {interface}: {}\n{problem}\n  reported: {:?}",
                self.place,
                summary(frame),
                answer.events.iter().map(line_of).collect::<Vec<_>>()
            ));
        }
        answer
    }
}

/// A drop is reported where it was made, or suppressed behind one that was; but broadcast is only counted.
fn is_told(reason: u8, hook: Hook, interface: &str, answer: &Answer) -> Result<(), String> {
    const MULTICAST: u8 = 226;
    let point = match hook {
        Hook::FromContainer => "from-endpoint",
        Hook::ToContainer => "to-endpoint",
        Hook::FromNetdev | Hook::FromL3dev => "from-network",
        Hook::ToNetdev => "to-network",
        Hook::Xdp => "xdp",
    };
    let is_here = |flow: &&Flow| {
        let number = flow.drop_reason.map(|(number, _)| number);
        flow.verdict == FlowVerdict::Dropped
            && number == Some(reason)
            && flow.point == point
            // Test runs of XDP have an interface that is not in the file.
            && (flow.interface == interface || matches!(hook, Hook::Xdp))
            && flow.revision > 0
            && flow.repeats == 1
    };
    match (
        answer.events.iter().filter(is_here).count(),
        answer.suppressed,
    ) {
        (1, 0) | (0, 1) => Ok(()),
        (0, 0) if reason == MULTICAST => Ok(()),
        (reported, suppressed) => Err(format!(
            "  expected one report of the drop at {point} of {interface}, got {reported}, and {suppressed} suppressed"
        )),
    }
}

fn compare(
    frame: &[u8],
    interface: &str,
    hook: Hook,
    expect: &Expect,
    answer: &Answer,
) -> Result<(), String> {
    let (mine, its) = (host_mac(interface), workload_mac(interface));
    let (verdict, packet, drops) = match expect {
        Expect::Delivered(to, packet) => {
            let ttl = packet.ip().map_or(0, |ip| ip.ttl - 1);
            let packet = packet.clone().ttl(ttl).macs(host_mac(to), workload_mac(to));
            (Verdict::Redirect, Some(packet.build()), vec![])
        }
        Expect::Routed(packet) => {
            let ttl = packet.ip().map_or(0, |ip| ip.ttl - 1);
            let mut frame = packet.clone().ttl(ttl).build();
            let macs = answer.packet.len().min(12);
            frame[..macs].copy_from_slice(&answer.packet[..macs]);
            (Verdict::Redirect, Some(frame), vec![])
        }
        Expect::Passed => (Verdict::Pass, Some(frame.to_vec()), vec![]),
        Expect::Linked => (Verdict::Redirect, Some(frame.to_vec()), vec![]),
        Expect::PassedAs(packet) => {
            let packet = match hook {
                Hook::FromContainer | Hook::FromNetdev | Hook::FromL3dev | Hook::Xdp => {
                    packet.clone().macs(its, mine)
                }
                Hook::ToContainer | Hook::ToNetdev => packet.clone().macs(mine, its),
            };
            (Verdict::Pass, Some(packet.build()), vec![])
        }
        Expect::Dropped(reason) => (Verdict::Drop, None, vec![*reason]),
        Expect::Refused(reason, packet) => {
            let packet = packet.clone().macs(mine, its);
            (Verdict::Redirect, Some(packet.build()), vec![*reason])
        }
        Expect::Ended(reason, Some(to), packet) => {
            let packet = packet.clone().macs(host_mac(to), workload_mac(to));
            (Verdict::Redirect, Some(packet.build()), vec![*reason])
        }
        Expect::Ended(reason, None, packet) => {
            let (verdict, packet) = match hook {
                Hook::ToContainer => (Verdict::Pass, packet.clone().macs(mine, its)),
                _ => (Verdict::Redirect, packet.clone().macs(its, mine)),
            };
            (verdict, Some(packet.build()), vec![*reason])
        }
        Expect::Answered(packet) => {
            let packet = packet.clone().macs(mine, its);
            (Verdict::Redirect, Some(packet.build()), vec![])
        }
        Expect::AnsweredFrame(frame) => (Verdict::Redirect, Some(frame.clone()), vec![]),
    };
    let mut problems = Vec::new();
    if answer.verdict != verdict {
        problems.push(format!("  expected {verdict:?}, got {:?}", answer.verdict));
    }
    if answer.drops != drops {
        problems.push(format!(
            "  expected drops {drops:?}, got {:?}",
            answer.drops
        ));
    }
    if let Some(expected) = packet {
        if expected != answer.packet {
            problems.push(diff(&expected, &answer.packet));
        }
        // A packet that came in wrong may go on wrong; what was right stays right.
        if let (Ok(()), Err(problem)) = (verify(frame), verify(&answer.packet)) {
            problems.push(format!(
                "  the packet that came out is not right: {problem}"
            ));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

/// A flow as rows write it: `to-endpoint forwarded client -> web (service web) by web/ingress/0`.
pub fn line_of(flow: &Flow) -> String {
    let mut line = match (flow.verdict, flow.drop_reason) {
        (FlowVerdict::Dropped, Some((reason, _))) => format!("dropped {reason}"),
        (FlowVerdict::Dropped, None) => "dropped".to_owned(),
        (FlowVerdict::Forwarded, _) => format!("{} forwarded", flow.point),
        (FlowVerdict::Audit, _) => format!("{} audit", flow.point),
    };
    line += &format!(" {} -> {}", flow.src.name, flow.dst.name);
    if flow.reply {
        line += " reply";
    }
    if let Some(service) = &flow.service {
        line += &format!(" (service {service})");
    }
    if let Some(rule) = &flow.rule {
        line += &format!(" by {rule}");
    }
    if let Some(subject) = &flow.denied_by {
        line += &format!(" no rule of {subject}");
    }
    line
}

/// The source port of a frame.
pub fn source_port(frame: &[u8]) -> u16 {
    parse(frame).src_port
}
