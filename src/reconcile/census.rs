//! The connections as they are before a switch, to tell what it does to them.
//!
//! After it their next packets are judged anew, and those that end are gone within moments: the busiest first. So they
//! are read before; but the switch does not wait long for that. What is still being read then may lack some.

use std::collections::HashMap;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::{Receiver, bounded};

use crate::bpf::conntrack::Tables;
use crate::bpf::pins::Pins;
use crate::model::conntrack::Conversation;
use crate::model::state::{Settings, State};
use crate::plan::{self, Change};

/// Tables of tens of thousands are read in this time.
const PATIENCE: Duration = Duration::from_millis(30);

pub(super) struct Census {
    reader: JoinHandle<Result<(HashMap<Conversation, u64>, Instant)>>,
    /// Nothing comes through it: it is closed when the reader has done.
    done: Receiver<()>,
}

impl Census {
    /// Begins to read, unless there are none yet.
    pub fn begin(pins: &Pins, before: &State) -> Option<Census> {
        if before.settings == Settings::default() {
            return None;
        }
        let (pins, settings) = (pins.clone(), before.settings.clone());
        let (reading, done) = bounded(0);
        let read = move || {
            let _reading = reading;
            let conversations = Tables::open(&pins)?.conversations(&settings)?;
            Ok((conversations, Instant::now()))
        };
        let thread = thread::Builder::new().name("census".to_owned()).spawn(read);
        let reader = thread
            .inspect_err(|error| log::warn!("connections are not counted: {error}"))
            .ok()?;
        Some(Census { reader, done })
    }

    /// Gives the reader a little time: what it has read before the switch is all.
    pub fn wait(&self) {
        let _ = self.done.recv_timeout(PATIENCE);
    }

    /// Adds to the changes what each did to the connections.
    pub fn count(self, switched: Instant, old: &State, new: &State, changes: &mut Vec<Change>) {
        match self.reader.join() {
            Ok(Ok((conversations, read))) => {
                plan::effect::count(old, new, changes, conversations);
                for change in changes {
                    change.effect.is_least = read > switched;
                }
            }
            Ok(Err(error)) => log::warn!("connections are not counted: {error:#}"),
            Err(_) => log::warn!("connections are not counted: the reader of them panicked"),
        }
    }
}
