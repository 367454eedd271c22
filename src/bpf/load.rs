//! Loading the programs: kept maps are adopted or carried over, the chain is filled before any packet can reach it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, Program};

use super::abi;
use super::adopt::{self, Adoption};
use super::carry::{self, Carried, Carry};
use super::chain::Chain;
use super::conntrack::{self, Sizes};
use super::gate;
use super::hook::{Hook, XDP_ENTRY};
use super::live;
use super::map;
use super::messages;
use super::pins::{self, Pins};
use super::place::{self, Place};
use super::program;

/// Maps that every load has of its own; all others are kept.
const OWN: [&str; 4] = [
    "dpd_calls",
    "dpd_scratch",
    FORMER_PROGRAMS,
    FORMER_CONNECTIONS,
];

/// What leads to the load that this one takes over from, while it does (bpf/lib/former.h).
const FORMER_PROGRAMS: &str = "dpd_prev_progs";
const FORMER_CONNECTIONS: &str = "dpd_prev_ct";

/// The programs that a daemon brings, and the version of the layout that they are written for.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// `DPD_ABI_VERSION`
    pub version: u32,
    /// The linked object.
    pub object: &'a [u8],
}

impl Release<'static> {
    /// This program's own.
    pub fn own() -> Release<'static> {
        Release {
            version: abi::abi::DPD_ABI_VERSION.0,
            object: abi::OBJECT,
        }
    }
}

/// One load of the programs, pinned, not attached yet.
#[derive(Debug)]
pub struct Load {
    pins: Pins,
    number: u64,
    programs: BTreeMap<Hook, OwnedFd>,
    chain: Option<Chain>,
    sizes: Sizes,
    crossing: Option<Takeover>,
    /// It has made the folder that it is pinned in: nothing there is older.
    is_first: bool,
    /// It is the only one left.
    is_settled: bool,
}

/// What this load takes over from, until that is done.
#[derive(Debug)]
struct Takeover {
    former: Pins,
    tables: Vec<Carried>,
}

/// Loads this program's own with the kept maps that are pinned in a folder, and new ones for the rest.
///
/// # Errors
/// As `load_at`.
pub fn load(pins: &Pins, sizes: &Sizes) -> Result<Load> {
    let place = Place {
        pins: pins.clone(),
        former: None,
    };
    load_at(&place, &Release::own(), sizes)
}

/// Loads the programs of a release. Maps of the same layout are adopted, those of another are made anew, to be carried
/// over once the new programs are live.
///
/// # Errors
/// If the kernel refuses a map or a program, or a pinned map can't be carried over, with what would be lost; nothing
/// that was there before is changed.
pub fn load_at(place: &Place, release: &Release<'_>, sizes: &Sizes) -> Result<Load> {
    messages::to_log();
    let mut open = ObjectBuilder::default()
        .name("dpd")
        .context("name the eBPF object")?
        .open_memory(release.object)
        .context("open the eBPF object")?;
    let kept = wanted(&mut open, release, sizes)?;
    let adoption = adopt::decide(place, &kept)?;
    let pins = &adoption.place.pins;
    pins.prepare().inspect_err(|_| adoption.undo())?;
    let number = Pins::numbers(&pins.loads())
        .last()
        .map_or(1, |last| last + 1);
    let mut load = Load {
        pins: pins.clone(),
        number,
        programs: BTreeMap::new(),
        chain: None,
        sizes: *sizes,
        crossing: None,
        is_first: adoption.is_new(),
        is_settled: false,
    };
    let made = load.make(open, &adoption);
    let made = made.and_then(|()| open_successors(&load.pins, &adoption));
    let successors = match made {
        Ok(successors) => successors,
        Err(error) => {
            if let Err(left) = Pins::remove(&load.pins.load(number)) {
                log::warn!("a load that failed stays behind: {left:#}");
            }
            adoption.undo();
            return Err(error);
        }
    };
    if let Some(former) = adoption.place.former.clone() {
        let tables = adoption.into_carries().zip(successors);
        let tables = tables.map(|(carry, after)| Carried { carry, after });
        load.crossing = Some(Takeover {
            former,
            tables: tables.collect(),
        });
    }
    Ok(load)
}

/// The tables that rows are carried over to, in the order of `carries`.
fn open_successors(pins: &Pins, adoption: &Adoption) -> Result<Vec<MapHandle>> {
    let carries = adoption.carries();
    carries
        .map(|carry| map::open(&pins.map(&carry.name)))
        .collect()
}

/// The object's kept maps, in the sizes that they are to have.
fn wanted(
    open: &mut OpenObject,
    release: &Release<'_>,
    sizes: &Sizes,
) -> Result<Vec<adopt::Wanted>> {
    let mut kept = Vec::new();
    let types = adopt::Types::of(release)?;
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if !is_map_of_ours(&name) {
            // Globals that exist to name types: no program reads them.
            map.set_autocreate(false)
                .with_context(|| format!("leave out map {name}"))?;
            continue;
        }
        sizes.set(&mut map, &name)?;
        if !OWN.contains(&name.as_str()) {
            kept.push(types.wanted(&map, name)?);
        }
    }
    Ok(kept)
}

/// Whether a map of the object is one that programs read, and not a section of globals.
pub(super) fn is_map_of_ours(name: &str) -> bool {
    name.starts_with("dpd_") && !name.contains('.')
}

impl Load {
    fn make(&mut self, mut open: OpenObject, adoption: &Adoption) -> Result<()> {
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name == FORMER_CONNECTIONS
                && let Some(carry) = adoption.carries().find(|carry| is_shown(carry))
            {
                map.set_inner_map_fd(carry.before.as_fd())
                    .context("give the former connections their layout")?;
            }
            if let Some(pinned) = adoption
                .kept
                .get(&name)
                .and_then(|kept| kept.adopted.as_ref())
            {
                gate::pass(format_args!("adopt map {name}"), || {
                    map.reuse_fd(pinned.as_fd())
                })?;
            }
        }
        let object = messages::quote(|| {
            gate::pass(
                format_args!(
                    "load the eBPF programs (as root, on a kernel from 6.1 on that tells its types: /sys/kernel/btf/vmlinux)"
                ),
                || open.load(),
            )
        })?;
        Pins::make(&self.pins.load(self.number))?;
        self.pin_maps(&object, adoption)?;
        if let Some(former) = &adoption.place.former {
            lead_to_former(&object, former, adoption.carries())?;
        }
        adopt::mirror_links(&adoption.place)?;
        // A load whose programs are pinned is complete.
        self.chain = Some(Chain::fill(&object)?);
        self.pin_programs(&object)
    }

    fn pin_maps(&mut self, object: &Object, adoption: &Adoption) -> Result<()> {
        for map in object.maps() {
            let name = map.name().to_string_lossy().into_owned();
            if OWN.contains(&name.as_str()) {
                map::pin(map.as_fd(), &self.pins.load(self.number).join(&name))?;
            } else if adoption.kept.contains_key(&name) && !self.pins.map(&name).exists() {
                map::pin(map.as_fd(), &self.pins.map(&name))?;
            }
        }
        // Of a takeover that was broken off the sizes stay until it is done.
        self.sizes = Sizes::of(&map::open(&self.pins.map(conntrack::TABLES[0]))?);
        Ok(())
    }

    fn pin_programs(&mut self, object: &Object) -> Result<()> {
        let folder = self.pins.load(self.number);
        for program in object.progs() {
            let name = program.name().to_string_lossy();
            map::pin(program.as_fd(), &folder.join(name.as_ref()))?;
            for hook in Hook::ALL {
                if hook.name() == name {
                    let fd = program.as_fd().try_clone_to_owned();
                    self.programs
                        .insert(hook, fd.with_context(|| format!("keep program {name}"))?);
                }
            }
        }
        Ok(())
    }

    /// Whether something else made a hole in the chain.
    pub fn is_broken(&self) -> bool {
        self.chain.as_ref().is_some_and(Chain::is_broken)
    }

    /// Closes the holes; answers which steps were missing.
    pub fn mend(&self) -> Result<Vec<&'static str>> {
        self.chain.as_ref().map_or(Ok(Vec::new()), Chain::mend)
    }

    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// What it takes over from, until that is done.
    pub fn former(&self) -> Option<&Pins> {
        self.crossing.as_ref().map(|crossing| &crossing.former)
    }

    /// The epoch of what it takes over from; 0: there is none.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn epoch_before(&self) -> Result<u64> {
        let epoch = self.former().map_or(Ok(None), live::epoch_of);
        Ok(epoch?.unwrap_or_default())
    }

    /// The sizes of its tables.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The program of a hook.
    pub fn program(&self, hook: Hook) -> Result<&OwnedFd> {
        self.programs
            .get(&hook)
            .with_context(|| format!("the object has no program {}", hook.name()))
    }

    /// Its number in bpffs.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The kernel's numbers of the hooks' programs.
    pub fn program_ids(&self) -> BTreeMap<Hook, Option<u32>> {
        let id = |hook| Some(program::info(self.programs.get(hook)?).ok()?.id);
        Hook::ALL.iter().map(|hook| (*hook, id(hook))).collect()
    }

    /// The same of the uplinks' XDP program.
    pub fn xdp_program_id(&self) -> Option<u32> {
        Some(program::info(self.xdp_program().ok()?).ok()?.id)
    }

    /// The program of a hook that packets met before this load, if there is one.
    pub fn program_before(&self, hook: Hook) -> Option<OwnedFd> {
        self.find_before(hook.name())
    }

    /// The program of the uplinks' XDP hook.
    pub fn xdp_program(&self) -> Result<OwnedFd> {
        let path = self.pins.load(self.number).join(XDP_ENTRY.program);
        Program::fd_from_pinned_path(&path).with_context(|| format!("open {}", path.display()))
    }

    /// The XDP program that packets met before this load, if there is one.
    pub fn xdp_program_before(&self) -> Option<OwnedFd> {
        self.find_before(XDP_ENTRY.program)
    }

    fn find_before(&self, name: &str) -> Option<OwnedFd> {
        match &self.crossing {
            Some(crossing) if !self.is_live() => settled_program(&crossing.former, name),
            _ => {
                // One of a daemon that was killed while it loaded may have none.
                let numbers = Pins::numbers(&self.pins.loads());
                let mut before = numbers.into_iter().rev().filter(|old| *old < self.number);
                before.find_map(|old| program_of(&self.pins, old, name))
            }
        }
    }

    fn is_live(&self) -> bool {
        // Of what can't be read the worst is thought.
        !matches!(live::epoch_of(&self.pins), Ok(None))
    }

    /// Carries over what is left to be, and lets go of all that was before this load, now that no link leads there. `wait`
    /// waits for the programs that have begun: what goes with its last reference, as a chain does, must not go while a packet
    /// is on its way through it.
    ///
    /// # Errors
    /// If the kernel refuses; then packets are served all the same, and the next call goes on.
    pub fn settle(&mut self, wait: impl Fn() -> Result<()>) -> Result<()> {
        if self.is_settled {
            return Ok(());
        }
        if let Some(crossing) = &self.crossing {
            if !self.is_live() {
                return Ok(()); // the former serves on
            }
            crossing.complete(&self.pins.load(self.number), &wait)?;
            self.crossing = None;
        }
        wait()?;
        for old in Pins::numbers(&self.pins.loads()) {
            if old != self.number {
                Pins::remove(&self.pins.load(old))?;
            }
        }
        self.pins = place::clear(&self.pins)?;
        self.is_settled = true;
        Ok(())
    }

    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Lets go of this load, to which no link leads. If it was to be the first or to take over from another and was not,
    /// nothing of it stays; else the tables stay for the next.
    pub fn discard(&self) {
        let is_alone = self.is_first || self.crossing.is_some();
        let done = match is_alone && !self.is_live() {
            true => place::forget(&self.pins),
            false => Pins::remove(&self.pins.load(self.number)),
        };
        if let Err(error) = done {
            log::warn!("programs that were not put into use stay behind: {error:#}");
        }
    }
}

impl Takeover {
    /// After the switch: what the former programs know becomes ours, and they are left alone.
    fn complete(&self, load: &Path, wait: impl Fn() -> Result<()>) -> Result<()> {
        let places = map::open(&load.join(FORMER_CONNECTIONS))?;
        // Once more, for an attempt before this one may have got as far as to clear them.
        show_connections(&places, self.tables.iter().map(|table| &table.carry))?;
        wait()?; // for those from before the switch
        let mut moved = carry::carry(&self.tables, &wait)?;
        clear_map(&places)?;
        wait()?;
        // What was under way in the former programs when the last row had moved.
        moved += carry::carry(&self.tables, || Ok(()))?;
        clear_map(&map::open(&load.join(FORMER_PROGRAMS))?)?;
        log::info!(
            "took over from {}: {moved} rows of {} tables carried over",
            self.former.version().display(),
            self.tables.len()
        );
        Ok(())
    }
}

/// Leads the way to the former programs and their tables of connections.
fn lead_to_former<'a>(
    object: &Object,
    former: &Pins,
    carries: impl Iterator<Item = &'a Carry>,
) -> Result<()> {
    let programs = find_map(object, FORMER_PROGRAMS)?;
    for hook in Hook::ALL {
        if let Some(program) = settled_program(former, hook.name()) {
            let what = format_args!("lead to the former {}", hook.name());
            gate::pass(what, || put(&programs, hook.row().number.0, &program))?;
        }
    }
    show_connections(&find_map(object, FORMER_CONNECTIONS)?, carries)
}

/// Whether programs can look for their keys in this former table.
fn is_shown(carry: &Carry) -> bool {
    carry.has_same_keys && conntrack::prev_ct_index(&carry.name).is_some()
}

/// Puts the former tables of connections where the programs look for them.
fn show_connections<'a>(
    places: &MapHandle,
    carries: impl Iterator<Item = &'a Carry>,
) -> Result<()> {
    for carry in carries.filter(|carry| is_shown(carry)) {
        let place = conntrack::prev_ct_index(&carry.name).context("it has a place")?;
        let what = format_args!("lead to the former {}", carry.name);
        gate::pass(what, || put(places, place.0, &carry.before))?;
    }
    Ok(())
}

/// The program of this name that the links of a settled datapath lead to: the oldest load's. A newer one there is of a
/// takeover that was broken off.
fn settled_program(pins: &Pins, name: &str) -> Option<OwnedFd> {
    Pins::numbers(&pins.loads())
        .into_iter()
        .find_map(|number| program_of(pins, number, name))
}

/// A load's program of this name, if it is pinned.
fn program_of(pins: &Pins, load: u64, name: &str) -> Option<OwnedFd> {
    Program::fd_from_pinned_path(pins.load(load).join(name)).ok()
}

fn find_map(object: &Object, name: &str) -> Result<MapHandle> {
    let map = object
        .maps()
        .find(|map| map.name() == name)
        .with_context(|| format!("the object has no map {name}"))?;
    MapHandle::try_from(&map).with_context(|| format!("hold on to map {name}"))
}

/// Puts a program or map into its place in a map of such.
fn put(map: &MapHandle, place: u32, object: &impl AsFd) -> libbpf_rs::Result<()> {
    let fd = object.as_fd().as_raw_fd() as u32;
    map.update(&place.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
}

/// Empties a map of programs or maps.
fn clear_map(map: &MapHandle) -> Result<()> {
    for place in 0..map.max_entries() {
        match map.delete(&place.to_ne_bytes()) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => {
                return Err(error).context("clear the way to the former load");
            }
            _ => {}
        }
    }
    Ok(())
}

/// The programs of the newest load, by name and path of their pins.
pub fn pinned_programs(pins: &Pins) -> Vec<(String, PathBuf)> {
    let Some(number) = Pins::numbers(&pins.loads()).pop() else {
        return Vec::new();
    };
    let folder = pins.load(number);
    pins::names(&folder)
        .into_iter()
        .filter(|name| !OWN.contains(&name.as_str()))
        .map(|name| {
            let path = folder.join(&name);
            (name, path)
        })
        .collect()
}
