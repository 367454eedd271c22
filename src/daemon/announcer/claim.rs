//! One address on one link: whether anybody else has it, by RFC 5227, for IPv6 (RFC 4862) too.
//!
//! ```text
//!   probing ──── three probes, no reply ────► free ──── the datapath answers ────► announced, twice
//!     │  ▲                                     │                                      │  a claim: announced again
//!     │  └──── a minute later ──── conflict ◄──┴──────────────────────────────────────┘  two in ten seconds
//!     └──────── somebody has it ──────▲
//! ```

use std::time::{Duration, Instant};

use crate::model::announce::AnnouncementState;
use crate::model::host::Mac;
use crate::net::neighbour::HeardKind;

/// RFC 5227, 1.1, but half of its times, which count with slower links than Ethernet is.
const PROBES: u32 = 3;
const PROBE_WAIT: (Duration, Duration) = (Duration::ZERO, Duration::from_millis(500));
const PROBE_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_millis(1000));
const ANNOUNCE_WAIT: Duration = Duration::from_secs(1);
/// These are the RFC's.
const ANNOUNCEMENTS: u32 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// The RFC's `RATE_LIMIT_INTERVAL`, and a little more: two hosts that tried at the same time don't do so again.
const RETRY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(70));

/// What is sent to the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Probe,
    Announcement,
}

/// A moment, with a random number for the waits that begin then.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Instant,
    pub random: u32,
}

impl Moment {
    fn after(self, (least, most): (Duration, Duration)) -> Instant {
        let share = f64::from(self.random) / f64::from(u32::MAX);
        self.now + least + (most - least).mul_f64(share)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Probing {
        /// Probes that are still to be sent.
        left: u32,
    },
    /// Nobody else has it, and the datapath does not answer for it yet.
    Free,
    Announced {
        /// Announcements that are still to be sent.
        left: u32,
        /// When somebody else claimed it last.
        defended: Option<Instant>,
    },
    Conflict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    phase: Phase,
    /// When the next step is due.
    due: Option<Instant>,
    /// Who has it. Known while it is probed again, until nobody replies.
    defender: Option<Mac>,
}

impl Claim {
    /// Of an address that nobody is known to have.
    pub fn probe(at: Moment) -> Claim {
        Claim {
            phase: Phase::Probing { left: PROBES },
            due: Some(at.after(PROBE_WAIT)),
            defender: None,
        }
    }

    /// Of one that this host has announced before.
    pub fn adopt() -> Claim {
        Claim {
            phase: Phase::Free,
            due: None,
            defender: None,
        }
    }

    /// The datapath answers for it.
    pub fn confirm(&mut self, now: Instant) {
        if self.phase == Phase::Free {
            self.phase = Phase::Announced {
                left: ANNOUNCEMENTS,
                defended: None,
            };
            self.due = Some(now);
        }
    }

    /// Whether the datapath is to answer for it.
    pub fn is_free(&self) -> bool {
        matches!(self.phase, Phase::Free | Phase::Announced { .. })
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    pub fn state(&self) -> AnnouncementState {
        match self.phase {
            Phase::Announced { .. } => AnnouncementState::Announced,
            // It is tried again: nothing is new before that has an end.
            Phase::Probing { .. } | Phase::Free if self.defender.is_none() => {
                AnnouncementState::Probing
            }
            Phase::Probing { .. } | Phase::Free | Phase::Conflict => AnnouncementState::Conflict,
        }
    }

    pub fn defender(&self) -> Option<Mac> {
        self.defender
    }

    /// The link has another address: others have to learn it.
    pub fn announce_again(&mut self, now: Instant) {
        if let Phase::Announced { left, .. } = &mut self.phase {
            *left = ANNOUNCEMENTS;
            self.due = Some(now);
        }
    }

    /// The next step, if it is due, and what it sends.
    pub fn step(&mut self, at: Moment) -> Option<Message> {
        if self.due.is_none_or(|due| due > at.now) {
            return None;
        }
        match &mut self.phase {
            Phase::Probing { left: 0 } => {
                *self = Claim::adopt();
                None
            }
            Phase::Probing { left } => {
                *left -= 1;
                self.due = Some(match left {
                    0 => at.now + ANNOUNCE_WAIT,
                    _ => at.after(PROBE_INTERVAL),
                });
                Some(Message::Probe)
            }
            Phase::Free => {
                self.due = None;
                None
            }
            Phase::Announced { left, .. } => {
                *left = left.saturating_sub(1);
                self.due = (*left > 0).then(|| at.now + ANNOUNCE_INTERVAL);
                Some(Message::Announcement)
            }
            Phase::Conflict => {
                self.phase = Phase::Probing { left: PROBES };
                self.step(at)
            }
        }
    }

    /// A message of somebody else about the address. `own` is the link's MAC.
    pub fn hear(&mut self, kind: HeardKind, mac: Mac, own: Mac, at: Moment) -> Option<Message> {
        match (&mut self.phase, kind) {
            // Of two hosts that probe at the same time one carries on.
            (Phase::Probing { .. } | Phase::Free, HeardKind::Probe) if mac > own => {}
            (Phase::Probing { .. } | Phase::Free, _) => self.lose(mac, at),
            (Phase::Announced { defended, .. }, HeardKind::Claim) => {
                let is_recent = |then: Instant| at.now.duration_since(then) < DEFEND_INTERVAL;
                if defended.is_some_and(is_recent) {
                    self.lose(mac, at);
                } else {
                    *defended = Some(at.now);
                    return Some(Message::Announcement);
                }
            }
            // The datapath answers.
            (Phase::Announced { .. }, HeardKind::Probe) => {}
            (Phase::Conflict, HeardKind::Claim) => self.defender = Some(mac),
            (Phase::Conflict, HeardKind::Probe) => {}
        }
        None
    }

    fn lose(&mut self, mac: Mac, at: Moment) {
        self.phase = Phase::Conflict;
        self.due = Some(at.after(RETRY));
        self.defender = Some(mac);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 0xb];
    const LOWER: Mac = [2, 0, 0, 0, 0, 0xa];
    const HIGHER: Mac = [2, 0, 0, 0, 0, 0xc];

    /// `probe`, `claim` with the last byte of who says it, `live`, or nothing: time passes.
    fn happen(claim: &mut Claim, what: &str, at: Moment) -> Option<Message> {
        if what == "live" {
            claim.confirm(at.now);
        }
        let (kind, who) = match what.split_once(' ') {
            None => return claim.step(at),
            Some(("probe", who)) => (HeardKind::Probe, who),
            Some((_, who)) => (HeardKind::Claim, who),
        };
        let mac = if who == "a" { LOWER } else { HIGHER };
        claim.hear(kind, mac, OWN, at)
    }

    #[test]
    fn an_address_from_its_first_probe_on() {
        // (milliseconds, what happens, what is sent, the state after that and who has it)
        type Rows = &'static [(u64, &'static str, &'static str, &'static str)];
        let rows: [(&str, Rows); 9] = [
            (
                "nobody has it",
                &[
                    (0, "", "", "probing"),
                    (499, "", "", "probing"),
                    (500, "", "probe", "probing"),
                    (1499, "", "", "probing"),
                    (1500, "", "probe", "probing"),
                    (2500, "", "probe", "probing"),
                    (3499, "", "", "probing"),
                    (3500, "", "", "probing"),
                    (3600, "live", "announcement", "announced"),
                    (5599, "", "", "announced"),
                    (5600, "", "announcement", "announced"),
                    (900_000, "live", "", "announced"),
                ],
            ),
            (
                "somebody replies to the first probe",
                &[
                    (500, "", "probe", "probing"),
                    (501, "claim a", "", "conflict a"),
                    (1500, "", "", "conflict a"),
                    (70_500, "", "", "conflict a"),
                    (70_501, "", "probe", "conflict a"),
                    (70_502, "claim c", "", "conflict c"),
                ],
            ),
            (
                "somebody replies after the last probe",
                &[
                    (500, "", "probe", "probing"),
                    (1500, "", "probe", "probing"),
                    (2500, "", "probe", "probing"),
                    (3499, "claim c", "", "conflict c"),
                ],
            ),
            (
                "who had it is gone a minute later",
                &[
                    (0, "claim a", "", "conflict a"),
                    (70_000, "", "probe", "conflict a"),
                    (71_000, "", "probe", "conflict a"),
                    (72_000, "", "probe", "conflict a"),
                    (73_000, "", "", "probing"),
                    (73_001, "live", "announcement", "announced"),
                ],
            ),
            (
                "two probe at the same time: the lower MAC carries on",
                &[
                    (500, "", "probe", "probing"),
                    (600, "probe c", "", "probing"),
                    (700, "probe a", "", "conflict a"),
                ],
            ),
            (
                "somebody was faster than the datapath",
                &[
                    (500, "", "probe", "probing"),
                    (1500, "", "probe", "probing"),
                    (2500, "", "probe", "probing"),
                    (3500, "", "", "probing"),
                    (3501, "probe c", "", "probing"),
                    (3502, "claim c", "", "conflict c"),
                    (3503, "live", "", "conflict c"),
                ],
            ),
            (
                "it is defended once",
                &[
                    (500, "", "probe", "probing"),
                    (1500, "", "probe", "probing"),
                    (2500, "", "probe", "probing"),
                    (3500, "", "", "probing"),
                    (3500, "live", "announcement", "announced"),
                    (9000, "", "announcement", "announced"),
                    (10_000, "claim a", "announcement", "announced"),
                    (19_999, "claim a", "", "conflict a"),
                ],
            ),
            (
                "and again ten seconds later",
                &[
                    (500, "", "probe", "probing"),
                    (1500, "", "probe", "probing"),
                    (2500, "", "probe", "probing"),
                    (3500, "", "", "probing"),
                    (3500, "live", "announcement", "announced"),
                    (10_000, "claim a", "announcement", "announced"),
                    (20_000, "claim a", "announcement", "announced"),
                ],
            ),
            (
                "a probe of what is announced is for the datapath",
                &[
                    (500, "", "probe", "probing"),
                    (1500, "", "probe", "probing"),
                    (2500, "", "probe", "probing"),
                    (3500, "", "", "probing"),
                    (3500, "live", "announcement", "announced"),
                    (4000, "probe a", "", "announced"),
                ],
            ),
        ];
        for (what, rows) in rows {
            let start = Instant::now();
            let moment = |ms| Moment {
                now: start + Duration::from_millis(ms),
                random: u32::MAX,
            };
            let mut claim = Claim::probe(moment(0));
            for (ms, event, sent, state) in rows {
                let message = happen(&mut claim, event, moment(*ms));
                let message = message.map(|message| format!("{message:?}").to_lowercase());
                assert_eq!(message.unwrap_or_default(), *sent, "{what}, {ms} ms");
                let found = format!("{:?}", claim.state()).to_lowercase();
                let who = claim.defender().map(|mac| format!(" {:x}", mac[5]));
                assert_eq!(found + &who.unwrap_or_default(), *state, "{what}, {ms} ms");
            }
        }
    }

    #[test]
    fn waits_are_random() {
        let start = Instant::now();
        for (random, least) in [(0, 0), (u32::MAX, 500)] {
            let claim = Claim::probe(Moment { now: start, random });
            assert_eq!(claim.due(), Some(start + Duration::from_millis(least)));
        }
    }

    #[test]
    fn what_was_announced_before_is_announced_at_once() {
        let start = Instant::now();
        let at = |seconds| Moment {
            now: start + Duration::from_secs(seconds),
            random: 0,
        };
        let mut claim = Claim::adopt();
        assert!(claim.is_free());
        assert_eq!(claim.step(at(0)), None);
        claim.confirm(start);
        assert_eq!(claim.step(at(0)), Some(Message::Announcement));
        assert_eq!(claim.step(at(2)), Some(Message::Announcement));
        assert_eq!(claim.due(), None);
        claim.announce_again(at(9).now);
        assert_eq!(claim.step(at(9)), Some(Message::Announcement));
        assert_eq!(claim.step(at(11)), Some(Message::Announcement));
        assert_eq!(claim.due(), None);
        claim.hear(HeardKind::Claim, LOWER, OWN, at(20));
        claim.hear(HeardKind::Claim, LOWER, OWN, at(21));
        let before = claim.clone();
        claim.announce_again(at(22).now);
        assert_eq!(claim, before, "another's is not announced");
    }
}
