//! Loading the programs.

pub mod budget;
pub mod chain;
mod loader;
pub mod map_policy;
pub mod other_root;
mod previous;
mod programs;

pub use loader::{load, load_at};
pub use programs::{LoadedPrograms, pinned_programs};
