//! The daemon's work: configuration, drift and events, and its version.

use anyhow::Result;

use super::facts::Facts;
use super::family::{Family, Page, counter, gauge, summary};
use crate::model::announce::AnnouncementState;

const BUILD: Family = gauge("dpd_build_info", &["version"], "The daemon's version.");
const REVISION: Family = gauge(
    "dpd_config_revision",
    &[],
    "Number of the live configuration, one more with each change.",
);
const SUCCESSFUL: Family = gauge(
    "dpd_config_last_reload_successful",
    &[],
    "Whether the datapath matches the file as it is now.",
);
const APPLIED: Family = gauge(
    "dpd_config_last_reload_success_timestamp_seconds",
    &[],
    "When the file was last applied, in Unix time.",
);
const RELOADS: Family = counter(
    "dpd_config_reloads_total",
    &["result"],
    "Reloads of the file, the first included, by whether it could be applied.",
);
const APPLIES: Family = summary(
    "dpd_config_apply_duration_seconds",
    "Comparisons of the datapath with the configuration, the resulting changes included.",
);
const HOST: Family = gauge(
    "dpd_host_sync_last_successful",
    &[],
    "Whether the last change of the host, such as of an interface, could be followed.",
);
const WARNINGS: Family = gauge(
    "dpd_host_warnings",
    &[],
    "What the host lacks for the file; see dpd status.",
);
const ANNOUNCEMENTS: Family = gauge(
    "dpd_l2_announcements",
    &["state"],
    "Addresses of services on uplinks with l2_announce: announced, being probed, or in conflict with another host.",
);
const DROP_INS: Family = gauge(
    "dpd_config_runtime_drop_ins",
    &["state"],
    "Runtime drop-ins: in effect, or skipped; see dpd status.",
);
const DRIFT: Family = counter(
    "dpd_drift_repaired_total",
    &["kind"],
    "Changes of the datapath by other programs that the daemon repaired: attachments, tables, pins, or the epoch.",
);
const EVENTS: Family = counter(
    "dpd_events_read_total",
    &[],
    "Events that the daemon has read since its start.",
);
const LOST: Family = counter(
    "dpd_events_lost_total",
    &["cause"],
    "Lost events: the ring was full, they were over events.rate, or an observer or the journal was too slow.",
);

pub(super) const FAMILIES: &[Family] = &[
    BUILD,
    REVISION,
    SUCCESSFUL,
    APPLIED,
    RELOADS,
    APPLIES,
    HOST,
    WARNINGS,
    ANNOUNCEMENTS,
    DROP_INS,
    DRIFT,
    EVENTS,
    LOST,
];

pub(super) fn write(page: &mut Page, facts: &Facts) -> Result<()> {
    let work = &facts.work;
    page.write(&BUILD, [(vec![facts.version.to_owned()], 1.0)])?;
    page.write_one(&REVISION, facts.revision as f64)?;
    page.write_one(&SUCCESSFUL, f64::from(!work.file_failed))?;
    page.write_one(&APPLIED, work.file_applied_seconds)?;
    let results = [
        ("success", work.reloads_done),
        ("failure", work.reloads_failed),
    ];
    page.write(&RELOADS, results.map(named))?;
    page.write_times(&APPLIES, work.applies)?;
    page.write_one(&HOST, f64::from(!work.host_failed))?;
    page.write_one(&WARNINGS, work.warnings as f64)?;
    let announcements = [
        ("announced", AnnouncementState::Announced),
        ("probing", AnnouncementState::Probing),
        ("conflict", AnnouncementState::Conflict),
    ];
    page.write(
        &ANNOUNCEMENTS,
        announcements.map(|(name, state)| {
            let of_state = work.announcements.iter().filter(|known| **known == state);
            named((name, of_state.count() as u64))
        }),
    )?;
    let drop_ins = [
        ("in_effect", work.drop_ins - work.drop_ins_skipped),
        ("skipped", work.drop_ins_skipped),
    ];
    let drop_ins = drop_ins.map(|(state, count)| (vec![state.to_owned()], count as f64));
    page.write(&DROP_INS, drop_ins)?;
    let drift = [
        ("attachments", work.drift.attachments),
        ("tables", work.drift.tables),
        ("pins", work.drift.pins),
        ("epoch", work.drift.epoch),
    ];
    page.write(&DRIFT, drift.map(named))?;
    write_events(page, facts)
}

fn write_events(page: &mut Page, facts: &Facts) -> Result<()> {
    page.write_one(&EVENTS, facts.work.events as f64)?;
    let mut lost = vec![
        ("observer", facts.work.observers_lost),
        ("journal", facts.work.journal_lost),
    ];
    if let Some(loss) = page.take("events", &facts.event_loss) {
        lost.push(("ring_full", loss.ring_full));
        lost.push(("rate_limited", loss.rate_limited));
        lost.push(("throttle_full", loss.throttle_full));
        lost.push(("no_settings", loss.no_settings));
    }
    page.write(&LOST, lost.into_iter().map(named))
}

fn named((name, value): (&str, u64)) -> (Vec<String>, f64) {
    (vec![name.to_owned()], value as f64)
}
