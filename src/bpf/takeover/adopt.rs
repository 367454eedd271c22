//! Decides for each pinned map, when programs are loaded, whether it is adopted, migrated to a new map, or left to the
//! previous programs.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use libbpf_rs::{AsRawLibbpf, Link, MapCore, MapHandle, MapType, OpenMapMut, libbpf_sys};

use super::datapath_dir::{self, DatapathDir};
use super::layouts::{KnownLayouts, Records, SharedMaps};
use super::migration::MigrationPlan;
use super::policy::OnTakeover;
use crate::bpf::image::ProgramImage;
use crate::bpf::state::conntrack;
use crate::bpf::sys::bpffs;
use crate::bpf::sys::btf::Btf;
use crate::bpf::sys::map;
use crate::bpf::sys::pins::{self, Pins};
use crate::bpf::tables::live_epoch;

/// The types of an object.
pub struct Types {
    types: Btf,
    version: u32,
}

/// A map that is pinned for all loads, as the object declares it.
#[derive(Debug)]
pub struct Wanted {
    pub name: String,
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    records: Option<Records>,
    /// Of the layout.
    version: u32,
    on_takeover: OnTakeover,
}

/// What happens to a map. It is created if neither.
#[derive(Debug, Default)]
pub struct MapDecision {
    /// The map that is used.
    pub adopted: Option<MapHandle>,
    /// The previous map, whose rows are migrated to this one.
    pub migration: Option<MigrationPlan>,
}

/// What happens to all maps.
#[derive(Debug)]
pub struct Adoption {
    pub dir: DatapathDir,
    pub decisions: BTreeMap<String, MapDecision>,
    /// The directory was not live, and has no loads.
    is_new: bool,
}

impl Types {
    pub fn of(image: &ProgramImage<'_>) -> Result<Types> {
        Ok(Types {
            types: Btf::of_object(image.object)?,
            version: image.version,
        })
    }

    pub fn wanted(
        &self,
        map: &OpenMapMut<'_>,
        name: String,
        on_takeover: OnTakeover,
    ) -> Result<Wanted> {
        let pointer = map.as_libbpf_object().as_ptr();
        // SAFETY: the map is open for as long as it is borrowed here.
        let (key, value) = unsafe {
            (
                libbpf_sys::bpf_map__btf_key_type_id(pointer),
                libbpf_sys::bpf_map__btf_value_type_id(pointer),
            )
        };
        let records = match (key, value) {
            (0, _) | (_, 0) => None,
            _ if map.map_type() == MapType::ArrayOfMaps => None,
            _ => Some(Records {
                key: self.types.layout(key)?,
                value: self.types.layout(value)?,
            }),
        };
        Ok(Wanted {
            map_type: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
            flags: map.map_flags(),
            records,
            version: self.version,
            on_takeover,
            name,
        })
    }
}

/// The layouts of the maps that have types.
pub fn layouts(wanted: &[Wanted]) -> SharedMaps {
    let records = wanted.iter().filter_map(|map| {
        let records = map.records.clone()?;
        Some((map.name.clone(), records))
    });
    records.collect()
}

impl Wanted {
    /// Whether all but the size is the same.
    fn is_alike(&self, pinned: &MapHandle) -> Result<bool> {
        let found = (
            pinned.map_type(),
            pinned.key_size(),
            pinned.value_size(),
            map::facts(pinned)?.flags,
        );
        Ok(found == (self.map_type, self.key_size, self.value_size, self.flags))
    }

    /// The records of a map that is pinned in a directory; `None` if unknown.
    fn records_of(
        &self,
        pinned: &MapHandle,
        of: &Pins,
        layouts: &mut KnownLayouts,
    ) -> Result<Option<Records>> {
        let found = layouts.records(&self.name, &map::facts(pinned)?, of)?;
        let same_version = self.records.clone().filter(|_| of.number() == self.version);
        Ok(found.or(same_version))
    }

    /// Whether a map that is pinned in a directory can be used as it is.
    fn fits(&self, pinned: &MapHandle, of: &Pins, layouts: &mut KnownLayouts) -> Result<bool> {
        if !self.is_alike(pinned)? || self.max_entries != pinned.max_entries() {
            return Ok(false);
        }
        if self.records.is_none() {
            return Ok(true);
        }
        Ok(self.records_of(pinned, of, layouts)? == self.records)
    }

    /// How the rows of a previous map are migrated to this one.
    fn plan_migration(
        &self,
        source: MapHandle,
        of: &Pins,
        layouts: &mut KnownLayouts,
    ) -> Result<MigrationPlan> {
        let name = &self.name;
        let old = self.records_of(&source, of, layouts)?;
        let (Some(old), Some(new)) = (old, &self.records) else {
            return Err(
                Incompatible(format!("the layout of {name} is unknown: it has no types")).into(),
            );
        };
        if self.map_type != source.map_type() {
            return Err(Incompatible(format!("{name} has another map type")).into());
        }
        let plan = MigrationPlan::new(name, source, &old, new).map_err(Incompatible)?;
        Ok(match self.on_takeover {
            OnTakeover::MigrateConntrack => {
                let reverse_key = old.value.pick(&old.key, conntrack::reverse_key_member);
                plan.with_reverse(reverse_key)
            }
            _ => plan,
        })
    }

    /// Whether the previous directory's map is considered at all.
    fn may_adopt(&self, dir: &DatapathDir, previous: &Pins) -> bool {
        match self.on_takeover {
            OnTakeover::Create => false,
            OnTakeover::AdoptOfSameVersion => previous.number() == dir.pins.number(),
            OnTakeover::Adopt | OnTakeover::Migrate | OnTakeover::MigrateConntrack => true,
        }
    }

    fn find(&self, pins: &Pins) -> Result<Option<MapHandle>> {
        let path = pins.map(&self.name);
        path.exists().then(|| map::open(&path)).transpose()
    }
}

/// Why a map can't be taken over.
#[derive(Debug)]
struct Incompatible(String);

impl std::error::Error for Incompatible {}

impl std::fmt::Display for Incompatible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Decides what happens to the pinned maps. Only remains of an interrupted takeover, and maps of an unknown epoch, are
/// removed here.
///
/// # Errors
/// If a map can neither be adopted nor migrated, with the reason and the remedies.
pub fn decide(dir: &DatapathDir, wanted: &[Wanted]) -> Result<Adoption> {
    let mut layouts = KnownLayouts::default();
    let dir = choose_dir(dir, wanted, &mut layouts)?;
    let is_live = live_epoch::epoch_of(&dir.pins)?.is_some();
    if !is_live {
        remove_maps(&dir)?;
    }
    let is_new = !is_live && pins::names(&dir.pins.loads()).is_empty();
    let mut decisions = BTreeMap::new();
    for map in wanted {
        let decision = decide_map(&dir, map, &mut layouts);
        let decision = decision.map_err(|error| match error.is::<Incompatible>() {
            true => error.context(refusal(&dir)),
            false => error,
        })?;
        decisions.insert(map.name.clone(), decision);
    }
    Ok(Adoption {
        dir,
        decisions,
        is_new,
    })
}

/// Of a directory that is not live no map is adopted: its epochs start again, and connections may bear them. During a
/// takeover its programs only call the previous ones, and need none of these maps.
fn remove_maps(dir: &DatapathDir) -> Result<()> {
    let maps = dir.pins.maps();
    let is_lost = !dir.pins.map(live_epoch::MAP).exists() && !pins::names(&maps).is_empty();
    if is_lost && dir.previous.is_none() {
        log::warn!(
            "the live revision of the tables in {} is unknown: they are created again, and connections end",
            maps.display()
        );
    }
    Pins::remove(&maps)
}

/// Maps of another size or layout take over in a directory of their own.
fn choose_dir(
    dir: &DatapathDir,
    wanted: &[Wanted],
    layouts: &mut KnownLayouts,
) -> Result<DatapathDir> {
    let pins = &dir.pins;
    if dir.previous.is_some() || live_epoch::epoch_of(pins)?.is_none() {
        return Ok(dir.clone());
    }
    for map in wanted {
        if let Some(pinned) = map.find(pins)?
            && !map.fits(&pinned, pins, layouts)?
        {
            return Ok(DatapathDir {
                pins: pins.next(),
                previous: Some(pins.clone()),
            });
        }
    }
    Ok(dir.clone())
}

fn decide_map(
    dir: &DatapathDir,
    wanted: &Wanted,
    layouts: &mut KnownLayouts,
) -> Result<MapDecision> {
    let own = wanted.find(&dir.pins)?;
    if let Some(own) = &own {
        check_own(dir, wanted, own, layouts)?;
    }
    let previous = match &dir.previous {
        Some(previous) if wanted.may_adopt(dir, previous) => {
            wanted.find(previous)?.map(|map| (map, previous))
        }
        _ => None,
    };
    let Some((previous, of)) = previous else {
        return Ok(MapDecision::adopt(own));
    };
    let is_same = match &own {
        // Of an interrupted takeover: rows may still have to be migrated.
        Some(own) => map::facts(own)?.id == map::facts(&previous)?.id,
        None => wanted.fits(&previous, of, layouts)?,
    };
    if is_same {
        return Ok(MapDecision::adopt(Some(previous)));
    }
    if !wanted.on_takeover.is_migrated() {
        return Ok(MapDecision::adopt(own));
    }
    Ok(MapDecision {
        migration: Some(wanted.plan_migration(previous, of, layouts)?),
        adopted: own,
    })
}

/// # Errors
/// If a map in the datapath's own directory does not have the layout of its version.
fn check_own(
    dir: &DatapathDir,
    wanted: &Wanted,
    own: &MapHandle,
    layouts: &mut KnownLayouts,
) -> Result<()> {
    // The size may have been changed again while a takeover was interrupted.
    let may_be_resized = wanted.on_takeover == OnTakeover::MigrateConntrack;
    let is_resized = dir.previous.is_some() && may_be_resized && wanted.is_alike(own)?;
    if !is_resized && !wanted.fits(own, &dir.pins, layouts)? {
        let path = dir.pins.map(&wanted.name);
        return Err(Incompatible(format!("{} has another layout", path.display())).into());
    }
    Ok(())
}

impl MapDecision {
    fn adopt(adopted: Option<MapHandle>) -> MapDecision {
        MapDecision {
            adopted,
            migration: None,
        }
    }
}

fn refusal(dir: &DatapathDir) -> String {
    let found = dir.previous.as_ref().unwrap_or(&dir.pins);
    format!(
        "the datapath at {} can't be taken over without losing connections and counters: start the version again that \
         created it, or remove it with `dpd cleanup`, which ends its connections, and start this one then",
        found.version().display()
    )
}

impl Adoption {
    /// The maps whose rows are migrated.
    pub fn migrations(&self) -> impl Iterator<Item = &MigrationPlan> {
        let decisions = self.decisions.values();
        decisions.filter_map(|decision| decision.migration.as_ref())
    }

    pub fn into_migrations(self) -> impl Iterator<Item = MigrationPlan> {
        let decisions = self.decisions.into_values();
        decisions.filter_map(|decision| decision.migration)
    }

    /// Whether all that is in the directory is of this load.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// After a load that failed.
    pub fn undo(&self) {
        if !self.is_new {
            return; // links may use what an earlier attempt has left there
        }
        if let Err(error) = datapath_dir::remove(&self.dir.pins) {
            let path = self.dir.pins.version();
            log::warn!("{} is not removed: {error:#}", path.display());
        }
    }
}

/// Pins the links of all other directories in the one that takes over, so that they stay if those are removed.
pub fn mirror_links(dir: &DatapathDir) -> Result<()> {
    let own = &dir.pins;
    let others = Pins::all(own.root());
    let others = dir.previous.iter().chain(&others);
    for other in others.filter(|other| *other != own) {
        for name in pins::names(&other.links()) {
            let (from, to) = (other.links().join(&name), own.links().join(&name));
            if to.exists() {
                continue;
            }
            if from.is_dir() {
                match bpffs::dir_builder().create(&to) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                        return Err(error).with_context(|| format!("create {}", to.display()));
                    }
                    _ => continue,
                }
            }
            match Link::open(&from) {
                Ok(link) => map::pin(&link, &to)?,
                Err(error) => log::warn!("{} is no link, and is skipped: {error}", from.display()),
            }
        }
    }
    Ok(())
}
