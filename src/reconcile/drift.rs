//! What something else did to our datapath: found by a look that costs little, undone, and told.
//!
//! Tables are frozen, so no row of theirs can drift. What can: the live epoch, which table a slot holds, a step's place
//! in the chain, a pin, and a program's place on its hook.

use std::path::Path;

use anyhow::{Context, Result};

use super::hooks::xdp_modes;
use super::{Reconciler, interface_name};
use crate::bpf::attach;
use crate::bpf::hook::Role;
use crate::bpf::pins;
use crate::bpf::xdp;
use crate::model::host::HostState;
use crate::model::status::{Drift, DriftKind};
use crate::model::xdp::XdpMode;

impl Reconciler {
    /// Whether something else changed what is ours; the next `apply` undoes it. Reads no table's rows.
    pub fn has_drifted(&mut self) -> bool {
        self.generations.has_other_epoch()
            || !self.generations.lost_slots().is_empty()
            || self.load.is_broken()
            || !self.kept.lost().is_empty()
            || !self.lost_programs().is_empty()
    }

    /// What was undone since this was asked last.
    pub fn take_undone(&mut self) -> Vec<Drift> {
        std::mem::take(&mut self.undone)
    }

    /// Makes the kernel again what it was made last.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn mend(&mut self, world: &HostState) -> Result<()> {
        if let Some(other) = self.generations.restore_epoch() {
            let ours = self.generations.epoch();
            let what = format!("packets were led to revision {other} instead of {ours}");
            self.tell(DriftKind::Epoch, what);
        }
        let slots = self.generations.restore_slots();
        for table in slots.context("put a table back into its slot")? {
            let what = format!("the table {table} was not in its slot");
            self.tell(DriftKind::Table, what);
        }
        for step in self.load.mend().context("close a hole in the chain")? {
            self.tell(DriftKind::Table, format!("{step} was not in the chain"));
        }
        // Before the hooks: a link without its pin still holds on, and is not to be made twice.
        for pin in self.restore_pins()? {
            self.tell(DriftKind::Pin, format!("{pin} was not pinned"));
        }
        for (ifindex, role) in self.lost_programs() {
            let is_gone = world.links.values().all(|link| link.ifindex != ifindex);
            if is_gone || self.attach_lost(ifindex, role).is_err() {
                // Not attached any more: what comes after this says what is to be there, and why it can't.
                self.attached.remove(&ifindex);
                continue;
            }
            let what = format!("interface {} had lost programs", self.name_of(ifindex));
            self.tell(DriftKind::Attachment, what);
        }
        Ok(())
    }

    fn tell(&mut self, kind: DriftKind, what: String) {
        self.undone.push(Drift { kind, what });
    }

    fn restore_pins(&mut self) -> Result<Vec<String>> {
        if self.kept.lost().is_empty() {
            return Ok(Vec::new());
        }
        self.load.pins().prepare()?;
        if !self.load.pins().is_locked_by(&self.lock) {
            self.lock = pins::lock(self.load.pins().root())?; // the root itself is another folder now
        }
        let root = self.load.pins().version();
        let below = |path: &Path| {
            path.strip_prefix(&root)
                .unwrap_or(path)
                .display()
                .to_string()
        };
        Ok(self
            .kept
            .restore()?
            .iter()
            .map(|path| below(path))
            .collect())
    }

    /// The interfaces on which a program of this load is not where it was put.
    fn lost_programs(&self) -> Vec<(u32, Role)> {
        let with_xdp = self.live.as_ref().map(xdp_modes).unwrap_or_default();
        let xdp_program = match with_xdp.is_empty() {
            true => None,
            false => self.load.xdp_program_id(),
        };
        let programs = self.load.program_ids();
        let lacks_xdp =
            |ifindex: u32, mode: XdpMode| match xdp::program_on(self.load.pins(), ifindex) {
                None => xdp::is_missing(self.load.pins(), ifindex, mode),
                program => program != xdp_program,
            };
        let is_lost = |ifindex: u32, role: Role| {
            let pins = self.load.pins();
            let lacks =
                |hook| attach::program_on(&self.kept, pins, ifindex, hook) != programs[&hook];
            let xdp = with_xdp.get(&ifindex);
            role.hooks().into_iter().any(lacks) || xdp.is_some_and(|mode| lacks_xdp(ifindex, *mode))
        };
        let attached = self.attached.iter();
        attached
            .filter(|(ifindex, role)| is_lost(**ifindex, **role))
            .map(|(ifindex, role)| (*ifindex, *role))
            .collect()
    }

    fn attach_lost(&self, ifindex: u32, role: Role) -> Result<()> {
        self.attach_again(ifindex, role)?;
        let with_xdp = self.live.as_ref().map(xdp_modes).unwrap_or_default();
        match with_xdp.get(&ifindex) {
            Some(mode) => self.attach_xdp_before(ifindex, *mode, *mode),
            None => Ok(()),
        }
    }

    pub(super) fn name_of(&self, ifindex: u32) -> String {
        let live = self.live.as_ref();
        live.map_or_else(
            || ifindex.to_string(),
            |live| interface_name(&live.catalog, ifindex).to_owned(),
        )
    }
}
