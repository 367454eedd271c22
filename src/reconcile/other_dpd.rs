//! Another dpd on an interface: two would process each packet twice, each with policy and NAT of its own, so an interface is of
//! one root of pins.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::Reconciler;
use super::hooks::{AttachError, HookKind};
use crate::bpf::attach::hook::Role;
use crate::bpf::attach::other_dpd::{self, OtherDpd};
use crate::bpf::load::other_root;
use crate::bpf::reader::Reader;
use crate::bpf::sys::pins::Pins;
use crate::model::state::State;

/// The kernel detaches a link some time after its last reference is closed, as when a root was deleted.
const RELEASE_LOOKS: u32 = 20;
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

impl Reconciler {
    /// Before programs are attached to these interfaces.
    ///
    /// # Errors
    /// If one has programs of another dpd, with what is known of that and what to do.
    pub(super) fn check_other_dpd(&mut self, state: &State, due: &[(u32, Role)]) -> Result<()> {
        let own = Pins::all(self.programs.pins().root());
        for (ifindex, _) in due {
            if self.attached.contains_key(ifindex) {
                continue;
            }
            if let Some(owner) = find_owner(&own, *ifindex) {
                self.closed.refuse(*ifindex);
                return Err(owner.context(AttachError::of(state, *ifindex, HookKind::Tc)));
            }
        }
        Ok(())
    }
}

/// Whose programs are on an interface, as an error; `None`: no other dpd's.
fn find_owner(own: &[Pins], ifindex: u32) -> Option<anyhow::Error> {
    for _ in 0..RELEASE_LOOKS {
        let found = other_dpd::find(own, ifindex);
        if let Some(owner) = found.iter().find_map(name_owner) {
            return Some(refusal(&owner));
        }
        // Filters whose root was deleted are replaced.
        if !found.iter().any(|other| other.has_link && other.has_name) {
            return None;
        }
        thread::sleep(RELEASE_PAUSE);
    }
    Some(refusal("whose pins are not in sight of this process"))
}

/// The root of a program, with its file if it can be read; or else the process that holds it.
fn name_owner(other: &OtherDpd) -> Option<String> {
    if let Some(root) = other_root::of_program(other.program) {
        let catalog = Reader::open(&root).and_then(|reader| reader.catalog());
        let file = catalog.map(|catalog| format!(", configured by {}", catalog.config));
        return Some(format!("at {}{}", root.display(), file.unwrap_or_default()));
    }
    let pid = other_root::holder(other.program).filter(|_| other.has_name)?;
    Some(format!("that process {pid} holds"))
}

fn refusal(owner: &str) -> anyhow::Error {
    anyhow!(
        "it has the programs of another dpd, {owner}: two would process each packet twice. Take the interface out of one of the two \
         files, or stop the other and remove its datapath with `dpd cleanup --config` and its file"
    )
}
