//! Flows as records of the journal.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::line;
use super::record::Record;
use crate::config::{JournalFlows, LogTarget};
use crate::journal::{self, Journal, Priority};
use crate::logging;
use crate::model::flow::{Flow, Verdict};

/// Whether this flow belongs into the journal.
pub fn is_wanted(flow: &Flow, wanted: JournalFlows) -> bool {
    match wanted {
        JournalFlows::Off => false,
        // What an audit reports is what would have been a drop.
        JournalFlows::Drops => flow.verdict != Verdict::Forwarded,
        JournalFlows::All => true,
    }
}

/// Where flows are written: the journal, or the daemon's log on stderr where there is none.
pub struct FlowLog {
    journal: Option<Journal>,
}

impl FlowLog {
    /// As `daemon.log` says.
    pub fn open(target: LogTarget) -> Result<FlowLog> {
        let journal = logging::uses_journal(target)
            .then(|| Journal::open(Path::new(journal::SOCKET)))
            .transpose()?;
        Ok(FlowLog { journal })
    }

    /// Writes one record. What can't be written is counted by the journal.
    pub fn write(&self, flow: &Flow) {
        match &self.journal {
            Some(journal) => {
                journal.send(&entry(flow));
            }
            None => log::log!(
                level(flow.verdict),
                "{}",
                line::message(&Record::from(flow))
            ),
        }
    }
}

fn level(verdict: Verdict) -> log::Level {
    match verdict {
        Verdict::Dropped => log::Level::Warn,
        Verdict::Forwarded | Verdict::Audit => log::Level::Info,
    }
}

/// The record's fields: the message, then those of the JSON as `DPD_…`.
fn entry(flow: &Flow) -> Vec<(String, String)> {
    let record = Record::from(flow);
    let priority = match flow.verdict {
        Verdict::Dropped => Priority::Warning,
        Verdict::Forwarded | Verdict::Audit => Priority::Info,
    };
    let mut entry = Journal::entry(priority, line::message(&record));
    // A record is a struct of plain values: it always becomes an object.
    if let Ok(Value::Object(fields)) = serde_json::to_value(&record) {
        for (name, value) in fields {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text,
                other => other.to_string(),
            };
            entry.push((format!("DPD_{}", name.to_uppercase()), text));
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::observe::samples::{question, refusal};

    #[test]
    fn a_drop_as_a_record() {
        let entry: BTreeMap<String, String> = entry(&refusal()).into_iter().collect();
        let rows = [
            (
                "MESSAGE",
                Some(
                    "10.200.0.65:40000 (intruder) -> 10.200.0.44:53 (kube-dns) \
                     DROPPED (policy denied: no rule of ingress kube-dns) (TCP SYN)",
                ),
            ),
            ("PRIORITY", Some("4")),
            ("SYSLOG_IDENTIFIER", Some("dpd")),
            ("DPD_TIME", Some("2025-11-22T12:53:09.001Z")),
            ("DPD_VERDICT", Some("dropped")),
            ("DPD_DROP_REASON", Some("policy denied")),
            ("DPD_REPLY", Some("false")),
            ("DPD_SRC_IP", Some("10.200.0.65")),
            ("DPD_SRC_PORT", Some("40000")),
            ("DPD_DST_IDENTITY", Some("18203")),
            ("DPD_TCP_FLAGS", Some("SYN")),
            ("DPD_BYTES", Some("60")),
            ("DPD_SERVICE", None),
            ("DPD_ORIG_DST_IP", None),
        ];
        for (field, value) in rows {
            assert_eq!(entry.get(field).map(String::as_str), value, "{field}");
        }
    }

    #[test]
    fn priorities_and_choice() {
        let audit = Flow {
            verdict: Verdict::Audit,
            ..refusal()
        };
        // (flow, priority, wanted as [drops, all, off])
        let rows = [
            (question(), "6", [false, true, false]),
            (refusal(), "4", [true, true, false]),
            (audit, "6", [true, true, false]),
        ];
        for (flow, priority, wanted) in rows {
            let entry = entry(&flow);
            assert!(
                entry.contains(&("PRIORITY".to_owned(), priority.to_owned())),
                "{flow:?}"
            );
            let modes = [JournalFlows::Drops, JournalFlows::All, JournalFlows::Off];
            assert_eq!(modes.map(|mode| is_wanted(&flow, mode)), wanted, "{flow:?}");
        }
    }
}
