//! The one door to the kernel's eBPF: programs, maps, links and the bytes in them.
//!
//! `unsafe` and the byte order of maps live here and nowhere else. The rooms, each of which uses those above it only:
//!
//! | room | holds |
//! |---|---|
//! | [`abi`], [`image`] | the types that programs and daemon share; the compiled programs |
//! | [`sys`] | system calls with errors that name the operation; maps, programs, types, pins |
//! | [`attach`] | the table of hooks; programs on tc and XDP hooks |
//! | [`tables`] | what the daemon writes: the tables of a generation, and the live epoch |
//! | [`state`] | what programs write: connections, counters, events |
//! | [`takeover`] | which datapath is there, and how its maps get into this one |
//! | [`load`] | the programs: loaded, pinned, chained |
//! | [`reader`] | what the kernel holds, for listings, status and metrics |

pub mod abi;
pub mod attach;
pub mod image;
pub mod load;
pub mod reader;
pub mod state;
pub mod sys;
pub mod tables;
pub mod takeover;
