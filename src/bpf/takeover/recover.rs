//! The live epoch of a datapath whose `dpd_live` is not pinned any more, found by the programs that read it.

use anyhow::Result;
use libbpf_rs::{MapCore, MapHandle, Program};

use crate::bpf::sys::pins::{self, Pins};
use crate::bpf::sys::{map, program};
use crate::bpf::tables::live_epoch::{self, LiveEpoch};

/// Pins `dpd_live` again, if its pin is gone and pinned programs still read it. With a new one epochs would start again, and
/// connections bear those already.
///
/// # Errors
/// If it can't be pinned.
pub fn recover(pins: &Pins) -> Result<()> {
    let path = pins.map(live_epoch::MAP);
    if path.exists() {
        return Ok(());
    }
    let Some((map, epoch)) = find(pins) else {
        return Ok(());
    };
    pins.make_dirs()?;
    map::pin(&map, &path)?;
    log::warn!(
        "{} was not pinned any more, and is again: the datapath continues from revision {epoch}",
        path.display()
    );
    Ok(())
}

/// The map and its epoch, by the pinned programs.
fn find(pins: &Pins) -> Option<(MapHandle, u64)> {
    let loads = Pins::numbers(&pins.loads()).into_iter();
    let dirs = loads.map(|number| pins.load(number));
    let paths = dirs.flat_map(|dir| {
        let names = pins::names(&dir).into_iter();
        names.map(move |name| dir.join(name))
    });
    // The other pins there are maps.
    let programs = paths.filter_map(|path| Program::fd_from_pinned_path(path).ok());
    programs
        .flat_map(|program| program::map_ids(&program).unwrap_or_default())
        .filter_map(|id| MapHandle::from_map_id(id).ok())
        .filter(|map| map.name() == live_epoch::MAP)
        .find_map(|map| {
            let epoch = LiveEpoch::map(&map).ok()?.load();
            (epoch != 0).then_some((map, epoch))
        })
}
