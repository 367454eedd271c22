//! The chain: the prog array by which each step calls the next.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object};

use crate::bpf::abi;
use crate::bpf::sys::call::call;
use crate::bpf::sys::map;
use crate::bpf::sys::op::Op;
use crate::bpf::sys::program;

/// Its steps and their indexes in `dpd_calls`.
pub const CHAIN: [(&str, abi::step); 12] = [
    ("tail_handle_ipv4", abi::step::STEP_HANDLE_IPV4),
    ("tail_handle_ipv6", abi::step::STEP_HANDLE_IPV6),
    ("tail_neighbour", abi::step::STEP_NEIGHBOUR),
    ("tail_lb", abi::step::STEP_LB),
    ("tail_ct", abi::step::STEP_CT),
    ("tail_policy", abi::step::STEP_POLICY),
    ("tail_deliver", abi::step::STEP_DELIVER),
    ("tail_icmp_error", abi::step::STEP_ICMP_ERROR),
    ("tail_respond", abi::step::STEP_RESPOND),
    ("tail_multicast", abi::step::STEP_MULTICAST),
    ("tail_snat", abi::step::STEP_SNAT),
    ("tail_announce", abi::step::STEP_ANNOUNCE),
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
    index: u32,
    program: OwnedFd,
    /// The kernel's id of the program.
    id: u32,
}

impl Chain {
    /// Fills the array of a loaded object, before any program of it is attached.
    pub fn fill(object: &Object) -> Result<Chain> {
        let calls = object
            .maps()
            .find(|map| map.name() == "dpd_calls")
            .context("the object has no map dpd_calls")?;
        let chain = Chain {
            calls: MapHandle::try_from(&calls).context("hold map dpd_calls")?,
            steps: CHAIN
                .iter()
                .map(|(name, index)| step(object, name, index.0))
                .collect::<Result<_>>()?,
        };
        chain.steps.iter().try_for_each(|step| chain.put(step))?;
        Ok(chain)
    }

    fn put(&self, step: &Step) -> Result<()> {
        call(Op::FillChain { step: step.name }, || {
            map::put(&self.calls, step.index, &step.program)
        })
    }

    fn is_in_place(&self, step: &Step) -> bool {
        let found = self.calls.lookup(&step.index.to_ne_bytes(), MapFlags::ANY);
        // A lookup returns the program's id, not a descriptor.
        found.is_ok_and(|found| found.as_deref() == Some(&step.id.to_ne_bytes()))
    }

    /// Whether something else deleted or replaced a step.
    pub fn is_broken(&self) -> bool {
        !self.steps.iter().all(|step| self.is_in_place(step))
    }

    /// Puts each step into its place again; returns those that were not there.
    pub fn repair(&self) -> Result<Vec<&'static str>> {
        let lost = self.steps.iter().filter(|step| !self.is_in_place(step));
        lost.map(|step| self.put(step).map(|()| step.name))
            .collect()
    }
}

fn step(object: &Object, name: &'static str, index: u32) -> Result<Step> {
    let program = object
        .progs()
        .find(|program| program.name() == name)
        .with_context(|| format!("the object has no program {name}"))?;
    let program = program.as_fd().try_clone_to_owned();
    let program = program.with_context(|| format!("hold program {name}"))?;
    Ok(Step {
        name,
        index,
        id: program::info(&program)?.id,
        program,
    })
}
