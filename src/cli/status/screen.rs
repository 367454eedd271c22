//! The status as text: as much of each listing as fits one screen, problems first.

use std::cmp::Reverse;
use std::fmt::Write;

use super::daemon::ago;
use super::health::{fill, is_nearly_full};
use super::prefilter::Prefilter;
use super::report::{Conntrack, Loss, Status};
use super::sockets;
use crate::cli::output::{size, table};
use crate::model::status::MapStatus;

/// Lines of each listing.
const INTERFACES: usize = 8;
const UPLINKS: usize = 2;
const DROP_INS: usize = 2;
const MAPS: usize = 8;
const PREFIXES: usize = 4;
const REASONS: usize = 6;
const WARNINGS: usize = 4;
/// One for each family.
const HINTS: usize = 2;
/// Columns of programs.
const PROGRAM_COLUMNS: usize = 3;

/// The whole screen.
pub(super) fn screen(status: &Status) -> String {
    let mut out = String::new();
    // Writing into a string can't fail.
    let _ = write_head(status, &mut out);
    write_interfaces(status, &mut out);
    write_programs(status, &mut out);
    write_maps(status, &mut out);
    write_prefilter(status, &mut out);
    write_drops(status, &mut out);
    write_warnings(status, &mut out);
    out
}

fn write_head(status: &Status, out: &mut String) -> std::fmt::Result {
    let health = match status.problems.is_empty() {
        true => "ok".to_owned(),
        false => status.problems.join("; "),
    };
    writeln!(out, "health:     {health}")?;
    writeln!(out, "daemon:     {}", status.daemon.text(&status.config))?;
    writeln!(out, "config:     {}", status.config.text())?;
    if let Some(error) = &status.config.last_error {
        writeln!(out, "last error: {}", indent(error))?;
    }
    write_drop_ins(status, out)?;
    if let Some(text) = sockets::text(&status.sockets) {
        writeln!(out, "sockets:    {text}")?;
    }
    if let Some(conntrack) = &status.conntrack {
        writeln!(out, "conntrack:  {}", conntrack_text(conntrack))?;
    }
    let Loss {
        kernel,
        observers,
        journal,
    } = &status.event_loss;
    writeln!(
        out,
        "event loss: {} ring full, {} over the rate, {} throttle full, {} no settings, {} observers too slow, {} not logged; {} drops suppressed",
        kernel.ring_full,
        kernel.rate_limited,
        kernel.throttle_full,
        kernel.no_settings,
        observers,
        journal,
        kernel.suppressed
    )?;
    if let Some(drift) = &status.drift {
        writeln!(
            out,
            "drift:      repaired: {} attachments, {} tables, {} pins, {} times the revision",
            drift.attachments, drift.tables, drift.pins, drift.epoch
        )?;
    }
    Ok(())
}

/// The number of runtime drop-ins, and why the first of the skipped ones are.
fn write_drop_ins(status: &Status, out: &mut String) -> std::fmt::Result {
    if status.drop_ins.is_empty() {
        return Ok(());
    }
    let skipped = || {
        status
            .drop_ins
            .iter()
            .filter(|drop_in| drop_in.is_skipped())
    };
    let count = skipped().count();
    let in_effect = status.drop_ins.len() - count;
    writeln!(out, "drop-ins:   {in_effect} in effect, {count} skipped")?;
    for drop_in in skipped().take(DROP_INS) {
        let reason = drop_in.reason.as_deref().unwrap_or_default();
        let reason: Vec<&str> = reason.lines().take(2).map(str::trim).collect();
        writeln!(out, "            {}: {}", drop_in.path, reason.join(" "))?;
    }
    if let Some(more) = count.checked_sub(DROP_INS).filter(|more| *more > 0) {
        writeln!(
            out,
            "            and {more} more skipped (`dpd status -o json`)"
        )?;
    }
    Ok(())
}

/// The entries, and below them the connections: `tcp 12 established, 1 closing; udp 3 unreplied`.
fn conntrack_text(conntrack: &Conntrack) -> String {
    let counts = &conntrack.counts;
    let mut text = format!(
        "{} present, {} inserted, {} deleted, {} evicted before they expired",
        counts.present, counts.inserted, counts.deleted, counts.evicted
    );
    let mut protocol = "";
    for row in &conntrack.connections {
        let (state, connections) = (row.state, row.connections);
        if row.protocol != protocol {
            let before = if protocol.is_empty() {
                "\n            "
            } else {
                "; "
            };
            text += &format!("{before}{} {connections} {state}", row.protocol);
            protocol = &row.protocol;
        } else {
            text += &format!(", {connections} {state}");
        }
    }
    let ports = conntrack.source_ports.as_ref();
    if let Some(ports) = ports.filter(|ports| ports.is_tight()) {
        text += &format!(
            "\n            SNAT: {} of {} source ports are in use from {} to {}: {} free",
            ports.used, ports.total, ports.source, ports.destination, ports.free
        );
    }
    text
}

fn write_interfaces(status: &Status, out: &mut String) {
    let mut interfaces: Vec<_> = status.interfaces.iter().collect();
    interfaces.sort_by_key(|interface| interface.rank());
    let (shown, rest) = interfaces.split_at(interfaces.len().min(INTERFACES));
    let lines = shown.iter().map(|interface| {
        let index = interface.ifindex.map(|index| index.to_string());
        vec![
            interface.interface.clone(),
            index.unwrap_or_default(),
            interface.role.unwrap_or_default().to_owned(),
            interface.state.to_owned(),
            interface.attached(),
            interface.other_programs_first(),
        ]
    });
    let header = [
        "INTERFACE",
        "IFINDEX",
        "ROLE",
        "STATE",
        "BY",
        "OTHER PROGRAMS FIRST",
    ];
    section(out, "interfaces", &header, lines.collect());
    let mut states: Vec<String> = Vec::new();
    for state in ["attached", "detached", "pending"] {
        let count = rest
            .iter()
            .filter(|interface| interface.state == state)
            .count();
        if count > 0 {
            states.push(format!("{count} {state}"));
        }
    }
    if !states.is_empty() {
        let (count, states) = (rest.len(), states.join(", "));
        let _ = writeln!(out, "and {count} more: {states} (`dpd endpoint list`)");
    }
    let ways = shown.iter().filter_map(|shown| shown.forwarding_line());
    let prefilters = shown.iter().filter_map(|shown| shown.prefilter_line());
    let announcements = shown.iter().filter_map(|shown| shown.announcements_line());
    let lines = ways.take(UPLINKS).chain(prefilters.take(UPLINKS));
    for line in lines.chain(announcements.take(UPLINKS)) {
        let _ = writeln!(out, "{line}");
    }
}

fn write_programs(status: &Status, out: &mut String) {
    let cells: Vec<Vec<String>> = status
        .programs
        .iter()
        .map(|program| {
            let verified = program.verified_instructions.to_string();
            vec![program.name.clone(), verified]
        })
        .collect();
    // Down the columns, as `ls` does.
    let height = cells.len().div_ceil(PROGRAM_COLUMNS);
    let width = cells.len().div_ceil(height.max(1));
    let lines = (0..height).map(|line| {
        let at = |column: usize| cells.get(column * height + line).cloned();
        let nothing = || vec![String::from(" "), String::from(" ")];
        (0..width)
            .flat_map(|column| at(column).unwrap_or_else(nothing))
            .collect()
    });
    let header = ["PROGRAM", "VERIFIED"].repeat(width);
    section(out, "programs", &header, lines.collect());
}

fn write_maps(status: &Status, out: &mut String) {
    let mut maps: Vec<&MapStatus> = status.maps.iter().collect();
    maps.sort_by_key(|map| {
        let memory = Reverse(map.memory_bytes);
        (!is_nearly_full(map), memory, map.name.as_str())
    });
    let (shown, rest) = maps.split_at(maps.len().min(MAPS));
    let lines = shown.iter().map(|map| {
        let entries = map.entries.map(|entries| entries.to_string());
        let share = fill(map).map(|percent| format!("{percent}%"));
        vec![
            map.name.clone(),
            map.kind.clone(),
            entries.unwrap_or_default(),
            map.max_entries.to_string(),
            share.unwrap_or_default(),
            size(map.memory_bytes),
        ]
    });
    let header = ["MAP", "KIND", "ENTRIES", "MAX", "FULL", "MEMORY"];
    section(out, "maps", &header, lines.collect());
    let memory = |maps: &[&MapStatus]| size(maps.iter().map(|map| map.memory_bytes).sum());
    if !rest.is_empty() {
        let (more, all) = (memory(rest), memory(&maps));
        let count = rest.len();
        let _ = writeln!(out, "and {count} more, {more}; {all} in total");
    }
}

pub(super) fn write_prefilter(status: &Status, out: &mut String) {
    let prefilter = &status.prefilter;
    if prefilter.prefixes == 0 {
        return;
    }
    if prefilter.hits.is_empty() {
        let prefixes = count_of(prefilter.prefixes, "prefix", "prefixes");
        let _ = writeln!(out, "\nprefilter: {prefixes}, nothing dropped");
    } else {
        write_prefilter_hits(prefilter, out);
    }
    if prefilter.malformed > 0 {
        let frames = count_of(prefilter.malformed, "malformed frame", "malformed frames");
        let _ = writeln!(out, "prefilter: {frames} passed on");
    }
}

fn write_prefilter_hits(prefilter: &Prefilter, out: &mut String) {
    let line = |first: String, second: &str, packets: u64| {
        vec![first, second.to_owned(), packets.to_string()]
    };
    let hits = &prefilter.hits;
    let (shown, rest) = hits.split_at(hits.len().min(PREFIXES));
    let mut lines: Vec<_> = shown
        .iter()
        .map(|hits| line(hits.prefix.to_string(), &hits.table, hits.packets))
        .collect();
    if !rest.is_empty() {
        let packets = rest.iter().map(|hits| hits.packets).sum();
        lines.push(line(format!("{} more", rest.len()), "", packets));
    }
    let prefixes = count_of(prefilter.prefixes, "prefix", "prefixes");
    lines.push(line("total".to_owned(), &prefixes, prefilter.packets));
    section(out, "prefilter", &["PREFILTER", "TABLE", "PACKETS"], lines);
}

/// `1 prefix`, `2 prefixes`.
fn count_of(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}

fn write_drops(status: &Status, out: &mut String) {
    let mut drops: Vec<_> = status.drops.iter().collect();
    drops.sort_by_key(|row| {
        (
            Reverse(row.recent_packets),
            Reverse(row.packets),
            row.reason,
        )
    });
    let (shown, rest) = drops.split_at(drops.len().min(REASONS));
    let lines = shown.iter().map(|row| {
        let recent = row.recent_packets.map(|packets| packets.to_string());
        vec![
            format!("{} ({})", row.reason_text, row.reason),
            recent.unwrap_or_default(),
            row.packets.to_string(),
            row.bytes.to_string(),
        ]
    });
    let recent = match status.drops_recent_seconds {
        Some(seconds) => format!("LAST {}", ago(seconds)),
        None => "LAST MINUTE".to_owned(),
    };
    let header = ["DROP REASON", recent.as_str(), "PACKETS", "BYTES"];
    section(out, "drops", &header, lines.collect());
    if !rest.is_empty() {
        let count = rest.len();
        let _ = writeln!(out, "and {count} more (`dpd status -o json`)");
    }
    if status.drops_recent_seconds.is_none() && !shown.is_empty() {
        let _ = writeln!(
            out,
            "no daemon, so the drops of the last minute are unknown: these are totals"
        );
    }
}

fn write_warnings(status: &Status, out: &mut String) {
    let (warnings, hints) = (&status.warnings, &status.hints);
    if !warnings.is_empty() || !hints.is_empty() {
        out.push('\n');
    }
    for warning in warnings.iter().take(WARNINGS) {
        let _ = writeln!(out, "warning: {}", indent(warning));
    }
    if warnings.len() > WARNINGS {
        let count = warnings.len() - WARNINGS;
        let _ = writeln!(out, "and {count} more warnings (`dpd status -o json`)");
    }
    for hint in hints.iter().take(HINTS) {
        let _ = writeln!(out, "note: {}", indent(hint));
    }
}

/// A table after an empty line, or `…: none`.
fn section(out: &mut String, what: &str, header: &[&str], lines: Vec<Vec<String>>) {
    out.push('\n');
    if lines.is_empty() {
        let _ = writeln!(out, "{what}: none");
    } else {
        out.push_str(&table(header, lines));
    }
}

/// Aligns the lines of a text in one column.
fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n            ")
}
