//! Which folder of pins is the one to work with, and which other it takes over from.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::live;
use super::pins::Pins;

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
    /// If the datapath is of a newer version, with the ways out.
    pub fn find(root: &Path, version: u32) -> Result<Place> {
        let own = Pins::of_version(root, version);
        check_newer(&own)?;
        let mut live = live_folders(root);
        let Some((_, newest)) = live.pop() else {
            return Ok(Place {
                pins: own,
                former: None,
            });
        };
        if newest.number() < version {
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

fn check_newer(own: &Pins) -> Result<()> {
    let root = own.root();
    let newer = Pins::all(root).into_iter();
    let mut newer = newer.filter(|pins| pins.number() > own.number() && !live::is_idle(pins));
    let Some(newer) = newer.next() else {
        return Ok(());
    };
    bail!(
        "{} holds the datapath of a newer version of dpd ({}; this one is {}): start the newer version again, or take \
         its datapath away with `dpd cleanup`, which ends its connections, and start this one then",
        root.display(),
        newer.name(),
        own.name()
    )
}

/// The live folders of any version, by epoch.
fn live_folders(root: &Path) -> Vec<(u64, Pins)> {
    let mut live: Vec<(u64, Pins)> = Pins::all(root)
        .into_iter()
        .filter_map(|pins| Some((live::epoch_of(&pins)?, pins)))
        .collect();
    live.sort_by_key(|(epoch, _)| *epoch);
    live
}

/// The live datapath below a root, of whatever version.
pub fn find_live(root: &Path) -> Option<Pins> {
    live_folders(root).pop().map(|(_, pins)| pins)
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
    let folder = pins.version();
    let say = || format!("unpin {}", folder.display());
    match fs::remove_file(pins.map(live::MAP)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(say);
        }
        _ => {}
    }
    Pins::remove(&folder).with_context(say)
}

/// The place of what took over is free now.
fn settle(pins: &Pins) -> Result<Pins> {
    let settled = pins.settled();
    if settled != *pins {
        forget(&settled)?;
        let (from, to) = (pins.version(), settled.version());
        fs::rename(&from, &to)
            .with_context(|| format!("move {} to {}", from.display(), to.display()))?;
    }
    Ok(settled)
}
