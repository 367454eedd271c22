//! The connections as they are before a switch, to tell what it does to them.
//!
//! After it their next packets are judged anew, and those that end are gone within moments: the busiest first. So they
//! are read before; but the switch does not wait for that. What is still being read then may lack some.

use std::collections::HashMap;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::Result;

use crate::bpf::conntrack::Tables;
use crate::bpf::pins::Pins;
use crate::model::conntrack::Conversation;
use crate::model::state::{Settings, State};
use crate::plan::{self, Change};

pub(super) struct Census {
    reader: JoinHandle<Result<(HashMap<Conversation, u64>, Instant)>>,
}

impl Census {
    /// Begins to read, unless there are none yet.
    pub fn begin(pins: &Pins, before: &State) -> Option<Census> {
        if before.settings == Settings::default() {
            return None;
        }
        let (pins, settings) = (pins.clone(), before.settings.clone());
        let read = move || {
            let conversations = Tables::open(&pins)?.conversations(&settings)?;
            Ok((conversations, Instant::now()))
        };
        let thread = thread::Builder::new().name("census".to_owned()).spawn(read);
        let reader = thread
            .inspect_err(|error| log::warn!("connections are not counted: {error}"))
            .ok()?;
        Some(Census { reader })
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
