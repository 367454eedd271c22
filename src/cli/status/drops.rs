//! Drops by reason.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::status::{Metric, RecentDrops};

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Drops {
    pub reason: u8,
    pub reason_text: String,
    pub packets: u64,
    pub bytes: u64,
    /// In the last minute; `None` without a daemon.
    pub recent_packets: Option<u64>,
    pub recent_bytes: Option<u64>,
}

/// Drops by reason, over all interfaces and both directions.
pub(super) fn by_reason(metrics: &[Metric], recent: Option<&RecentDrops>) -> Vec<Drops> {
    let mut by_reason: BTreeMap<u8, Drops> = BTreeMap::new();
    for metric in metrics.iter().filter(|metric| metric.reason != 0) {
        let drops = by_reason.entry(metric.reason).or_insert_with(|| {
            let recent = recent.map(|recent| recent.by_reason.get(&metric.reason));
            let recent = recent.map(|amount| amount.copied().unwrap_or_default());
            Drops {
                reason: metric.reason,
                reason_text: metric.reason_text.clone(),
                packets: 0,
                bytes: 0,
                recent_packets: recent.map(|amount| amount.packets),
                recent_bytes: recent.map(|amount| amount.bytes),
            }
        });
        drops.packets += metric.packets;
        drops.bytes += metric.bytes;
    }
    by_reason.into_values().collect()
}
