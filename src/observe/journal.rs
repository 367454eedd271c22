//! Flows as records of the journal.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

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

/// Flow lines that are written in a second. journald lets 10,000 records of a unit pass in 30 s (journald.conf(5),
/// `RateLimitBurst=`): less than that leaves room for what else the daemon has to say, and we can say what was left out.
const LINES_A_SECOND: u32 = 300;

/// Where flows are written: the journal, or the daemon's log on stderr where there is none. It never waits.
pub struct FlowLog {
    journal: Option<Journal>,
    budget: Mutex<Budget>,
    /// Lines over the budget.
    limited: AtomicU64,
    /// Lost lines that were told of.
    told: AtomicU64,
}

impl FlowLog {
    /// As `daemon.log` says.
    pub fn open(target: LogTarget) -> Result<FlowLog> {
        let journal = logging::uses_journal(target)
            .then(|| Journal::open(Path::new(journal::SOCKET)))
            .transpose()?;
        Ok(FlowLog::to(journal))
    }

    fn to(journal: Option<Journal>) -> FlowLog {
        FlowLog {
            journal,
            budget: Mutex::new(Budget::new(Instant::now())),
            limited: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    /// Writes one record. What can't be written is counted.
    pub fn write(&self, flow: &Flow) {
        self.write_at(flow, Instant::now());
    }

    fn write_at(&self, flow: &Flow, now: Instant) {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if !budget.take(now) {
            self.limited.fetch_add(1, Ordering::Relaxed);
            return;
        }
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

    /// Lines that were not written since the start: too many in a second, or not taken by journald.
    pub fn lost(&self) -> u64 {
        self.limited() + self.refused()
    }

    fn limited(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.journal.as_ref().map_or(0, Journal::lost)
    }

    /// What there is to say of lines that were lost since the last call.
    pub fn take_complaint(&self) -> Option<String> {
        let lost = self.lost();
        let fresh = lost - self.told.swap(lost, Ordering::Relaxed);
        (fresh > 0).then(|| {
            format!(
                "{fresh} flows were not logged (`dpd observe` shows them all): since the start {} over \
                 {LINES_A_SECOND} a second, and {} that journald did not take",
                self.limited(),
                self.refused()
            )
        })
    }
}

/// As many lines as a second allows, at once or one by one.
struct Budget {
    left: f64,
    seen: Instant,
}

impl Budget {
    fn new(now: Instant) -> Budget {
        Budget {
            left: LINES_A_SECOND.into(),
            seen: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.seen).as_secs_f64();
        let rate = f64::from(LINES_A_SECOND);
        self.left = (self.left + passed * rate).min(rate);
        self.seen = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
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
            let name = format!("DPD_{}", name.to_uppercase());
            // A field may stand there several times, and be matched by each of its values.
            let values = match value {
                Value::Array(values) => values,
                value => vec![value],
            };
            for value in values {
                let text = match value {
                    Value::Null => continue,
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                entry.push((name.clone(), text));
            }
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

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
            ("DPD_DROP_REASON", Some("policy denied: no rule")),
            ("DPD_DROP_REASON_CODE", Some("133")),
            ("DPD_REPLY", Some("false")),
            ("DPD_SRC_IP", Some("10.200.0.65")),
            ("DPD_SRC_PORT", Some("40000")),
            ("DPD_DST_IDENTITY", Some("18203")),
            ("DPD_TCP_FLAGS", Some("SYN")),
            ("DPD_BYTES", Some("60")),
            ("DPD_CONFIG_REVISION", Some("7")),
            ("DPD_CONFIG_FILE", None),
            ("DPD_SERVICE", None),
            ("DPD_ORIG_DST_IP", None),
        ];
        for (field, value) in rows {
            assert_eq!(entry.get(field).map(String::as_str), value, "{field}");
        }
    }

    #[test]
    fn a_list_is_a_field_for_each_value() {
        let of = |flow: &Flow, field: &str| -> Vec<String> {
            let entry = entry(flow).into_iter();
            let found = entry.filter(|(name, _)| name == field);
            found.map(|(_, value)| value).collect()
        };
        let field = "DPD_ENFORCED_BY";
        assert_eq!(of(&refusal(), field), ["dns-clients", "lock-down"]);
        assert_eq!(of(&question(), field), [""; 0]);
        assert_eq!(of(&question(), "DPD_CONFIG_LINE"), ["42"]);
    }

    #[test]
    fn a_name_of_several_lines_breaks_no_record() {
        let name = "a\nMESSAGE=forged\u{1b}[2J \"b\" = \0";
        let odd = Flow {
            src: crate::observe::samples::peer("10.200.0.65", 1, 20002, name),
            ..refusal()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        FlowLog::to(Some(Journal::open(&path).unwrap())).write(&odd);
        let mut datagram = [0; 4096];
        let length = socket.recv(&mut datagram).unwrap();
        let record = &datagram[..length];
        let message = "MESSAGE=10.200.0.65:1 (a\\nMESSAGE=forged\\u{1b}[2J \"b\" = \\u{0})";
        assert!(record.starts_with(message.as_bytes()), "one line of prose");
        let mut field = b"\nDPD_SRC_NAME\n".to_vec();
        field.extend((name.len() as u64).to_le_bytes());
        field.extend(name.as_bytes());
        let has_field = record.windows(field.len()).any(|part| part == field);
        assert!(
            has_field,
            "the field is as it is, with its length before it"
        );
    }

    #[test]
    fn a_flood_is_cut_counted_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let log = FlowLog::to(Some(Journal::open(&path).unwrap()));
        let start = Instant::now();
        let mut datagram = [0; 4096];
        assert_eq!(log.take_complaint(), None);
        for _ in 0..LINES_A_SECOND {
            log.write_at(&refusal(), start);
            socket.recv(&mut datagram).unwrap();
        }
        assert_eq!(log.lost(), 0, "a second's worth may come at once");
        for _ in 0..5 {
            log.write_at(&refusal(), start);
        }
        assert_eq!(log.lost(), 5);
        let said = log.take_complaint().unwrap();
        assert!(said.starts_with("5 flows were not logged"), "{said}");
        assert_eq!(log.take_complaint(), None, "each is said once");

        let later = start + Duration::from_secs(3600);
        drop(socket);
        for _ in 0..=LINES_A_SECOND {
            log.write_at(&refusal(), later);
        }
        assert_eq!(log.lost(), 5 + 1 + u64::from(LINES_A_SECOND));
        let said = log.take_complaint().unwrap();
        let words = "since the start 6 over 300 a second, and 300 that journald did not take";
        assert!(said.ends_with(words), "{said}");
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
