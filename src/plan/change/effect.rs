//! What a change does to open connections, in numbers.

use std::fmt;

/// What a change does to one connection that does not simply go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ended,
    Moved,
    Released,
}

/// How many open connections a change affects, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Their next packet is dropped or rejected.
    pub ended: u64,
    /// Their next packet starts a new connection to another backend.
    pub moved: u64,
    /// They go on, past dpd.
    pub released: u64,
    /// Their entries are lost: the next packet starts a new connection, if its protocol and `conntrack.strict` allow that.
    pub forgotten: u64,
    /// The counts are a lower bound.
    pub is_least: bool,
}

impl Effect {
    pub fn is_empty(&self) -> bool {
        self.connections() == 0
    }

    /// All that the change affects.
    pub fn connections(&self) -> u64 {
        self.ended + self.moved + self.released + self.forgotten
    }

    pub(super) fn add(&mut self, outcome: Outcome, connections: u64) {
        match outcome {
            Outcome::Ended => self.ended += connections,
            Outcome::Moved => self.moved += connections,
            Outcome::Released => self.released += connections,
        }
    }
}

impl fmt::Display for Effect {
    /// `14 connections end, 3 move to another backend`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_or_more = |n| if n == 1 { 0 } else { 1 };
        let parts = [
            (self.ended, ["ends", "end"]),
            (
                self.moved,
                ["moves to another backend", "move to another backend"],
            ),
            (self.released, ["goes on without dpd", "go on without dpd"]),
            (self.forgotten, ["is forgotten", "are forgotten"]),
        ];
        let parts = parts.into_iter().filter(|(n, _)| *n > 0);
        for (nth, (n, words)) in parts.enumerate() {
            let number = one_or_more(n);
            let noun = match nth {
                0 => [" connection", " connections"][number],
                _ => "",
            };
            let before = match nth {
                0 if self.is_least => "at least ",
                0 => "",
                _ => ", ",
            };
            write!(f, "{before}{n}{noun} {}", words[number])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_in_words() {
        let effect = |ended, moved, released, is_least| Effect {
            ended,
            moved,
            released,
            is_least,
            ..Effect::default()
        };
        let forgotten = Effect {
            forgotten: 9,
            ..effect(2, 0, 0, true)
        };
        let rows = [
            (effect(0, 0, 0, true), ""),
            (effect(1, 0, 0, false), "1 connection ends"),
            (
                effect(2, 1, 0, false),
                "2 connections end, 1 moves to another backend",
            ),
            (
                effect(0, 0, 3, true),
                "at least 3 connections go on without dpd",
            ),
            (forgotten, "at least 2 connections end, 9 are forgotten"),
        ];
        for (effect, words) in rows {
            assert_eq!(effect.to_string(), words);
        }
    }
}
