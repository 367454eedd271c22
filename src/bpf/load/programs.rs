//! One load of the programs, pinned.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use libbpf_rs::Program;

use super::chain::Chain;
use super::map_policy::{self, MapScope};
use super::previous::{Takeover, program_of, serving_program};
use crate::bpf::attach::hook::{Hook, XDP_ENTRY};
use crate::bpf::attach::socket::SocketHook;
use crate::bpf::state::ct_table::Sizes;
use crate::bpf::sys::pins::{self, Pins};
use crate::bpf::sys::program;
use crate::bpf::tables::live_epoch;
use crate::bpf::takeover::datapath_dir;
use crate::bpf::takeover::layouts;

/// The programs, and the takeover that they are in.
#[derive(Debug)]
pub struct LoadedPrograms {
    pub(super) pins: Pins,
    pub(super) number: u64,
    pub(super) programs: BTreeMap<Hook, OwnedFd>,
    pub(super) chain: Option<Chain>,
    pub(super) sizes: Sizes,
    pub(super) takeover: Option<Takeover>,
    /// It has created the directory that it is pinned in.
    is_first: bool,
    /// No other load or directory is left.
    is_takeover_finished: bool,
}

impl LoadedPrograms {
    pub(super) fn new(pins: &Pins, number: u64, sizes: Sizes, is_first: bool) -> LoadedPrograms {
        LoadedPrograms {
            pins: pins.clone(),
            number,
            programs: BTreeMap::new(),
            chain: None,
            sizes,
            takeover: None,
            is_first,
            is_takeover_finished: false,
        }
    }

    /// Whether something else deleted or replaced a step of the chain.
    pub fn is_chain_broken(&self) -> bool {
        self.chain.as_ref().is_some_and(Chain::is_broken)
    }

    /// Repairs the chain; returns the steps that were missing.
    pub fn repair_chain(&self) -> Result<Vec<&'static str>> {
        self.chain.as_ref().map_or(Ok(Vec::new()), Chain::repair)
    }

    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The directory that is taken over, until that is finished.
    pub fn previous(&self) -> Option<&Pins> {
        self.takeover.as_ref().map(|takeover| &takeover.previous)
    }

    /// The epoch of the directory that is taken over; 0: there is none.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn previous_epoch(&self) -> Result<u64> {
        let epoch = self.previous().map_or(Ok(None), live_epoch::epoch_of);
        Ok(epoch?.unwrap_or_default())
    }

    /// The mark of the packets that the datapath which is taken over has judged; 0: none.
    pub fn previous_mark(&self) -> Result<u32> {
        self.previous().map_or(Ok(0), live_epoch::mark_of)
    }

    /// The sizes of its tables.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The program of a hook.
    pub fn program(&self, hook: Hook) -> Result<&OwnedFd> {
        self.programs
            .get(&hook)
            .with_context(|| format!("the object has no program {}", hook.name()))
    }

    /// Its number in bpffs.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The ids of the hooks' programs.
    pub fn program_ids(&self) -> BTreeMap<Hook, Option<u32>> {
        let id = |hook| Some(program::info(self.programs.get(hook)?).ok()?.id);
        Hook::ALL.iter().map(|hook| (*hook, id(hook))).collect()
    }

    /// The id of the uplinks' XDP program.
    pub fn xdp_program_id(&self) -> Option<u32> {
        Some(program::info(self.xdp_program().ok()?).ok()?.id)
    }

    /// The program of a hook before this load, if there was one.
    pub fn previous_program(&self, hook: Hook) -> Option<OwnedFd> {
        self.find_previous(hook.name())
    }

    /// The program of the uplinks' XDP hook.
    pub fn xdp_program(&self) -> Result<OwnedFd> {
        self.open(XDP_ENTRY.program)
    }

    /// The program of a hook of the host's sockets.
    ///
    /// # Errors
    /// If the kernel has no such hooks: then it is not loaded.
    pub fn socket_program(&self, hook: &SocketHook) -> Result<OwnedFd> {
        self.open(hook.program)
    }

    /// Its id; `None`: it is not loaded.
    pub fn socket_program_id(&self, hook: &SocketHook) -> Option<u32> {
        Some(program::info(self.socket_program(hook).ok()?).ok()?.id)
    }

    fn open(&self, name: &str) -> Result<OwnedFd> {
        let path = self.pins.load(self.number).join(name);
        Program::fd_from_pinned_path(&path).with_context(|| format!("open {}", path.display()))
    }

    /// The XDP program before this load, if there was one.
    pub fn previous_xdp_program(&self) -> Option<OwnedFd> {
        self.find_previous(XDP_ENTRY.program)
    }

    fn find_previous(&self, name: &str) -> Option<OwnedFd> {
        match &self.takeover {
            Some(takeover) if !self.is_live() => serving_program(&takeover.previous, name),
            _ => {
                // A load without programs is of a daemon that was killed while it loaded.
                let numbers = Pins::numbers(&self.pins.loads());
                let mut earlier = numbers.into_iter().rev().filter(|old| *old < self.number);
                earlier.find_map(|old| program_of(&self.pins, old, name))
            }
        }
    }

    fn is_live(&self) -> bool {
        // An epoch that can't be read may be live.
        !matches!(live_epoch::epoch_of(&self.pins), Ok(None))
    }

    /// Migrates what is left to migrate, and removes all loads before this one, now that no link uses them. `wait` waits for
    /// the programs that are running: a chain is emptied with its last reference, which must not happen while a packet is in
    /// it.
    ///
    /// # Errors
    /// If the kernel refuses; packets are served all the same, and the next call continues.
    pub fn finish_takeover(&mut self, wait: impl Fn() -> Result<()>) -> Result<()> {
        if self.is_takeover_finished {
            return Ok(());
        }
        if let Some(takeover) = &self.takeover {
            if !self.is_live() {
                return Ok(()); // the previous datapath still serves
            }
            takeover.complete(&self.pins.load(self.number), &wait)?;
            self.takeover = None;
        }
        wait()?;
        for old in Pins::numbers(&self.pins.loads()) {
            if old != self.number {
                Pins::remove(&self.pins.load(old))?;
            }
        }
        self.pins = datapath_dir::remove_others(&self.pins)?;
        self.is_takeover_finished = true;
        Ok(())
    }

    pub fn is_takeover_finished(&self) -> bool {
        self.is_takeover_finished
    }

    /// Removes this load, which no link uses. If it was the first or took over from another directory, and was not committed,
    /// its directory goes too; else the maps stay for the next load.
    pub fn discard(&self) {
        let is_alone = self.is_first || self.takeover.is_some();
        let done = match is_alone && !self.is_live() {
            true => datapath_dir::remove(&self.pins),
            false => Pins::remove(&self.pins.load(self.number)),
        };
        if let Err(error) = done {
            log::warn!("programs that were not put into use are not removed: {error:#}");
        }
    }
}

/// The programs of the newest load, by name and path of their pins.
pub fn pinned_programs(pins: &Pins) -> Vec<(String, PathBuf)> {
    let Some(number) = Pins::numbers(&pins.loads()).pop() else {
        return Vec::new();
    };
    let dir = pins.load(number);
    let names = pins::names(&dir).into_iter();
    let is_program = |name: &str| {
        let scope = map_policy::scope(&map_policy::DATAPATH, name);
        scope != Some(MapScope::Private) && name != layouts::NAME
    };
    names
        .filter(|name| is_program(name))
        .map(|name| {
            let path = dir.join(&name);
            (name, path)
        })
        .collect()
}
