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

pub struct Outcome<'a> {
    pub step: &'a Step,
    /// Of the hook.
    pub ifindex: u32,
    /// As it arrived.
    pub frame: Vec<u8>,
    /// As the hook left it.
    pub left: Vec<u8>,
    pub verdict: Verdict,
    /// What `dpd_endpoint_counters` got, by endpoint: what each sent.
    pub sent: [u64; ENDPOINTS.len()],
    /// And what each received.
    pub received: [u64; ENDPOINTS.len()],
    pub drops: Vec<Drops>,
    pub events: Vec<Event>,
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
        writeln!(f, "  sent {:?}, received {:?}", self.sent, self.received)?;
        writeln!(f, "  dropped {:?}", self.drops)?;
        for event in &self.events {
            writeln!(f, "  {event:?}")?;
        }
        write!(f, "  {:?}", self.step)
    }
}
