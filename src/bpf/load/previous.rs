//! The datapath that a load takes over from: its programs and conntrack tables are published to the new programs, which hand
//! packets on to them (bpf/lib/feature/takeover.h), until all rows are migrated.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapHandle, Object, OpenMapMut, Program};

use crate::bpf::attach::hook::Hook;
use crate::bpf::state::ct_table;
use crate::bpf::sys::call::call;
use crate::bpf::sys::map;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::pins::Pins;
use crate::bpf::takeover::migration::{self, Migration, MigrationPlan};

/// Maps of a load, empty but during a takeover.
const PREVIOUS_PROGRAMS: &str = "dpd_prev_progs";
const PREVIOUS_CONNTRACK: &str = "dpd_prev_ct";

/// A takeover that is not finished.
#[derive(Debug)]
pub struct Takeover {
    pub previous: Pins,
    pub maps: Vec<Migration>,
}

impl Takeover {
    /// After the commit: migrates the rows, and stops handing packets on. `load` is the directory of this load.
    pub fn complete(&self, load: &Path, wait: impl Fn() -> Result<()>) -> Result<()> {
        let tables = map::open(&load.join(PREVIOUS_CONNTRACK))?;
        // Published again, since an interrupted attempt may have cleared them.
        publish_conntrack(&tables, self.maps.iter().map(|map| &map.plan))?;
        wait()?; // for programs that started before the commit
        let mut migrated = migration::migrate(&self.maps, &wait)?;
        clear(&tables)?;
        wait()?;
        // What previous programs wrote while the last row was migrated.
        migrated += migration::migrate(&self.maps, || Ok(()))?;
        clear(&map::open(&load.join(PREVIOUS_PROGRAMS))?)?;
        log::info!(
            "took over from {}: {migrated} rows of {} tables migrated",
            self.previous.version().display(),
            self.maps.len()
        );
        Ok(())
    }
}

/// Gives the map of previous conntrack tables their layout, before the object is loaded.
pub fn set_layout<'a>(
    map: &mut OpenMapMut<'_>,
    name: &str,
    mut plans: impl Iterator<Item = &'a MigrationPlan>,
) -> Result<()> {
    if name == PREVIOUS_CONNTRACK
        && let Some(plan) = plans.find(|plan| is_published(plan))
    {
        map.set_inner_map_fd(plan.source.as_fd())
            .context("set the layout of the previous conntrack tables")?;
    }
    Ok(())
}

/// Publishes the previous programs and conntrack tables to those of a loaded object.
pub fn publish<'a>(
    object: &Object,
    previous: &Pins,
    plans: impl Iterator<Item = &'a MigrationPlan>,
) -> Result<()> {
    let programs = find_map(object, PREVIOUS_PROGRAMS)?;
    for hook in Hook::ALL {
        if let Some(program) = serving_program(previous, hook.name()) {
            let object = hook.name();
            call(Op::PublishPrevious { object }, || {
                map::put(&programs, hook.row().number.0, &program)
            })?;
        }
    }
    publish_conntrack(&find_map(object, PREVIOUS_CONNTRACK)?, plans)
}

fn publish_conntrack<'a>(
    tables: &MapHandle,
    plans: impl Iterator<Item = &'a MigrationPlan>,
) -> Result<()> {
    for plan in plans.filter(|plan| is_published(plan)) {
        let table = ct_table::find(&plan.name).context("it is a conntrack table")?;
        let object = table.name;
        call(Op::PublishPrevious { object }, || {
            map::put(tables, table.index.0, &plan.source)
        })?;
    }
    Ok(())
}

/// Whether programs can look up their keys in this previous table.
fn is_published(plan: &MigrationPlan) -> bool {
    plan.has_same_keys && ct_table::find(&plan.name).is_some()
}

/// The program of this name that the links of a datapath use: the oldest load's. Newer ones are of an interrupted takeover.
pub fn serving_program(pins: &Pins, name: &str) -> Option<OwnedFd> {
    Pins::numbers(&pins.loads())
        .into_iter()
        .find_map(|number| program_of(pins, number, name))
}

/// A load's program of this name, if it is pinned.
pub fn program_of(pins: &Pins, load: u64, name: &str) -> Option<OwnedFd> {
    Program::fd_from_pinned_path(pins.load(load).join(name)).ok()
}

fn find_map(object: &Object, name: &str) -> Result<MapHandle> {
    let map = object
        .maps()
        .find(|map| map.name() == name)
        .with_context(|| format!("the object has no map {name}"))?;
    MapHandle::try_from(&map).with_context(|| format!("hold map {name}"))
}

/// Empties a map of programs or maps.
fn clear(map: &MapHandle) -> Result<()> {
    for index in 0..map.max_entries() {
        map::clear(map, index).context("stop handing packets to the previous programs")?;
    }
    Ok(())
}
