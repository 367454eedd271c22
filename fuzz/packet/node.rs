//! The node under test: runs inputs, and sees what each packet left in the maps.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;

use dpd::bpf::abi;
use dpd::bpf::attach::hook::Hook;
use dpd::bpf::state::events::Event;
use dpd::bpf::sys::map;
use libbpf_rs::{MapCore, MapFlags, MapHandle, RingBuffer, RingBufferBuilder};

use super::frame;
use super::input::{self, At, Step};
use super::oracle;
use super::outcome::{Counted, Drops, Outcome};
use super::world::{CONFIG, ENDPOINTS};
use crate::common::programs::{Bench, Metadata};
use crate::common::runner::{Merged, Node, Verdict, host_mac, workload_mac};

/// What packets leave behind: emptied before each input, so that an input does the same whatever ran before it.
const STATE: [&str; 13] = [
    "dpd_ct_tcp",
    "dpd_ct_other",
    "dpd_ct_unreplied",
    "dpd_fragments",
    "dpd_endpoint_conns",
    "dpd_drop_throttle",
    "dpd_response_ratelimit",
    "dpd_link_ratelimit",
    "dpd_link_sources",
    "dpd_link_local_owners",
    "dpd_link_locals",
    "dpd_neighbour_uses",
    "dpd_drop_counts",
];
const DROP_COUNTS: usize = STATE.len() - 1;
/// Ethernet and the longest fixed IP header.
const LINEAR: u32 = 14 + 40;

type Rows = [Counted; ENDPOINTS.len()];

pub struct Fuzzed {
    bench: Bench,
    state: [MapHandle; STATE.len()],
    counters: MapHandle,
    event_ratelimit: MapHandle,
    global_counters: MapHandle,
    /// Of what a hook has judged.
    mark: u32,
    /// The row of each endpoint in `dpd_endpoint_counters`.
    rows: [u32; ENDPOINTS.len()],
    events: RingBuffer<'static>,
    seen: Rc<RefCell<Vec<Event>>>,
    kernel_log: Option<File>,
    _node: Node,
}

impl Fuzzed {
    /// A node of its own. The thread enters its network namespace, where test runs find its interfaces.
    pub fn new() -> Fuzzed {
        let node = Node::new(CONFIG);
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&node.namespace().handle()),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .expect("enter the network namespace");
        let endpoints = node.state().catalog.endpoints.clone();
        let seen = Rc::new(RefCell::new(Vec::new()));
        Fuzzed {
            bench: node.bench(),
            state: STATE.map(|name| node.map(name)),
            counters: node.map("dpd_endpoint_counters"),
            event_ratelimit: node.map("dpd_event_ratelimit"),
            global_counters: node.map("dpd_counters"),
            mark: node.mark(),
            rows: ENDPOINTS.map(|endpoint| endpoints[endpoint.interface].row),
            events: ring(&node, seen.clone()),
            seen,
            kernel_log: kernel_log(),
            _node: node,
        }
    }

    /// Runs an input; panics if a packet did what none may. `note` gets a number for each thing that was seen to happen, which
    /// the fuzzer takes for coverage.
    pub fn check(&mut self, bytes: &[u8], note: impl Fn(u32)) {
        self.clear();
        let mut last: Vec<u8> = Vec::new();
        let mut before = 0;
        for step in input::decode(bytes) {
            let frame = frame_of(&step, &last).filter(|frame| oracle::is_possible(&step, frame));
            let Some(frame) = frame else {
                continue;
            };
            let Some(outcome) = self.run(&step, frame) else {
                continue;
            };
            oracle::check(&outcome);
            before = features(&outcome, before, &note);
            last = outcome.left;
        }
        self.check_kernel();
    }

    fn clear(&mut self) {
        for map in &self.state {
            let keys: Vec<Vec<u8>> = map.keys().collect();
            for key in keys {
                // An LRU map may have evicted it meanwhile.
                let _ = map.delete(&key);
            }
        }
        let size = self.event_ratelimit.value_size() as usize;
        let unused = vec![vec![0; size]; libbpf_rs::num_possible_cpus().expect("count the CPUs")];
        self.event_ratelimit
            .update_percpu(&0u32.to_ne_bytes(), &unused, MapFlags::ANY)
            .expect("clear dpd_event_ratelimit");
        self.take_events();
    }

    fn take_events(&mut self) -> Vec<Event> {
        self.events.consume().expect("read the ring of events");
        self.seen.borrow_mut().drain(..).collect()
    }

    /// `None` if the kernel makes no packet of it.
    fn run<'a>(&mut self, step: &'a Step, frame: Vec<u8>) -> Option<Outcome<'a>> {
        let (counted, drops, inserted) = (self.counted(), self.drops(), self.inserted());
        let (verdict, left) = self.run_hook(step, &frame)?;
        let (now, mut dropped) = (self.counted(), self.drops());
        for row in &mut dropped {
            let is_same = |old: &&Drops| {
                (old.ifindex, old.reason, old.direction) == (row.ifindex, row.reason, row.direction)
            };
            row.packets -= drops.iter().find(is_same).map_or(0, |old| old.packets);
        }
        dropped.retain(|row| row.packets > 0);
        Some(Outcome {
            step,
            ifindex: self.bench.ifindex(step.interface()),
            counted: std::array::from_fn(|endpoint| now[endpoint].since(&counted[endpoint])),
            frame,
            left,
            verdict,
            drops: dropped,
            opens: self.inserted() > inserted,
            events: self.take_events(),
        })
    }

    fn run_hook(&self, step: &Step, frame: &[u8]) -> Option<(Verdict, Vec<u8>)> {
        let hook = match step.at {
            At::FromContainer => Hook::FromContainer,
            At::ToContainer => Hook::ToContainer,
            At::FromNetdev => Hook::FromNetdev,
            At::ToNetdev => Hook::ToNetdev,
            At::Xdp => return self.bench.try_run_xdp(frame),
        };
        let (count, size) = step.merged.unwrap_or_default();
        let is_of_host = matches!(step.at, At::ToContainer | At::ToNetdev);
        let metadata = Metadata {
            merged: Merged { count, size },
            mark: if step.is_marked { self.mark } else { 0 },
            ingress_ifindex: match step.via.interface() {
                Some(interface) if is_of_host => self.bench.ifindex(interface),
                _ => 0,
            },
            linear: if step.is_scattered { LINEAR } else { 0 },
        };
        let run = |metadata| self.bench.try_run(hook, step.interface(), frame, metadata);
        // Not every kernel's test runs have packets that are not linear.
        run(metadata).or_else(|| {
            run(Metadata {
                linear: 0,
                ..metadata
            })
        })
    }

    /// Packets counted so far.
    fn counted(&self) -> Rows {
        let egress = abi::direction::DIRECTION_EGRESS.0 as usize;
        let ingress = abi::direction::DIRECTION_INGRESS.0 as usize;
        self.rows.map(|row| {
            let values: Vec<abi::endpoint_counters> =
                map::lookup_percpu(&self.counters, &row).expect("read dpd_endpoint_counters");
            let sum = |of: fn(&abi::endpoint_counters, usize) -> u64, at| {
                values.iter().map(|value| of(value, at)).sum()
            };
            Counted {
                sent: sum(|value, at| value.direction[at].packets, egress),
                received: sum(|value, at| value.direction[at].packets, ingress),
                sent_dropped: sum(|value, at| value.dropped[at], egress),
                received_dropped: sum(|value, at| value.dropped[at], ingress),
                to_stack: sum(|value, _| value.to_stack, 0),
                answered: sum(|value, _| value.answered, 0),
            }
        })
    }

    /// Conntrack entries that were inserted so far.
    fn inserted(&self) -> u64 {
        let row = abi::counter::COUNTER_CT_INSERTED.0;
        let values: Vec<u64> =
            map::lookup_percpu(&self.global_counters, &row).expect("read dpd_counters");
        values.iter().sum()
    }

    fn drops(&self) -> Vec<Drops> {
        let rows: Vec<(abi::drop_count_key, Vec<abi::packet_count>)> =
            map::read_percpu(&self.state[DROP_COUNTS]).expect("read dpd_drop_counts");
        let row = |(key, values): (abi::drop_count_key, Vec<abi::packet_count>)| Drops {
            ifindex: key.ifindex,
            reason: key.reason,
            direction: key.direction,
            packets: values.iter().map(|value| value.packets).sum(),
        };
        rows.into_iter().map(row).collect()
    }

    /// The kernel has complained of nothing.
    fn check_kernel(&mut self) {
        let Some(log) = &mut self.kernel_log else {
            return;
        };
        let mut record = [0; 8192];
        // One record for each read; an error when there is none left, or when some were overwritten.
        while let Ok(length) = log.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..length]);
            let signs = ["WARNING:", "BUG:", "Oops", "KASAN", "general protection"];
            let is_complaint = signs.iter().any(|sign| text.contains(sign));
            assert!(!is_complaint, "the kernel complains: {text}");
        }
    }
}

impl Default for Fuzzed {
    fn default() -> Self {
        Fuzzed::new()
    }
}

/// The ring of events, read here and by nobody else.
fn ring(node: &Node, seen: Rc<RefCell<Vec<Event>>>) -> RingBuffer<'static> {
    let map: &'static MapHandle = Box::leak(Box::new(node.map("dpd_events")));
    let mut builder = RingBufferBuilder::new();
    let take = move |bytes: &[u8]| {
        let event = Event::decode(bytes).expect("programs write whole events");
        seen.borrow_mut().push(event);
        0
    };
    builder.add(map, take).expect("read the ring of events");
    builder.build().expect("read the ring of events")
}

/// What the kernel says from now on; `None` where it may not be read.
fn kernel_log() -> Option<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let options = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open("/dev/kmsg");
    let mut log = options.ok()?;
    log.seek(SeekFrom::End(0)).ok()?;
    Some(log)
}

/// The frame of a step; `None` if it is to be made of a packet that was none.
fn frame_of(step: &Step, last: &[u8]) -> Option<Vec<u8>> {
    let mut frame = match step.is_reversed {
        true => changed(frame::reversed(last)?, &step.bytes),
        false => step.bytes.clone(),
    };
    frame.resize(frame.len() + step.padding, 0);
    if step.has_link_macs && frame.len() >= 12 && step.at != At::Xdp {
        let interface = step.interface();
        let (host, workload) = (host_mac(interface), workload_mac(interface));
        let (src, dst) = match step.at {
            At::ToContainer | At::ToNetdev => (host, workload),
            _ => (workload, host),
        };
        frame[..6].copy_from_slice(&dst);
        frame[6..12].copy_from_slice(&src);
    }
    Some(frame)
}

/// The frame with some bytes changed: pairs of an offset and what is added there.
fn changed(mut frame: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(2) {
        if let Some(byte) = frame.get_mut(usize::from(change[0])) {
            *byte = byte.wrapping_add(change[1]);
        }
    }
    frame
}

/// Numbers of what was seen; the result stands for this packet in those of the next one.
fn features(outcome: &Outcome, before: u32, note: &impl Fn(u32)) -> u32 {
    let reason = outcome.drops.iter().map(|row| u32::from(row.reason)).max();
    let received: u64 = outcome.counted.iter().map(|row| row.received).sum();
    let own = outcome.own();
    let parts = [
        outcome.step.at as u32,
        outcome.verdict as u32,
        reason.unwrap_or(0),
        (own.to_stack + 2 * own.answered + 4 * received) as u32,
    ];
    let this = hash(&parts);
    note(this);
    note(hash(&[before, this]));
    for event in &outcome.events {
        let state = event.ct_state.map_or(0, |state| {
            hash(&[state.len() as u32, state.as_bytes()[0].into()])
        });
        let parts = [
            event.verdict as u32,
            hash(&[event.point.len() as u32, event.point.as_bytes()[0].into()]),
            state,
            u32::from(event.reply),
            event.protocol.into(),
        ];
        note(hash(&[this, hash(&parts)]));
    }
    this
}

/// FNV-1a over words.
fn hash(words: &[u32]) -> u32 {
    words.iter().fold(0x811c_9dc5, |hash, word| {
        (hash ^ word).wrapping_mul(0x0100_0193)
    })
}
