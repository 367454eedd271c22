//! Threads with an owner: a task, which runs to its end, and a worker, which runs until its owner drops it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// A thread that computes one result. Dropping it waits for the thread.
#[derive(Debug)]
pub struct Task<T> {
    name: String,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `body` on a thread of its own. The thread inherits the caller's network namespace.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn spawn(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<Task<T>> {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .with_context(|| format!("start thread {name}"))?;
        Ok(Task {
            name: name.to_owned(),
            thread: Some(thread),
        })
    }

    /// Waits for the result; `None` if the thread panicked.
    pub fn join(mut self) -> Option<T> {
        self.take()
    }
}

impl<T> Task<T> {
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn take(&mut self) -> Option<T> {
        let result = self.thread.take()?.join();
        if result.is_err() {
            log::error!("thread {} panicked", self.name);
        }
        result.ok()
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.take();
    }
}

/// The owner's side of a worker: dropping it ends the thread and waits for it.
#[derive(Debug)]
pub struct Worker {
    stop: Arc<OwnedFd>,
    /// Joined after `drop` has raised the stop event.
    _task: Task<()>,
}

/// The thread's side: it sleeps until its owner drops the worker, or one of its descriptors is readable.
#[derive(Debug)]
pub struct Sleeper {
    stop: Arc<OwnedFd>,
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The owner has dropped the worker: return.
    Stopped,
    /// The descriptor is readable.
    Readable,
    TimedOut,
}

impl Worker {
    /// Starts `body` on a thread of its own. The thread inherits the caller's network namespace.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn spawn(name: &str, body: impl FnOnce(Sleeper) + Send + 'static) -> Result<Worker> {
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .with_context(|| format!("create the stop event of thread {name}"))?;
        let stop = Arc::new(stop);
        let sleeper = Sleeper { stop: stop.clone() };
        let task = Task::spawn(name, move || body(sleeper))?;
        Ok(Worker { stop, _task: task })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An eventfd refuses a write only when its counter is full, and then it is readable already.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
    }
}

impl Sleeper {
    /// Sleeps until `source` is readable, the owner drops the worker, or `timeout` is over; `None` waits for ever.
    pub fn sleep(&self, source: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Wake {
        self.sleep_on(source, timeout)
    }

    /// The same with any number of sources.
    pub fn sleep_on<'a>(
        &self,
        sources: impl IntoIterator<Item = BorrowedFd<'a>>,
        timeout: Option<Duration>,
    ) -> Wake {
        let sources: Vec<BorrowedFd<'_>> = sources.into_iter().collect();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        loop {
            let mut waits = vec![PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN)];
            let sources = sources.iter();
            waits.extend(sources.map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
            match rustix::event::poll(&mut waits, timeout.as_ref()) {
                Ok(0) => return Wake::TimedOut,
                Ok(_) if !waits[0].revents().is_empty() => return Wake::Stopped,
                Ok(_) => return Wake::Readable,
                Err(Errno::INTR) => {}
                Err(error) => {
                    // Without the sleep the thread would loop at full speed.
                    log::error!("wait for events: {error}: this thread ends");
                    return Wake::Stopped;
                }
            }
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.sleep(None, Some(Duration::ZERO)) == Wake::Stopped
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn dropping_the_owner_ends_a_thread_that_sleeps_for_ever() {
        let (ended, end) = crossbeam_channel::bounded(1);
        let worker = Worker::spawn("test", move |sleeper| {
            let wake = sleeper.sleep(None, None);
            ended.send(wake).unwrap();
        })
        .unwrap();
        drop(worker);
        assert_eq!(end.try_recv(), Ok(Wake::Stopped));
    }

    #[test]
    fn a_sleep_ends_by_its_time_or_by_its_descriptor() {
        let (result, results) = crossbeam_channel::bounded(2);
        let (reader, writer) = std::io::pipe().unwrap();
        let _worker = Worker::spawn("test", move |sleeper| {
            let time = sleeper.sleep(Some(reader.as_fd()), Some(Duration::from_millis(1)));
            result.send(time).unwrap();
            let readable = sleeper.sleep(Some(reader.as_fd()), None);
            result.send(readable).unwrap();
        })
        .unwrap();
        assert_eq!(results.recv(), Ok(Wake::TimedOut));
        (&writer).write_all(b"x").unwrap();
        assert_eq!(results.recv(), Ok(Wake::Readable));
    }

    #[test]
    fn a_stop_is_seen_without_sleeping() {
        let (result, results) = crossbeam_channel::bounded(2);
        let worker = Worker::spawn("test", move |sleeper| {
            result.send(sleeper.is_stopped()).unwrap();
            sleeper.sleep(None, None);
            result.send(sleeper.is_stopped()).unwrap();
        })
        .unwrap();
        assert_eq!(results.recv(), Ok(false));
        drop(worker);
        assert_eq!(results.recv(), Ok(true));
    }

    #[test]
    fn a_task_returns_its_result_and_a_panic_is_none() {
        assert_eq!(Task::spawn("test", || 7).unwrap().join(), Some(7));
        let panics = Task::<u32>::spawn("test", || panic!("expected by the test")).unwrap();
        assert_eq!(panics.join(), None);
    }
}
