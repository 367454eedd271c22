//! What the daemon writes: the tables of a generation, and the epoch that makes one live.

pub mod catalog;
pub mod contents;
pub mod encode;
pub mod generation;
pub mod live_epoch;
mod stage;
pub mod staged;
pub mod table;
