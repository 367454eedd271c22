//! What the prefilter drops on the uplinks.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Serialize;

use crate::model::catalog::Catalog;

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Prefilter {
    /// Number of denied prefixes.
    pub prefixes: u64,
    /// Packets dropped by all of them.
    pub packets: u64,
    /// Frames that XDP could not parse, and passed on to tc.
    pub malformed: u64,
    /// The prefixes that have dropped packets, by the number of packets.
    pub hits: Vec<PrefilterHits>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct PrefilterHits {
    pub prefix: IpNet,
    /// Its table in the file.
    pub table: String,
    pub packets: u64,
}

impl Prefilter {
    pub fn new(catalog: &Catalog, packets: &BTreeMap<u32, u64>, malformed: u64) -> Prefilter {
        let hits = catalog.prefilter.iter().filter_map(|(number, info)| {
            let packets = packets
                .get(number)
                .copied()
                .filter(|packets| *packets > 0)?;
            Some(PrefilterHits {
                prefix: info.prefix,
                table: info.table.clone(),
                packets,
            })
        });
        let mut hits: Vec<PrefilterHits> = hits.collect();
        hits.sort_by_key(|hits| (Reverse(hits.packets), hits.prefix));
        Prefilter {
            prefixes: catalog.prefilter.len() as u64,
            packets: hits.iter().map(|hits| hits.packets).sum(),
            malformed,
            hits,
        }
    }
}
