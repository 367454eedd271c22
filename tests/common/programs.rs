//! The real programs, loaded and filled by the library's own code and run by `BPF_PROG_TEST_RUN`, on a thread that has
//! a network namespace's interfaces and a bpffs of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use dpd::bpf::abi::{self, Plain};
use dpd::bpf::attach::hook::Hook;
use dpd::bpf::attach::unmanaged;
use dpd::bpf::load::{LoadedPrograms, load};
use dpd::bpf::reader::Reader;
use dpd::bpf::state::conntrack::{Tables, now_ns};
use dpd::bpf::state::ct_table::Sizes;
use dpd::bpf::state::events::{Event, Events};
use dpd::bpf::state::suppressed::SuppressedDrops;
use dpd::bpf::sys::pins::Pins;
use dpd::bpf::tables::generation::Generations;
use dpd::bpf::tables::live_epoch;
use dpd::model::conntrack::{Connection, Tally};
use dpd::model::flow::Flow;
use dpd::model::host::LinkAddress;
use dpd::model::state::State;
use dpd::model::status::{EndpointCounts, EventLoss, ProgramStatus};
use dpd::observe::translate::{self, Clock};
use libbpf_rs::{MapCore, MapFlags, MapHandle, libbpf_sys};
use rustix::mount::MountFlags;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::namespace::Namespace;
use super::runner::{Answer, Datapath, Merged, Verdict};

type Job = Box<dyn FnOnce(&mut Machine) + Send>;

/// A handle on the thread; what is asked of it is answered before the call returns.
pub struct Programs {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Programs {
    pub fn load(namespace: &Namespace, config: &Path) -> Programs {
        let (jobs, work) = channel::<Job>();
        let config = config.to_owned();
        let network = namespace.handle();
        let thread = std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&network),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .expect("enter the network namespace");
            let mut machine = Machine::new(&config);
            for job in work {
                job(&mut machine);
            }
        });
        let programs = Programs {
            jobs: Some(jobs),
            thread: Some(thread),
        };
        programs.ask(|_| ()); // until it has read the file, which the test may change then
        programs
    }

    fn ask<R: Send + 'static>(&self, job: impl FnOnce(&mut Machine) -> R + Send + 'static) -> R {
        let (answer, answered) = channel();
        let jobs = self.jobs.as_ref().expect("the thread works until the drop");
        let sent = jobs.send(Box::new(move |machine| {
            let _ = answer.send(job(machine));
        }));
        sent.expect("the thread of the programs has panicked; its words stand above");
        answered
            .recv()
            .expect("the thread of the programs has panicked; its words stand above")
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Datapath for Programs {
    fn from_container(&self, interface: &str, frame: &[u8], merged: Merged) -> Answer {
        let (interface, frame) = (interface.to_owned(), frame.to_vec());
        self.ask(move |machine| machine.run(Hook::FromContainer, &interface, &frame, merged))
    }

    fn to_container(&self, interface: &str, frame: &[u8]) -> Answer {
        let (interface, frame) = (interface.to_owned(), frame.to_vec());
        self.ask(move |machine| {
            machine.run(Hook::ToContainer, &interface, &frame, Merged::default())
        })
    }

    fn to_container_from(
        &self,
        arrived_at: &str,
        interface: &str,
        frame: &[u8],
        mark: u32,
    ) -> Answer {
        let (interface, frame) = (interface.to_owned(), frame.to_vec());
        let arrived_at = arrived_at.to_owned();
        self.ask(move |machine| {
            let mut context = context(machine.ifindex(&interface), Merged::default());
            let ingress_ifindex = match arrived_at.as_str() {
                "" => 0,
                name => machine.ifindex(name),
            };
            context[std::mem::offset_of!(abi::__sk_buff, ingress_ifindex) / 4] = ingress_ifindex;
            context[std::mem::offset_of!(abi::__sk_buff, mark) / 4] = mark;
            machine.run_in(Hook::ToContainer, context, &frame)
        })
    }

    fn from_netdev(&self, interface: &str, frame: &[u8], merged: Merged) -> Answer {
        let (interface, frame) = (interface.to_owned(), frame.to_vec());
        self.ask(move |machine| machine.run(Hook::FromNetdev, &interface, &frame, merged))
    }

    fn from_l3dev(&self, interface: &str, frame: &[u8]) -> Answer {
        let (interface, frame) = (interface.to_owned(), frame.to_vec());
        self.ask(move |machine| machine.run(Hook::FromL3dev, &interface, &frame, Merged::default()))
    }

    fn to_netdev(&self, interface: &str, frame: &[u8]) -> Answer {
        let (interface, frame) = (interface.to_owned(), frame.to_vec());
        self.ask(move |machine| machine.run(Hook::ToNetdev, &interface, &frame, Merged::default()))
    }

    fn xdp_entry(&self, frame: &[u8]) -> Answer {
        let frame = frame.to_vec();
        self.ask(move |machine| machine.run_xdp(&frame))
    }

    fn time(&self, hook: Hook, interface: &str, frames: Vec<Vec<u8>>) -> Vec<Duration> {
        let interface = interface.to_owned();
        self.ask(move |machine| machine.time(hook, &interface, &frames))
    }

    fn time_xdp(&self, frames: Vec<Vec<u8>>) -> Vec<Duration> {
        self.ask(move |machine| machine.time_xdp(&frames))
    }

    fn connections(&self) -> Vec<Connection> {
        self.ask(|machine| machine.connections())
    }

    fn evict(&self, protocol: u8, src: SocketAddr, dst: SocketAddr) {
        self.ask(move |machine| machine.evict(protocol, src, dst));
    }

    fn multiply(&self, connections: u32) {
        self.ask(move |machine| machine.multiply(connections));
    }

    fn sweep(&self) -> Duration {
        self.ask(|machine| machine.sweep())
    }

    fn tally(&self) -> Tally {
        self.ask(|machine| machine.tally())
    }

    fn neglect(&self) {
        self.ask(|machine| machine.neglect());
    }

    fn xdp_malformed(&self) -> u64 {
        self.ask(|machine| {
            let reader = Reader::open(machine.pins.root()).expect("read the datapath");
            reader.xdp_malformed().expect("read the counter")
        })
    }

    fn conntrack_rows(&self, table: &str) -> usize {
        let table = table.to_owned();
        self.ask(move |machine| {
            let map = MapHandle::from_pinned_path(machine.pins.map(&table));
            map.expect("open a conntrack table").keys().count()
        })
    }

    fn responses_limited(&self) -> u64 {
        self.ask(|machine| {
            let limited = machine.reader().responses_limited();
            limited.expect("read the counter")
        })
    }

    fn endpoint_counts(&self, interface: &str) -> EndpointCounts {
        let interface = interface.to_owned();
        self.ask(move |machine| {
            let counts = machine
                .reader()
                .endpoint_counts()
                .expect("read the counters");
            counts[&machine.ifindex(&interface)]
        })
    }

    fn mark(&self) -> u32 {
        self.ask(|machine| live_epoch::mark_of(&machine.pins).expect("read the mark"))
    }

    fn break_chain(&self, place: u32) {
        self.ask(move |machine| machine.break_chain(place));
    }

    fn lose_settings(&self) {
        self.ask(|machine| machine.lose_settings());
    }

    fn announce(&self, interface: &str, epochs: u64) {
        let interface = interface.to_owned();
        self.ask(move |machine| {
            let until = machine.generations.epoch().saturating_add(epochs);
            let row = (machine.ifindex(&interface), until);
            unmanaged::set(&machine.pins, &BTreeMap::from([row])).expect("announce the interface");
        });
    }

    fn programs(&self) -> Vec<ProgramStatus> {
        self.ask(|machine| machine.reader().programs().expect("ask about the programs"))
    }

    fn reload(&self, config: &Path) {
        let config = config.to_owned();
        self.ask(move |machine| machine.apply(&config));
    }

    fn rule_hits(&self) -> BTreeMap<String, u64> {
        self.ask(|machine| {
            let hits = machine.reader().rule_hits().expect("read the hits");
            let rules = machine.state.catalog.rules.iter();
            rules
                .map(|(id, rule)| (rule.label(), hits.get(id).copied().unwrap_or_default()))
                .collect()
        })
    }

    fn suppressed_drops(&self, later: Duration) -> Vec<Flow> {
        self.ask(move |machine| {
            let suppressed = SuppressedDrops::open(&machine.pins).expect("open the log of drops");
            let now = now_ns() + u64::try_from(later.as_nanos()).expect("a time that fits");
            let events = suppressed.take(now).expect("take what was suppressed");
            machine.flows(&events)
        })
    }

    fn state(&self) -> State {
        self.ask(|machine| machine.reader().state().expect("read the tables"))
    }

    fn event_loss(&self) -> EventLoss {
        self.ask(|machine| machine.reader().event_loss().expect("read the counters"))
    }

    fn bench(&self) -> Bench {
        self.ask(|machine| machine.bench())
    }

    fn map(&self, name: &str) -> MapHandle {
        let name = name.to_owned();
        self.ask(move |machine| {
            MapHandle::from_pinned_path(machine.pins.map(&name))
                .unwrap_or_else(|error| panic!("open {name}: {error}"))
        })
    }
}

/// What a packet has beyond its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metadata {
    pub merged: Merged,
    pub mark: u32,
    /// Where the host's stack has it from; 0: from itself.
    pub ingress_ifindex: u32,
    /// How many bytes are in the linear part; 0: all.
    pub linear: u32,
}

/// The programs, run with nothing around them: for many packets, on any thread inside the node's namespace.
pub struct Bench {
    programs: BTreeMap<Hook, OwnedFd>,
    xdp: OwnedFd,
    interfaces: BTreeMap<String, u32>,
    reader: Reader,
}

impl Bench {
    /// The epoch that programs work under now.
    pub fn epoch(&self) -> u64 {
        self.reader.epoch().expect("the live epoch")
    }

    pub fn run(&self, hook: Hook, interface: &str, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let context = context(self.interfaces[interface], Merged::default());
        let Run {
            returned, packet, ..
        } = test_run(&self.programs[&hook], &context, frame);
        (verdict(returned), packet)
    }

    /// The same, with the time that it took.
    pub fn run_timed(
        &self,
        hook: Hook,
        interface: &str,
        frame: &[u8],
    ) -> (Verdict, Vec<u8>, Duration) {
        let context = context(self.interfaces[interface], Merged::default());
        let run = test_run(&self.programs[&hook], &context, frame);
        (verdict(run.returned), run.packet, run.time)
    }

    pub fn run_xdp(&self, frame: &[u8]) -> Verdict {
        xdp_verdict(test_run(&self.xdp, &[], frame).returned)
    }

    /// Any frame with any metadata; `None` if the kernel makes no packet of it.
    pub fn try_run(
        &self,
        hook: Hook,
        interface: &str,
        frame: &[u8],
        metadata: Metadata,
    ) -> Option<(Verdict, Vec<u8>)> {
        let mut context = context(self.interfaces[interface], metadata.merged);
        let mut set = |offset: usize, value| context[offset / 4] = value;
        set(std::mem::offset_of!(abi::__sk_buff, mark), metadata.mark);
        set(
            std::mem::offset_of!(abi::__sk_buff, ingress_ifindex),
            metadata.ingress_ifindex,
        );
        set(
            std::mem::offset_of!(abi::__sk_buff, data_end),
            metadata.linear,
        );
        let run = try_run(&self.programs[&hook], &context, frame, 1)?;
        Some((verdict(run.returned), run.packet))
    }

    /// The same in `dpd_xdp_entry`; more than a page is in several buffers.
    pub fn try_run_xdp(&self, frame: &[u8]) -> Option<(Verdict, Vec<u8>)> {
        let run = try_run(&self.xdp, &[], frame, 1)?;
        Some((xdp_verdict(run.returned), run.packet))
    }

    pub fn ifindex(&self, interface: &str) -> u32 {
        self.interfaces[interface]
    }
}

/// What the thread has.
struct Machine {
    pins: Pins,
    load: LoadedPrograms,
    generations: Generations,
    state: State,
    events: Events,
    seen: Rc<RefCell<Vec<Event>>>,
    interfaces: BTreeMap<String, u32>,
}

impl Machine {
    fn new(config: &Path) -> Machine {
        let pins = Pins::new(&own_bpffs());
        pins.make_dirs().expect("make the folders for pins");
        let sizes = Sizes {
            connections: read(config).conntrack.size,
        };
        let load = load(&pins, &sizes).expect("load the programs");
        let generations = Generations::open(&pins).expect("open the tables");
        let seen = Rc::new(RefCell::new(Vec::new()));
        let taken = seen.clone();
        let events = Events::open(&pins, move |event| taken.borrow_mut().push(event))
            .expect("open the ring of events");
        let mut machine = Machine {
            pins,
            load,
            generations,
            state: State::default(),
            events,
            seen,
            interfaces: BTreeMap::new(),
        };
        machine.apply(config);
        machine
    }

    fn apply(&mut self, config: &Path) {
        let config = read(config);
        let mut host = dpd::net::snapshot().expect("look at the interfaces");
        for link in dpd::plan::announce::links(&config, &host) {
            // Nobody else has them.
            let ifindex = link.ifindex;
            let of_link = |address| LinkAddress { ifindex, address };
            host.announced
                .extend(link.addresses.into_iter().map(of_link));
        }
        self.interfaces = host
            .links
            .iter()
            .map(|(name, link)| (name.clone(), link.ifindex))
            .collect();
        let state = dpd::plan::compile(dpd::plan::Inputs {
            config: &config,
            host: &host,
            previous: &self.state.catalog,
            previous_maglev: &self.state.maglev,
            now_ns: dpd::bpf::state::conntrack::now_ns(),
        });
        let state = state.expect("compile the configuration");
        let prepared = self.generations.stage(&state, Some(&self.state));
        self.generations
            .commit(prepared.expect("write the tables of the configuration"));
        self.generations.forget_old();
        self.state = state;
    }

    fn bench(&self) -> Bench {
        let program = |hook| self.load.program(hook).expect("the program is loaded");
        Bench {
            programs: Hook::ALL
                .map(|hook| (hook, program(hook).try_clone().expect("keep the program")))
                .into(),
            xdp: self.load.xdp_program().expect("the program is loaded"),
            interfaces: self.interfaces.clone(),
            reader: self.reader(),
        }
    }

    fn run(&mut self, hook: Hook, interface: &str, frame: &[u8], merged: Merged) -> Answer {
        self.run_in(hook, context(self.ifindex(interface), merged), frame)
    }

    fn run_in(&mut self, hook: Hook, context: Vec<u32>, frame: &[u8]) -> Answer {
        let program = self.load.program(hook).expect("the program is loaded");
        let program = program.try_clone().expect("keep the program");
        self.observe(|| {
            let run = test_run(&program, &context, frame);
            (verdict(run.returned), run.packet)
        })
    }

    fn run_xdp(&mut self, frame: &[u8]) -> Answer {
        let program = self.load.xdp_program().expect("the program is loaded");
        self.observe(|| {
            let run = test_run(&program, &[], frame);
            (xdp_verdict(run.returned), run.packet)
        })
    }

    /// How long each frame takes; nothing else is looked at meanwhile, but the ring is emptied.
    fn time(&mut self, hook: Hook, interface: &str, frames: &[Vec<u8>]) -> Vec<Duration> {
        let context = context(self.ifindex(interface), Merged::default());
        let program = self.load.program(hook).expect("the program is loaded");
        let times = frames
            .iter()
            .map(|frame| test_run(program, &context, frame).time)
            .collect();
        self.forget_events();
        times
    }

    fn time_xdp(&mut self, frames: &[Vec<u8>]) -> Vec<Duration> {
        let program = self.load.xdp_program().expect("the program is loaded");
        let times = frames
            .iter()
            .map(|frame| test_run(&program, &[], frame).time)
            .collect();
        self.forget_events();
        times
    }

    fn forget_events(&mut self) {
        self.events.consume().expect("read the ring of events");
        self.seen.borrow_mut().clear();
    }

    fn ifindex(&self, interface: &str) -> u32 {
        *self
            .interfaces
            .get(interface)
            .unwrap_or_else(|| panic!("the node has no interface {interface}"))
    }

    /// Runs a program and looks at what it left in the tables.
    fn observe(&mut self, run: impl FnOnce() -> (Verdict, Vec<u8>)) -> Answer {
        let before = self.drops();
        let suppressed = self.suppressed();
        let (verdict, packet) = run();
        let drops = self.drops();
        let suppressed = self.suppressed() - suppressed;
        self.events.consume().expect("read the ring of events");
        let events = self.seen.borrow_mut().drain(..).collect::<Vec<_>>();
        Answer {
            verdict,
            packet,
            events: self.flows(&events),
            suppressed,
            drops: drops
                .iter()
                .filter(|(reason, count)| before.get(reason) != Some(count))
                .map(|(reason, _)| *reason)
                .collect(),
        }
    }

    fn reader(&self) -> Reader {
        Reader::open(self.pins.root()).expect("read the datapath")
    }

    fn flows(&self, events: &[Event]) -> Vec<Flow> {
        let flow = |event| translate::flow(event, &self.state.catalog, Clock::read(), |_| None);
        events.iter().map(flow).collect()
    }

    fn suppressed(&self) -> u64 {
        let loss = self.reader().event_loss().expect("read the counters");
        loss.suppressed + loss.ring_full + loss.rate_limited + loss.no_settings
    }

    /// Packets dropped so far, by reason.
    fn drops(&self) -> BTreeMap<u8, u64> {
        let reader = self.reader();
        let mut drops = BTreeMap::new();
        for metric in reader.metrics().expect("read the counters") {
            if metric.reason != 0 {
                *drops.entry(metric.reason).or_default() += metric.packets;
            }
        }
        drops
    }

    fn evict(&self, protocol: u8, src: SocketAddr, dst: SocketAddr) {
        let address = |ip: IpAddr| {
            let bytes = match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            abi::address::from_bytes(&bytes).expect("16 bytes")
        };
        let tuple = abi::flow_tuple {
            source: address(src.ip()),
            destination: address(dst.ip()),
            source_port: src.port().to_be(),
            destination_port: dst.port().to_be(),
            protocol,
            ..Default::default()
        };
        let tables = ["dpd_ct_tcp", "dpd_ct_other", "dpd_ct_unreplied"];
        let gone = tables.map(|name| {
            let map = MapHandle::from_pinned_path(self.pins.map(name)).expect("open a table");
            map.delete(tuple.as_bytes()).is_ok()
        });
        assert!(gone.contains(&true), "no entry from {src} to {dst}");
    }

    /// Of each table of answered connections the first pair is the pattern.
    fn multiply(&self, connections: u32) {
        for name in ["dpd_ct_tcp", "dpd_ct_other"] {
            let map = MapHandle::from_pinned_path(self.pins.map(name)).expect("open a table");
            let row = |key: Vec<u8>| {
                let value = map.lookup(&key, MapFlags::ANY).ok()??;
                abi::flow_tuple::from_bytes(&key).zip(abi::ct_entry::from_bytes(&value))
            };
            let rows: Vec<(abi::flow_tuple, abi::ct_entry)> = map.keys().filter_map(row).collect();
            let is_reply =
                |entry: &abi::ct_entry| u32::from(entry.flags) & abi::ct_flags::CT_REPLY.0 != 0;
            let find = |reply| rows.iter().find(|(_, entry)| is_reply(entry) == reply);
            let (Some(asked), Some(reply)) = (find(false), find(true)) else {
                continue;
            };
            let room = map.max_entries() / 2;
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for number in 1..=connections.min(room.saturating_sub(1024)) {
                for (key, entry) in pair_of_client(*asked, *reply, number) {
                    keys.extend_from_slice(key.as_bytes());
                    values.extend_from_slice(entry.as_bytes());
                }
            }
            let count = (keys.len() / size_of::<abi::flow_tuple>()) as u32;
            if count > 0 {
                map.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)
                    .expect("fill a table");
            }
        }
    }

    fn sweep(&self) -> Duration {
        let tables = Tables::open(&self.pins).expect("open the tables of connections");
        let begun = std::time::Instant::now();
        let swept = tables.sweep(&self.state.settings, now_ns());
        swept.expect("sweep");
        begun.elapsed()
    }

    fn tally(&self) -> Tally {
        let tables = Tables::open(&self.pins).expect("open the tables of connections");
        let swept = tables.sweep(&self.state.settings, now_ns());
        swept.expect("sweep").tally
    }

    fn break_chain(&self, place: u32) {
        let load = Pins::numbers(&self.pins.loads())[0];
        let calls = self.pins.load(load).join("dpd_calls");
        let calls = MapHandle::from_pinned_path(calls).expect("open the chain");
        calls
            .delete(&place.to_ne_bytes())
            .expect("take a step out of the chain");
    }

    fn lose_settings(&self) {
        let tables = self.pins.map("dpd_settings");
        let tables = MapHandle::from_pinned_path(tables).expect("open dpd_settings");
        let slot = (self.generations.epoch() & 1) as u32;
        tables
            .delete(&slot.to_ne_bytes())
            .expect("take the live settings away");
    }

    fn neglect(&self) {
        let map = MapHandle::from_pinned_path(self.pins.map("dpd_endpoint_conns"))
            .expect("open dpd_endpoint_conns");
        for key in map.keys() {
            let value = map
                .lookup(&key, MapFlags::ANY)
                .expect("read dpd_endpoint_conns");
            let usage = value.and_then(|value| abi::conn_usage::from_bytes(&value));
            let usage = abi::conn_usage {
                verified_ns: 0,
                ..usage.expect("a row of dpd_endpoint_conns")
            };
            map.update(&key, usage.as_bytes(), MapFlags::EXIST)
                .expect("write dpd_endpoint_conns");
        }
    }

    fn connections(&self) -> Vec<Connection> {
        let tables = Tables::open(&self.pins).expect("open the tables of connections");
        let mut connections = tables
            .connections(&self.state.settings)
            .expect("read the tables of connections");
        connections.sort_by_key(|connection| std::cmp::Reverse(connection.age_ns));
        connections
    }
}

/// A pair as it would be of the client with this number.
fn pair_of_client(
    (mut asked_key, mut asked): (abi::flow_tuple, abi::ct_entry),
    (mut reply_key, mut reply): (abi::flow_tuple, abi::ct_entry),
    number: u32,
) -> [(abi::flow_tuple, abi::ct_entry); 2] {
    let ipv4 = (0x0b00_0000 + number).to_be(); // 11.0.0.0/8
    let client = abi::address {
        word: [0, u64::from(ipv4) << 32 | 0xffff_0000],
    };
    for tuple in [&mut asked_key, &mut asked.translated] {
        tuple.source = client;
    }
    for tuple in [&mut reply_key, &mut reply.translated] {
        tuple.destination = client;
    }
    (asked.last_seen_ns, reply.last_seen_ns) = (now_ns(), now_ns());
    [(asked_key, asked), (reply_key, reply)]
}

fn read(config: &Path) -> Arc<dpd::config::Config> {
    let loaded = dpd::config::load(config)
        .unwrap_or_else(|problems| panic!("the test's configuration is wrong:\n{problems}"));
    loaded.config
}

/// A bpffs that only this thread and its children see, and that goes with them.
pub fn own_bpffs() -> PathBuf {
    own_mounts();
    let place = Path::new("/sys/fs/bpf");
    let nothing: Option<&std::ffi::CStr> = None;
    let kind = CString::new("bpf").expect("a word");
    rustix::mount::mount(&kind, place, &kind, MountFlags::empty(), nothing)
        .expect("mount a bpffs at /sys/fs/bpf");
    place.join("dpd")
}

/// From here on what this thread mounts is its own and its children's.
pub fn own_mounts() {
    // SAFETY: only this thread's view of the mounts is unshared, and it holds no paths that depend on it.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .expect("make a mount namespace: this test needs root");
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .expect("keep mounts to ourselves");
}

fn verdict(returned: u32) -> Verdict {
    const TC_ACT_SHOT: u32 = 2;
    const TC_ACT_REDIRECT: u32 = 7;
    const TC_ACT_UNSPEC: u32 = u32::MAX;
    match returned {
        TC_ACT_UNSPEC => Verdict::Pass,
        TC_ACT_REDIRECT => Verdict::Redirect,
        TC_ACT_SHOT => Verdict::Drop,
        other => panic!("the program returned {other}, which is none of its answers"),
    }
}

fn xdp_verdict(returned: u32) -> Verdict {
    const XDP_DROP: u32 = 1;
    const XDP_PASS: u32 = 2;
    match returned {
        XDP_PASS => Verdict::Pass,
        XDP_DROP => Verdict::Drop,
        other => panic!("the program returned {other}, which is none of its answers"),
    }
}

/// Runs a tc program so often on one frame of an interface, which each run changes further; answers with the time of a
/// run.
pub fn test_runs(program: &OwnedFd, ifindex: u32, frame: &[u8], times: u32) -> Duration {
    run(program, &context(ifindex, Merged::default()), frame, times).time
}

/// A `struct __sk_buff` of nothing but its ifindex and its segments, as words: the kernel wants every other byte to be
/// zero, and the padding of a struct may be anything.
fn context(ifindex: u32, merged: Merged) -> Vec<u32> {
    let mut context = vec![0u32; size_of::<abi::__sk_buff>() / 4];
    context[std::mem::offset_of!(abi::__sk_buff, ifindex) / 4] = ifindex;
    context[std::mem::offset_of!(abi::__sk_buff, gso_segs) / 4] = merged.count.into();
    context[std::mem::offset_of!(abi::__sk_buff, gso_size) / 4] = merged.size.into();
    context
}

/// What one run of a program gave.
struct Run {
    returned: u32,
    /// The frame as the program left it.
    packet: Vec<u8>,
    /// As the kernel measured it, of several runs on average.
    time: Duration,
}

/// Runs a program on a frame in a context, or in the kernel's own if it is empty.
fn test_run(program: &OwnedFd, context: &[u32], frame: &[u8]) -> Run {
    run(program, context, frame, 1)
}

fn run(program: &OwnedFd, context: &[u32], frame: &[u8], times: u32) -> Run {
    try_run(program, context, frame, times)
        .unwrap_or_else(|| panic!("the kernel refuses the test run of {} bytes", frame.len()))
}

/// `None` if the kernel refuses the test run.
fn try_run(program: &OwnedFd, context: &[u32], frame: &[u8], times: u32) -> Option<Run> {
    let mut out = vec![0; frame.len() + 2048];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        ctx_in: if context.is_empty() {
            std::ptr::null()
        } else {
            context.as_ptr().cast()
        },
        ctx_size_in: size_of_val(context) as u32,
        repeat: times as i32,
        ..Default::default()
    };
    // SAFETY: all pointers point to buffers of the lengths given with them, which live for the whole call.
    let done = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    if done != 0 {
        return None;
    }
    out.truncate(options.data_size_out as usize);
    Some(Run {
        returned: options.retval,
        packet: out,
        time: Duration::from_nanos(options.duration.into()),
    })
}
