//! Follows the configuration file: says "look again" once a change has come to rest.
//!
//! ```text
//!   inotify (names on the way, contents of the files) ─┐
//!                                                       ├─► look: did a stamp change? ─► settle ─► ()
//!   every half second, for what inotify doesn't tell ──┘
//! ```
//!
//! inotify only wakes; what decides is a look at the files themselves. A mount over a folder, a file on a network
//! and a write through a memory map are thus noticed too, by the slow look.

mod place;
mod stamp;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Sender, TrySendError};
use rustix::fs::inotify;

use crate::worker::{Sleeper, Wake, Worker};
use place::Places;
use stamp::Stamps;

/// A change is over when nothing has moved for this long.
const STILL: Duration = Duration::from_millis(300);

/// Time between two looks while waiting for stillness.
const TICK: Duration = Duration::from_millis(50);

/// Time between two looks while inotify is silent.
const SLOW: Duration = Duration::from_millis(500);

/// A look follows an event by this much, so that a busy folder on the way costs little.
const GATHER: Duration = Duration::from_millis(20);

/// A file that won't come to rest is said after this time.
const RESTLESS: Duration = Duration::from_secs(10);

/// The files of a configuration.
#[derive(Debug)]
struct Files {
    main: PathBuf,
    /// The drop-in folder; a file whose name does not end in `.toml` has none.
    drop_ins: Option<PathBuf>,
}

/// Follows a configuration file, its drop-ins and the symlinks on the way to them. Ends when dropped.
#[derive(Debug)]
pub struct FileWatcher {
    _worker: Worker,
}

impl FileWatcher {
    /// Sends `()` when a change is over: no stamp has moved for 300 ms, and two reads of all files agree. A file
    /// that vanishes has changed too. One that is written without a pause is never still, and is not told of.
    ///
    /// `changed` is a channel of one: a full one already says "look again". To miss nothing, start this before
    /// the file is read for the first time.
    pub fn start(config: &Path, changed: Sender<()>) -> Result<FileWatcher> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
        if let Err(error) = &inotify {
            log::warn!(
                "start inotify: {error}: the file is looked at twice a second instead; raise \
                 fs.inotify.max_user_instances"
            );
        }
        FileWatcher::start_with(inotify.ok(), SLOW, config, changed)
    }

    fn start_with(
        inotify: Option<OwnedFd>,
        slow: Duration,
        config: &Path,
        changed: Sender<()>,
    ) -> Result<FileWatcher> {
        let main = std::path::absolute(config)
            .with_context(|| format!("find the place of {}", config.display()))?;
        let is_toml = main
            .extension()
            .is_some_and(|extension| extension == "toml");
        let files = Files {
            drop_ins: is_toml.then(|| main.with_extension("d")),
            main,
        };
        let mut places = Places::new(inotify);
        places.follow(&files);
        let mut follower = Follower {
            known: Stamps::take(&files),
            files,
            places,
            slow,
            changed,
        };
        let worker = Worker::spawn("dpd-watch", move |sleeper| follower.run(&sleeper))?;
        Ok(FileWatcher { _worker: worker })
    }
}

/// The thread's own.
struct Follower {
    files: Files,
    places: Places,
    /// The stamps that were told of last.
    known: Stamps,
    slow: Duration,
    changed: Sender<()>,
}

impl Follower {
    fn run(&mut self, sleeper: &Sleeper) {
        loop {
            match sleeper.sleep(self.places.inotify(), Some(self.slow)) {
                Wake::Stopped => return,
                Wake::TimedOut => {}
                Wake::Readable => {
                    if sleeper.sleep(None, Some(GATHER)) == Wake::Stopped {
                        return;
                    }
                    self.places.drain();
                    self.places.follow(&self.files);
                }
            }
            if Stamps::take(&self.files) == self.known {
                continue;
            }
            let Some(still) = self.settle(sleeper) else {
                return;
            };
            self.known = still;
            self.places.follow(&self.files);
            if let Err(TrySendError::Disconnected(())) = self.changed.try_send(()) {
                return;
            }
        }
    }

    /// Waits until nothing moves and two reads agree; `None`: the thread is to end.
    fn settle(&self, sleeper: &Sleeper) -> Option<Stamps> {
        let begin = Instant::now();
        let mut is_said = false;
        let mut stamps = Stamps::take(&self.files);
        let mut since = Instant::now();
        let mut read = None;
        while sleeper.sleep(None, Some(TICK)) != Wake::Stopped {
            let now = Stamps::take(&self.files);
            if now != stamps {
                (stamps, since, read) = (now, Instant::now(), None);
            } else if since.elapsed() >= STILL {
                let again = stamps.digest();
                if read == Some(again) {
                    return Some(stamps);
                }
                read = Some(again);
            }
            if begin.elapsed() >= RESTLESS && !is_said {
                is_said = true;
                let file = self.files.main.display();
                log::warn!(
                    "{file} or a drop-in keeps changing: it is read when it has been still for {STILL:?}"
                );
            }
        }
        None
    }
}

impl Places {
    /// Takes the events that have come. What they say is no matter, nor that there were too many of them.
    fn drain(&self) {
        let Some(inotify) = self.inotify() else {
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(inotify.as_fd(), &mut buffer);
        while events.next().is_ok() {}
    }
}
