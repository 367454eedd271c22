//! Watches the configuration file: wakes the daemon once a change has settled.
//!
//! ```text
//!   inotify: the folders of the files ──┐                              ┌─► () stirred
//!                                       ├─► look: did a stamp change? ─┤
//!   polling, every half second ─────────┘                              └─► settle ─► () changed
//! ```
//!
//! inotify only wakes; what decides is a look at the files themselves. Polling notices what inotify does not report: a
//! file on a network, a mount over a folder, a write through another hard link or a memory map, a symlink in place of
//! a folder on the path.

mod files;
mod notifier;
mod stamp;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Sender, TrySendError};

use crate::worker::{Sleeper, Wake, Worker};
use files::Files;
use notifier::Notifier;
pub use stamp::Stamps;

/// A change has settled when no stamp has changed for this long.
const SETTLE_TIME: Duration = Duration::from_millis(300);

/// Time between two looks while a change settles.
const SETTLE_TICK: Duration = Duration::from_millis(50);

/// Time between two looks without an event.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Time from an event to the look, so that many events cost one look.
const COALESCE: Duration = Duration::from_millis(5);

/// A file that has not settled after this time is logged.
const WARN_AFTER: Duration = Duration::from_secs(10);

/// Watches a configuration file, its drop-ins, the runtime drop-ins and the symlinks on the way to them. Ends when dropped.
#[derive(Debug)]
pub struct FileWatcher {
    watched: Arc<Watched>,
    _worker: Worker,
}

/// The files, and what is known of them by the thread and its owner.
#[derive(Debug)]
struct Watched {
    files: Files,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// The stamps that settled last.
    settled: Option<Stamps>,
    /// The stamps of the last notification, or of the start.
    notified: Option<Stamps>,
}

impl Watched {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileWatcher {
    /// Sends `()` to `changed` when a change has settled: no stamp has changed for [`SETTLE_TIME`], and two reads of all
    /// files agree. A removed file is a change too. A file that is written without a pause never settles. Sends `()` to
    /// `stirred` when a change begins, so that slow work may start while it settles.
    ///
    /// Both are channels of one: a full one already means "look again". To miss no change, start this before the first
    /// read of the file.
    ///
    /// # Errors
    /// If the path can't be made absolute, or no thread can be started.
    pub fn start(
        config: &Path,
        runtime: Option<&Path>,
        stirred: Sender<()>,
        changed: Sender<()>,
    ) -> Result<FileWatcher> {
        let notifier = Some(Notifier::default());
        let files = files(config, runtime)?;
        FileWatcher::start_with(notifier, POLL_INTERVAL, files, stirred, changed)
    }

    /// Without a notifier it only polls.
    fn start_with(
        notifier: Option<Notifier>,
        interval: Duration,
        files: Files,
        stirred: Sender<()>,
        changed: Sender<()>,
    ) -> Result<FileWatcher> {
        let now = Stamps::take(&files);
        let known = Known {
            // A file that has just changed may be half-written.
            settled: (!now.changed_within(SETTLE_TIME)).then(|| now.clone()),
            notified: Some(now),
        };
        let watched = Arc::new(Watched {
            files,
            known: Mutex::new(known),
        });
        let mut follower = Follower {
            watched: watched.clone(),
            notifier,
            interval,
            stirred,
            changed,
        };
        let worker = Worker::spawn("dpd-watch", move |sleeper| follower.run(&sleeper))?;
        Ok(FileWatcher {
            watched,
            _worker: worker,
        })
    }

    /// The files as they are now.
    pub fn look(&self) -> Stamps {
        Stamps::take(&self.watched.files)
    }

    /// The files as they are now, if they have settled. A read between two calls with equal results read settled files.
    pub fn settled(&self) -> Option<Stamps> {
        let now = self.look();
        let is_settled = self.watched.known().settled.as_ref() == Some(&now);
        is_settled.then_some(now)
    }

    /// The owner has read the files as they were in `seen` without a notification. A later change, even one back to what was
    /// notified before, is notified.
    pub fn note_read(&self, seen: Stamps) {
        self.watched.known().notified = Some(seen);
    }

    /// The last notification was not used: notifies once more when the files have settled.
    pub fn notify_again(&self) {
        *self.watched.known() = Known {
            settled: None,
            notified: None,
        };
    }
}

fn files(config: &Path, runtime: Option<&Path>) -> Result<Files> {
    let main = std::path::absolute(config)
        .with_context(|| format!("make the path {} absolute", config.display()))?;
    Ok(Files::of(main, runtime.map(Path::to_owned)))
}

/// The thread's side.
struct Follower {
    watched: Arc<Watched>,
    notifier: Option<Notifier>,
    interval: Duration,
    stirred: Sender<()>,
    changed: Sender<()>,
}

impl Follower {
    fn run(&mut self, sleeper: &Sleeper) {
        loop {
            // First the watches, then the look: a change between the two is an event.
            if let Some(notifier) = &mut self.notifier {
                notifier.follow(&self.watched.files);
            }
            if self.is_unchanged() {
                if self.wait(sleeper) == Wake::Stopped {
                    return;
                }
                continue;
            }
            let Some(settled) = self.settle(sleeper) else {
                return;
            };
            let is_new = self.note(settled);
            if let Some(notifier) = &mut self.notifier {
                notifier.forget();
            }
            if is_new && let Err(TrySendError::Disconnected(())) = self.changed.try_send(()) {
                return;
            }
        }
    }

    /// Whether the files are as they were notified last, and have settled.
    fn is_unchanged(&self) -> bool {
        let now = Some(Stamps::take(&self.watched.files));
        let known = self.watched.known();
        known.notified == now && known.settled == now
    }

    /// The files have settled; returns whether that is to be notified.
    fn note(&self, settled: Stamps) -> bool {
        let mut known = self.watched.known();
        let is_new = known.notified.as_ref() != Some(&settled);
        *known = Known {
            settled: Some(settled.clone()),
            notified: Some(settled),
        };
        is_new
    }

    /// Sleeps until the next look is due.
    fn wait(&self, sleeper: &Sleeper) -> Wake {
        let events = self.notifier.as_ref().and_then(Notifier::fd);
        let mut wake = sleeper.sleep(events, Some(self.interval));
        if wake == Wake::Readable {
            wake = sleeper.sleep(None, Some(COALESCE));
            self.notifier.iter().for_each(Notifier::clear);
        }
        wake
    }

    /// A closed channel is found by `changed`.
    fn stir(&self) {
        let _ = self.stirred.try_send(());
    }

    /// Waits until no stamp changes and two reads agree; `None`: the thread is to end.
    fn settle(&self, sleeper: &Sleeper) -> Option<Stamps> {
        let begin = Instant::now();
        let mut has_warned = false;
        let mut stamps = Stamps::take(&self.watched.files);
        let mut since = Instant::now();
        let mut read = None;
        self.stir();
        let left = |since: Instant| SETTLE_TIME.saturating_sub(since.elapsed()).min(SETTLE_TICK);
        while sleeper.sleep(None, Some(left(since))) != Wake::Stopped {
            let now = Stamps::take(&self.watched.files);
            if now != stamps {
                (stamps, since, read) = (now, Instant::now(), None);
            } else if read.is_none() {
                read = Some(stamps.digest());
                self.stir();
            } else if since.elapsed() >= SETTLE_TIME {
                let again = stamps.digest();
                if read == Some(again) {
                    return Some(stamps);
                }
                (since, read) = (Instant::now(), Some(again)); // changed with the same stamps
            }
            if begin.elapsed() >= WARN_AFTER && !has_warned {
                has_warned = true;
                let file = self.watched.files.main.display();
                log::warn!(
                    "{file} or a drop-in keeps changing: it is read when it has not changed for {SETTLE_TIME:?}"
                );
            }
        }
        None
    }
}
