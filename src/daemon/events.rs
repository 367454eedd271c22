//! The thread that reads the ring: each event becomes a flow for the observers and, where it is wanted, for the journal.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::bounded;

use super::flows::{self, Clock};
use super::names::Names;
use super::shared::Shared;
use crate::bpf::events::{Event, Events};
use crate::bpf::place;
use crate::observe::journal::{self, FlowLog};
use crate::observe::server::Server;

/// How long the thread may take to see that it is to end.
const PATIENCE: Duration = Duration::from_millis(500);

/// The reading thread; dropping it ends it.
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub fn start(
        root: &Path,
        names: Arc<Names>,
        server: Arc<Server>,
        shared: Arc<Shared>,
        log: FlowLog,
    ) -> Result<Reader> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let pins = place::readable(root);
        let (opened, outcome) = bounded(1);
        let thread = thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                let take = move |event: Event| {
                    let catalog = names.of(event.epoch);
                    let flow = Arc::new(flows::flow(&event, &catalog, Clock::read()));
                    if journal::is_wanted(&flow, shared.journal()) {
                        log.write(&flow);
                    }
                    server.publish(flow);
                };
                // A ring can't be sent to another thread: it is opened here, and how that went is told.
                match Events::open(&pins, take) {
                    Ok(events) => {
                        let _ = opened.send(Ok(()));
                        poll(&events, &stopped);
                    }
                    Err(error) => {
                        let _ = opened.send(Err(error));
                    }
                }
            })
            .context("start the thread that reads events")?;
        outcome
            .recv()
            .context("the thread that reads events ended")??;
        Ok(Reader {
            stop,
            thread: Some(thread),
        })
    }
}

fn poll(events: &Events, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = events.poll(PATIENCE) {
            log::error!("{error:#}");
            thread::sleep(PATIENCE); // an error that stays is not to fill the log
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that reads events panicked");
        }
    }
}
