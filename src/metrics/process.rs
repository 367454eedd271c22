//! The daemon's process, under the names that every Prometheus client has for it.

use anyhow::Result;

use super::facts::Facts;
use super::family::{Family, Page, counter, gauge};

const CPU: Family = counter(
    "process_cpu_seconds_total",
    &[],
    "CPU time of the daemon, user and system.",
);
const RESIDENT: Family = gauge(
    "process_resident_memory_bytes",
    &[],
    "Resident memory of the daemon.",
);
const VIRTUAL: Family = gauge(
    "process_virtual_memory_bytes",
    &[],
    "Virtual memory of the daemon.",
);
const OPEN_FDS: Family = gauge(
    "process_open_fds",
    &[],
    "Open file descriptors of the daemon.",
);
const MAX_FDS: Family = gauge(
    "process_max_fds",
    &[],
    "Limit of the daemon's open file descriptors.",
);
const THREADS: Family = gauge("process_threads", &[], "Threads of the daemon.");
const STARTED: Family = gauge(
    "process_start_time_seconds",
    &[],
    "When the daemon was started, in Unix time.",
);

pub(super) const FAMILIES: &[Family] =
    &[CPU, RESIDENT, VIRTUAL, OPEN_FDS, MAX_FDS, THREADS, STARTED];

pub(super) fn write(page: &mut Page, facts: &Facts) -> Result<()> {
    let Some(usage) = page.take("process", &facts.usage) else {
        return Ok(());
    };
    page.write_one(&CPU, usage.cpu_seconds)?;
    page.write_one(&RESIDENT, usage.resident_bytes as f64)?;
    page.write_one(&VIRTUAL, usage.virtual_bytes as f64)?;
    page.write_one(&OPEN_FDS, usage.open_fds as f64)?;
    page.write(
        &MAX_FDS,
        usage.max_fds.map(|most| (Vec::new(), most as f64)),
    )?;
    page.write_one(&THREADS, usage.threads as f64)?;
    page.write_one(&STARTED, usage.started_seconds)
}
