//! The reconciler against a real kernel: what it attaches, pins, replaces, rolls back and takes away. Each test has
//! network namespaces and a bpffs of its own. Needs root.

#[path = "../common/mod.rs"]
mod common;

mod foreign;
mod grace;
mod host;

mod apply;
mod clsact;
mod drift;
mod failure;
mod refusal;
mod rollback;
mod tcx;
mod upgrade;
mod uplink;
