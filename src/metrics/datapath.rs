//! Packets forwarded and dropped, by interface.

use std::collections::HashMap;

use anyhow::Result;

use super::facts::Facts;
use super::family::{Family, Page, Series, counter, gauge};
use crate::model::catalog::Catalog;
use crate::model::status::Metric;

const FORWARDED_PACKETS: Family = counter(
    "dpd_forwarded_packets_total",
    &["interface", "direction"],
    "Packets forwarded; directions are the workload's.",
);
const FORWARDED_BYTES: Family = counter(
    "dpd_forwarded_bytes_total",
    &["interface", "direction"],
    "Bytes of the packets forwarded, from the network header on.",
);
const DROPPED_PACKETS: Family = counter(
    "dpd_dropped_packets_total",
    &["interface", "direction", "reason", "code"],
    "Packets dropped, by the reason's text and number.",
);
const DROPPED_BYTES: Family = counter(
    "dpd_dropped_bytes_total",
    &["interface", "direction", "reason", "code"],
    "Bytes of the packets dropped, from the network header on.",
);
const INTERFACES: Family = gauge(
    "dpd_interfaces",
    &["role", "state"],
    "Interfaces of the file: present, or pending because they do not exist yet or are skipped.",
);
const XDP: Family = gauge(
    "dpd_xdp_attached",
    &["interface", "mode"],
    "Uplinks with the XDP program: in the driver (native), or in the kernel's receive path (generic).",
);
const PREFIXES: Family = gauge(
    "dpd_prefilter_prefixes",
    &["table"],
    "Prefixes that the prefilter denies.",
);
const PREFIX_DROPS: Family = counter(
    "dpd_prefilter_dropped_packets_total",
    &["table", "prefix"],
    "Packets dropped by XDP, by the denied prefix; a prefix without drops has no series.",
);
const MALFORMED: Family = counter(
    "dpd_xdp_malformed_frames_total",
    &[],
    "Frames that XDP could not parse, and passed on to tc.",
);

const RESPONSES_LIMITED: Family = counter(
    "dpd_responses_limited_total",
    &[],
    "ICMP errors and resets that were not sent: more than 100 a second for one interface.",
);

pub(super) const FAMILIES: &[Family] = &[
    FORWARDED_PACKETS,
    FORWARDED_BYTES,
    DROPPED_PACKETS,
    DROPPED_BYTES,
    INTERFACES,
    XDP,
    PREFIXES,
    PREFIX_DROPS,
    MALFORMED,
    RESPONSES_LIMITED,
];

pub(super) fn write(page: &mut Page, facts: &Facts) -> Result<()> {
    if let Some(counters) = page.take("counters", &facts.counters) {
        write_counters(page, &facts.catalog, counters)?;
    }
    page.write(&INTERFACES, interfaces(&facts.catalog))?;
    let xdp = facts.xdp.iter();
    page.write(
        &XDP,
        xdp.map(|at| (vec![at.interface.clone(), at.mechanism.clone()], 1.0)),
    )?;
    if let Some(malformed) = page.take("xdp", &facts.malformed) {
        page.write_one(&MALFORMED, *malformed as f64)?;
    }
    if let Some(limited) = page.take("responses", &facts.responses_limited) {
        page.write_one(&RESPONSES_LIMITED, *limited as f64)?;
    }
    write_prefilter(page, facts)
}

fn write_counters(page: &mut Page, catalog: &Catalog, counters: &[Metric]) -> Result<()> {
    let names: HashMap<u32, &str> = catalog
        .interfaces()
        .filter_map(|(name, ifindex)| Some((ifindex?, name)))
        .collect();
    let interface = |metric: &Metric| {
        let name = names.get(&metric.ifindex).copied();
        match (name, metric.ifindex) {
            (Some(name), _) => name.to_owned(),
            (None, 0) => "host".to_owned(),         // its own sockets
            (None, ifindex) => ifindex.to_string(), // it has left the file
        }
    };
    let (dropped, forwarded): (Vec<&Metric>, Vec<&Metric>) =
        counters.iter().partition(|metric| metric.reason != 0);
    let passed = |metric: &Metric| vec![interface(metric), metric.direction.clone()];
    let denied = |metric: &Metric| {
        let (reason, code) = (metric.reason_text.clone(), metric.reason.to_string());
        vec![interface(metric), metric.direction.clone(), reason, code]
    };
    let of = |rows: &[&Metric], labels: &dyn Fn(&Metric) -> Vec<String>, bytes: bool| {
        let value = |row: &Metric| if bytes { row.bytes } else { row.packets } as f64;
        let series = rows.iter().map(|row| (labels(row), value(row)));
        series.collect::<Vec<Series>>()
    };
    page.write(&FORWARDED_PACKETS, of(&forwarded, &passed, false))?;
    page.write(&FORWARDED_BYTES, of(&forwarded, &passed, true))?;
    page.write(&DROPPED_PACKETS, of(&dropped, &denied, false))?;
    page.write(&DROPPED_BYTES, of(&dropped, &denied, true))
}

fn interfaces(catalog: &Catalog) -> Vec<Series> {
    let uplinks: Vec<bool> = catalog
        .uplinks
        .values()
        .map(|uplink| uplink.ifindex.is_some())
        .collect();
    let endpoints: Vec<bool> = catalog
        .endpoints
        .values()
        .map(|endpoint| endpoint.ifindex.is_some())
        .collect();
    let mut series = Vec::new();
    for (role, are_there) in [("endpoint", endpoints), ("uplink", uplinks)] {
        for (state, wanted) in [("present", true), ("pending", false)] {
            let count = are_there.iter().filter(|there| **there == wanted).count();
            series.push((vec![role.to_owned(), state.to_owned()], count as f64));
        }
    }
    series
}

fn write_prefilter(page: &mut Page, facts: &Facts) -> Result<()> {
    let prefilter = &facts.catalog.prefilter;
    let mut tables: std::collections::BTreeMap<&str, u64> = Default::default();
    for info in prefilter.values() {
        *tables.entry(&info.table).or_default() += 1;
    }
    let tables = tables.into_iter();
    page.write_bounded(
        &PREFIXES,
        tables.map(|(table, count)| (vec![table.to_owned()], count as f64)),
    )?;
    let Some(hits) = page.take("prefilter", &facts.prefilter_hits) else {
        return Ok(());
    };
    let drops = hits.iter().filter_map(|(number, packets)| {
        let info = prefilter.get(number)?;
        let labels = vec![info.table.clone(), info.prefix.to_string()];
        Some((labels, *packets as f64))
    });
    let drops: Vec<Series> = drops.collect();
    page.write_bounded(&PREFIX_DROPS, drops.into_iter())
}
