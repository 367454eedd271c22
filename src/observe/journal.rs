//! Flows as records of the journal.

use serde_json::Value;

use super::line;
use super::record::Record;
use crate::config::JournalFlows;
use crate::journal::{Journal, Priority};
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

/// Writes one record. What can't be written is counted by the journal.
pub fn write(journal: &Journal, flow: &Flow) {
    journal.send(&entry(flow));
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
