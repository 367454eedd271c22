//! A thread that sleeps until one descriptor has something to read, and ends when its owner lets go of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// The owner's side: dropping it ends the thread and waits for it.
#[derive(Debug)]
pub struct Worker {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// The thread's side: what it sleeps on.
#[derive(Debug)]
pub struct Sleeper {
    stop: Arc<OwnedFd>,
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The owner has let go: return.
    Stopped,
    /// The descriptor has something to read.
    Readable,
    /// The time is over.
    TimedOut,
}

impl Worker {
    /// Starts `body` on a thread of its own. The thread inherits the caller's network namespace.
    pub fn spawn(name: &str, body: impl FnOnce(Sleeper) + Send + 'static) -> Result<Worker> {
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .with_context(|| format!("make the event that ends thread {name}"))?;
        let stop = Arc::new(stop);
        let sleeper = Sleeper { stop: stop.clone() };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || body(sleeper))
            .with_context(|| format!("start thread {name}"))?;
        Ok(Worker {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An eventfd refuses a write only when its counter is full, and then it is readable already.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("a worker thread ended in a panic");
        }
    }
}

impl Sleeper {
    /// Sleeps until `source` is readable, the owner lets go, or `timeout` is over; `None` waits for ever.
    pub fn sleep(&self, source: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Wake {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        loop {
            let mut waits = vec![PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN)];
            waits.extend(source.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            match rustix::event::poll(&mut waits, timeout.as_ref()) {
                Ok(0) => return Wake::TimedOut,
                Ok(_) if !waits[0].revents().is_empty() => return Wake::Stopped,
                Ok(_) => return Wake::Readable,
                Err(Errno::INTR) => {}
                Err(error) => {
                    // Going on without sleeping would burn a CPU.
                    log::error!("wait for events: {error}: this thread ends");
                    return Wake::Stopped;
                }
            }
        }
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
}
