//! Interfaces that have the programs and are no endpoints: before a commit, or after it.
//!
//! One that ran before it was declared, or that leaves the file, is unmanaged: its packets pass. One that appears after it was
//! declared is closed: its packets drop until it is an endpoint, since it has no row in `dpd_unmanaged`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::Reconciler;
use crate::bpf::attach::hook::Role;
use crate::bpf::attach::unmanaged;
use crate::model::state::State;
use crate::net;

/// Which interfaces without an endpoint entry drop.
#[derive(Default)]
pub(super) struct Closed {
    /// Those of the change that is tried, or was tried last.
    interfaces: BTreeSet<u32>,
    /// Those that the kernel has refused: they run without programs meanwhile, and are not closed by the next attempts.
    refused: BTreeSet<u32>,
}

impl Closed {
    /// The kernel refuses a program of this interface.
    pub fn refuse(&mut self, ifindex: u32) {
        self.refused.retain(|ifindex| net::is_there(*ifindex));
        if net::is_there(ifindex) {
            self.refused.insert(ifindex);
        }
    }

    /// These have their programs.
    pub fn accept(&mut self, attached: &BTreeMap<u32, Role>) {
        self.refused
            .retain(|ifindex| !attached.contains_key(ifindex));
    }
}

impl Reconciler {
    /// Before programs are attached: marks the interfaces that have them before they are endpoints, or after.
    pub(super) fn mark_unmanaged(
        &mut self,
        state: &State,
        (due, wanted): (&[(u32, Role)], &BTreeMap<u32, Role>),
        epoch: u64,
    ) -> Result<()> {
        self.closed.interfaces = self.appeared(state);
        let coming = due.iter().map(|(ifindex, _)| *ifindex);
        let coming = coming.filter(|ifindex| {
            !self.is_endpoint(*ifindex) && !self.closed.interfaces.contains(ifindex)
        });
        let stale = self.stale(wanted).into_iter();
        let unmanaged: BTreeMap<u32, u64> = coming
            .map(|ifindex| (ifindex, epoch))
            .chain(stale.map(|ifindex| (ifindex, unmanaged::FOREVER)))
            .collect();
        // Rows that an earlier daemon has left would open an interface.
        if unmanaged.is_empty() && !self.has_unmanaged {
            return Ok(());
        }
        self.has_unmanaged = true;
        unmanaged::set(self.programs.pins(), &unmanaged)
    }

    /// The interfaces of the state that the live configuration declares and does not have: they appeared since.
    fn appeared(&self, state: &State) -> BTreeSet<u32> {
        let Some(live) = &self.live else {
            return BTreeSet::new();
        };
        let declared: BTreeMap<&str, Option<u32>> = live.catalog.interfaces().collect();
        let interfaces = state.catalog.interfaces();
        interfaces
            .filter_map(|(name, ifindex)| Some((*declared.get(name)?, ifindex?)))
            .filter(|(before, ifindex)| *before != Some(*ifindex))
            .map(|(_, ifindex)| ifindex)
            .filter(|ifindex| !self.is_endpoint(*ifindex))
            .filter(|ifindex| !self.closed.refused.contains(ifindex))
            .collect()
    }

    /// Whether the live tables serve the interface.
    fn is_endpoint(&self, ifindex: u32) -> bool {
        let live = self.live.as_ref();
        live.is_some_and(|live| live.endpoints.contains_key(&ifindex))
    }

    /// After a commit or a rollback: only interfaces that still have programs without being endpoints stay unmanaged. Returns
    /// whether there is none.
    pub(super) fn forget_unmanaged(&mut self) -> bool {
        if !self.has_unmanaged {
            return true;
        }
        let wanted = self.live.as_ref().map(super::roles).unwrap_or_default();
        let mut left = self.stale(&wanted);
        left.retain(|ifindex| !self.closed.interfaces.contains(ifindex));
        let left: BTreeMap<u32, u64> = left
            .into_iter()
            .map(|ifindex| (ifindex, unmanaged::FOREVER))
            .collect();
        let done = unmanaged::set(self.programs.pins(), &left);
        if let Err(error) = &done {
            log::warn!("interfaces stay marked as unmanaged: {error:#}");
        }
        self.has_unmanaged = done.is_err() || !left.is_empty();
        !self.has_unmanaged
    }
}
