//! Changes between two generations, and what they do to open connections.

mod diff;
mod effect;
mod impact;
mod line;
mod moved_share;
mod object;
mod objects;
mod rules;
mod state_view;

pub use diff::{diff, resized};
pub use effect::{Effect, MovedShare, Outcome};
pub use impact::{Impact, ImpactAnalysis, add_effects};
pub use line::Change;
pub use object::Object;
