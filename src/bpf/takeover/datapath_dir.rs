//! Which directory of pins is the datapath, and which other one it takes over from.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::recover::recover;
use crate::bpf::image::ProgramImage;
use crate::bpf::sys::call::call;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pins::Pins;
use crate::bpf::tables::live_epoch;

/// Where the datapath is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatapathDir {
    pub pins: Pins,
    /// The directory that is taken over, until all of it is migrated.
    pub previous: Option<Pins>,
}

impl DatapathDir {
    /// Decides what a daemon with these programs does with what is pinned below the root.
    ///
    /// # Errors
    /// If the datapath has a newer layout, one that is too old, or an older one in the middle of a takeover, with the remedies;
    /// or if it can't be read.
    pub fn find(root: &Path, image: &ProgramImage<'_>) -> Result<DatapathDir> {
        let own = Pins::of_version(root, image.version);
        let mut live = live_dirs(root)?;
        if live.is_empty() {
            Pins::all(root).iter().try_for_each(recover)?;
            live = live_dirs(root)?;
        }
        check_newer(&own, &live)?;
        check_too_old(&own, &live, image.oldest_predecessor)?;
        let Some((_, newest)) = live.pop() else {
            return Ok(DatapathDir {
                pins: own,
                previous: None,
            });
        };
        if newest.number() < image.version {
            check_finished(&own, &newest, &live)?;
            return Ok(DatapathDir {
                pins: own,
                previous: Some(newest),
            });
        }
        let previous = live.pop().map(|(_, previous)| previous);
        let pins = match previous {
            None => move_to_primary(&newest)?,
            Some(_) => newest,
        };
        Ok(DatapathDir { pins, previous })
    }
}

fn check_newer(own: &Pins, live: &[(u64, Pins)]) -> Result<()> {
    let newer = live.iter().find(|(_, pins)| pins.number() > own.number());
    let Some((_, newer)) = newer else {
        return Ok(());
    };
    bail!(
        "{} has the datapath of a newer version of dpd ({}; this one is {}): start the newer version again, or remove its \
         datapath with `dpd cleanup`, which ends its connections, and start this one then",
        own.root().display(),
        newer.name(),
        own.name()
    )
}

fn check_too_old(own: &Pins, live: &[(u64, Pins)], oldest: u32) -> Result<()> {
    let too_old = live.iter().find(|(_, pins)| pins.number() < oldest);
    let Some((_, found)) = too_old else {
        return Ok(());
    };
    bail!(
        "{} has the datapath of an older version of dpd ({}), which this one ({}) can't take over; its programs and \
         connections continue as they are: start the older version again, or remove its datapath with `dpd cleanup`, which \
         ends its connections, and start this one then",
        own.root().display(),
        found.name(),
        own.name()
    )
}

/// Of two that are live the newer has not migrated all yet. Only its own version can: taking over from it would lose the
/// rest.
fn check_finished(own: &Pins, newest: &Pins, others: &[(u64, Pins)]) -> Result<()> {
    let Some((_, other)) = others.last() else {
        return Ok(());
    };
    bail!(
        "{} has not finished its takeover from {} at {}: start the version again that created {}, which finishes it, and \
         this one ({}) then; or remove both with `dpd cleanup`, which ends their connections, and start this one then",
        newest.name(),
        other.name(),
        own.root().display(),
        newest.name(),
        own.name()
    )
}

/// The live directories of any version, by epoch.
fn live_dirs(root: &Path) -> Result<Vec<(u64, Pins)>> {
    let mut live = Vec::new();
    for pins in Pins::all(root) {
        live.extend(live_epoch::epoch_of(&pins)?.map(|epoch| (epoch, pins)));
    }
    live.sort_by_key(|(epoch, _)| *epoch);
    Ok(live)
}

/// The live datapath below a root, of any version.
pub fn find_live(root: &Path) -> Option<Pins> {
    let live = live_dirs(root).unwrap_or_default().pop();
    live.map(|(_, pins)| pins)
}

/// The directory of the live datapath, if it is of another version.
pub fn find_other_version(root: &Path) -> Option<String> {
    let other = find_live(root).filter(|live| live.number() != Pins::new(root).number());
    other.map(|live| live.name())
}

/// The pins that readers of this version open: those that are live, or will be.
pub fn readable(root: &Path) -> Pins {
    let own = Pins::new(root);
    find_live(root)
        .filter(|live| live.number() == own.number())
        .unwrap_or(own)
}

/// Removes all other directories, of any version, and moves this one to its primary name.
///
/// # Errors
/// If one can't be unpinned; the next call continues.
pub fn remove_others(pins: &Pins) -> Result<Pins> {
    for other in Pins::all(pins.root()) {
        if other != *pins {
            remove(&other)?;
        }
    }
    move_to_primary(pins)
}

/// Unpins a directory. Its epoch goes first, so that a directory that is removed in part is not live.
pub fn remove(pins: &Pins) -> Result<()> {
    Pins::unpin(&pins.map(live_epoch::MAP))?;
    Pins::remove(&pins.version())
}

/// What has that name is not live any more.
fn move_to_primary(pins: &Pins) -> Result<Pins> {
    let primary = pins.primary();
    if primary != *pins {
        remove(&primary)?;
        let (from, to) = (&pins.version(), &primary.version());
        call(Op::MoveDir { from, to }, || fs::rename(from, to))?;
    }
    Ok(primary)
}
