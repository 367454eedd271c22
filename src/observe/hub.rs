//! Distributes flows to observers, and keeps the last ones for those that connect later.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::filter::Filter;
use super::protocol::Observe;
use crate::model::flow::Flow;

/// Takes flows from one publisher to any number of watchers.
pub struct Hub {
    inner: Mutex<Inner>,
    /// Flows that watchers were too slow for, in total.
    lost: AtomicU64,
    sizes: Sizes,
}

/// How many flows are kept.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// As history.
    pub recent: usize,
    /// For each watcher, until it reads them.
    pub queue: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes {
            recent: 8192,
            queue: 4096,
        }
    }
}

struct Inner {
    recent: VecDeque<Arc<Flow>>,
    watchers: Vec<Watcher>,
}

/// The hub's end of a watcher.
struct Watcher {
    filter: Filter,
    queue: Sender<Arc<Flow>>,
    lost: Arc<AtomicU64>,
}

impl Watcher {
    /// The counter is shared with the other end alone: the last reference means that end is dropped.
    fn is_gone(&self) -> bool {
        Arc::strong_count(&self.lost) == 1
    }
}

/// A watcher's own end. Dropping it unsubscribes.
pub struct Watch {
    pub flows: Receiver<Arc<Flow>>,
    lost: Arc<AtomicU64>,
}

impl Watch {
    /// How many flows found the queue full since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl Hub {
    pub fn new(sizes: Sizes) -> Hub {
        Hub {
            inner: Mutex::new(Inner {
                recent: VecDeque::new(),
                watchers: Vec::new(),
            }),
            lost: AtomicU64::new(0),
            sizes,
        }
    }

    /// Queues a flow for every watcher whose filter it passes. A watcher whose queue is full loses it: publishing never
    /// blocks.
    pub fn publish(&self, flow: Arc<Flow>) {
        let mut inner = self.lock();
        if inner.recent.len() >= self.sizes.recent {
            inner.recent.pop_front();
        }
        inner.watchers.retain(|watcher| !watcher.is_gone());
        for watcher in &inner.watchers {
            if !watcher.filter.matches(&flow) {
                continue;
            }
            if let Err(TrySendError::Full(_)) = watcher.queue.try_send(flow.clone()) {
                watcher.lost.fetch_add(1, Ordering::Relaxed);
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        inner.recent.push_back(flow);
    }

    /// The requested flows of the history, oldest first, and a watch that continues after them without a gap.
    pub fn observe(&self, request: Observe) -> (Vec<Arc<Flow>>, Option<Watch>) {
        let mut inner = self.lock();
        inner.watchers.retain(|watcher| !watcher.is_gone());
        let mut last: Vec<Arc<Flow>> = inner
            .recent
            .iter()
            .rev()
            .filter(|flow| request.filter.matches(flow))
            .take(request.last)
            .cloned()
            .collect();
        last.reverse();
        let watch = request.follow.then(|| {
            let (queue, flows) = bounded(self.sizes.queue);
            let lost = Arc::new(AtomicU64::new(0));
            inner.watchers.push(Watcher {
                filter: request.filter,
                queue,
                lost: lost.clone(),
            });
            Watch { flows, lost }
        });
        (last, watch)
    }

    /// Flows that watchers were too slow for since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// A poisoned lock is used on: no panic under it leaves `Inner` inconsistent.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::samples::{denied, request};

    fn numbered(bytes: u32) -> Arc<Flow> {
        Arc::new(Flow { bytes, ..request() })
    }

    fn follow() -> Observe {
        Observe {
            follow: true,
            ..Observe::default()
        }
    }

    fn numbers(flows: impl IntoIterator<Item = Arc<Flow>>) -> Vec<u32> {
        flows.into_iter().map(|flow| flow.bytes).collect()
    }

    #[test]
    fn the_history_is_bounded() {
        let hub = Hub::new(Sizes {
            recent: 4,
            queue: 4,
        });
        (1..=6).for_each(|number| hub.publish(numbered(number)));
        // (requested, got)
        let rows = [
            (0, vec![]),
            (1, vec![6]),
            (3, vec![4, 5, 6]),
            (4, vec![3, 4, 5, 6]),
            (99, vec![3, 4, 5, 6]),
        ];
        for (last, expected) in rows {
            let (flows, watch) = hub.observe(Observe {
                last,
                ..Observe::default()
            });
            assert_eq!(numbers(flows), expected, "the last {last}");
            assert!(watch.is_none());
        }
    }

    #[test]
    fn last_counts_the_flows_that_pass_the_filter() {
        let hub = Hub::new(Sizes::default());
        hub.publish(numbered(1));
        hub.publish(Arc::new(denied()));
        hub.publish(numbered(2));
        let mut request = Observe {
            last: 1,
            ..Observe::default()
        };
        request.filter.only.verdict = vec!["dropped".to_owned()];
        assert_eq!(numbers(hub.observe(request).0), [60]);
    }

    #[test]
    fn a_watch_continues_where_the_history_ends() {
        let hub = Hub::new(Sizes::default());
        hub.publish(numbered(1));
        let (last, watch) = hub.observe(Observe {
            last: 9,
            ..follow()
        });
        hub.publish(numbered(2));
        assert_eq!(numbers(last), [1]);
        assert_eq!(numbers(watch.unwrap().flows.try_iter()), [2]);
    }

    #[test]
    fn a_slow_watcher_loses_flows_and_gets_their_count() {
        let hub = Hub::new(Sizes {
            recent: 4,
            queue: 2,
        });
        let slow = hub.observe(follow()).1.unwrap();
        let quick = hub.observe(follow()).1.unwrap();
        let mut filtered = follow();
        filtered.filter.only.verdict = vec!["dropped".to_owned()];
        let filtered = hub.observe(filtered).1.unwrap();
        let mut seen = Vec::new();
        for number in 1..=5 {
            hub.publish(numbered(number));
            seen.extend(numbers(quick.flows.try_iter()));
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        assert_eq!(numbers(slow.flows.try_iter()), [1, 2]);
        assert_eq!(
            [slow.take_lost(), slow.take_lost(), quick.take_lost()],
            [3, 0, 0]
        );
        assert_eq!(filtered.take_lost(), 0, "filtered flows are not lost");
        assert_eq!(hub.lost(), 3);
    }

    #[test]
    fn a_dropped_watch_is_removed() {
        let hub = Hub::new(Sizes::default());
        for _ in 0..3 {
            drop(hub.observe(follow()));
        }
        hub.publish(numbered(1));
        assert!(hub.lock().watchers.is_empty());
        assert_eq!(hub.lost(), 0);
    }
}
