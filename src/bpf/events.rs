//! The ring buffer: events as the programs made them.

use std::time::Duration;

use anyhow::{Context, Result};
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

use super::abi::{self, Plain};
use super::map;
use super::pins::Pins;

/// The reading end. Dropping it stops nothing: programs go on, and what finds no room is counted.
pub struct Events {
    ring: RingBuffer<'static>,
}

impl Events {
    /// Opens the pinned ring; `take` is called with each event, on the thread that polls.
    pub fn open(pins: &Pins, mut take: impl FnMut(abi::event) + 'static) -> Result<Events> {
        // The reader lives as long as the daemon, and so does its map.
        let map: &'static MapHandle = Box::leak(Box::new(map::open(&pins.map("dpd_events"))?));
        let mut builder = RingBufferBuilder::new();
        builder
            .add(map, move |bytes| {
                if let Some(event) = abi::event::from_bytes(bytes) {
                    take(event);
                }
                0
            })
            .context("read the ring of events")?;
        Ok(Events {
            ring: builder.build().context("read the ring of events")?,
        })
    }

    /// Takes what is there, or waits so long for something.
    pub fn poll(&self, timeout: Duration) -> Result<()> {
        match self.ring.poll(timeout) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => Ok(()),
            done => done.context("poll the ring of events"),
        }
    }
}
