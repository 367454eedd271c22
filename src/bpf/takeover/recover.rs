//! The live epoch of a datapath whose `dpd_live` is not pinned any more, found by the programs that read it.

use anyhow::{Context, Result};
use libbpf_rs::{ErrorKind, MapCore, MapHandle, Program};

use crate::bpf::sys::pins::{self, Pins};
use crate::bpf::sys::{map, program};
use crate::bpf::tables::live_epoch::{self, EpochView};

/// Pins `dpd_live` again, if its pin is gone and pinned programs still read it. With a new one epochs would start again, and
/// connections bear those already.
///
/// # Errors
/// If it can't be pinned, or this process may not open maps by their ids.
pub fn recover(pins: &Pins) -> Result<()> {
    let path = pins.map(live_epoch::MAP);
    if path.exists() {
        return Ok(());
    }
    let Some((view, epoch)) = find(pins).with_context(|| {
        format!(
            "{} was deleted, and only CAP_SYS_ADMIN may find it by the programs that read it: run `dpd run` once as root, which \
             pins it again, or remove the datapath with `dpd cleanup`, which ends its connections",
            path.display()
        )
    })?
    else {
        return Ok(());
    };
    pins.make_dirs()?;
    map::pin_map(&view, &path)?;
    log::warn!(
        "{} was not pinned any more, and is again: the datapath continues from revision {epoch}",
        path.display()
    );
    Ok(())
}

/// The map and its epoch, by the pinned programs.
fn find(pins: &Pins) -> libbpf_rs::Result<Option<(EpochView, u64)>> {
    let loads = Pins::numbers(&pins.loads()).into_iter();
    let dirs = loads.map(|number| pins.load(number));
    let paths = dirs.flat_map(|dir| {
        let names = pins::names(&dir).into_iter();
        names.map(move |name| dir.join(name))
    });
    // The other pins there are maps.
    let programs = paths.filter_map(|path| Program::fd_from_pinned_path(path).ok());
    for id in programs.flat_map(|program| program::map_ids(&program).unwrap_or_default()) {
        let map = match MapHandle::from_map_id(id) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(error),
            Err(_) => continue, // it is gone
            Ok(map) => map,
        };
        if map.name() != live_epoch::MAP {
            continue;
        }
        let view = EpochView::of(map);
        if let Ok(epoch @ 1..) = view.load() {
            return Ok(Some((view, epoch)));
        }
    }
    Ok(None)
}
