//! Drops that were suppressed: the next report of the same drop counts them, but there may be none.

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapHandle};

use super::events::Event;
use crate::bpf::abi::{self, Plain};
use crate::bpf::sys::map;
use crate::bpf::sys::pins::Pins;

/// `dpd_drop_throttle`
pub struct SuppressedDrops {
    drops: MapHandle,
}

impl SuppressedDrops {
    pub fn open(pins: &Pins) -> Result<SuppressedDrops> {
        let drops = map::open(&pins.map("dpd_drop_throttle"))?;
        Ok(SuppressedDrops { drops })
    }

    /// Takes those whose interval is over at `now_ns` (CLOCK_MONOTONIC): each as its last report, with the time of the last
    /// suppressed packet and their number. The next packet of such a drop is reported at once.
    pub fn take(&self, now_ns: u64) -> Result<Vec<Event>> {
        let rows: Vec<(abi::drop_key, abi::drop_throttle)> = map::read(&self.drops)?;
        let mut events = Vec::new();
        for (key, throttle) in rows {
            if throttle.suppressed == 0 || throttle.report_ns > now_ns {
                continue;
            }
            let taken = self
                .drops
                .lookup_and_delete(key.as_bytes())
                .context("take a row of dpd_drop_throttle")?;
            // It may have been evicted, or reported with a packet, since it was read.
            let taken = taken.and_then(|bytes| abi::drop_throttle::from_bytes(&bytes));
            if let Some(throttle) = taken.filter(|throttle| throttle.suppressed > 0) {
                events.push(Event {
                    time_ns: throttle.last_seen_ns,
                    repeats: u32::try_from(throttle.suppressed).unwrap_or(u32::MAX),
                    ..Event::from_abi(&throttle.event)
                });
            }
        }
        Ok(events)
    }
}
