//! The host's stack as plans are made for it: a tool that rewrites its rules many times a second does not make as many
//! generations.
//!
//! It is looked at once a second at most. A filter that puts an uplink on the stack's way is followed at once, so that no
//! packet bypasses it for long; all else only once the stack has been the same for a while.

use std::time::{Duration, Instant};

use crate::model::forwarding::{HostStack, StackFilter, StackHook};

/// The shortest time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the stack is unchanged before packets go past what was there.
const SETTLE_TIME: Duration = Duration::from_secs(30);

pub struct HeldStack {
    /// What plans are made for.
    held: HostStack,
    /// What the last look has found, and the time since which all looks have found it.
    seen: HostStack,
    since: Instant,
    looked: Instant,
    /// Something may have changed since.
    is_stirred: bool,
}

impl HeldStack {
    pub fn new(seen: HostStack, now: Instant) -> HeldStack {
        HeldStack {
            held: seen.clone(),
            seen,
            since: now,
            looked: now,
            is_stirred: false,
        }
    }

    pub fn held(&self) -> &HostStack {
        &self.held
    }

    /// The stack may have changed.
    pub fn stir(&mut self) {
        self.is_stirred = true;
    }

    /// The time of the next look; `None`: not before it is stirred.
    pub fn next_look(&self) -> Option<Instant> {
        if self.is_stirred {
            return Some(self.looked + LOOK_INTERVAL);
        }
        let settled = (self.since + SETTLE_TIME).max(self.looked + LOOK_INTERVAL);
        (self.held != self.seen).then_some(settled)
    }

    /// A look failed; the next one is when it is stirred again.
    pub fn look_failed(&mut self, now: Instant) {
        self.looked = now;
        self.is_stirred = false;
        // What was not seen is not known to be unchanged.
        self.since = now;
    }

    /// Takes what a look has found. Returns whether plans are made for something else now.
    pub fn look(&mut self, seen: HostStack, now: Instant) -> bool {
        self.looked = now;
        self.is_stirred = false;
        if seen != self.seen {
            self.seen = seen;
            self.since = now;
        }
        if self.held == self.seen {
            return false;
        }
        if now.duration_since(self.since) >= SETTLE_TIME {
            self.held = self.seen.clone();
            return true;
        }
        let mut seen = self.seen.filters.iter();
        let is_urgent = seen.any(|filter| !self.is_covered(filter));
        if is_urgent {
            // With those before: none of them is known to be gone for good.
            self.held.filters.extend(self.seen.filters.iter().cloned());
        }
        is_urgent
    }

    /// Whether the uplinks that a filter concerns are on the stack's way anyway.
    fn is_covered(&self, filter: &StackFilter) -> bool {
        let mut held = self.held.filters.iter().map(|held| &held.hook);
        match &filter.hook {
            StackHook::Bridge => true, // no uplink
            StackHook::Interface(_) => held.any(|hook| *hook == filter.hook || is_of_all(hook)),
            _ => held.any(is_of_all),
        }
    }
}

/// Whether it concerns every uplink.
fn is_of_all(hook: &StackHook) -> bool {
    match hook {
        StackHook::Forward | StackHook::Routing | StackHook::Xfrm => true,
        StackHook::Interface(_) | StackHook::Bridge => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::families::Families;

    /// Filters by their names, of which the first letter is the hook's.
    fn stack(names: &str) -> HostStack {
        let filter = |name: &str| StackFilter {
            hook: match name.as_bytes()[0] {
                b'f' => StackHook::Forward,
                b'n' => StackHook::Routing,
                b'b' => StackHook::Bridge,
                _ => StackHook::Interface(name.to_owned()),
            },
            name: name.to_owned(),
            why: "has rules",
            translates: Families::NONE,
        };
        HostStack {
            filters: names.split_whitespace().map(filter).collect(),
            filters_bridged: false,
        }
    }

    fn names(stack: &HostStack) -> String {
        let names = stack.filters.iter().map(|filter| filter.name.as_str());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn to_the_stack_at_once_and_back_after_a_while() {
        // (second, what the look finds, what plans are made for then)
        type Rows = &'static [(u64, &'static str, &'static str)];
        let rows: [(&str, &str, Rows); 8] = [
            ("a filter", "", &[(1, "f1", "f1")]),
            (
                "and another one of the same way",
                "f1",
                &[
                    (1, "f1 n1", "f1"),
                    (30, "f1 n1", "f1"),
                    (31, "f1 n1", "f1 n1"),
                ],
            ),
            (
                "none any more",
                "f1",
                &[(1, "", "f1"), (30, "", "f1"), (31, "", "")],
            ),
            (
                "none for a moment",
                "f1",
                &[
                    (1, "", "f1"),
                    (29, "f1", "f1"),
                    (30, "", "f1"),
                    (59, "", "f1"),
                    (60, "", ""),
                ],
            ),
            (
                "one that replaces another",
                "f1",
                &[(1, "f2", "f1"), (31, "f2", "f2")],
            ),
            (
                "an uplink's own, and that of all after it",
                "",
                &[
                    (1, "ens5", "ens5"),
                    (2, "f1", "f1 ens5"),
                    (31, "f1", "f1 ens5"),
                    (32, "f1", "f1"),
                ],
            ),
            (
                "another uplink's, when all have left",
                "f1",
                &[
                    (1, "", "f1"),
                    (31, "", ""),
                    (32, "ens6", "ens6"),
                    (33, "ens5", "ens5 ens6"),
                    (63, "ens5", "ens5"),
                ],
            ),
            (
                "a bridge's is not urgent",
                "",
                &[(1, "b1", ""), (31, "b1", "b1")],
            ),
        ];
        for (what, before, looks) in rows {
            let start = Instant::now();
            let mut stack_now = HeldStack::new(stack(before), start);
            for (second, seen, expected) in looks {
                let before = names(stack_now.held());
                let has_changed = stack_now.look(stack(seen), start + Duration::from_secs(*second));
                let after = names(stack_now.held());
                assert_eq!(after, *expected, "{what}, second {second}");
                assert_eq!(has_changed, before != after, "{what}, second {second}");
            }
        }
    }

    #[test]
    fn a_tool_that_rewrites_its_rules_makes_one_generation() {
        let start = Instant::now();
        let mut held = HeldStack::new(stack(""), start);
        let (mut looks, mut changes) = (0, 0);
        // Ten times a second for five minutes: the rules are removed and added.
        for tenth in 1..=3000u32 {
            let now = start + Duration::from_millis(100) * tenth;
            held.stir();
            if held.next_look().is_some_and(|next| next <= now) {
                looks += 1;
                let seen = if looks % 2 == 0 { "" } else { "f1" };
                changes += u32::from(held.look(stack(seen), now));
            }
        }
        assert_eq!((looks, changes), (300, 1));
        // Then they stay away: two looks, one change.
        let mut times = Vec::new();
        held.stir();
        while let Some(next) = held.next_look() {
            let has_changed = held.look(stack(""), next);
            times.push((next.duration_since(start).as_secs(), has_changed));
        }
        assert_eq!(times, [(301, false), (330, true)]);
    }

    #[test]
    fn a_failed_look_does_not_count_as_unchanged() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut held = HeldStack::new(stack("f1"), start);
        assert!(!held.look(stack(""), at(1)));
        held.look_failed(at(20));
        assert_eq!(held.next_look(), Some(at(50)));
        assert!(!held.look(stack(""), at(31)));
        assert!(held.look(stack(""), at(50)));
        assert_eq!(held.next_look(), None);
    }
}
