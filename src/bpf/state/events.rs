//! The ring buffer: the programs' events, in host byte order.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

use super::conntrack::connection_state;
use crate::bpf::abi::{self, Plain};
use crate::bpf::sys::map;
use crate::bpf::sys::mapped_word::MappedWord;
use crate::bpf::sys::pins::Pins;
use crate::bpf::tables::encode;
use crate::model::flow::Verdict;
use crate::model::policy::Direction;

/// One event, with the ids that the programs use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_MONOTONIC
    pub time_ns: u64,
    /// Of the configuration that was applied to the packet.
    pub epoch: u64,
    pub protocol: u8,
    /// The packet as it arrived.
    pub src: SocketAddr,
    pub dst: SocketAddr,
    /// And as it was sent on.
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
    /// The event in a record of the ring.
    ///
    /// # Errors
    /// If the record is not as long as an event of this version.
    pub fn decode(record: &[u8]) -> Result<Event> {
        let event = abi::event::from_bytes(record).with_context(|| {
            let (length, expected) = (record.len(), size_of::<abi::event>());
            format!("decode a record of {length} bytes: an event has {expected}")
        })?;
        Ok(Event::from_abi(&event))
    }

    pub(super) fn from_abi(event: &abi::event) -> Event {
        let socket = |address, port| encode::flow_socket(address, port);
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
                .then(|| connection_state(event.state).name()),
        }
    }
}

/// A number of `enum verdict` of abi.h.
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
        abi::point::POINT_FROM_HOST => "from-host",
        abi::point::POINT_XDP => "xdp",
        _ => "to-endpoint",
    }
}

/// Pause between two reads while there are events. The ring has room for 20,000, which two CPUs may produce in a second.
const READ_PAUSE: Duration = Duration::from_millis(10);
/// How long it reads without checking whether it is to end.
const MAX_READING: Duration = Duration::from_millis(500);

/// `dpd_reader`: while the reader is awake, no event wakes it.
struct ReaderAwake(MappedWord);

impl ReaderAwake {
    fn map(array: impl AsFd) -> Result<ReaderAwake> {
        MappedWord::map(array, "dpd_reader").map(ReaderAwake)
    }

    fn set(&self, is_awake: bool) {
        self.0.get().store(is_awake.into(), Ordering::SeqCst);
    }
}

/// The reading end. Without one, programs continue and count the events that find no room.
pub struct Events {
    ring: RingBuffer<'static>,
    awake: ReaderAwake,
}

impl Events {
    /// Opens the pinned ring; `take` is called with each event, on the thread that polls.
    pub fn open(pins: &Pins, mut take: impl FnMut(Event) + 'static) -> Result<Events> {
        // A process opens the ring once, and reads it until it ends.
        let map: &'static MapHandle = Box::leak(Box::new(map::open(&pins.map("dpd_events"))?));
        let mut builder = RingBufferBuilder::new();
        builder
            .add(map, move |bytes| {
                // A record of another length is no program's of this version: whatever it says is not ours to show.
                if let Ok(event) = Event::decode(bytes) {
                    take(event);
                }
                0
            })
            .context("read the ring of events")?;
        let awake = ReaderAwake::map(map::open(&pins.map("dpd_reader"))?)?;
        awake.set(false); // a reader before this one may have been killed
        Ok(Events {
            ring: builder.build().context("read the ring of events")?,
            awake,
        })
    }

    /// Takes the events that are there, or waits so long for one. It continues until none arrives within a short pause, since
    /// an event that need not wake the reader costs the packet a fraction.
    ///
    /// An event that is written just when the reader goes to sleep may not wake it: then it is taken with the next one, or
    /// at the timeout.
    pub fn poll(&self, timeout: Duration) -> Result<()> {
        if !self.take()? && taken(self.ring.poll_raw(timeout))? == 0 {
            return Ok(());
        }
        self.awake.set(true);
        let done = self.take_while_they_come();
        self.awake.set(false);
        done
    }

    /// Takes the events that are there.
    pub fn consume(&self) -> Result<()> {
        self.take().map(drop)
    }

    /// Bounded, so that the polling thread can end.
    fn take_while_they_come(&self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < MAX_READING {
            std::thread::sleep(READ_PAUSE);
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

/// How many events libbpf took, or its error; a signal is not one.
fn taken(done: i32) -> Result<i32> {
    let error = std::io::Error::from_raw_os_error(-done);
    match done {
        0.. => Ok(done),
        _ if error.kind() == std::io::ErrorKind::Interrupted => Ok(0),
        _ => Err(error).context("read the ring of events"),
    }
}
