//! Generations: full contents of all tables, written beside the live ones, made visible by one store.
//!
//! Each table is an outer map of two slots. The new contents go into the slot that is not live; then the epoch, whose
//! lowest bit is the slot, is stored. A table without a change puts its live inner map into the other slot too.
//!
//! A table is frozen once it is filled: nobody can write it any more, so what can drift is which table a slot holds, and
//! the epoch. That is quickly looked at, however large the tables are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow};
use libbpf_rs::libbpf_sys::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::abi;
use super::encode;
use super::gate;
use super::live::Live;
use super::map::{self, Kind, Rows};
use super::pins::{self, Pins};
use crate::model::catalog::Catalog;
use crate::model::state::{Endpoint, PrefilterEntry, Settings, State};

/// A table of a generation.
struct Table {
    kind: Kind,
    /// Name of the outer map.
    outer: &'static str,
    rows: fn(&State) -> Rows,
    /// Whether two states have the same rows.
    same: fn(&State, &State) -> bool,
}

const fn kind(
    name: &'static str,
    map_type: MapType,
    key_size: usize,
    value_size: usize,
    flags: u32,
) -> Kind {
    Kind {
        name,
        map_type,
        key_size: key_size as u32,
        value_size: value_size as u32,
        flags: flags | BPF_F_RDONLY_PROG,
    }
}

const TABLES: [Table; 8] = [
    Table {
        kind: kind("settings", MapType::Array, 4, size_of::<abi::settings>(), 0),
        outer: "dpd_settings",
        rows: |state| {
            let mut rows = Rows::default();
            rows.push(&0u32, &encode::settings(&state.settings));
            rows
        },
        same: |a, b| a.settings == b.settings,
    },
    Table {
        kind: kind(
            "services",
            MapType::Hash,
            size_of::<abi::service_key>(),
            size_of::<abi::service>(),
            0,
        ),
        outer: "dpd_services",
        rows: service_rows,
        same: |a, b| a.services == b.services,
    },
    Table {
        kind: kind(
            "backend_lut",
            MapType::Array,
            4,
            size_of::<abi::backend_lut_entry>(),
            BPF_F_INNER_MAP,
        ),
        outer: "dpd_backend_lut",
        rows: |state| {
            let mut rows = Rows::default();
            for (index, slot) in (0u32..).zip(&state.backend_lut) {
                rows.push(&index, &encode::slot(slot));
            }
            rows
        },
        same: |a, b| a.backend_lut == b.backend_lut,
    },
    Table {
        kind: kind("backends", MapType::Hash, 4, size_of::<abi::backend>(), 0),
        outer: "dpd_backends",
        rows: |state| {
            let mut rows = Rows::default();
            for (id, backend) in &state.backends {
                rows.push(id, &encode::backend(backend));
            }
            rows
        },
        same: |a, b| a.backends == b.backends,
    },
    Table {
        kind: kind("endpoints", MapType::Hash, 4, size_of::<abi::endpoint>(), 0),
        outer: "dpd_endpoints",
        rows: |state| {
            let mut rows = Rows::default();
            for (ifindex, endpoint) in &state.endpoints {
                rows.push(ifindex, &encode::endpoint(endpoint));
            }
            rows
        },
        same: |a, b| a.endpoints == b.endpoints,
    },
    Table {
        kind: kind(
            "ipcache",
            MapType::LpmTrie,
            size_of::<abi::address_prefix_key>(),
            size_of::<abi::ipcache_entry>(),
            BPF_F_NO_PREALLOC,
        ),
        outer: "dpd_ipcache",
        rows: |state| {
            let mut rows = Rows::default();
            for (prefix, entry) in &state.ipcache {
                rows.push(&encode::prefix(prefix), &encode::identity(entry));
            }
            rows
        },
        same: |a, b| a.ipcache == b.ipcache,
    },
    Table {
        kind: kind(
            "policy",
            MapType::LpmTrie,
            size_of::<abi::policy_key>(),
            size_of::<abi::policy>(),
            BPF_F_NO_PREALLOC,
        ),
        outer: "dpd_policy",
        rows: |state| {
            let mut rows = Rows::default();
            for (key, entry) in &state.policy {
                rows.push(&encode::policy_key(key), &encode::policy(entry));
            }
            rows
        },
        same: |a, b| a.policy == b.policy,
    },
    Table {
        kind: kind(
            "prefilter",
            MapType::LpmTrie,
            size_of::<abi::address_prefix_key>(),
            size_of::<abi::prefilter>(),
            BPF_F_NO_PREALLOC,
        ),
        outer: "dpd_prefilter",
        rows: |state| {
            let mut rows = Rows::default();
            for (prefix, entry) in &state.prefilter {
                let number = entry.number;
                rows.push(&encode::prefix(prefix), &abi::prefilter { number });
            }
            rows
        },
        same: |a, b| a.prefilter == b.prefilter,
    },
];

/// Each table with the entries that a state gives it.
pub fn sizes(state: &State) -> impl Iterator<Item = (Kind, u32)> {
    TABLES
        .iter()
        .map(|table| (table.kind, (table.rows)(state).count))
}

/// What the catalog's map is made of, and its entries.
pub fn catalog_size(catalog: &Catalog) -> Result<(Kind, u32)> {
    let rows = catalog_rows(catalog)?;
    Ok((CATALOG_KIND, rows.count))
}

/// The catalog has no outer map: programs don't read it.
const CATALOG: &str = "catalog";
/// A foreign epoch that is farther ahead than this never comes.
const REACHABLE: u64 = 1 << 32;
const CATALOG_CHUNK: usize = 4096;
/// The first bytes of the catalog's map: the length of the text.
const CATALOG_HEAD: usize = 8;

fn service_rows(state: &State) -> Rows {
    let mut rows = Rows::default();
    for (frontend, entry) in &state.services {
        rows.push(&encode::frontend(frontend), &encode::service(entry));
    }
    for address in state.service_addresses() {
        rows.push(&encode::service_address(address), &abi::service::default());
    }
    rows
}

/// The outer maps and the live epoch.
#[derive(Debug)]
pub struct Generations {
    pins: Pins,
    live: Live,
    /// The epoch that packets work under while ours is none yet: of the datapath that this one takes over from.
    before: u64,
    outer: Vec<MapHandle>,
    /// The inner maps of the live generation, in the order of `TABLES`.
    inner: Vec<MapHandle>,
    /// The epoch that was switched to last. Another one in the kernel is somebody else's doing.
    epoch: u64,
    /// The highest epoch that somebody else made packets meet: connections may bear it.
    burnt: u64,
    /// Every program that read an epoch before the last switch has ended.
    is_quiet: AtomicBool,
}

impl Generations {
    /// Opens the pinned outer maps and, if one is live, the generation's inner maps.
    pub fn open(pins: &Pins) -> Result<Generations> {
        Generations::open_after(pins, 0)
    }

    /// The same, to go on from an epoch of another datapath.
    pub fn open_after(pins: &Pins, before: u64) -> Result<Generations> {
        let live = Live::map(map::open(&pins.map("dpd_live"))?)?;
        let outer = TABLES
            .iter()
            .map(|table| map::open(&pins.map(table.outer)))
            .collect::<Result<_>>()?;
        let folder = pins.generation(live.epoch());
        let inner = TABLES
            .iter()
            .map(|table| {
                let map = map::open(&folder.join(table.kind.name))?;
                map::freeze(&map, table.kind.name)?;
                Ok(map)
            })
            .collect::<Result<_>>()
            .unwrap_or_default(); // before the first generation, or somebody unpinned them: all is written anew
        Ok(Generations {
            pins: pins.clone(),
            epoch: live.epoch(),
            burnt: 0,
            is_quiet: AtomicBool::new(false),
            live,
            before,
            outer,
            inner,
        })
    }

    /// The epoch that programs are to work under; 0 before the first.
    pub fn epoch(&self) -> u64 {
        match self.epoch {
            0 => self.before,
            epoch => epoch,
        }
    }

    /// Whether packets meet these tables, not none yet nor those of another datapath.
    pub fn is_live(&self) -> bool {
        self.epoch != 0
    }

    /// The pins have moved to another folder.
    pub fn moved(&mut self, pins: &Pins) {
        self.pins = pins.clone();
    }

    /// Whether programs work under another epoch.
    pub fn has_other_epoch(&self) -> bool {
        self.live.epoch() != self.epoch
    }

    /// Makes programs work under our epoch again. Answers with the one that somebody else had put in its place, if any,
    /// and if a later generation would come to bear it: connections may have been judged under it, so it is never used.
    pub fn restore_epoch(&mut self) -> Option<u64> {
        let other = self.live.epoch();
        if other == self.epoch {
            return None;
        }
        self.switch(self.epoch);
        if other - self.epoch.min(other) < REACHABLE {
            self.burnt = self.burnt.max(other);
        }
        Some(other)
    }

    /// Whether connections may bear an epoch that is still to come.
    pub fn is_burnt(&self) -> bool {
        self.burnt > self.epoch
    }

    /// The next epoch that no connection bears and whose slot is not the live one.
    fn next_epoch(&self) -> u64 {
        let next = self.epoch().max(self.burnt) + 1;
        next + u64::from(next & 1 == self.epoch() & 1)
    }

    /// The tables whose live slot does not hold what it should.
    pub fn lost_slots(&self) -> Vec<&'static str> {
        self.lost_from(self.epoch, &self.inner)
    }

    /// The tables that are not in the slot of this epoch.
    fn lost_from(&self, epoch: u64, inner: &[MapHandle]) -> Vec<&'static str> {
        let slot = (epoch as u32 & 1).to_ne_bytes();
        let is_lost = |index: &usize| {
            let (Some(map), Some(outer)) = (inner.get(*index), self.outer.get(*index)) else {
                return false;
            };
            let held = outer.lookup(&slot, MapFlags::ANY).ok().flatten();
            let wanted = map.info().map(|info| info.info.id.to_ne_bytes().to_vec());
            wanted.is_ok_and(|wanted| held != Some(wanted))
        };
        (0..TABLES.len())
            .filter(is_lost)
            .map(|index| TABLES[index].kind.name)
            .collect()
    }

    /// Puts the tables back into the live slot; answers with those that were not there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn restore_slots(&self) -> Result<Vec<&'static str>> {
        let lost = self.lost_slots();
        for (index, map) in self.inner.iter().enumerate() {
            if lost.contains(&TABLES[index].kind.name) {
                self.fill_slot(index, (self.epoch & 1) as u32, map)?;
            }
        }
        Ok(lost)
    }

    /// The live generation as the kernel holds it; `None` before the first, or if its pins are gone.
    pub fn read(&self) -> Result<Option<State>> {
        let epoch = self.live.epoch();
        if epoch == 0 || self.inner.is_empty() {
            return Ok(None);
        }
        read(&self.pins, epoch).map(Some)
    }

    /// Writes `state` beside the live generation. `live` is what the live tables hold, where that is known: what did
    /// not change is shared. Nothing that packets meet is changed yet.
    ///
    /// # Errors
    /// If the kernel refuses any step; then nothing of it is left.
    pub fn prepare(&self, state: &State, live: Option<&State>) -> Result<Prepared> {
        let epoch = self.next_epoch();
        let folder = self.pins.generation(epoch);
        Pins::remove(&folder)?;
        match self.write(state, live, epoch) {
            Ok(inner) => Ok(Prepared {
                epoch,
                inner,
                pins: pinned(&folder),
            }),
            Err(error) => {
                self.discard(epoch);
                Err(error).with_context(|| format!("write generation {epoch}"))
            }
        }
    }

    /// Whether what was prepared some time ago can still be committed: it is the next, and nobody has taken it out of its slots
    /// or its pins.
    pub fn is_ready(&self, prepared: &Prepared) -> bool {
        prepared.epoch == self.next_epoch()
            && self.lost_from(prepared.epoch, &prepared.inner).is_empty()
            && prepared.pins == pinned(&self.pins.generation(prepared.epoch))
    }

    /// The switch: from the next packet on, the prepared generation counts. It can't fail. Answers with its epoch.
    pub fn commit(&mut self, prepared: Prepared) -> u64 {
        self.switch(prepared.epoch);
        self.epoch = prepared.epoch;
        self.inner = prepared.inner;
        prepared.epoch
    }

    /// Takes back the first generation, which no program meets any more. It can't fail. Connections may have been judged under
    /// its epoch, so this daemon never uses it again.
    pub fn retract(&mut self) {
        let epoch = std::mem::take(&mut self.epoch);
        self.burnt = self.burnt.max(epoch);
        self.switch(0);
        self.inner.clear();
        self.discard(epoch);
    }

    /// Lets go of a generation that was prepared or half written, and of the memory that it took.
    pub fn discard(&self, epoch: u64) {
        match self.wait_for_readers() {
            Ok(()) => thread::scope(|scope| {
                for index in 0..TABLES.len() {
                    scope.spawn(gate::carried(move || self.empty_slot(index, epoch)));
                }
            }),
            Err(error) => log::warn!("the memory of these tables is kept: {error:#}"),
        }
        if let Err(error) = Pins::remove(&self.pins.generation(epoch)) {
            log::warn!("the tables that were not put into use stay behind: {error:#}");
        }
    }

    fn write(&self, state: &State, live: Option<&State>, epoch: u64) -> Result<Vec<MapHandle>> {
        let folder = self.pins.generation(epoch);
        Pins::make(&folder)?;
        self.wait_for_readers()?;
        // A write to an outer slot waits for a grace period: the tables wait together.
        thread::scope(|scope| {
            let catalog = scope.spawn(gate::carried(|| {
                write_catalog(&state.catalog, &folder.join(CATALOG))
            }));
            let writers: Vec<_> = (0..TABLES.len())
                .map(|index| {
                    scope.spawn(gate::carried(move || {
                        self.write_table(index, state, live, epoch)
                    }))
                })
                .collect();
            let panicked = |_| Err(anyhow!("a writer of tables panicked"));
            let tables: Result<Vec<MapHandle>> = writers
                .into_iter()
                .map(|writer| writer.join().unwrap_or_else(panicked))
                .collect();
            let written = catalog.join();
            written.unwrap_or_else(|_| Err(anyhow!("the writer of the catalog panicked")))?;
            tables
        })
    }

    fn write_table(
        &self,
        index: usize,
        state: &State,
        live: Option<&State>,
        epoch: u64,
    ) -> Result<MapHandle> {
        let map = self.table(index, state, live)?;
        let path = self.pins.generation(epoch).join(TABLES[index].kind.name);
        map::pin(&map, &path)?;
        let slot = (epoch & 1) as u32;
        self.fill_slot(index, slot, &map)?;
        if self.before != 0 && !self.is_live() {
            // Programs may ask before the switch, which is under epoch 0.
            self.fill_slot(index, slot ^ 1, &map)?;
        }
        Ok(map)
    }

    /// The inner map of a table: the live one if nothing changed, else a new one, filled.
    fn table(&self, index: usize, state: &State, live: Option<&State>) -> Result<MapHandle> {
        let table = &TABLES[index];
        if let (Some(live), Some(map)) = (live, self.inner.get(index))
            && (table.same)(live, state)
        {
            return MapHandle::try_from(map)
                .with_context(|| format!("table {}: share it", table.kind.name));
        }
        let rows = (table.rows)(state);
        let map = map::create(&table.kind, rows.count)?;
        map::write(&map, table.kind.name, &rows)?;
        map::freeze(&map, table.kind.name)?;
        Ok(map)
    }

    fn fill_slot(&self, index: usize, slot: u32, map: &MapHandle) -> Result<()> {
        use std::os::fd::{AsFd, AsRawFd};
        let fd = map.as_fd().as_raw_fd() as u32;
        gate::pass(
            format_args!("put table {} into slot {slot}", TABLES[index].kind.name),
            || self.outer[index].update(&slot.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY),
        )
    }

    /// Puts the live map, if there is one, in the place of what was meant for an epoch that did not come.
    fn empty_slot(&self, index: usize, epoch: u64) {
        let slot = (epoch & 1) as u32;
        let emptied = match self.inner.get(index) {
            Some(map) => self.fill_slot(index, slot, map),
            None => gate::pass(
                format_args!("empty slot {slot} of table {}", TABLES[index].kind.name),
                || {
                    self.outer[index]
                        .delete(&slot.to_ne_bytes())
                        .or_else(|error| match error.kind() {
                            libbpf_rs::ErrorKind::NotFound => Ok(()),
                            _ => Err(error),
                        })
                },
            ),
        };
        if let Err(error) = emptied {
            log::warn!("the memory of a table that was not put into use is kept: {error:#}");
        }
    }

    fn switch(&mut self, epoch: u64) {
        self.live.switch(epoch);
        *self.is_quiet.get_mut() = false;
    }

    /// A program that read the epoch before the last switch may still be at work on the slot that is written next: waits
    /// until there is none, once after each switch.
    ///
    /// # Errors
    /// As `wait_for_programs`.
    pub fn wait_for_readers(&self) -> Result<()> {
        if self.is_quiet.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.wait_for_programs()
    }

    /// Waits until every program that has begun has ended. An update of an outer map returns after a grace period
    /// (kernel/bpf/syscall.c, maybe_wait_bpf_programs), so the live map is put once more where it already is.
    ///
    /// # Errors
    /// If the kernel refuses the update.
    pub fn wait_for_programs(&self) -> Result<()> {
        if let Some(map) = self.inner.first() {
            self.fill_slot(0, (self.epoch() & 1) as u32, map)?;
            self.is_quiet.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Unpins the generations that are not live, those that were prepared too. Their maps live on for as long as a slot holds
    /// them. Answers whether none of them is left.
    pub fn forget_old(&self) -> bool {
        let epoch = self.epoch();
        let mut is_done = true;
        for old in Pins::numbers(&self.pins.generations()) {
            if old != epoch
                && let Err(error) = Pins::remove(&self.pins.generation(old))
            {
                log::warn!("generation {old} stays pinned: {error:#}");
                is_done = false;
            }
        }
        is_done
    }
}

/// A generation that is written and not live.
#[derive(Debug)]
pub struct Prepared {
    epoch: u64,
    inner: Vec<MapHandle>,
    pins: BTreeMap<String, Option<u64>>,
}

impl Prepared {
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// The pins in a folder with their inodes.
fn pinned(folder: &Path) -> BTreeMap<String, Option<u64>> {
    let names = pins::names(folder).into_iter();
    names
        .map(|name| {
            let inode = pins::inode(&folder.join(&name));
            (name, inode)
        })
        .collect()
}

/// The switches and durations of a generation.
pub fn settings(pins: &Pins, epoch: u64) -> Result<Settings> {
    let map = map::open(&pins.generation(epoch).join("settings"))?;
    let rows: Vec<(u32, abi::settings)> = map::read(&map)?;
    let row = rows.first();
    Ok(row
        .map(|(_, settings)| encode::decode_settings(settings))
        .unwrap_or_default())
}

/// What the numbers in a generation's tables mean.
pub fn catalog(pins: &Pins, epoch: u64) -> Result<Catalog> {
    read_catalog(&map::open(&pins.generation(epoch).join(CATALOG))?)
}

/// The contents of a generation's tables.
pub fn read(pins: &Pins, epoch: u64) -> Result<State> {
    let folder = pins.generation(epoch);
    let open = |name: &str| map::open(&folder.join(name));
    let services: Vec<(abi::service_key, abi::service)> = map::read(&open("services")?)?;
    let backend_lut = open("backend_lut")?;
    let backends: Vec<(u32, abi::backend)> = map::read(&open("backends")?)?;
    let endpoints: Vec<(u32, abi::endpoint)> = map::read(&open("endpoints")?)?;
    let identities: Vec<(abi::address_prefix_key, abi::ipcache_entry)> =
        map::read(&open("ipcache")?)?;
    let policy: Vec<(abi::policy_key, abi::policy)> = map::read(&open("policy")?)?;
    let prefilter: Vec<(abi::address_prefix_key, abi::prefilter)> = map::read(&open("prefilter")?)?;
    let mut state = State {
        settings: settings(pins, epoch)?,
        services: services
            .iter()
            .filter_map(|(key, row)| {
                Some((encode::decode_frontend(key)?, encode::decode_service(row)))
            })
            .collect(),
        backend_lut: map::read::<u32, abi::backend_lut_entry>(&backend_lut)?
            .iter()
            .map(|(_, slot)| encode::decode_slot(slot))
            .collect(),
        backends: backends
            .iter()
            .map(|(id, row)| (*id, encode::decode_backend(row)))
            .collect(),
        endpoints: endpoints
            .iter()
            .map(|(ifindex, row)| (*ifindex, encode::decode_endpoint(row)))
            .collect(),
        ipcache: identities
            .iter()
            .filter_map(|(key, row)| {
                Some((encode::decode_prefix(key)?, encode::decode_identity(row)))
            })
            .collect(),
        policy: policy
            .iter()
            .map(|(key, row)| (encode::decode_policy_key(key), encode::decode_policy(row)))
            .collect(),
        catalog: Arc::new(catalog(pins, epoch)?),
        prefilter: prefilter
            .iter()
            .filter_map(|(key, row)| {
                let number = row.number;
                Some((encode::decode_prefix(key)?, PrefilterEntry { number }))
            })
            .collect(),
    };
    // An empty array has one row all the same, of zeroes: no backend has the number 0.
    state.backend_lut.retain(|slot| slot.backend != 0);
    Ok(state)
}

/// What is live in a datapath that another takes over from. Of another version only what the numbers mean is known: its
/// tables are of its own layout, and are written anew anyway.
pub fn read_former(former: &Pins, epoch: u64, by: &Pins) -> Result<State> {
    if former.number() == by.number() {
        return read(former, epoch);
    }
    Ok(State {
        catalog: Arc::new(read_catalog(&map::open(
            &former.generation(epoch).join(CATALOG),
        )?)?),
        ..State::default()
    })
}

const CATALOG_KIND: Kind = Kind {
    name: CATALOG,
    map_type: MapType::Array,
    key_size: 4,
    value_size: CATALOG_CHUNK as u32,
    flags: BPF_F_RDONLY_PROG,
};

/// The endpoints of a generation by ifindex, alone.
pub fn read_endpoints(pins: &Pins, epoch: u64) -> Result<BTreeMap<u32, Endpoint>> {
    let map = map::open(&pins.generation(epoch).join("endpoints"))?;
    let rows: Vec<(u32, abi::endpoint)> = map::read(&map)?;
    let rows = rows.iter();
    Ok(rows
        .map(|(ifindex, row)| (*ifindex, encode::decode_endpoint(row)))
        .collect())
}

/// The catalog as text in the chunks of an array map: pinned beside the tables, it lives and goes with them.
fn write_catalog(catalog: &Catalog, path: &Path) -> Result<()> {
    let rows = catalog_rows(catalog)?;
    let map = map::create(&CATALOG_KIND, rows.count)?;
    map::write(&map, CATALOG, &rows)?;
    map::freeze(&map, CATALOG)?;
    map::pin(&map, path)
}

fn catalog_rows(catalog: &Catalog) -> Result<Rows> {
    let text = serde_json::to_vec(catalog).context("write the catalog as text")?;
    let mut bytes = (text.len() as u64).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&text);
    bytes.resize(bytes.len().next_multiple_of(CATALOG_CHUNK), 0);
    let chunks = (bytes.len() / CATALOG_CHUNK) as u32;
    Ok(Rows {
        keys: (0..chunks).flat_map(u32::to_ne_bytes).collect(),
        values: bytes,
        count: chunks,
    })
}

fn read_catalog(map: &MapHandle) -> Result<Catalog> {
    let mut bytes = Vec::new();
    for chunk in 0..map.max_entries() {
        let value = map.lookup(&chunk.to_ne_bytes(), MapFlags::ANY)?;
        bytes.extend_from_slice(&value.context("the catalog lacks a chunk")?);
    }
    let head = bytes.first_chunk::<CATALOG_HEAD>();
    let length = u64::from_ne_bytes(*head.context("the catalog is cut short")?) as usize;
    let text = bytes
        .get(CATALOG_HEAD..CATALOG_HEAD + length)
        .context("the catalog is cut short")?;
    serde_json::from_slice(text).context("read the catalog")
}
