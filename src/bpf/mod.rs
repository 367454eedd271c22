//! The one door to the kernel's eBPF: programs, maps, links and the bytes in them.
//!
//! `unsafe` and byte order live here and nowhere else.

pub mod abi;
pub mod attach;
pub mod conntrack;
mod encode;
pub mod events;
pub mod generation;
mod live;
pub mod load;
mod map;
pub mod pins;
mod program;
pub mod reader;
