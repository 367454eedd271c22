//! What is wrong, for the first line: short enough to be read at a glance, the screen below has the details.

use super::report::Status;
use crate::model::status::{DriftCounts, MapStatus};

/// In percent: a map that is at least this full is a problem, and is listed before larger ones.
const NEARLY_FULL: u64 = 80;

/// Maps in which rows that are not used any more stay until their room is needed: in the long run they are full.
const CACHES: [&str; 2] = ["dpd_fragments", "dpd_socket_flows"];

/// The problems, the worst first; empty: all is well.
pub(super) fn problems(status: &Status) -> Vec<String> {
    let mut problems = Vec::new();
    match status.daemon.state {
        "up" => {}
        "down" => problems.push("the daemon is down".to_owned()),
        _ => problems.push("the daemon does not reply".to_owned()),
    }
    match status.config.revision {
        Some(_) => {}
        None if status.config.is_unreadable => {
            problems.push("the datapath can't be read".to_owned());
        }
        None => problems.push("there is no datapath".to_owned()),
    }
    if status.config.last_error.is_some() {
        problems.push("the last configuration is not applied, or not all of it".to_owned());
    }
    let skipped = status
        .drop_ins
        .iter()
        .filter(|drop_in| drop_in.is_skipped());
    let skipped = skipped.count() as u64;
    problems.extend(counted(
        skipped,
        "drop-in is skipped",
        "drop-ins are skipped",
    ));
    problems.extend(interfaces(status));
    let full = status.maps.iter().filter(|map| is_nearly_full(map));
    problems.extend(full.map(|map| format!("{} is {}% full", map.name, fill(map).unwrap_or(0))));
    let ports = status
        .conntrack
        .as_ref()
        .and_then(|conntrack| conntrack.source_ports.as_ref());
    let tight = ports.filter(|ports| ports.is_tight());
    problems.extend(tight.map(|ports| {
        format!(
            "{} of {} source ports are free to {}",
            ports.free, ports.total, ports.destination
        )
    }));
    problems.extend(lost_events(status));
    problems.extend(drift(status));
    problems.extend(counted(status.warnings.len() as u64, "warning", "warnings"));
    problems
}

/// An endpoint whose interface does not exist yet is no problem.
fn interfaces(status: &Status) -> Vec<String> {
    let mut problems = Vec::new();
    for interface in &status.interfaces {
        match (interface.state, interface.role) {
            ("detached", _) => problems.push(format!("{} is detached", interface.interface)),
            ("pending", Some("uplink")) => {
                problems.push(format!("uplink {} is pending", interface.interface));
            }
            _ if !interface.other_programs_first().is_empty() => {
                let name = &interface.interface;
                problems.push(format!("other programs come first at {name}"));
            }
            _ => {}
        }
    }
    if problems.len() > 1 {
        let first = problems.swap_remove(0);
        let more = counted(problems.len() as u64, "more interface", "more interfaces");
        problems = vec![format!("{first}, and {}", more.unwrap_or_default())];
    }
    problems
}

/// What an observer was too slow for is its own matter.
fn lost_events(status: &Status) -> Option<String> {
    let loss = &status.event_loss;
    let kernel = &loss.kernel;
    let lost = [
        kernel.ring_full,
        kernel.rate_limited,
        kernel.throttle_full,
        kernel.no_settings,
        loss.journal,
    ];
    counted(lost.iter().sum(), "lost event", "lost events")
}

fn drift(status: &Status) -> Option<String> {
    let DriftCounts {
        attachments,
        epoch,
        pins,
        tables,
    } = status.drift?;
    let repairs = attachments + epoch + pins + tables;
    counted(repairs, "repair of drift", "repairs of drift")
}

/// `1 warning`, `2 warnings`, or nothing.
fn counted(count: u64, one: &str, many: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {many}")),
    }
}

/// How full a map is, in percent, rounded up: a map with one entry is not 0 % full. Tables of the configuration have no
/// spare entries, so only the datapath's own maps count.
pub(super) fn fill(map: &MapStatus) -> Option<u64> {
    let is_own = map.name.starts_with("dpd_") && map.max_entries > 0;
    let entries = map.entries.filter(|_| is_own)?;
    Some((entries * 100).div_ceil(u64::from(map.max_entries)))
}

pub(super) fn is_nearly_full(map: &MapStatus) -> bool {
    !CACHES.contains(&map.name.as_str()) && fill(map).is_some_and(|percent| percent >= NEARLY_FULL)
}
