//! Which folder of pins is the one to work with, and which other it takes over from.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::pins::Pins;
use super::{gate, live};

/// Where the datapath is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub pins: Pins,
    /// What is live there until we are, or not carried over yet.
    pub former: Option<Pins>,
}

impl Place {
    /// Finds out what a daemon of this version of the layout has to do with what is pinned below the root.
    ///
    /// # Errors
    /// If the datapath is of a newer version, or of an older one in the middle of a takeover, with the ways out; or if nobody
    /// can tell.
    pub fn find(root: &Path, version: u32) -> Result<Place> {
        let own = Pins::of_version(root, version);
        let mut live = live_folders(root)?;
        if live.is_empty() {
            Pins::all(root).iter().try_for_each(live::recover)?;
            live = live_folders(root)?;
        }
        check_newer(&own, &live)?;
        let Some((_, newest)) = live.pop() else {
            return Ok(Place {
                pins: own,
                former: None,
            });
        };
        if newest.number() < version {
            check_done(&own, &newest, &live)?;
            return Ok(Place {
                pins: own,
                former: Some(newest),
            });
        }
        let former = live.pop().map(|(_, former)| former);
        let pins = match former {
            None => settle(&newest)?,
            Some(_) => newest,
        };
        Ok(Place { pins, former })
    }
}

fn check_newer(own: &Pins, live: &[(u64, Pins)]) -> Result<()> {
    let newer = live.iter().find(|(_, pins)| pins.number() > own.number());
    let Some((_, newer)) = newer else {
        return Ok(());
    };
    bail!(
        "{} holds the datapath of a newer version of dpd ({}; this one is {}): start the newer version again, or take \
         its datapath away with `dpd cleanup`, which ends its connections, and start this one then",
        own.root().display(),
        newer.name(),
        own.name()
    )
}

/// Of two that are live the newer has not carried all over yet, and knows alone how to: who takes over from it would lose
/// that.
fn check_done(own: &Pins, newest: &Pins, others: &[(u64, Pins)]) -> Result<()> {
    let Some((_, other)) = others.last() else {
        return Ok(());
    };
    bail!(
        "{} has not taken over yet all that {} has at {}: start the version again that made {}, which finishes its \
         takeover, and this one ({}) then; or take both away with `dpd cleanup`, which ends their connections, and start \
         this one then",
        newest.name(),
        other.name(),
        own.root().display(),
        newest.name(),
        own.name()
    )
}

/// The live folders of any version, by epoch.
fn live_folders(root: &Path) -> Result<Vec<(u64, Pins)>> {
    let mut live = Vec::new();
    for pins in Pins::all(root) {
        live.extend(live::epoch_of(&pins)?.map(|epoch| (epoch, pins)));
    }
    live.sort_by_key(|(epoch, _)| *epoch);
    Ok(live)
}

/// The live datapath below a root, of whatever version.
pub fn find_live(root: &Path) -> Option<Pins> {
    let live = live_folders(root).unwrap_or_default().pop();
    live.map(|(_, pins)| pins)
}

/// Where readers of this version look: what is live, or what will be.
pub fn readable(root: &Path) -> Pins {
    let own = Pins::new(root);
    find_live(root)
        .filter(|live| live.number() == own.number())
        .unwrap_or(own)
}

/// Lets go of all folders but these, however old, and puts these where they belong.
///
/// # Errors
/// If one can't be unpinned; the next call goes on.
pub fn clear(pins: &Pins) -> Result<Pins> {
    for other in Pins::all(pins.root()) {
        if other != *pins {
            forget(&other)?;
        }
    }
    settle(pins)
}

/// Unpins a folder. Its epoch goes first: what is half gone is not taken for a datapath.
pub fn forget(pins: &Pins) -> Result<()> {
    Pins::unpin(&pins.map(live::MAP))?;
    Pins::remove(&pins.version())
}

/// The place of what took over is free now.
fn settle(pins: &Pins) -> Result<Pins> {
    let settled = pins.settled();
    if settled != *pins {
        forget(&settled)?;
        let (from, to) = (pins.version(), settled.version());
        let what = format_args!("move {} to {}", from.display(), to.display());
        gate::pass(what, || fs::rename(&from, &to))?;
    }
    Ok(settled)
}
