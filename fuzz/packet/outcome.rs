//! What a packet brought about, as far as it can be seen: the hook's verdict, the frame, and what the maps counted.

use std::fmt;

use dpd::bpf::state::events::Event;

use super::input::Step;
use super::world::ENDPOINTS;
use crate::common::packet::summary;
use crate::common::runner::Verdict;

/// Packets counted in a row of `dpd_drop_counts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    pub ifindex: u32,
    pub reason: u8,
    pub direction: u8,
    pub packets: u64,
}

/// What a row of `dpd_endpoint_counters` counted, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub sent: u64,
    pub received: u64,
    /// Of what it sent, and of what it was sent: by its own hooks.
    pub sent_dropped: u64,
    pub received_dropped: u64,
    /// Of `sent`: what went up the host's stack, and what dpd answered.
    pub to_stack: u64,
    pub answered: u64,
}

impl Counted {
    pub fn since(&self, before: &Counted) -> Counted {
        Counted {
            sent: self.sent - before.sent,
            received: self.received - before.received,
            sent_dropped: self.sent_dropped - before.sent_dropped,
            received_dropped: self.received_dropped - before.received_dropped,
            to_stack: self.to_stack - before.to_stack,
            answered: self.answered - before.answered,
        }
    }
}

pub struct Outcome<'a> {
    pub step: &'a Step,
    /// Of the hook.
    pub ifindex: u32,
    /// As it arrived.
    pub frame: Vec<u8>,
    /// As the hook left it.
    pub left: Vec<u8>,
    pub verdict: Verdict,
    /// By endpoint.
    pub counted: [Counted; ENDPOINTS.len()],
    pub drops: Vec<Drops>,
    /// Whether conntrack entries were inserted: it is the first packet of its connection.
    pub opens: bool,
    pub events: Vec<Event>,
}

impl Outcome<'_> {
    /// What was counted for the endpoint of the hook.
    pub fn own(&self) -> &Counted {
        &self.counted[self.step.endpoint]
    }
}

/// For the message of a failure.
impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = self.step.interface();
        writeln!(
            f,
            "{:?} of {interface}: {}",
            self.step.at,
            summary(&self.frame)
        )?;
        writeln!(f, "  {:?}: {}", self.verdict, summary(&self.left))?;
        for (endpoint, counted) in ENDPOINTS.iter().zip(&self.counted) {
            if *counted != Counted::default() {
                writeln!(f, "  {} {counted:?}", endpoint.interface)?;
            }
        }
        writeln!(f, "  dropped {:?}", self.drops)?;
        for event in &self.events {
            writeln!(f, "  {event:?}")?;
        }
        write!(f, "  {:?}", self.step)
    }
}
