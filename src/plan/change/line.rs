//! One line of a plan.

use std::fmt::{self, Display};

use super::effect::Effect;
use super::object::{Object, join_words};

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `+` added, `~` changed, `-` removed.
    pub sign: char,
    pub object: Object,
    /// The properties of a new object, or those that change; may be empty.
    pub detail: String,
    /// What it does to open connections, if these have been counted.
    pub effect: Effect,
}

impl Change {
    /// The line without its sign and its effect.
    pub fn text(&self) -> String {
        join_words(&[self.object.kind, &self.object.name, &self.detail])
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sign, self.text())?;
        match self.effect.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.effect),
        }
    }
}
