//! Loading: pinned maps are adopted or migrated, and the chain is filled before a program is attached.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::{MapCore, MapHandle, Object, ObjectBuilder, OpenObject, ProgramType};
use rustix::io::Errno;

use super::chain::Chain;
use super::map_policy::{self, MapPolicy, MapScope};
use super::previous::{self, Takeover};
use super::programs::LoadedPrograms;
use crate::bpf::attach::hook::Hook;
use crate::bpf::attach::socket;
use crate::bpf::image::ProgramImage;
use crate::bpf::state::ct_table::{CT_TABLES, Sizes};
use crate::bpf::sys::call::{call, errno};
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pins::Pins;
use crate::bpf::sys::{libbpf_log, map, requirements};
use crate::bpf::takeover::adopt::{self, Adoption};
use crate::bpf::takeover::datapath_dir::DatapathDir;
use crate::bpf::takeover::layouts::{self, SharedMaps};
use crate::bpf::takeover::migration::Migration;

/// Loads this build's programs with the maps that are pinned in a directory, and new ones for the rest.
///
/// # Errors
/// As `load_at`.
pub fn load(pins: &Pins, sizes: &Sizes) -> Result<LoadedPrograms> {
    let dir = DatapathDir {
        pins: pins.clone(),
        previous: None,
    };
    load_at(&dir, &ProgramImage::own(), &map_policy::DATAPATH, sizes)
}

/// Attempts to load, where a signal has interrupted the verifier in each of libbpf's own: on a host without a free CPU.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(50);

/// Loads programs. `policies` decides which maps are shared with earlier loads. Shared maps of the same layout are adopted;
/// those of another are created, and the rows migrated to them once the new programs are live.
///
/// # Errors
/// If the kernel refuses a map or a program, or a pinned map can't be migrated, with what would be lost; nothing that was there
/// before is changed.
pub fn load_at(
    dir: &DatapathDir,
    image: &ProgramImage<'_>,
    policies: &[MapPolicy],
    sizes: &Sizes,
) -> Result<LoadedPrograms> {
    let mut attempts = 1..ATTEMPTS;
    loop {
        match load_once(dir, image, policies, sizes) {
            Err(error) if errno(&error) == Some(Errno::AGAIN) && attempts.next().is_some() => {
                log::debug!("{error:#}: again");
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

fn load_once(
    dir: &DatapathDir,
    image: &ProgramImage<'_>,
    policies: &[MapPolicy],
    sizes: &Sizes,
) -> Result<LoadedPrograms> {
    libbpf_log::to_log();
    let mut open = ObjectBuilder::default()
        .name("dpd")
        .context("name the eBPF object")?
        .open_memory(image.object)
        .context("open the eBPF object")?;
    if !socket::is_supported() {
        skip_socket_programs(&mut open);
    }
    let wanted = wanted(&mut open, image, policies, sizes)?;
    let adoption = adopt::decide(dir, &wanted)?;
    let pins = &adoption.dir.pins;
    pins.make_dirs().inspect_err(|_| adoption.undo())?;
    let number = Pins::numbers(&pins.loads())
        .last()
        .map_or(1, |last| last + 1);
    let mut programs = LoadedPrograms::new(pins, number, *sizes, adoption.is_new());
    let loader = Loader {
        programs: &mut programs,
        adoption: &adoption,
        layouts: &adopt::layouts(&wanted),
        policies,
    };
    let loaded = loader.load(open);
    let loaded = loaded.and_then(|()| open_targets(&adoption));
    let targets = loaded.inspect_err(|_| {
        if let Err(left) = Pins::remove(&adoption.dir.pins.load(number)) {
            log::warn!("a load that failed is not removed: {left:#}");
        }
        adoption.undo();
    })?;
    if let Some(previous) = adoption.dir.previous.clone() {
        let maps = adoption.into_migrations().zip(targets);
        let maps = maps.map(|(plan, target)| Migration { plan, target });
        programs.takeover = Some(Takeover {
            previous,
            maps: maps.collect(),
        });
    }
    Ok(programs)
}

/// On a kernel that is too old, what it lacks says more than the verifier's messages.
fn explain(error: anyhow::Error) -> anyhow::Error {
    match requirements::lacks() {
        Some(lacks) if errno(&error) != Some(Errno::AGAIN) => {
            anyhow!("load the eBPF programs: {lacks}")
        }
        _ => error,
    }
}

/// A kernel without hooks for sockets does all else.
fn skip_socket_programs(open: &mut OpenObject) {
    for mut program in open.progs_mut() {
        if program.prog_type() == ProgramType::CgroupSockAddr {
            program.set_autoload(false);
        }
    }
}

/// The maps to which rows are migrated, in the order of the plans.
fn open_targets(adoption: &Adoption) -> Result<Vec<MapHandle>> {
    let plans = adoption.migrations();
    plans
        .map(|plan| map::open(&adoption.dir.pins.map(&plan.name)))
        .collect()
}

/// The object's shared maps, in the sizes that they are to have.
fn wanted(
    open: &mut OpenObject,
    image: &ProgramImage<'_>,
    policies: &[MapPolicy],
    sizes: &Sizes,
) -> Result<Vec<adopt::Wanted>> {
    let mut wanted = Vec::new();
    let types = adopt::Types::of(image)?;
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        match map_policy::scope(policies, &name) {
            Some(scope) => {
                sizes.set(&mut map, &name)?;
                if let MapScope::Shared(on_takeover) = scope {
                    wanted.push(types.wanted(&map, name, on_takeover)?);
                }
            }
            // A section of globals, which exist to name types.
            None if name.contains('.') => map
                .set_autocreate(false)
                .with_context(|| format!("skip map {name}"))?,
            None => bail!("the object's map {name} has no policy"),
        }
    }
    Ok(wanted)
}

/// A load in the making.
struct Loader<'a> {
    programs: &'a mut LoadedPrograms,
    adoption: &'a Adoption,
    layouts: &'a SharedMaps,
    policies: &'a [MapPolicy],
}

impl Loader<'_> {
    fn load(mut self, mut open: OpenObject) -> Result<()> {
        self.reuse_maps(&mut open)?;
        let object = libbpf_log::quote(|| call(Op::LoadPrograms, || open.load()));
        let object = object.map_err(explain)?;
        let dir = self.programs.pins.load(self.programs.number);
        Pins::make_dir(&dir)?;
        self.pin_maps(&object)?;
        layouts::pin(self.layouts, &dir)?;
        if let Some(previous) = &self.adoption.dir.previous {
            previous::publish(&object, previous, self.adoption.migrations())?;
        }
        adopt::mirror_links(&self.adoption.dir)?;
        // Programs are pinned last: a load that has them is complete.
        self.programs.chain = Some(Chain::fill(&object)?);
        self.pin_programs(&object)
    }

    fn reuse_maps(&self, open: &mut OpenObject) -> Result<()> {
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            previous::set_layout(&mut map, &name, self.adoption.migrations())?;
            let decision = self.adoption.decisions.get(&name);
            if let Some(pinned) = decision.and_then(|decision| decision.adopted.as_ref()) {
                call(Op::ReuseMap { map: &name }, || map.reuse_fd(pinned.as_fd()))?;
            }
        }
        Ok(())
    }

    fn pin_maps(&mut self, object: &Object) -> Result<()> {
        let pins = &self.programs.pins;
        for map in object.maps() {
            let name = map.name().to_string_lossy().into_owned();
            let path = match map_policy::scope(self.policies, &name) {
                Some(MapScope::Private) => pins.load(self.programs.number).join(&name),
                Some(MapScope::Shared(_)) if !pins.map(&name).exists() => pins.map(&name),
                _ => continue,
            };
            map::pin_map(map.as_fd(), &path)?;
        }
        // During an interrupted takeover the tables have the size of its target until it is finished.
        self.programs.sizes = Sizes::of(&map::open(&pins.map(CT_TABLES[0].name))?);
        Ok(())
    }

    fn pin_programs(&mut self, object: &Object) -> Result<()> {
        let dir = self.programs.pins.load(self.programs.number);
        let mut hooks = BTreeMap::new();
        for program in object.progs().filter(|program| program.autoload()) {
            let name = program.name().to_string_lossy();
            map::pin(program.as_fd(), &dir.join(name.as_ref()))?;
            if let Some(hook) = Hook::ALL.into_iter().find(|hook| hook.name() == name) {
                let fd = program.as_fd().try_clone_to_owned();
                hooks.insert(hook, fd.with_context(|| format!("hold program {name}"))?);
            }
        }
        self.programs.programs = hooks;
        Ok(())
    }
}
