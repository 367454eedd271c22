//! Drift: what something else changed in our datapath is found by cheap checks, repaired and reported.
//!
//! Tables are frozen, so their rows can't drift. What can: the live epoch, which table a slot holds, a step of the chain, a
//! pin, and a program on its hook.

use std::path::Path;

use anyhow::{Context, Result};

use super::hooks::xdp_modes;
use super::{Reconciler, interface_name};
use crate::bpf::attach;
use crate::bpf::attach::hook::Role;
use crate::bpf::attach::xdp;
use crate::bpf::sys::lock;
use crate::model::host::HostState;
use crate::model::status::{Drift, DriftKind};
use crate::model::xdp::XdpMode;

impl Reconciler {
    /// Whether something else changed what is ours; the next `apply` repairs it. Reads no rows.
    pub fn has_drifted(&mut self) -> bool {
        self.generations.has_other_epoch()
            || self.generations.has_other_mark()
            || !self.generations.lost_slots().is_empty()
            || self.programs.is_chain_broken()
            || !self.pin_guard.lost().is_empty()
            || !self.lost_programs().is_empty()
            || self.has_lost_socket_programs()
    }

    /// What was repaired since the last call.
    pub fn take_repaired(&mut self) -> Vec<Drift> {
        std::mem::take(&mut self.repaired)
    }

    /// Restores what the last change made.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn repair_drift(&mut self, host: &HostState) -> Result<()> {
        if let Some(other) = self.generations.restore_epoch() {
            let ours = self.generations.epoch();
            let what = format!("packets were processed under revision {other} instead of {ours}");
            self.report_drift(DriftKind::Epoch, what);
        }
        if self.generations.restore_mark() {
            let what = "packets were marked with another mark".to_owned();
            self.report_drift(DriftKind::Epoch, what);
        }
        let slots = self.generations.restore_slots();
        for table in slots.context("put a table back into its slot")? {
            let what = format!("the table {table} was not in its slot");
            self.report_drift(DriftKind::Table, what);
        }
        for step in self.programs.repair_chain().context("repair the chain")? {
            self.report_drift(DriftKind::Table, format!("{step} was not in the chain"));
        }
        // Before the hooks: a link without its pin is still attached, and must not be created twice.
        for pin in self.restore_pins()? {
            self.report_drift(DriftKind::Pin, format!("{pin} was not pinned"));
        }
        for (ifindex, role) in self.lost_programs() {
            let is_gone = host.links.values().all(|link| link.ifindex != ifindex);
            if is_gone || self.attach_lost(ifindex, role).is_err() {
                // The change that follows attaches it, if it is wanted, and reports the error.
                self.attached.remove(&ifindex);
                continue;
            }
            let what = format!("interface {} had lost programs", self.name_of(ifindex));
            self.report_drift(DriftKind::Attachment, what);
        }
        if self.forget_lost_socket_programs() {
            let what = "the host's sockets had lost programs".to_owned();
            self.report_drift(DriftKind::Attachment, what);
        }
        Ok(())
    }

    fn report_drift(&mut self, kind: DriftKind, what: String) {
        self.repaired.push(Drift { kind, what });
    }

    fn restore_pins(&mut self) -> Result<Vec<String>> {
        if self.pin_guard.lost().is_empty() {
            return Ok(Vec::new());
        }
        self.programs.pins().make_dirs()?;
        let root = self.programs.pins().root();
        if !lock::is_lock_on(root, &self.lock) {
            self.lock = lock::lock(root)?; // the root was deleted, and is another directory now
        }
        let root = self.programs.pins().version();
        let below = |path: &Path| {
            path.strip_prefix(&root)
                .unwrap_or(path)
                .display()
                .to_string()
        };
        Ok(self
            .pin_guard
            .restore()?
            .iter()
            .map(|path| below(path))
            .collect())
    }

    /// The interfaces from which something else detached or replaced a program.
    fn lost_programs(&self) -> Vec<(u32, Role)> {
        let with_xdp = self.live.as_ref().map(xdp_modes).unwrap_or_default();
        let xdp_program = match with_xdp.is_empty() {
            true => None,
            false => self.programs.xdp_program_id(),
        };
        let programs = self.programs.program_ids();
        let lacks_xdp =
            |ifindex: u32, mode: XdpMode| match xdp::program_on(self.programs.pins(), ifindex) {
                None => xdp::is_missing(self.programs.pins(), ifindex, mode),
                program => program != xdp_program,
            };
        let is_lost = |ifindex: u32, role: Role| {
            let pins = self.programs.pins();
            let lacks =
                |hook| attach::program_on(&self.pin_guard, pins, ifindex, hook) != programs[&hook];
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
            Some(mode) => self.attach_previous_xdp(ifindex, *mode, *mode),
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
