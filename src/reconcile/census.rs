//! The connections as they are before a switch, to tell what it does to them.
//!
//! After it their next packets are judged anew, and those that end are gone within moments: the busiest first. So they
//! are read before; but the switch does not wait long for that. What is still being read then may lack some.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::{Receiver, bounded};

use crate::bpf::conntrack::{Sizes, Tables};
use crate::bpf::pins::Pins;
use crate::model::conntrack::OpenConnections;
use crate::model::state::{Settings, State};
use crate::plan::{self, Change};

/// Tables of tens of thousands are read in this time.
const PATIENCE: Duration = Duration::from_millis(30);

pub(super) struct ConnectionSnapshot {
    reader: JoinHandle<Result<(OpenConnections, Instant)>>,
    /// Nothing comes through it: it is closed when the reader has done.
    done: Receiver<()>,
}

impl ConnectionSnapshot {
    /// Begins to read the tables of connections that are pinned there, unless there are none yet.
    pub fn begin(pins: &Pins, before: &State) -> Option<ConnectionSnapshot> {
        if before.settings == Settings::default() {
            return None;
        }
        let (pins, settings) = (pins.clone(), before.settings.clone());
        let (reading, done) = bounded(0);
        let read = move || {
            let _reading = reading;
            let open = Tables::open(&pins)?.open_connections(&settings)?;
            Ok((open, Instant::now()))
        };
        let thread = thread::Builder::new().name("census".to_owned()).spawn(read);
        let reader = thread
            .inspect_err(|error| log::warn!("connections are not counted: {error}"))
            .ok()?;
        Some(ConnectionSnapshot { reader, done })
    }

    /// Gives the reader a little time: what it has read before the switch is all.
    pub fn wait(&self) {
        let _ = self.done.recv_timeout(PATIENCE);
    }

    /// Waits until all is read: where rows are about to move away, who came too late would miss most of them.
    pub fn finish(&self) {
        let _ = self.done.recv();
    }

    /// Adds to the changes what each did to the connections. Answers how many have no room in tables of these sizes.
    pub fn count(
        self,
        switched: Instant,
        (old, new): (&State, &State),
        sizes: Sizes,
        changes: &mut Vec<Change>,
    ) -> u64 {
        match self.reader.join() {
            Ok(Ok((open, read))) => {
                let excess = sizes.excess(&open.by_table);
                plan::change::add_effects(old, new, changes, open.groups);
                for change in changes.iter_mut() {
                    change.effect.is_least = read > switched;
                }
                return excess;
            }
            Ok(Err(error)) => log::warn!("connections are not counted: {error:#}"),
            Err(_) => log::warn!("connections are not counted: the reader of them panicked"),
        }
        0
    }
}
