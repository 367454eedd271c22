//! The ring buffer: events as the programs made them, in host order; and drops that no event has told of yet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapHandle, RingBuffer, RingBufferBuilder};

use super::abi::{self, Plain};
use super::live::Awake;
use super::pins::Pins;
use super::{encode, map};
use crate::model::flow::Verdict;
use crate::model::policy::Direction;

/// One event, with the numbers that the programs know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_MONOTONIC
    pub time_ns: u64,
    /// Of the configuration that the packet met.
    pub epoch: u64,
    pub protocol: u8,
    /// The packet as it came.
    pub src: SocketAddr,
    pub dst: SocketAddr,
    /// And as it went.
    pub new_src: SocketAddr,
    pub new_dst: SocketAddr,
    pub ifindex: u32,
    pub length: u32,
    pub src_identity: u32,
    pub dst_identity: u32,
    pub service: u32,
    pub backend: u32,
    pub egress_rule: u32,
    pub ingress_rule: u32,
    pub repeats: u32,
    pub verdict: Verdict,
    pub point: &'static str,
    /// 0: none.
    pub reason: u8,
    pub direction: Direction,
    pub reply: bool,
    pub tcp_flags: u8,
    pub ct_state: Option<&'static str>,
}

impl Event {
    fn from_abi(event: &abi::event) -> Event {
        let socket = |address, port| encode::socket(address, port);
        Event {
            time_ns: event.time_ns,
            epoch: event.epoch,
            protocol: event.tuple.protocol,
            src: socket(&event.tuple.source, event.tuple.source_port),
            dst: socket(&event.tuple.destination, event.tuple.destination_port),
            new_src: socket(&event.translated.source, event.translated.source_port),
            new_dst: socket(
                &event.translated.destination,
                event.translated.destination_port,
            ),
            ifindex: event.ifindex,
            length: event.length,
            src_identity: event.source_identity,
            dst_identity: event.destination_identity,
            service: event.service,
            backend: event.backend,
            egress_rule: event.egress_rule,
            ingress_rule: event.ingress_rule,
            repeats: event.repeats,
            verdict: verdict(event.verdict),
            point: point(event.point),
            reason: event.reason,
            direction: encode::decode_direction(event.direction),
            reply: event.reply != 0,
            tcp_flags: event.tcp_flags,
            ct_state: (u32::from(event.state) != abi::event_state::EVENT_NO_CONNECTION.0)
                .then(|| encode::connection_state(event.state).name()),
        }
    }
}

/// What `enum verdict` of abi.h says.
pub fn verdict(number: u8) -> Verdict {
    match abi::verdict(number.into()) {
        abi::verdict::VERDICT_DROPPED => Verdict::Dropped,
        abi::verdict::VERDICT_AUDIT => Verdict::Audit,
        _ => Verdict::Forwarded,
    }
}

/// The name of a point, by its number in `enum point` of abi.h.
pub fn point(number: u8) -> &'static str {
    match abi::point(number.into()) {
        abi::point::POINT_FROM_ENDPOINT => "from-endpoint",
        abi::point::POINT_TO_HOST => "to-host",
        abi::point::POINT_TO_STACK => "to-stack",
        abi::point::POINT_FROM_NETWORK => "from-network",
        abi::point::POINT_TO_NETWORK => "to-network",
        abi::point::POINT_XDP => "xdp",
        _ => "to-endpoint",
    }
}

/// How long the reader rests between two looks while there are events. The ring has room for 20,000, which is what two
/// CPUs may make in a second.
const REST: Duration = Duration::from_millis(10);
/// How long it does so at a stretch.
const MOMENT: Duration = Duration::from_millis(500);

/// The reading end. Dropping it stops nothing: programs go on, and what finds no room is counted.
pub struct Events {
    ring: RingBuffer<'static>,
    awake: Awake,
}

impl Events {
    /// Opens the pinned ring; `take` is called with each event, on the thread that polls.
    pub fn open(pins: &Pins, mut take: impl FnMut(Event) + 'static) -> Result<Events> {
        // A process opens the ring once, and its reader lives as long as the process: so may the map.
        let map: &'static MapHandle = Box::leak(Box::new(map::open(&pins.map("dpd_events"))?));
        let mut builder = RingBufferBuilder::new();
        builder
            .add(map, move |bytes| {
                if let Some(event) = abi::event::from_bytes(bytes) {
                    take(Event::from_abi(&event));
                }
                0
            })
            .context("read the ring of events")?;
        let awake = Awake::map(map::open(&pins.map("dpd_reader"))?)?;
        awake.set(false); // whatever became of the reader before
        Ok(Events {
            ring: builder.build().context("read the ring of events")?,
            awake,
        })
    }

    /// Takes what is there, or waits so long for something. Where there is something it goes on until a short rest
    /// brings nothing new, since an event that need not wake anybody costs the packet a fraction.
    ///
    /// An event that is being written just when the reader falls asleep may wake nobody: then it is taken with the next
    /// one, or when the time is up.
    pub fn poll(&self, timeout: Duration) -> Result<()> {
        if !self.take()? && taken(self.ring.poll_raw(timeout))? == 0 {
            return Ok(());
        }
        self.awake.set(true);
        let done = self.take_while_they_come();
        self.awake.set(false);
        done
    }

    /// What is there now.
    pub fn consume(&self) -> Result<()> {
        self.take().map(drop)
    }

    /// Not for longer than a moment, so that whoever polls sees that it is to end.
    fn take_while_they_come(&self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < MOMENT {
            std::thread::sleep(REST);
            if !self.take()? {
                break;
            }
        }
        Ok(())
    }

    /// Whether there was something.
    fn take(&self) -> Result<bool> {
        Ok(taken(self.ring.consume_raw())? > 0)
    }
}

/// How many events libbpf took, or its error; a signal is none.
fn taken(answer: i32) -> Result<i32> {
    let error = std::io::Error::from_raw_os_error(-answer);
    match answer {
        0.. => Ok(answer),
        _ if error.kind() == std::io::ErrorKind::Interrupted => Ok(0),
        _ => Err(error).context("read the ring of events"),
    }
}

/// Drops that the programs held back: the next report of the same drop tells them, but there may be none.
pub struct SuppressedDrops {
    drops: MapHandle,
}

impl SuppressedDrops {
    pub fn open(pins: &Pins) -> Result<SuppressedDrops> {
        let drops = map::open(&pins.map("dpd_drop_throttle"))?;
        Ok(SuppressedDrops { drops })
    }

    /// Takes those whose interval is over at `now_ns` (CLOCK_MONOTONIC): the last report of each again, with the time of
    /// the last packet that it stands for, and how many those are. Their next packet is reported at once.
    pub fn take(&self, now_ns: u64) -> Result<Vec<Event>> {
        let rows: Vec<(abi::drop_key, abi::drop_throttle)> = map::read(&self.drops)?;
        let mut events = Vec::new();
        for (key, log) in rows {
            if log.suppressed == 0 || log.report_ns > now_ns {
                continue;
            }
            let taken = self
                .drops
                .lookup_and_delete(key.as_bytes())
                .context("take a row of dpd_drop_throttle")?;
            // The kernel may have pushed it out, or a packet may have told it, since it was read.
            let taken = taken.and_then(|bytes| abi::drop_throttle::from_bytes(&bytes));
            if let Some(log) = taken.filter(|log| log.suppressed > 0) {
                events.push(Event {
                    time_ns: log.last_seen_ns,
                    repeats: u32::try_from(log.suppressed).unwrap_or(u32::MAX),
                    ..Event::from_abi(&log.event)
                });
            }
        }
        Ok(events)
    }
}
