//! Reads the ring buffer: each event becomes a flow for the observers and, if configured, for the journal.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::bounded;

use super::catalog_history::CatalogHistory;
use super::interface_names::InterfaceNames;
use super::state::DaemonState;
use super::watchdog::Pulses;
use crate::bpf::state::conntrack;
use crate::bpf::state::events::{Event, Events};
use crate::bpf::state::suppressed::SuppressedDrops;
use crate::bpf::takeover::datapath_dir;
use crate::observe::journal::{self, FlowLog};
use crate::observe::server::Server;
use crate::observe::translate::{self, Clock};
use crate::worker::{Sleeper, Worker};

/// How long one poll of the ring takes at most: the thread stops within this time.
const POLL_TIMEOUT: Duration = Duration::from_millis(500);
/// How often suppressed drops without a later event are reported.
const SUPPRESSED_INTERVAL: Duration = Duration::from_secs(1);
/// How often lost log lines are reported.
const LOSS_INTERVAL: Duration = Duration::from_secs(5);

/// The reading thread; dropping it ends it.
pub struct Reader {
    _worker: Worker,
}

/// Where flows go.
pub struct FlowSinks {
    pub catalogs: Arc<CatalogHistory>,
    pub names: Arc<InterfaceNames>,
    pub server: Arc<Server>,
    pub state: Arc<DaemonState>,
    pub log: Arc<FlowLog>,
    pub pulses: Arc<Pulses>,
}

impl FlowSinks {
    fn publish(&self, event: &Event) {
        self.state.count_event();
        let catalog = self.catalogs.of(event.epoch);
        let flow = Arc::new(translate::flow(event, &catalog, Clock::read(), |ifindex| {
            self.names.of(ifindex)
        }));
        if journal::is_wanted(&flow, self.state.journal()) {
            self.log.write(&flow);
        }
        self.server.publish(flow);
    }
}

impl Reader {
    pub fn start(root: &Path, sinks: FlowSinks) -> Result<Reader> {
        let pins = datapath_dir::readable(root);
        let suppressed = SuppressedDrops::open(&pins)?;
        let (opened, outcome) = bounded(1);
        let worker = Worker::spawn("events", move |sleeper| {
            let sinks = Rc::new(sinks);
            let of_ring = sinks.clone();
            // An open ring can't be sent to another thread: it is opened here.
            match Events::open(&pins, move |event| of_ring.publish(&event)) {
                Ok(events) => {
                    let _ = opened.send(Ok(()));
                    read(&events, &suppressed, &sinks, &sleeper);
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        })?;
        outcome
            .recv()
            .context("the thread that reads events ended")??;
        Ok(Reader { _worker: worker })
    }
}

fn read(events: &Events, suppressed: &SuppressedDrops, sinks: &FlowSinks, sleeper: &Sleeper) {
    let (mut last_suppressed, mut last_loss) = (Instant::now(), Instant::now());
    while !sleeper.is_stopped() {
        sinks.pulses.events.beat();
        if let Err(error) = events.poll(POLL_TIMEOUT) {
            log::error!("{error:#}");
            sleeper.sleep(None, Some(POLL_TIMEOUT)); // an error that persists must not flood the log
        }
        if last_suppressed.elapsed() >= SUPPRESSED_INTERVAL {
            last_suppressed = Instant::now();
            match suppressed.take(conntrack::now_ns()) {
                Ok(drops) => drops.iter().for_each(|event| sinks.publish(event)),
                Err(error) => log::warn!("read suppressed drops: {error:#}"),
            }
        }
        if last_loss.elapsed() >= LOSS_INTERVAL {
            last_loss = Instant::now();
            if let Some(report) = sinks.log.take_loss_report() {
                log::warn!("{report}");
            }
        }
    }
}
