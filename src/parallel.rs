//! Parallel jobs for pure code that takes long.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Runs both jobs, the first on its own thread. A panic of either is propagated to the caller.
pub fn both<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one.join().unwrap_or_else(|panic| resume_unwind(panic));
        (one, other)
    })
}

/// Runs a job for each item, in parallel on all CPUs, and returns the results in the order of the items. A panic of a job is
/// propagated to the caller.
pub fn each<I: Sync, T: Send>(items: &[I], job: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((nth, item)) = take(items, &next) {
            done.push((nth, job(item)));
        }
        done
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut done: Vec<(usize, T)> = thread::scope(|scope| {
        let threads: Vec<_> = (1..threads.min(items.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let mut done = work();
        for thread in threads {
            done.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(nth, _)| *nth);
    done.into_iter().map(|(_, done)| done).collect()
}

/// The next item that no thread has taken.
fn take<'i, I>(items: &'i [I], next: &AtomicUsize) -> Option<(usize, &'i I)> {
    let nth = next.fetch_add(1, Ordering::Relaxed);
    items.get(nth).map(|item| (nth, item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_results_are_in_their_order() {
        let words = String::from("one");
        assert_eq!(both(|| words.len(), || "other"), (3, "other"));
    }

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let numbers: Vec<u64> = (0..1000).collect();
        let squares: Vec<u64> = numbers.iter().map(|number| number * number).collect();
        assert_eq!(each(&numbers, |number| number * number), squares);
        assert!(each(&[], |number: &u64| *number).is_empty());
    }

    #[test]
    fn both_run_at_the_same_time() {
        let (sender, receiver) = crossbeam_channel::bounded::<()>(0);
        let patience = std::time::Duration::from_secs(10);
        let receive = || receiver.recv_timeout(patience);
        let (sent, received) = both(|| sender.send_timeout((), patience), receive);
        assert!(sent.is_ok() && received.is_ok());
    }

    #[test]
    #[should_panic(expected = "of the first")]
    fn a_panic_is_propagated() {
        both(|| panic!("of the first"), || ());
    }
}
