//! The one door to the kernel's eBPF: programs, maps, links and the bytes in them.
//!
//! `unsafe` and byte order live here and nowhere else.

pub mod abi;
pub mod attach;
pub mod budget;
pub mod chain;
mod clsact;
pub mod conntrack;
pub mod counters;
mod encode;
pub mod events;
pub mod gate;
pub mod generation;
pub mod kept;
mod live;
pub mod load;
mod map;
pub mod memory;
pub mod messages;
pub mod pins;
mod program;
pub mod reader;
pub mod sweep;
mod tcx;
pub mod xdp;
