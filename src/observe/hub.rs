//! Hands flows to those who watch, and remembers the last ones for those who come later.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::filter::Filter;
use super::protocol::Observe;
use crate::model::flow::Flow;

/// Where flows come in on one side and go to any number of watchers on the other.
pub struct Hub {
    inner: Mutex<Inner>,
    /// Flows that watchers were too slow for, all together.
    lost: AtomicU64,
    sizes: Sizes,
}

/// Flows that are kept.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// For those who come later.
    pub recent: usize,
    /// For each watcher, until it takes them.
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
    /// The counter is shared with the other end alone: when nobody else holds it, that end is gone.
    fn is_gone(&self) -> bool {
        Arc::strong_count(&self.lost) == 1
    }
}

/// A watcher's own end. Dropping it ends the watching.
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

    /// Offers a flow to every watcher whose filter it passes. A watcher whose queue is full loses it: whoever
    /// publishes is never held up.
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

    /// The last flows that were asked for, oldest first, and the watch that goes on after them without a gap.
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

    /// Nothing that is done under the lock leaves it half done: a panic elsewhere is no reason to stop.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
