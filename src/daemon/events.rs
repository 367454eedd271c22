//! The thread that reads the ring: each event becomes a flow for the observers and, where it is wanted, for the journal.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::bounded;

use super::flows::{self, Clock};
use super::names::Names;
use super::shared::Shared;
use crate::bpf::state::conntrack;
use crate::bpf::state::events::{Event, Events};
use crate::bpf::state::suppressed::SuppressedDrops;
use crate::bpf::takeover::datapath_dir;
use crate::observe::journal::{self, FlowLog};
use crate::observe::server::Server;

/// How long the thread may take to see that it is to end.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often drops are looked for that were held back and did not come again.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is said what the log has lost.
const COMPLAIN: Duration = Duration::from_secs(5);

/// The reading thread; dropping it ends it.
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Who is told of events.
pub struct FlowSinks {
    pub names: Arc<Names>,
    pub server: Arc<Server>,
    pub shared: Arc<Shared>,
    pub log: Arc<FlowLog>,
}

impl FlowSinks {
    fn tell(&self, event: &Event) {
        self.shared.count_event();
        let catalog = self.names.of(event.epoch);
        let flow = Arc::new(flows::flow(event, &catalog, Clock::read()));
        if journal::is_wanted(&flow, self.shared.journal()) {
            self.log.write(&flow);
        }
        self.server.publish(flow);
    }
}

impl Reader {
    pub fn start(root: &Path, audience: FlowSinks) -> Result<Reader> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let pins = datapath_dir::readable(root);
        let suppressed = SuppressedDrops::open(&pins)?;
        let (opened, outcome) = bounded(1);
        let thread = thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                let audience = Rc::new(audience);
                let told = audience.clone();
                // A ring can't be sent to another thread: it is opened here, and how that went is told.
                match Events::open(&pins, move |event| told.tell(&event)) {
                    Ok(events) => {
                        let _ = opened.send(Ok(()));
                        read(&events, &suppressed, &audience, &stopped);
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

fn read(events: &Events, suppressed: &SuppressedDrops, audience: &FlowSinks, stop: &AtomicBool) {
    let (mut looked, mut complained) = (Instant::now(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = events.poll(PATIENCE) {
            log::error!("{error:#}");
            thread::sleep(PATIENCE); // an error that stays is not to fill the log
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            match suppressed.take(conntrack::now_ns()) {
                Ok(drops) => drops.iter().for_each(|event| audience.tell(event)),
                Err(error) => log::warn!("look for drops that were held back: {error:#}"),
            }
        }
        if complained.elapsed() >= COMPLAIN {
            complained = Instant::now();
            if let Some(complaint) = audience.log.take_complaint() {
                log::warn!("{complaint}");
            }
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
