//! The reconciler against a real kernel: what it attaches, pins, replaces, rolls back and takes away. Each test has
//! network namespaces and a bpffs of its own. Needs root.

#[path = "../common/mod.rs"]
mod common;

#[path = "../../benches/generate/mod.rs"]
mod generate;

mod host;
mod slow_reader;

mod ahead;
mod apply;
mod budget;
mod closed;
mod clsact;
mod drift;
mod expedited_rcu;
mod failure;
mod privileges;
mod refusal;
mod rollback;
mod sweep;
mod tcx;
mod unmanaged;
mod upgrade;
mod uplink;
