//! Notifies systemd while the loops that matter make progress (`WatchdogSec=` of the unit). A daemon that stops notifying is
//! killed and restarted; packets are forwarded meanwhile.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::systemd;
use crate::worker::{Wake, Worker};

/// Counts the iterations of a loop, and what it does within a long one.
#[derive(Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn counter(&self) -> Arc<AtomicU64> {
        self.0.clone()
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The loops that are watched.
#[derive(Debug, Default)]
pub struct Pulses {
    pub main: Pulse,
    pub events: Pulse,
}

impl Pulses {
    /// What each loop has done, by its name in the log.
    fn progress(&self) -> [(&'static str, u64); 2] {
        [
            ("the reconciler", self.main.count()),
            ("the reader of events", self.events.count()),
        ]
    }
}

/// A thread that notifies systemd.
#[derive(Debug)]
pub struct Watchdog {
    _worker: Worker,
}

impl Watchdog {
    /// `None`: systemd does not watch this process.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(pulses: Arc<Pulses>) -> Result<Option<Watchdog>> {
        let Some(limit) = limit() else {
            return Ok(None);
        };
        let worker = Worker::spawn("watchdog", move |sleeper| {
            let mut watched = Watched::new(limit / 2, pulses.progress(), Instant::now());
            let mut is_reported = false;
            while sleeper.sleep(None, Some(interval(limit))) != Wake::Stopped {
                let stuck = watched.stuck(pulses.progress(), Instant::now());
                match stuck {
                    None => systemd::notify(systemd::WATCHDOG),
                    Some((name, still)) if !is_reported => log::error!(
                        "{name} has made no progress for {} s: systemd kills and restarts dpd if this continues (WatchdogSec=)",
                        still.as_secs()
                    ),
                    Some(_) => {}
                }
                is_reported = stuck.is_some();
            }
        })?;
        Ok(Some(Watchdog { _worker: worker }))
    }
}

/// How often a loop must iterate at least, so that it counts as alive; `None`: systemd does not watch this process.
pub fn beat_interval() -> Option<Duration> {
    limit().map(interval)
}

/// Several in each half of the limit.
fn interval(limit: Duration) -> Duration {
    limit / 6
}

/// `sd_watchdog_enabled(3)`
fn limit() -> Option<Duration> {
    limit_of(
        env::var("WATCHDOG_USEC").ok()?.as_str(),
        env::var("WATCHDOG_PID").ok().as_deref(),
        std::process::id(),
    )
}

fn limit_of(microseconds: &str, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
    let limit = Duration::from_micros(microseconds.parse().ok()?);
    (is_ours && !limit.is_zero()).then_some(limit)
}

/// Since when each loop has done nothing.
#[derive(Debug)]
struct Watched<const N: usize> {
    patience: Duration,
    last: [(u64, Instant); N],
}

impl<const N: usize> Watched<N> {
    fn new(patience: Duration, progress: [(&str, u64); N], now: Instant) -> Watched<N> {
        Watched {
            patience,
            last: progress.map(|(_, count)| (count, now)),
        }
    }

    /// The first loop that has made no progress for too long, and for how long.
    fn stuck(
        &mut self,
        progress: [(&'static str, u64); N],
        now: Instant,
    ) -> Option<(&'static str, Duration)> {
        for (last, (_, count)) in self.last.iter_mut().zip(progress) {
            if last.0 != count {
                *last = (count, now);
            }
        }
        let still = self.last.map(|(_, since)| now.duration_since(since));
        let stuck = progress.into_iter().zip(still);
        let mut stuck = stuck.filter(|(_, still)| *still > self.patience);
        stuck.next().map(|((name, _), still)| (name, still))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_limit_for_this_process_counts() {
        let rows = [
            ("2000000", None, Some(2)),
            ("2000000", Some("7"), Some(2)),
            ("2000000", Some("8"), None),
            ("2000000", Some("seven"), None),
            ("0", None, None),
            ("", None, None),
        ];
        for (microseconds, pid, seconds) in rows {
            let limit = limit_of(microseconds, pid, 7);
            assert_eq!(
                limit,
                seconds.map(Duration::from_secs),
                "{microseconds} {pid:?}"
            );
        }
    }

    #[test]
    fn a_loop_is_stuck_once_its_count_has_stood_still_for_too_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watched = Watched::new(Duration::from_secs(30), [("a", 0), ("b", 0)], start);
        let rows = [
            (10, [1, 1], None),
            (30, [1, 2], None),
            (40, [1, 3], None),
            (41, [1, 4], Some(("a", 31))),
            (50, [2, 5], None),
            (80, [3, 5], None),
            (81, [4, 5], Some(("b", 31))),
            (90, [4, 6], None),
        ];
        for (seconds, [a, b], wanted) in rows {
            let stuck = watched.stuck([("a", a), ("b", b)], at(seconds));
            let wanted = wanted.map(|(name, still)| (name, Duration::from_secs(still)));
            assert_eq!(stuck, wanted, "after {seconds} s");
        }
    }
}
