//! What becomes of the maps that are pinned already when the programs are loaded: adopted as they are, carried over to
//! maps of the new layout, or left to the former programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use libbpf_rs::{AsRawLibbpf, Link, MapCore, MapHandle, MapType, OpenMapMut, libbpf_sys};

use super::btf::Btf;
use super::carry::{Carry, KernelTypes, Records};
use super::conntrack::{self, Sizes};
use super::live;
use super::load::Release;
use super::map;
use super::pins::{self, Pins};
use super::place::{self, Place};

/// The types of an object.
pub struct Types {
    types: Btf,
    version: u32,
}

/// A kept map as the object has it.
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
}

/// What becomes of a kept map. It is made anew if neither.
#[derive(Debug, Default)]
pub struct Kept {
    /// The map that is used.
    pub adopted: Option<MapHandle>,
    /// How another's rows get into it.
    pub carry: Option<Carry>,
}

/// What becomes of everything that is there.
#[derive(Debug)]
pub struct Adoption {
    pub place: Place,
    pub kept: BTreeMap<String, Kept>,
    /// The folder was not live before, nor had anything in it that is needed.
    is_new: bool,
}

impl Types {
    pub fn of(release: &Release<'_>) -> Result<Types> {
        Ok(Types {
            types: Btf::of_object(release.object)?,
            version: release.version,
        })
    }

    pub fn wanted(&self, map: &OpenMapMut<'_>, name: String) -> Result<Wanted> {
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
            name,
        })
    }
}

/// Whether its rows are worth carrying over: those that programs make. The daemon's own are written anew.
fn is_carried(map_type: MapType) -> bool {
    matches!(
        map_type,
        MapType::Hash
            | MapType::LruHash
            | MapType::PercpuHash
            | MapType::LruPercpuHash
            | MapType::PercpuArray
    )
}

impl Wanted {
    /// But for its size.
    fn is_like(&self, pinned: &MapHandle) -> Result<bool> {
        let found = (
            pinned.map_type(),
            pinned.key_size(),
            pinned.value_size(),
            map::facts(pinned)?.flags,
        );
        Ok(found == (self.map_type, self.key_size, self.value_size, self.flags))
    }

    /// The records of a map that is pinned in a folder; `None` if nobody knows.
    fn records_of(
        &self,
        pinned: &MapHandle,
        of: &Pins,
        types: &mut KernelTypes,
    ) -> Result<Option<Records>> {
        let found = types.records(&map::facts(pinned)?)?;
        let same_version = self.records.clone().filter(|_| of.number() == self.version);
        Ok(found.or(same_version))
    }

    /// Whether a map that is pinned in a folder can be used as it is.
    fn fits(&self, pinned: &MapHandle, of: &Pins, types: &mut KernelTypes) -> Result<bool> {
        if !self.is_like(pinned)? || self.max_entries != pinned.max_entries() {
            return Ok(false);
        }
        if self.records.is_none() {
            return Ok(true);
        }
        Ok(self.records_of(pinned, of, types)? == self.records)
    }

    /// How the rows of a former map get into this one.
    fn carry(&self, before: MapHandle, of: &Pins, types: &mut KernelTypes) -> Result<Carry> {
        let name = &self.name;
        let was = self.records_of(&before, of, types)?;
        let (Some(was), Some(is)) = (was, &self.records) else {
            return Err(
                Incompatible(format!("nobody knows what {name} holds: it has no types")).into(),
            );
        };
        if self.map_type != before.map_type() {
            return Err(Incompatible(format!("{name} has become a map of another kind")).into());
        }
        let carry = Carry::new(name, before, &was, is).map_err(Incompatible)?;
        Ok(match Sizes::is_conntrack(name) {
            true => carry.with_companion(was.value.pick(&was.key, conntrack::twin_member)),
            false => carry,
        })
    }
}

/// A map that can't be kept, with the reason.
#[derive(Debug)]
struct Incompatible(String);

impl std::error::Error for Incompatible {}

impl std::fmt::Display for Incompatible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Decides what becomes of the maps that are there. Nothing is changed yet but what a takeover that was broken off has
/// left, and maps that no epoch is known of.
///
/// # Errors
/// If a map can neither be adopted nor carried over, with what would be lost and the ways out.
pub fn decide(place: &Place, wanted: &[Wanted]) -> Result<Adoption> {
    let mut types = KernelTypes::default();
    let place = make_room(place, wanted, &mut types)?;
    let is_live = live::epoch_of(&place.pins)?.is_some();
    if !is_live {
        forget_maps(&place)?;
    }
    let is_new = !is_live && pins::names(&place.pins.loads()).is_empty();
    let mut kept = BTreeMap::new();
    for map in wanted {
        let what =
            keep(&place, map, &mut types).map_err(|error| match error.is::<Incompatible>() {
                true => error.context(refusal(&place)),
                false => error,
            })?;
        kept.insert(map.name.clone(), what);
    }
    Ok(Adoption {
        place,
        kept,
        is_new,
    })
}

/// Of a folder that is not live no map is adopted: its epochs begin anew, and connections may bear them. Where another is
/// live, what links lead to here has tables of its own by now, and is asked for nothing but to lead on.
fn forget_maps(place: &Place) -> Result<()> {
    let maps = place.pins.maps();
    let is_lost = !place.pins.map(live::MAP).exists() && !pins::names(&maps).is_empty();
    if is_lost && place.former.is_none() {
        log::warn!(
            "nobody knows any more which revision the tables in {} are of: they are made anew, and connections end",
            maps.display()
        );
    }
    Pins::remove(&maps)
}

/// Maps of another size or layout take over in a folder of their own.
fn make_room(place: &Place, wanted: &[Wanted], types: &mut KernelTypes) -> Result<Place> {
    let pins = &place.pins;
    if place.former.is_some() || live::epoch_of(pins)?.is_none() {
        return Ok(place.clone());
    }
    for map in wanted {
        let path = pins.map(&map.name);
        if path.exists() && !map.fits(&map::open(&path)?, pins, types)? {
            return Ok(Place {
                pins: pins.next(),
                former: Some(pins.clone()),
            });
        }
    }
    Ok(place.clone())
}

fn keep(place: &Place, wanted: &Wanted, types: &mut KernelTypes) -> Result<Kept> {
    let own = find(&place.pins, wanted)?;
    if let Some(own) = &own {
        check_own(place, wanted, own, types)?;
    }
    let former = match &place.former {
        Some(former) if may_keep(place, wanted, former) => {
            find(former, wanted)?.map(|map| (map, former))
        }
        _ => None,
    };
    let Some((former, of)) = former else {
        return Ok(Kept::adopted(own));
    };
    let is_same = match &own {
        // Of a takeover that was broken off: rows may still have to be carried over.
        Some(own) => map::facts(own)?.id == map::facts(&former)?.id,
        None => wanted.fits(&former, of, types)?,
    };
    if is_same {
        return Ok(Kept::adopted(Some(former)));
    }
    if !is_carried(wanted.map_type) {
        return Ok(Kept::adopted(own));
    }
    Ok(Kept {
        carry: Some(wanted.carry(former, of, types)?),
        adopted: own,
    })
}

fn find(pins: &Pins, wanted: &Wanted) -> Result<Option<MapHandle>> {
    let path = pins.map(&wanted.name);
    path.exists().then(|| map::open(&path)).transpose()
}

/// The former programs have their own switch and their own configuration, and a ring's records are only known to be ours
/// by the version.
fn may_keep(place: &Place, wanted: &Wanted, former: &Pins) -> bool {
    match wanted.map_type {
        MapType::ArrayOfMaps => false,
        MapType::RingBuf => former.number() == place.pins.number(),
        _ => wanted.name != live::MAP,
    }
}

/// # Errors
/// If a map in the folder to work with is not of the layout that its version says.
fn check_own(
    place: &Place,
    wanted: &Wanted,
    own: &MapHandle,
    types: &mut KernelTypes,
) -> Result<()> {
    // The size may have been changed once more while a takeover was broken off.
    let is_resized =
        place.former.is_some() && Sizes::is_conntrack(&wanted.name) && wanted.is_like(own)?;
    if !is_resized && !wanted.fits(own, &place.pins, types)? {
        let path = place.pins.map(&wanted.name);
        return Err(Incompatible(format!("{} is of another layout", path.display())).into());
    }
    Ok(())
}

impl Kept {
    fn adopted(adopted: Option<MapHandle>) -> Kept {
        Kept {
            adopted,
            carry: None,
        }
    }
}

fn refusal(place: &Place) -> String {
    let found = place.former.as_ref().unwrap_or(&place.pins);
    format!(
        "the datapath at {} can't be taken over without losing connections and counters: start the version again that \
         made it, or take it away with `dpd cleanup`, which ends its connections, and start this one then",
        found.version().display()
    )
}

impl Adoption {
    /// The tables whose rows are to be carried over.
    pub fn carries(&self) -> impl Iterator<Item = &Carry> {
        self.kept.values().filter_map(|kept| kept.carry.as_ref())
    }

    /// The same, to be kept.
    pub fn into_carries(self) -> impl Iterator<Item = Carry> {
        self.kept.into_values().filter_map(|kept| kept.carry)
    }

    /// Whether all that is there now is of this load.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// After a load that failed.
    pub fn undo(&self) {
        let done = match (self.is_new, &self.place.former) {
            (true, _) => place::forget(&self.place.pins),
            // Links may lead to what an earlier attempt has left there.
            (false, _) => Ok(()),
        };
        if let Err(error) = done {
            let folder = self.place.pins.version();
            log::warn!("{} stays behind: {error:#}", folder.display());
        }
    }
}

/// Pins the links of all other folders in the one that takes over, too: whatever becomes of it, they stay.
pub fn mirror_links(place: &Place) -> Result<()> {
    let own = &place.pins;
    let others = Pins::all(own.root());
    let others = place.former.iter().chain(&others);
    for other in others.filter(|other| *other != own) {
        for name in pins::names(&other.links()) {
            let (from, to) = (other.links().join(&name), own.links().join(&name));
            if to.exists() {
                continue;
            }
            if from.is_dir() {
                match fs::create_dir(&to) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                        return Err(error).with_context(|| format!("make {}", to.display()));
                    }
                    _ => continue,
                }
            }
            match Link::open(&from) {
                Ok(link) => map::pin(&link, &to)?,
                Err(error) => log::warn!("{} is no link, and is left out: {error}", from.display()),
            }
        }
    }
    Ok(())
}
