//! The one door to the kernel's eBPF: programs, maps, links and the bytes in them.
//!
//! `unsafe` and byte order live here and nowhere else.

pub mod abi;
mod adopt;
pub mod attach;
mod btf;
pub mod budget;
mod carry;
pub mod chain;
mod clsact;
pub mod conntrack;
pub mod counters;
mod encode;
pub mod events;
pub mod gate;
pub mod generation;
pub mod grace;
pub mod hook;
pub mod kept;
mod layout;
mod live;
pub mod load;
mod map;
pub mod memory;
pub mod messages;
pub mod outside;
pub mod pins;
pub mod place;
mod program;
pub mod reader;
pub mod sweep;
mod tcx;
pub mod xdp;
