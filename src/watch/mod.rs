//! Follows the configuration file: says "look again" once a change has come to rest.
//!
//! ```text
//!   notify: the folders of the files ───────────┐                              ┌─► () stirred
//!                                               ├─► look: did a stamp change? ─┤
//!   every half second, for what it doesn't tell ┘                              └─► settle ─► () changed
//! ```
//!
//! notify only wakes; what decides is a look at the files themselves. What it doesn't tell is noticed by the slow
//! look: a file on a network, a mount over a folder, a write by another name or through a memory map, a symlink
//! among the folders on the way.

mod ear;
mod stamp;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Sender, TrySendError};

use crate::config::drop_in_folder;
use crate::worker::{Sleeper, Wake, Worker};
use ear::Notifier;
pub use stamp::Stamps;

/// A change is over when nothing has moved for this long.
const SETTLE_TIME: Duration = Duration::from_millis(300);

/// Time between two looks while waiting for stillness.
const TICK: Duration = Duration::from_millis(50);

/// Time between two looks while nothing is heard.
const SLOW: Duration = Duration::from_millis(500);

/// A look follows an event by this much, so that a busy folder costs little.
const COALESCE: Duration = Duration::from_millis(5);

/// A file that won't come to rest is said after this time.
const WARN_AFTER: Duration = Duration::from_secs(10);

/// The files of a configuration.
#[derive(Debug)]
struct Files {
    main: PathBuf,
    /// The drop-in folder; a file whose name does not end in `.toml` has none.
    drop_ins: Option<PathBuf>,
}

impl Files {
    fn of(main: PathBuf) -> Files {
        Files {
            drop_ins: drop_in_folder(&main),
            main,
        }
    }
}

/// Follows a configuration file, its drop-ins and the symlinks on the way to them. Ends when dropped.
#[derive(Debug)]
pub struct FileWatcher {
    shared: Arc<Shared>,
    _worker: Worker,
}

/// What the thread and its owner both know.
#[derive(Debug)]
struct Shared {
    files: Files,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// The stamps that were found at rest last.
    rest: Option<Stamps>,
    /// The stamps that were told of last, or that were there before anybody read the files.
    told: Option<Stamps>,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileWatcher {
    /// Sends `()` to `changed` when a change is over: no stamp has moved for 300 ms, and two reads of all files agree. A
    /// file that vanishes has changed too. One that is written without a pause is never still, and is not told of. To
    /// `stirred` it says that a change has begun, so that what takes time may be done while it comes to rest.
    ///
    /// Both are channels of one: a full one already says "look again". To miss nothing, start this before
    /// the file is read for the first time.
    pub fn start(config: &Path, stirred: Sender<()>, changed: Sender<()>) -> Result<FileWatcher> {
        let ear = Notifier::new().context("make the event that tells of changed files")?;
        FileWatcher::start_with(Some(ear), SLOW, config, stirred, changed)
    }

    /// Without an ear the slow look is alone.
    fn start_with(
        ear: Option<Notifier>,
        slow: Duration,
        config: &Path,
        stirred: Sender<()>,
        changed: Sender<()>,
    ) -> Result<FileWatcher> {
        let main = std::path::absolute(config)
            .with_context(|| format!("find the place of {}", config.display()))?;
        let files = Files::of(main);
        let now = Stamps::take(&files);
        let known = Known {
            // What was touched just now may still be on its way.
            rest: (!now.changed_within(SETTLE_TIME)).then(|| now.clone()),
            told: Some(now),
        };
        let shared = Arc::new(Shared {
            files,
            known: Mutex::new(known),
        });
        let mut follower = Follower {
            shared: shared.clone(),
            ear,
            slow,
            stirred,
            changed,
        };
        let worker = Worker::spawn("dpd-watch", move |sleeper| follower.run(&sleeper))?;
        Ok(FileWatcher {
            shared,
            _worker: worker,
        })
    }

    /// The files as they are now.
    pub fn look(&self) -> Stamps {
        Stamps::take(&self.shared.files)
    }

    /// The files as they are now, if they are at rest. What is read between two answers that are the same was.
    pub fn rest(&self) -> Option<Stamps> {
        let now = self.look();
        let is_at_rest = self.shared.known().rest.as_ref() == Some(&now);
        is_at_rest.then_some(now)
    }

    /// What was told of last was not read: it is told of once more, when all is at rest.
    pub fn tell_again(&self) {
        *self.shared.known() = Known {
            rest: None,
            told: None,
        };
    }
}

/// The thread's own.
struct Follower {
    shared: Arc<Shared>,
    ear: Option<Notifier>,
    slow: Duration,
    stirred: Sender<()>,
    changed: Sender<()>,
}

impl Follower {
    fn run(&mut self, sleeper: &Sleeper) {
        loop {
            // First listen, then look: what happens between the two is heard.
            if let Some(ear) = &mut self.ear {
                ear.follow(&self.shared.files);
            }
            if self.is_known() {
                if self.wait(sleeper) == Wake::Stopped {
                    return;
                }
                continue;
            }
            let Some(still) = self.settle(sleeper) else {
                return;
            };
            let is_news = self.note(still);
            if let Some(ear) = &mut self.ear {
                ear.forget();
            }
            if is_news && let Err(TrySendError::Disconnected(())) = self.changed.try_send(()) {
                return;
            }
        }
    }

    /// Whether all is as it was told of, and at rest.
    fn is_known(&self) -> bool {
        let now = Some(Stamps::take(&self.shared.files));
        let known = self.shared.known();
        known.told == now && known.rest == now
    }

    /// All is at rest; whether that is to be told.
    fn note(&self, still: Stamps) -> bool {
        let mut known = self.shared.known();
        let is_news = known.told.as_ref() != Some(&still);
        *known = Known {
            rest: Some(still.clone()),
            told: Some(still),
        };
        is_news
    }

    /// Sleeps until the next look is due.
    fn wait(&self, sleeper: &Sleeper) -> Wake {
        let heard = self.ear.as_ref().map(Notifier::heard);
        let mut wake = sleeper.sleep(heard, Some(self.slow));
        if wake == Wake::Readable {
            wake = sleeper.sleep(None, Some(COALESCE));
            self.ear.iter().for_each(Notifier::clear);
        }
        wake
    }

    /// A change is on its way. Nobody there: `changed` finds that out.
    fn stir(&self) {
        let _ = self.stirred.try_send(());
    }

    /// Waits until nothing moves and two reads agree; `None`: the thread is to end.
    fn settle(&self, sleeper: &Sleeper) -> Option<Stamps> {
        let begin = Instant::now();
        let mut is_said = false;
        let mut stamps = Stamps::take(&self.shared.files);
        let mut since = Instant::now();
        let mut read = None;
        self.stir();
        let left = |since: Instant| SETTLE_TIME.saturating_sub(since.elapsed()).min(TICK);
        while sleeper.sleep(None, Some(left(since))) != Wake::Stopped {
            let now = Stamps::take(&self.shared.files);
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
                (since, read) = (Instant::now(), Some(again)); // written without a trace
            }
            if begin.elapsed() >= WARN_AFTER && !is_said {
                is_said = true;
                let file = self.shared.files.main.display();
                log::warn!(
                    "{file} or a drop-in keeps changing: it is read when it has been still for {SETTLE_TIME:?}"
                );
            }
        }
        None
    }
}
