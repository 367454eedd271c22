//! How programs are attached to tc hooks, and what is found there.

use super::hook::Hook;

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Tcx,
    Clsact,
}

impl Mechanism {
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Tcx => "tcx",
            Mechanism::Clsact => "clsact",
        }
    }
}

/// One of our programs on a hook, and the programs that see packets before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub program: Hook,
    pub mechanism: Mechanism,
    pub other_programs_first: Vec<String>,
}
