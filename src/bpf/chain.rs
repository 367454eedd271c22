//! The chain: the array by which each step of it finds the next.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object};

use super::{abi, gate, program};

/// Its steps and their places in `dpd_calls`.
pub const CHAIN: [(&str, abi::step); 9] = [
    ("tail_handle_ipv4", abi::step::STEP_HANDLE_IPV4),
    ("tail_handle_ipv6", abi::step::STEP_HANDLE_IPV6),
    ("tail_neighbour", abi::step::STEP_NEIGHBOUR),
    ("tail_lb", abi::step::STEP_LB),
    ("tail_ct", abi::step::STEP_CT),
    ("tail_policy", abi::step::STEP_POLICY),
    ("tail_deliver", abi::step::STEP_DELIVER),
    ("tail_icmp_error", abi::step::STEP_ICMP_ERROR),
    ("tail_respond", abi::step::STEP_RESPOND),
];

/// The chain of one load.
#[derive(Debug)]
pub struct Chain {
    calls: MapHandle,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    place: u32,
    program: OwnedFd,
    /// The kernel's number of the program.
    id: u32,
}

impl Chain {
    /// Fills the array of an object that is loaded; no packet can have reached it before.
    pub fn fill(object: &Object) -> Result<Chain> {
        let calls = object
            .maps()
            .find(|map| map.name() == "dpd_calls")
            .context("the object has no map dpd_calls")?;
        let chain = Chain {
            calls: MapHandle::try_from(&calls).context("keep map dpd_calls")?,
            steps: CHAIN
                .iter()
                .map(|(name, place)| step(object, name, place.0))
                .collect::<Result<_>>()?,
        };
        chain.steps.iter().try_for_each(|step| chain.put(step))?;
        Ok(chain)
    }

    fn put(&self, step: &Step) -> Result<()> {
        let program = step.program.as_raw_fd() as u32;
        gate::pass(format_args!("put {} into the chain", step.name), || {
            self.calls.update(
                &step.place.to_ne_bytes(),
                &program.to_ne_bytes(),
                MapFlags::ANY,
            )
        })
    }

    fn is_in_place(&self, step: &Step) -> bool {
        let found = self.calls.lookup(&step.place.to_ne_bytes(), MapFlags::ANY);
        // The kernel answers with the program's number, not with a descriptor.
        found.is_ok_and(|found| found.as_deref() == Some(&step.id.to_ne_bytes()))
    }

    /// Whether something else emptied a place, or put another program there.
    pub fn is_broken(&self) -> bool {
        !self.steps.iter().all(|step| self.is_in_place(step))
    }

    /// Puts each step into its place again; answers which were not there.
    pub fn mend(&self) -> Result<Vec<&'static str>> {
        let lost = self.steps.iter().filter(|step| !self.is_in_place(step));
        lost.map(|step| self.put(step).map(|()| step.name))
            .collect()
    }
}

fn step(object: &Object, name: &'static str, place: u32) -> Result<Step> {
    let program = object
        .progs()
        .find(|program| program.name() == name)
        .with_context(|| format!("the object has no program {name}"))?;
    let program = program.as_fd().try_clone_to_owned();
    let program = program.with_context(|| format!("keep program {name}"))?;
    Ok(Step {
        name,
        place,
        id: program::info(&program)?.id,
        program,
    })
}
