//! What a change does to connections, in numbers.

use std::fmt;

/// What a change does to one connection that does not simply go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ended,
    Moved,
    Released,
}

/// Which share of a service's new connections a change moves to another backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedShare {
    /// Of a million connections, rounded up.
    pub per_million: u32,
    /// The service loses no backend by the change, so it moves no open connection.
    pub keeps_backends: bool,
    /// Clients keep their backends by affinity, so it is the share of those that have none.
    pub keeps_clients: bool,
}

impl fmt::Display for MovedShare {
    /// `10.3 % of new connections go to another backend, no open one does`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = ((self.per_million + 500) / 1000).max(1); // it is not nothing
        let (whole, tenth) = (tenths / 10, tenths % 10);
        let of = match self.keeps_clients {
            true => "new clients' connections",
            false => "new connections",
        };
        write!(f, "{whole}.{tenth} % of {of} go to another backend")?;
        match self.keeps_backends {
            true => write!(f, ", no open one does"),
            false => Ok(()),
        }
    }
}

/// How many open connections a change affects, and how; and which share of new ones.
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
    /// Of a service that picks by a hash.
    pub moved_share: Option<MovedShare>,
}

impl Effect {
    pub fn is_empty(&self) -> bool {
        self.connections() == 0 && self.moved_share.is_none()
    }

    /// All open ones that the change affects.
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
        match self.moved_share {
            Some(share) if self.connections() > 0 => write!(f, "; {share}"),
            Some(share) => write!(f, "{share}"),
            None => Ok(()),
        }
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
        let share = |per_million, keeps_backends, before| Effect {
            moved_share: Some(MovedShare {
                per_million,
                keeps_backends,
                keeps_clients: false,
            }),
            ..before
        };
        let mut of_clients = share(102_840, true, effect(0, 0, 0, false));
        if let Some(share) = &mut of_clients.moved_share {
            share.keeps_clients = true;
        }
        let rows = [
            (effect(0, 0, 0, true), ""),
            (
                share(102_840, true, effect(0, 0, 0, false)),
                "10.3 % of new connections go to another backend, no open one does",
            ),
            (
                of_clients,
                "10.3 % of new clients' connections go to another backend, no open one does",
            ),
            (
                share(1, false, effect(0, 0, 0, false)),
                "0.1 % of new connections go to another backend",
            ),
            (
                share(1_000_000, false, effect(3, 0, 0, false)),
                "3 connections end; 100.0 % of new connections go to another backend",
            ),
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
