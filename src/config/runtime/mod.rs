//! Runtime drop-ins: files in which tools declare the workloads that they create, such as container engines.
//!
//! ```text
//!   folder      reads the files, with their owner and permissions
//!   accept      checks them with the operator's files, and skips what can't be in effect ──► references, graph
//! ```
//!
//! The operator's files are valid without them. A drop-in that is wrong is skipped as a whole, so it never prevents a change of
//! the operator's files, nor of another drop-in.

mod accept;
mod folder;
mod graph;
mod references;

pub(super) use accept::{Operator, accept};
pub(super) use folder::read;
