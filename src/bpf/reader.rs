//! What the kernel holds, read for listings, status and metrics.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use libbpf_rs::{MapCore, MapHandle, MapType, Program};

use crate::bpf::abi;
use crate::bpf::attach;
use crate::bpf::attach::hook::{Role, XDP_ENTRY};
use crate::bpf::attach::socket::{self, SOCKET_HOOKS, SocketHook};
use crate::bpf::attach::xdp;
use crate::bpf::load::chain;
use crate::bpf::load::pinned_programs;
use crate::bpf::state::conntrack::{Tables, now_ns};
use crate::bpf::state::counters;
use crate::bpf::state::ct_table::Sizes;
use crate::bpf::state::socket_peers::SocketPeers;
use crate::bpf::sys::libbpf_log;
use crate::bpf::sys::map;
use crate::bpf::sys::pins::{self, Pins};
use crate::bpf::sys::program;
use crate::bpf::sys::write_access;
pub use crate::bpf::tables::contents::Part;
use crate::bpf::tables::live_epoch::{self, EpochView};
use crate::bpf::tables::{catalog, contents};
use crate::bpf::takeover::datapath_dir;
use crate::model::catalog::Catalog;
use crate::model::conntrack::{Connection, OpenConnections, Tally};
use crate::model::drop_reason;
use crate::model::state::{Settings, State};
use crate::model::status::{
    Attachment, ConntrackCounts, EndpointCounts, EventLoss, MapStatus, Metric, ProgramStatus,
    SocketAttachment,
};

/// The datapath below one root of pins.
#[derive(Debug)]
pub struct Reader {
    pins: Pins,
    live: EpochView,
}

impl Reader {
    /// # Errors
    /// If there is no datapath of this version, or no permission to read it.
    pub fn open(root: &Path) -> Result<Reader> {
        let found = Reader::find(root)?;
        found.with_context(|| {
            format!(
                "no datapath of dpd at {}: start it with `dpd run` or `systemctl start dpd`",
                root.display()
            )
        })
    }

    /// `None`: there is no datapath.
    ///
    /// # Errors
    /// If it is another version's, there is no permission to read it, or users other than root could have put it there.
    pub fn find(root: &Path) -> Result<Option<Reader>> {
        libbpf_log::to_log();
        write_access::check(root)?;
        let pins = datapath_dir::readable(root);
        let path = pins.map(live_epoch::MAP);
        let is_there = path
            .try_exists()
            .with_context(|| format!("read {} (as root?)", root.display()))?;
        if !is_there {
            return match datapath_dir::find_live(root) {
                Some(other) => bail!("{}", of_another_version(root, &other)),
                None => Ok(None),
            };
        }
        let live = EpochView::of(map::open(&path)?);
        Ok(Some(Reader { pins, live }))
    }

    /// What is pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The live epoch, which is the configuration's revision.
    pub fn epoch(&self) -> Result<u64> {
        self.live.load()
    }

    /// The live generation.
    pub fn state(&self) -> Result<State> {
        self.of_generation(contents::read)
    }

    /// These parts of the live generation; the others are empty.
    pub fn parts(&self, parts: &[Part]) -> Result<State> {
        self.of_generation(|pins, epoch| contents::read_parts(pins, epoch, parts))
    }

    /// The live generation; `None` before the first.
    pub fn find_state(&self) -> Result<Option<State>> {
        match self.live.load()? {
            0 => Ok(None),
            _ => self.state().map(Some),
        }
    }

    /// The catalog of the live generation.
    pub fn catalog(&self) -> Result<Catalog> {
        self.of_generation(catalog::read)
    }

    /// Reads from one generation, the live one.
    fn of_generation<T>(&self, read: impl Fn(&Pins, u64) -> Result<T>) -> Result<T> {
        let mut epoch = self.live.load()?;
        loop {
            if epoch == 0 {
                bail!("the datapath has no configuration yet");
            }
            let error = match read(&self.pins, epoch) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            // It may have been replaced meanwhile: then the next one is live.
            let now = self.live.load()?;
            if now == epoch {
                return Err(error).with_context(|| format!("read generation {epoch}"));
            }
            epoch = now;
        }
    }

    pub fn connections(&self) -> Result<Vec<Connection>> {
        Tables::open(&self.pins)?.connections(&self.of_generation(contents::settings)?)
    }

    /// The connections that are open, and not expired with these settings.
    pub fn open_connections(&self, settings: &Settings) -> Result<OpenConnections> {
        Tables::open(&self.pins)?.open_connections(settings)
    }

    /// The sizes with which the conntrack tables were created.
    pub fn conntrack_sizes(&self) -> Result<Sizes> {
        Ok(Tables::open(&self.pins)?.sizes())
    }

    /// Deletes every connection; returns how many.
    pub fn flush_connections(&self) -> Result<u64> {
        Tables::open(&self.pins)?.flush()
    }

    /// What the conntrack tables have, and had.
    pub fn conntrack(&self) -> Result<(Tally, ConntrackCounts)> {
        let settings = self.of_generation(contents::settings)?;
        Tables::open(&self.pins)?.tally(&settings, now_ns())
    }

    /// Connections that each rule allowed, and packets that it denied, by its id.
    pub fn rule_hits(&self) -> Result<BTreeMap<u32, u64>> {
        self.hits("dpd_rule_hits")
    }

    /// Packets that each prefix of the prefilter dropped, by its id.
    pub fn prefilter_hits(&self) -> Result<BTreeMap<u32, u64>> {
        self.hits("dpd_prefilter_hits")
    }

    /// Errors and resets that were not sent: more than 100 a second for one interface.
    pub fn responses_limited(&self) -> Result<u64> {
        self.counter(abi::counter::COUNTER_RESPONSES_LIMITED)
    }

    /// Malformed frames, which XDP passed to tc.
    pub fn xdp_malformed(&self) -> Result<u64> {
        self.counter(abi::counter::COUNTER_XDP_MALFORMED)
    }

    fn hits(&self, map: &str) -> Result<BTreeMap<u32, u64>> {
        counters::read_hits(&self.open_map(map)?)
    }

    /// Packets that workloads sent and received, and drops by reason, direction and interface.
    pub fn metrics(&self) -> Result<Vec<Metric>> {
        let mut metrics = self.traffic()?;
        metrics.extend(self.drops()?);
        metrics.sort_by(|a, b| {
            (a.ifindex, &a.direction, a.reason).cmp(&(b.ifindex, &b.direction, b.reason))
        });
        Ok(metrics)
    }

    /// `dpd_endpoint_counters` of each endpoint of the configuration, by its interface, on each CPU.
    fn endpoint_counters(&self) -> Result<Vec<(u32, Vec<abi::endpoint_counters>)>> {
        let map = self.open_map("dpd_endpoint_counters")?;
        let endpoints = self.of_generation(contents::read_endpoints)?.into_iter();
        endpoints
            .map(|(ifindex, endpoint)| {
                Ok((ifindex, map::lookup_percpu(&map, &endpoint.counters_index)?))
            })
            .collect()
    }

    /// What became of each endpoint's packets, by its interface.
    pub fn endpoint_counts(&self) -> Result<BTreeMap<u32, EndpointCounts>> {
        let counters = self.endpoint_counters()?.into_iter();
        Ok(counters
            .map(|(ifindex, values)| (ifindex, endpoint_counts(&values)))
            .collect())
    }

    fn traffic(&self) -> Result<Vec<Metric>> {
        let mut metrics = Vec::new();
        for (ifindex, values) in self.endpoint_counters()? {
            for direction in [
                abi::direction::DIRECTION_EGRESS.0,
                abi::direction::DIRECTION_INGRESS.0,
            ] {
                let key = abi::drop_count_key {
                    ifindex,
                    direction: direction as u8,
                    ..Default::default()
                };
                let counts = values
                    .iter()
                    .map(|value| value.direction[direction as usize]);
                metrics.push(metric(key, counts));
            }
        }
        Ok(metrics)
    }

    /// Drops by reason, direction and interface.
    pub fn drops(&self) -> Result<Vec<Metric>> {
        let map = self.open_map("dpd_drop_counts")?;
        let rows: Vec<(abi::drop_count_key, Vec<abi::packet_count>)> = map::read_percpu(&map)?;
        let rows = rows.into_iter();
        Ok(rows.map(|(key, values)| metric(key, values)).collect())
    }

    pub fn event_loss(&self) -> Result<EventLoss> {
        Ok(EventLoss {
            ring_full: self.counter(abi::counter::COUNTER_EVENTS_RING_FULL)?,
            rate_limited: self.counter(abi::counter::COUNTER_EVENTS_RATE_LIMITED)?,
            throttle_full: self.counter(abi::counter::COUNTER_EVENTS_THROTTLE_FULL)?,
            no_settings: self.counter(abi::counter::COUNTER_EVENTS_NO_SETTINGS)?,
            suppressed: self.counter(abi::counter::COUNTER_EVENTS_SUPPRESSED)?,
        })
    }

    fn counter(&self, counter: abi::counter) -> Result<u64> {
        counters::read(&self.open_map("dpd_counters")?, counter)
    }

    fn open_map(&self, name: &str) -> Result<MapHandle> {
        map::open(&self.pins.map(name))
    }

    /// The programs of the newest load: hooks first, then the chain in its order.
    pub fn programs(&self) -> Result<Vec<ProgramStatus>> {
        let order = |name: &str| {
            chain::CHAIN
                .iter()
                .position(|(step, _)| *step == name)
                .map_or(0, |index| index + 1)
        };
        let mut programs = Vec::new();
        for (name, path) in pinned_programs(&self.pins) {
            let fd = Program::fd_from_pinned_path(&path)
                .with_context(|| format!("open program {}", path.display()))?;
            let info = program::info(&fd)?;
            programs.push(ProgramStatus {
                name,
                id: info.id,
                verified_instructions: info.verified_instructions,
                jited_bytes: info.jited_bytes,
            });
        }
        programs.sort_by(|a, b| (order(&a.name), &a.name).cmp(&(order(&b.name), &b.name)));
        Ok(programs)
    }

    /// The pinned maps and the live tables, with their number of entries.
    pub fn maps(&self) -> Result<Vec<MapStatus>> {
        self.maps_with(|_| None)
    }

    /// The same; a map whose number of entries `known` returns is not walked.
    pub fn maps_with(&self, known: impl Fn(&str) -> Option<u64>) -> Result<Vec<MapStatus>> {
        let mut maps = Vec::new();
        let generation = self.pins.generation(self.live.load()?);
        for folder in [self.pins.maps(), generation] {
            for name in pins::names(&folder) {
                let Ok(map) = map::open(&folder.join(&name)) else {
                    continue; // of a generation that was replaced meanwhile
                };
                maps.push(MapStatus {
                    kind: format!("{:?}", map.map_type()),
                    entries: known(&name).or_else(|| fill(&map)),
                    max_entries: map.max_entries(),
                    memory_bytes: map
                        .query_fdinfo()
                        .ok()
                        .and_then(|info| info.memlock)
                        .unwrap_or_default(),
                    name,
                });
            }
        }
        Ok(maps)
    }

    /// Our programs on hooks, by interface.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        Ok(self.attachments_of(&self.catalog()?))
    }

    /// Our programs on the interfaces of this catalog.
    pub fn attachments_of(&self, catalog: &Catalog) -> Vec<Attachment> {
        let mut attachments = Vec::new();
        let endpoints = catalog
            .endpoints
            .iter()
            .map(|(name, info)| (name, info.ifindex, Role::Endpoint));
        let uplinks = catalog
            .uplinks
            .iter()
            .map(|(name, info)| (name, info.ifindex, Role::of_uplink(info)));
        for (interface, ifindex, role) in uplinks.chain(endpoints) {
            let Some(ifindex) = ifindex else {
                continue;
            };
            attachments.extend(self.xdp(interface, ifindex));
            for found in attach::find(&self.pins, ifindex, role) {
                attachments.push(Attachment {
                    interface: interface.clone(),
                    ifindex,
                    hook: found.program.side().name().to_owned(),
                    mechanism: found.mechanism.name().to_owned(),
                    program: found.program.name().to_owned(),
                    other_programs_first: found.other_programs_first,
                });
            }
        }
        attachments
    }

    /// What sockets of the host were translated to.
    pub fn socket_peers(&self) -> Result<SocketPeers> {
        SocketPeers::open(&self.pins)
    }

    /// Our programs on the hooks of the host's sockets.
    pub fn socket_attachments(&self) -> Vec<SocketAttachment> {
        let attached = |hook: &SocketHook| {
            let (cgroup_id, _) = socket::attached(&self.pins, hook)?;
            Some(SocketAttachment {
                hook: hook.name.to_owned(),
                program: hook.program.to_owned(),
                cgroup_id,
                cgroup: None,
            })
        };
        SOCKET_HOOKS.iter().filter_map(attached).collect()
    }

    /// Whether the interface has both programs of an endpoint.
    pub fn has_endpoint_programs(&self, ifindex: u32) -> bool {
        let hooks = Role::Endpoint.hooks();
        attach::find(&self.pins, ifindex, Role::Endpoint).len() == hooks.len()
    }

    /// The XDP program of an interface.
    pub fn xdp(&self, interface: &str, ifindex: u32) -> Option<Attachment> {
        xdp::find(&self.pins, ifindex).map(|attached| Attachment {
            interface: interface.to_owned(),
            ifindex,
            hook: XDP_ENTRY.attach_point.name().to_owned(),
            mechanism: attached.name().to_owned(),
            program: XDP_ENTRY.program.to_owned(),
            other_programs_first: Vec::new(),
        })
    }
}

/// Error for a datapath of another version, with the remedy.
fn of_another_version(root: &Path, other: &Pins) -> String {
    let at = root.display();
    let own = Pins::new(root);
    if other.number() < own.number() {
        return format!(
            "the datapath at {at} is of an older version of dpd ({}; this one reads {}), and continues as it is: restart \
             the daemon, which takes it over or gives the reason why it can't, or use the version that created it",
            other.name(),
            own.name()
        );
    }
    format!(
        "the datapath at {at} is of a newer version of dpd ({}; this one reads {}): use that version",
        other.name(),
        own.name()
    )
}

/// The sum over all CPUs.
fn endpoint_counts(values: &[abi::endpoint_counters]) -> EndpointCounts {
    let [ingress, egress] = [
        abi::direction::DIRECTION_INGRESS.0 as usize,
        abi::direction::DIRECTION_EGRESS.0 as usize,
    ];
    let sum = |of: &dyn Fn(&abi::endpoint_counters) -> u64| values.iter().map(of).sum();
    EndpointCounts {
        packets_in: sum(&|value| value.direction[ingress].packets),
        bytes_in: sum(&|value| value.direction[ingress].bytes),
        packets_out: sum(&|value| value.direction[egress].packets),
        bytes_out: sum(&|value| value.direction[egress].bytes),
        to_stack: sum(&|value| value.to_stack),
        answered: sum(&|value| value.answered),
        drops_in: sum(&|value| value.dropped[ingress]),
        drops_out: sum(&|value| value.dropped[egress]),
    }
}

fn metric(key: abi::drop_count_key, counts: impl IntoIterator<Item = abi::packet_count>) -> Metric {
    let sum =
        |sum: (u64, u64), count: abi::packet_count| (sum.0 + count.packets, sum.1 + count.bytes);
    let (packets, bytes) = counts.into_iter().fold((0, 0), sum);
    Metric {
        ifindex: key.ifindex,
        direction: direction_name(key.direction).to_owned(),
        reason: key.reason,
        reason_text: reason_text(key.reason).to_owned(),
        packets,
        bytes,
    }
}

fn direction_name(direction: u8) -> &'static str {
    match abi::direction(direction.into()) {
        abi::direction::DIRECTION_INGRESS => "ingress",
        _ => "egress",
    }
}

fn reason_text(reason: u8) -> &'static str {
    match reason {
        0 => "forwarded",
        _ => drop_reason::words(reason),
    }
}

/// The number of entries; `None` for types that are always full.
fn fill(map: &MapHandle) -> Option<u64> {
    match map.map_type() {
        MapType::Hash | MapType::LruHash | MapType::LpmTrie | MapType::PercpuHash => {
            map::count(map).ok()
        }
        _ => None,
    }
}
