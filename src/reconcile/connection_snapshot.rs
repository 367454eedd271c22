//! The connections before a commit, to report what the change does to them.
//!
//! After it policy is evaluated for their next packets, and those that end are gone within moments, the busiest first. So
//! they are read before; but the commit does not wait long for that. Connections read later may be incomplete.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::{Receiver, bounded};

use crate::bpf::state::conntrack::Tables;
use crate::bpf::state::ct_table::Sizes;
use crate::bpf::sys::pins::Pins;
use crate::model::conntrack::OpenConnections;
use crate::model::state::{Settings, State};
use crate::plan::{self, Change};

/// Tables of tens of thousands of connections are read in this time.
const READ_TIMEOUT: Duration = Duration::from_millis(30);

pub(super) struct ConnectionSnapshot {
    reader: JoinHandle<Result<(OpenConnections, Instant)>>,
    /// Closed when the reader is done; nothing is sent.
    done: Receiver<()>,
}

impl ConnectionSnapshot {
    /// Begins to read the conntrack tables, unless there was no configuration yet.
    pub fn begin(pins: &Pins, live: &State) -> Option<ConnectionSnapshot> {
        if live.settings == Settings::default() {
            return None;
        }
        let (pins, settings) = (pins.clone(), live.settings.clone());
        let (reading, done) = bounded(0);
        let read = move || {
            let _reading = reading;
            let open = Tables::open(&pins)?.open_connections(&settings)?;
            Ok((open, Instant::now()))
        };
        let thread = thread::Builder::new()
            .name("ct-snapshot".to_owned())
            .spawn(read);
        let reader = thread
            .inspect_err(|error| log::warn!("connections are not counted: {error}"))
            .ok()?;
        Some(ConnectionSnapshot { reader, done })
    }

    /// Waits a little: a snapshot that is read before the commit is complete.
    pub fn wait(&self) {
        let _ = self.done.recv_timeout(READ_TIMEOUT);
    }

    /// Waits until all is read.
    pub fn finish(&self) {
        let _ = self.done.recv();
    }

    /// Adds to each change what it did to the connections. Returns how many have no room in tables of these sizes.
    pub fn count(
        self,
        committed: Instant,
        (old, new): (&State, &State),
        sizes: Sizes,
        changes: &mut Vec<Change>,
    ) -> u64 {
        match self.reader.join() {
            Ok(Ok((open, read))) => {
                let excess = sizes.excess(&open.by_table);
                plan::change::add_effects(old, new, changes, open.groups);
                for change in changes.iter_mut() {
                    change.effect.is_least = read > committed;
                }
                return excess;
            }
            Ok(Err(error)) => log::warn!("connections are not counted: {error:#}"),
            Err(_) => log::warn!("connections are not counted: their reader panicked"),
        }
        0
    }
}
