//! The drops of the last minute: the growth of the drop counters from sample to sample.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::status::{Amount, Metric, RecentDrops};

/// How far it reaches back.
const SPAN: Duration = Duration::from_secs(60);

/// A drop counter: interface, reason, and whether its direction is egress.
type Key = (u32, u8, bool);

/// The growth of the drop counters, in steps of the last minute.
#[derive(Debug, Default)]
pub struct History {
    last: Option<Sample>,
    /// Each with the time of its first sample.
    steps: VecDeque<(Instant, BTreeMap<u8, Amount>)>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    counters: HashMap<Key, Amount>,
}

fn drops(metrics: &[Metric]) -> HashMap<Key, Amount> {
    let drops = metrics.iter().filter(|metric| metric.reason != 0);
    drops
        .map(|metric| {
            let key = (metric.ifindex, metric.reason, metric.direction == "egress");
            let amount = Amount {
                packets: metric.packets,
                bytes: metric.bytes,
            };
            (key, amount)
        })
        .collect()
}

impl Sample {
    /// The growth from this sample to a later one. A counter that is smaller there was reset.
    fn growth(&self, later: &HashMap<Key, Amount>) -> BTreeMap<u8, Amount> {
        let mut growth: BTreeMap<u8, Amount> = BTreeMap::new();
        for (key, now) in later {
            let before = self.counters.get(key).copied().unwrap_or_default();
            let before = match now.packets < before.packets || now.bytes < before.bytes {
                true => Amount::default(),
                false => before,
            };
            let more = Amount {
                packets: now.packets - before.packets,
                bytes: now.bytes - before.bytes,
            };
            if more.packets > 0 {
                *growth.entry(key.1).or_default() += more;
            }
        }
        growth
    }
}

impl History {
    /// Takes a sample of the counters.
    pub fn sample(&mut self, metrics: &[Metric], now: Instant) {
        let counters = drops(metrics);
        if let Some(last) = &self.last {
            self.steps.push_back((last.at, last.growth(&counters)));
        }
        while self
            .steps
            .front()
            .is_some_and(|(start, _)| now.duration_since(*start) > SPAN)
        {
            self.steps.pop_front();
        }
        self.last = Some(Sample { at: now, counters });
    }

    /// The drops up to now, by these counters; `None` before the first sample.
    pub fn recent(&self, metrics: &[Metric], now: Instant) -> Option<RecentDrops> {
        let last = self.last.as_ref()?;
        let mut by_reason = last.growth(&drops(metrics));
        let mut start = last.at;
        for (step, growth) in &self.steps {
            if now.duration_since(*step) > SPAN {
                continue;
            }
            start = start.min(*step);
            for (reason, amount) in growth {
                *by_reason.entry(*reason).or_default() += *amount;
            }
        }
        Some(RecentDrops {
            seconds: now.duration_since(start).as_secs(),
            by_reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(ifindex: u32, reason: u8, packets: u64) -> Metric {
        Metric {
            ifindex,
            direction: "ingress".to_owned(),
            reason,
            reason_text: String::new(),
            packets,
            bytes: packets * 100,
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_the_last_minute_counts() {
        let start = Instant::now();
        let mut history = History::default();
        let drops = |history: &History, packets, at| {
            let recent = history.recent(&[counter(1, 133, packets)], start + seconds(at));
            let recent = recent.expect("there was a sample");
            let amount = recent.by_reason.get(&133).copied().unwrap_or_default();
            assert_eq!(amount.bytes, amount.packets * 100);
            (recent.seconds, amount.packets)
        };
        assert_eq!(history.recent(&[], start), None, "no sample yet");
        history.sample(&[counter(1, 133, 1000)], start);
        assert_eq!(
            drops(&history, 1000, 0),
            (0, 0),
            "drops before the first sample are not recent"
        );
        assert_eq!(drops(&history, 1003, 2), (2, 3), "one sample suffices");
        // One packet and one sample every five seconds.
        for step in 1..=24 {
            history.sample(&[counter(1, 133, 1000 + step)], start + seconds(5 * step));
        }
        assert_eq!(drops(&history, 1024, 120), (60, 12), "a minute of them");
        assert_eq!(
            drops(&history, 1025, 123),
            (58, 12),
            "the oldest step is past"
        );
        assert!(history.steps.len() <= 13, "old steps are removed");
    }

    #[test]
    fn counters_come_and_go() {
        let start = Instant::now();
        let mut history = History::default();
        history.sample(&[counter(1, 133, 50), counter(2, 133, 7)], start);
        let now = [
            counter(1, 133, 3),
            counter(3, 133, 2),
            counter(3, 221, 4),
            counter(3, 0, 99),
        ];
        let recent = history.recent(&now, start + seconds(1)).unwrap();
        let packets: Vec<(u8, u64)> = recent
            .by_reason
            .iter()
            .map(|(reason, amount)| (*reason, amount.packets))
            .collect();
        // 3 of the reset one, 2 and 4 of the new ones, nothing of the removed one or of forwarded packets.
        assert_eq!(packets, [(133, 5), (221, 4)]);
    }
}
