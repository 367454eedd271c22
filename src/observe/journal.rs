//! Flows as journal records.

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

/// Whether this flow is to be written to the journal.
pub fn is_wanted(flow: &Flow, wanted: JournalFlows) -> bool {
    match wanted {
        JournalFlows::Off => false,
        // An audit verdict is what enforcement would drop.
        JournalFlows::Drops => flow.verdict != Verdict::Forwarded,
        JournalFlows::All => true,
    }
}

/// Rate limit of flow lines. journald drops what a unit logs over 10,000 records in 30 s (journald.conf(5),
/// `RateLimitBurst=`): a lower limit leaves room for the daemon's other lines, and the loss can be reported.
const LINES_PER_SECOND: u32 = 300;

/// Writes flows to the journal, or to the daemon's log on stderr without journald. It never blocks.
pub struct FlowLog {
    journal: Option<Journal>,
    rate_limit: Mutex<RateLimit>,
    /// Lines over the rate limit.
    limited: AtomicU64,
    /// Lost lines that were reported.
    reported: AtomicU64,
}

impl FlowLog {
    /// The target of `daemon.log`.
    ///
    /// # Errors
    /// If the journal's socket can't be created.
    pub fn open(target: LogTarget) -> Result<FlowLog> {
        let journal = logging::uses_journal(target)
            .then(|| Journal::open(Path::new(journal::SOCKET)))
            .transpose()?;
        Ok(FlowLog::to(journal))
    }

    fn to(journal: Option<Journal>) -> FlowLog {
        FlowLog {
            journal,
            rate_limit: Mutex::new(RateLimit::new(Instant::now())),
            limited: AtomicU64::new(0),
            reported: AtomicU64::new(0),
        }
    }

    /// Writes one record; a lost one is counted.
    pub fn write(&self, flow: &Flow) {
        self.write_at(flow, Instant::now());
    }

    fn write_at(&self, flow: &Flow, now: Instant) {
        let limit = self.rate_limit.lock();
        if !limit.unwrap_or_else(PoisonError::into_inner).take(now) {
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

    /// Lines that were not written since the start: over the rate limit, or refused by journald.
    pub fn lost(&self) -> u64 {
        self.limited() + self.refused()
    }

    fn limited(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.journal.as_ref().map_or(0, Journal::lost)
    }

    /// A report of the lines that were lost since the last call.
    pub fn take_loss_report(&self) -> Option<String> {
        let lost = self.lost();
        let new = lost - self.reported.swap(lost, Ordering::Relaxed);
        (new > 0).then(|| {
            format!(
                "{new} flows were not logged (`dpd observe` shows all): since the start {} over \
                 {LINES_PER_SECOND} a second, and {} refused by journald",
                self.limited(),
                self.refused()
            )
        })
    }
}

/// A token bucket of one second's lines.
struct RateLimit {
    tokens: f64,
    last: Instant,
}

impl RateLimit {
    fn new(now: Instant) -> RateLimit {
        RateLimit {
            tokens: LINES_PER_SECOND.into(),
            last: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.last).as_secs_f64();
        let rate = f64::from(LINES_PER_SECOND);
        self.tokens = (self.tokens + passed * rate).min(rate);
        self.last = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
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
pub fn entry(flow: &Flow) -> Vec<(String, String)> {
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
            // A field may occur several times in a record, and is matched by each of its values.
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
    use crate::observe::samples::{denied, request};

    #[test]
    fn a_drop_as_a_record() {
        let entry: BTreeMap<String, String> = entry(&denied()).into_iter().collect();
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
        assert_eq!(of(&denied(), field), ["dns-clients", "lock-down"]);
        assert_eq!(of(&request(), field), [""; 0]);
        assert_eq!(of(&request(), "DPD_CONFIG_LINE"), ["42"]);
    }

    #[test]
    fn a_name_of_several_lines_breaks_no_record() {
        let name = "a\nMESSAGE=forged\u{1b}[2J \"b\" = \0";
        let odd = Flow {
            src: crate::observe::samples::peer("10.200.0.65", 1, 20002, name),
            ..denied()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        FlowLog::to(Some(Journal::open(&path).unwrap())).write(&odd);
        let mut datagram = [0; 4096];
        let length = socket.recv(&mut datagram).unwrap();
        let record = &datagram[..length];
        let message = "MESSAGE=10.200.0.65:1 (a\\nMESSAGE=forged\\u{1b}[2J \"b\" = \\u{0})";
        assert!(record.starts_with(message.as_bytes()), "one line of text");
        let mut field = b"\nDPD_SRC_NAME\n".to_vec();
        field.extend((name.len() as u64).to_le_bytes());
        field.extend(name.as_bytes());
        let has_field = record.windows(field.len()).any(|part| part == field);
        assert!(
            has_field,
            "the field is unescaped, with its length before it"
        );
    }

    #[test]
    fn a_flood_is_limited_counted_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let log = FlowLog::to(Some(Journal::open(&path).unwrap()));
        let start = Instant::now();
        let mut datagram = [0; 4096];
        assert_eq!(log.take_loss_report(), None);
        for _ in 0..LINES_PER_SECOND {
            log.write_at(&denied(), start);
            socket.recv(&mut datagram).unwrap();
        }
        assert_eq!(log.lost(), 0, "a second's worth may come at once");
        for _ in 0..5 {
            log.write_at(&denied(), start);
        }
        assert_eq!(log.lost(), 5);
        let report = log.take_loss_report().unwrap();
        assert!(report.starts_with("5 flows were not logged"), "{report}");
        assert_eq!(log.take_loss_report(), None, "each is reported once");

        let later = start + Duration::from_secs(3600);
        drop(socket);
        for _ in 0..=LINES_PER_SECOND {
            log.write_at(&denied(), later);
        }
        assert_eq!(log.lost(), 5 + 1 + u64::from(LINES_PER_SECOND));
        let report = log.take_loss_report().unwrap();
        let counts = "since the start 6 over 300 a second, and 300 refused by journald";
        assert!(report.ends_with(counts), "{report}");
    }

    #[test]
    fn priorities_and_choice() {
        let audit = Flow {
            verdict: Verdict::Audit,
            ..denied()
        };
        // (flow, priority, wanted as [drops, all, off])
        let rows = [
            (request(), "6", [false, true, false]),
            (denied(), "4", [true, true, false]),
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
