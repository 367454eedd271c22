//! Jobs at the same time, for pure code whose time is felt.

use std::panic::resume_unwind;
use std::thread;

/// Does both jobs, the first on a thread of its own. A panic of either is the caller's.
pub fn both<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one.join().unwrap_or_else(|panic| resume_unwind(panic));
        (one, other)
    })
}

/// Does a job with each item, on a thread for each; what they give, in the items' order. A panic of one is the caller's.
pub fn each<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    job: impl Fn(I) -> T + Sync,
) -> Vec<T> {
    let job = &job;
    thread::scope(|scope| {
        let items = items.into_iter();
        let threads: Vec<_> = items.map(|item| scope.spawn(move || job(item))).collect();
        let threads = threads.into_iter();
        threads
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done_and_each_keeps_its_place() {
        let words = String::from("one");
        assert_eq!(both(|| words.len(), || "other"), (3, "other"));
    }

    #[test]
    fn each_keeps_its_place() {
        assert_eq!(each(1..5, |number| number * number), [1, 4, 9, 16]);
    }

    #[test]
    fn both_go_on_at_the_same_time() {
        let (sender, receiver) = crossbeam_channel::bounded::<()>(0);
        let (sent, received) = both(|| sender.send(()), || receiver.recv());
        assert!(sent.is_ok() && received.is_ok());
    }

    #[test]
    #[should_panic(expected = "of the first")]
    fn a_panic_is_not_lost() {
        both(|| panic!("of the first"), || ());
    }
}
