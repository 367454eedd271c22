//! Loading the programs: kept maps are adopted, the chain is filled before any packet can reach it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, OpenMapMut, Program,
};

use super::abi;
use super::chain::Chain;
use super::conntrack::Sizes;
use super::gate;
use super::map;
use super::messages;
use super::pins::{self, Pins};
use super::program;

/// Maps that every load has of its own; all others are kept.
const OWN: [&str; 2] = ["dpd_calls", "dpd_scratch"];

/// The program of the uplinks' XDP hook.
pub const XDP_PROGRAM: &str = "dpd_xdp_entry";

/// The programs at tc hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookProgram {
    FromContainer,
    ToContainer,
    FromNetdev,
    ToNetdev,
}

impl HookProgram {
    pub const ALL: [HookProgram; 4] = [
        HookProgram::FromContainer,
        HookProgram::ToContainer,
        HookProgram::FromNetdev,
        HookProgram::ToNetdev,
    ];

    /// The name of its function, as `bpftool prog` shows it.
    pub fn name(self) -> &'static str {
        match self {
            HookProgram::FromContainer => "dpd_from_container",
            HookProgram::ToContainer => "dpd_to_container",
            HookProgram::FromNetdev => "dpd_from_netdev",
            HookProgram::ToNetdev => "dpd_to_netdev",
        }
    }
}

/// One load of the programs, pinned, not attached yet.
#[derive(Debug)]
pub struct Load {
    pins: Pins,
    number: u64,
    programs: BTreeMap<HookProgram, OwnedFd>,
    chain: Option<Chain>,
    /// Conntrack tables that were made with another size: the ones before.
    resized: Vec<Resized>,
    /// It is the only one left.
    is_settled: bool,
}

#[derive(Debug)]
struct Resized {
    name: String,
    before: MapHandle,
    after: MapHandle,
}

/// Loads the programs with the kept maps that are pinned, and new ones for the rest.
///
/// # Errors
/// If the kernel refuses a map or a program, or a pinned map has another layout than this version's; nothing that was
/// there before is changed.
pub fn load(pins: &Pins, sizes: &Sizes) -> Result<Load> {
    let number = Pins::numbers(&pins.loads())
        .last()
        .map_or(1, |last| last + 1);
    messages::to_log();
    let mut open = ObjectBuilder::default()
        .name("dpd")
        .context("name the eBPF object")?
        .open_memory(abi::OBJECT)
        .context("open the eBPF object")?;
    let mut fresh = Vec::new();
    let mut resized = Vec::new();
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if !is_map_of_ours(&name) {
            // Globals that exist to name types: no program reads them.
            map.set_autocreate(false)
                .with_context(|| format!("leave out map {name}"))?;
            continue;
        }
        sizes.set(&mut map, &name)?;
        if OWN.contains(&name.as_str()) {
            continue;
        }
        if !adopt(pins, &mut map, &name, &mut resized)? {
            fresh.push(name);
        }
    }
    let object = messages::quote(|| {
        gate::pass(
            format_args!("load the eBPF programs (as root, on a kernel from 6.1 on)"),
            || open.load(),
        )
    })?;
    let load = Load {
        pins: pins.clone(),
        number,
        programs: BTreeMap::new(),
        chain: None,
        resized: Vec::new(),
        is_settled: false,
    };
    load.finish(object, &fresh, resized)
}

/// Whether a map of the object is one that programs read, and not a section of globals.
pub(super) fn is_map_of_ours(name: &str) -> bool {
    name.starts_with("dpd_") && !name.contains('.')
}

/// Takes the pinned map in the place of one that would be made; false if there is none.
fn adopt(
    pins: &Pins,
    map: &mut OpenMapMut<'_>,
    name: &str,
    resized: &mut Vec<Resized>,
) -> Result<bool> {
    let path = pins.map(name);
    if !path.exists() {
        return Ok(false);
    }
    let pinned = map::open(&path)?;
    let layout = |of: (MapType, u32, u32)| format!("{:?}, key {}, value {}", of.0, of.1, of.2);
    let wanted = (map.map_type(), map.key_size(), map.value_size());
    let found = (pinned.map_type(), pinned.key_size(), pinned.value_size());
    if wanted != found {
        bail!(
            "the pinned map {} ({}) is not of this version's layout ({}): `dpd cleanup` takes the datapath away, \
             with its connections, and a new start makes it anew",
            path.display(),
            layout(found),
            layout(wanted)
        );
    }
    if Sizes::is_conntrack(name) && pinned.max_entries() != map.max_entries() {
        resized.push(Resized {
            name: name.to_owned(),
            after: map::create(&Sizes::kind(name)?, map.max_entries())?,
            before: pinned,
        });
        let after = &resized.last().context("it was pushed")?.after;
        gate::pass(format_args!("use the resized map {name}"), || {
            map.reuse_fd(after.as_fd())
        })?;
        return Ok(true);
    }
    gate::pass(format_args!("adopt map {name}"), || {
        map.reuse_fd(pinned.as_fd())
    })?;
    Ok(true)
}

impl Load {
    fn finish(mut self, object: Object, fresh: &[String], resized: Vec<Resized>) -> Result<Load> {
        let folder = self.pins.load(self.number);
        Pins::remove(&folder)?;
        Pins::make(&folder)?;
        // Entries that packets make from here on are copied once more when the old programs are gone.
        let done = self
            .pin(&object, fresh)
            .and_then(|()| resized.iter().try_for_each(copy_entries));
        if let Err(error) = done {
            self.undo(fresh);
            return Err(error);
        }
        self.resized = resized;
        Ok(self)
    }

    fn pin(&mut self, object: &Object, fresh: &[String]) -> Result<()> {
        let folder = self.pins.load(self.number);
        for map in object.maps() {
            let name = map.name().to_string_lossy();
            if fresh.iter().any(|new| *new == name) {
                map::pin(map.as_fd(), &self.pins.map(&name))?;
            } else if OWN.contains(&name.as_ref()) {
                map::pin(map.as_fd(), &folder.join(name.as_ref()))?;
            }
        }
        for program in object.progs() {
            let name = program.name().to_string_lossy();
            map::pin(program.as_fd(), &folder.join(name.as_ref()))?;
            for hook in HookProgram::ALL {
                if hook.name() == name {
                    let fd = program.as_fd().try_clone_to_owned();
                    self.programs
                        .insert(hook, fd.with_context(|| format!("keep program {name}"))?);
                }
            }
        }
        self.chain = Some(Chain::fill(object)?);
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

    /// What a failed load pinned goes again.
    fn undo(&self, fresh: &[String]) {
        let mut paths = vec![self.pins.load(self.number)];
        paths.extend(fresh.iter().map(|name| self.pins.map(name)));
        for path in paths {
            let removed = if path.is_dir() {
                Pins::remove(&path)
            } else {
                Pins::unpin(&path).map(drop)
            };
            if let Err(error) = removed {
                log::warn!("a load that failed stays behind: {error:#}");
            }
        }
    }

    /// The program of a hook.
    pub fn program(&self, hook: HookProgram) -> Result<&OwnedFd> {
        self.programs
            .get(&hook)
            .with_context(|| format!("the object has no program {}", hook.name()))
    }

    /// Its number in bpffs.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The kernel's number of a hook's program.
    pub fn program_id(&self, hook: HookProgram) -> Option<u32> {
        Some(program::info(self.programs.get(&hook)?).ok()?.id)
    }

    /// The same of the uplinks' XDP program.
    pub fn xdp_program_id(&self) -> Option<u32> {
        Some(program::info(self.xdp_program().ok()?).ok()?.id)
    }

    /// The program of a hook in the newest load before this one, if there is one.
    pub fn program_before(&self, hook: HookProgram) -> Option<OwnedFd> {
        let before = self.number_before()?;
        Program::fd_from_pinned_path(self.pins.load(before).join(hook.name())).ok()
    }

    /// The program of the uplinks' XDP hook.
    pub fn xdp_program(&self) -> Result<OwnedFd> {
        let path = self.pins.load(self.number).join(XDP_PROGRAM);
        Program::fd_from_pinned_path(&path).with_context(|| format!("open {}", path.display()))
    }

    /// The XDP program of the newest load before this one, if there is one.
    pub fn xdp_program_before(&self) -> Option<OwnedFd> {
        let before = self.number_before()?;
        Program::fd_from_pinned_path(self.pins.load(before).join(XDP_PROGRAM)).ok()
    }

    fn number_before(&self) -> Option<u64> {
        let numbers = Pins::numbers(&self.pins.loads());
        numbers.into_iter().rfind(|old| *old < self.number)
    }

    /// Lets go of the loads before this one, now that no link leads to them, and settles resized tables.
    pub fn settle(&mut self) -> Result<()> {
        if self.is_settled {
            return Ok(());
        }
        while let Some(table) = self.resized.last() {
            copy_entries(table)?;
            self.pin_instead(table)?;
            self.resized.pop();
        }
        for old in Pins::numbers(&self.pins.loads()) {
            if old != self.number {
                Pins::remove(&self.pins.load(old))?;
            }
        }
        self.is_settled = true;
        Ok(())
    }

    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// There is always one of the two under the table's name, also for a daemon that starts after we were killed.
    fn pin_instead(&self, table: &Resized) -> Result<()> {
        let path = self.pins.map(&table.name);
        let beside = self.pins.map(&format!("{}-resized", table.name));
        Pins::unpin(&beside)?;
        map::pin(table.after.as_fd(), &beside)?;
        gate::pass(format_args!("pin at {}", path.display()), || {
            fs::rename(&beside, &path)
        })
    }

    /// Lets go of this load, to which no link leads. The tables that it made stay for the next.
    pub fn discard(&self) {
        if let Err(error) = Pins::remove(&self.pins.load(self.number)) {
            log::warn!("programs that were not put into use stay behind: {error:#}");
        }
    }
}

/// Copies what is not in the table after its change of size.
fn copy_entries(table: &Resized) -> Result<()> {
    let rows: Vec<(abi::tuple, abi::connection)> =
        gate::pass(format_args!("read table {}", table.name), || {
            map::read(&table.before)
        })?;
    for (key, value) in rows {
        use super::abi::Plain;
        // An entry that is there already is newer.
        let _ = table
            .after
            .update(key.as_bytes(), value.as_bytes(), MapFlags::NO_EXIST);
    }
    Ok(())
}

/// The programs of the newest load, by name and path of their pins.
pub fn pinned_programs(pins: &Pins) -> Vec<(String, std::path::PathBuf)> {
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
