//! The tables of a generation, a row each: what their maps are made of, and how a state becomes their rows.

use libbpf_rs::MapType;
use libbpf_rs::libbpf_sys::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG};

use super::encode;
use crate::bpf::abi;
use crate::bpf::sys::map::{Kind, Rows};
use crate::model::state::State;

/// A table of a generation.
pub struct Table {
    pub kind: Kind,
    /// The name of its outer map.
    pub outer: &'static str,
    pub rows: fn(&State) -> Rows,
    /// Whether two states have the same rows.
    pub same: fn(&State, &State) -> bool,
}

const fn kind(
    name: &'static str,
    map_type: MapType,
    key_size: usize,
    value_size: usize,
    flags: u32,
) -> Kind {
    Kind {
        name,
        map_type,
        key_size: key_size as u32,
        value_size: value_size as u32,
        flags: flags | BPF_F_RDONLY_PROG,
    }
}

pub const TABLES: [Table; 13] = [
    Table {
        kind: kind("settings", MapType::Array, 4, size_of::<abi::settings>(), 0),
        outer: "dpd_settings",
        rows: |state| {
            let mut rows = Rows::default();
            rows.push(&0u32, &encode::settings(&state.settings));
            rows
        },
        same: |a, b| a.settings == b.settings,
    },
    Table {
        kind: kind(
            "services",
            MapType::Hash,
            size_of::<abi::service_key>(),
            size_of::<abi::service>(),
            0,
        ),
        outer: "dpd_services",
        rows: service_rows,
        // The rows of addresses alone depend on whose the addresses are.
        same: |a, b| a.services == b.services && a.service_addresses().eq(b.service_addresses()),
    },
    Table {
        kind: kind(
            "service_sources",
            MapType::LpmTrie,
            size_of::<abi::service_source_key>(),
            size_of::<abi::service_source>(),
            BPF_F_NO_PREALLOC,
        ),
        outer: "dpd_service_sources",
        rows: |state| {
            let mut rows = Rows::default();
            for (service, source) in &state.service_sources {
                let value = abi::service_source { service: *service };
                rows.push(&encode::service_source(*service, source), &value);
            }
            rows
        },
        same: |a, b| a.service_sources == b.service_sources,
    },
    Table {
        kind: kind(
            "backend_lut",
            MapType::Array,
            4,
            size_of::<abi::backend_lut_entry>(),
            BPF_F_INNER_MAP,
        ),
        outer: "dpd_backend_lut",
        rows: |state| {
            let mut rows = Rows::default();
            for (index, entry) in (0u32..).zip(&state.backend_lut) {
                rows.push(&index, &encode::lut_entry(entry));
            }
            rows
        },
        same: |a, b| a.backend_lut == b.backend_lut,
    },
    Table {
        kind: kind(
            "maglev",
            MapType::Array,
            4,
            size_of::<abi::maglev_row>(),
            BPF_F_INNER_MAP,
        ),
        outer: "dpd_maglev",
        rows: |state| {
            let sizes = state.maglev.values().map(encode::maglev_row_count);
            let mut rows = Rows::with_room::<u32, abi::maglev_row>(sizes.sum());
            for (index, row) in state.maglev.values().flat_map(encode::maglev_rows) {
                rows.push(&index, &row);
            }
            rows
        },
        same: |a, b| a.maglev == b.maglev,
    },
    Table {
        kind: kind("backends", MapType::Hash, 4, size_of::<abi::backend>(), 0),
        outer: "dpd_backends",
        rows: |state| {
            let mut rows = Rows::default();
            for (id, backend) in &state.backends {
                rows.push(id, &encode::backend(backend));
            }
            rows
        },
        same: |a, b| a.backends == b.backends,
    },
    Table {
        kind: kind("endpoints", MapType::Hash, 4, size_of::<abi::endpoint>(), 0),
        outer: "dpd_endpoints",
        rows: |state| {
            let mut rows = Rows::default();
            for (ifindex, endpoint) in &state.endpoints {
                rows.push(ifindex, &encode::endpoint(endpoint));
            }
            rows
        },
        same: |a, b| a.endpoints == b.endpoints,
    },
    Table {
        kind: kind("uplinks", MapType::Hash, 4, size_of::<abi::uplink>(), 0),
        outer: "dpd_uplinks",
        rows: |state| {
            let mut rows = Rows::default();
            for (ifindex, uplink) in &state.uplinks {
                rows.push(ifindex, &encode::uplink(uplink));
            }
            rows
        },
        same: |a, b| a.uplinks == b.uplinks,
    },
    Table {
        kind: kind(
            "snat_ports",
            MapType::Array,
            4,
            size_of::<abi::snat_port>(),
            BPF_F_INNER_MAP,
        ),
        outer: "dpd_snat_ports",
        rows: |state| {
            let mut rows = Rows::default();
            for (index, port) in (0u32..).zip(&state.snat_ports) {
                rows.push(&index, &encode::snat_port(*port));
            }
            rows
        },
        same: |a, b| a.snat_ports == b.snat_ports,
    },
    Table {
        kind: kind(
            "announced",
            MapType::Hash,
            size_of::<abi::link_address>(),
            size_of::<abi::announced>(),
            0,
        ),
        outer: "dpd_announced",
        rows: |state| {
            let mut rows = Rows::default();
            for (on_link, mac) in &state.announced {
                rows.push(&encode::link_address(on_link), &encode::announced(*mac));
            }
            rows
        },
        same: |a, b| a.announced == b.announced,
    },
    Table {
        kind: kind(
            "ipcache",
            MapType::LpmTrie,
            size_of::<abi::address_prefix_key>(),
            size_of::<abi::ipcache_entry>(),
            BPF_F_NO_PREALLOC,
        ),
        outer: "dpd_ipcache",
        rows: |state| {
            let mut rows = Rows::default();
            for (prefix, entry) in &state.ipcache {
                rows.push(&encode::prefix(prefix), &encode::ipcache_entry(entry));
            }
            rows
        },
        same: |a, b| a.ipcache == b.ipcache,
    },
    Table {
        kind: kind(
            "policy",
            MapType::LpmTrie,
            size_of::<abi::policy_key>(),
            size_of::<abi::policy>(),
            BPF_F_NO_PREALLOC,
        ),
        outer: "dpd_policy",
        rows: |state| {
            let mut rows = Rows::default();
            for (key, entry) in &state.policy {
                rows.push(&encode::policy_key(key), &encode::policy(entry));
            }
            rows
        },
        same: |a, b| a.policy == b.policy,
    },
    Table {
        kind: kind(
            "prefilter",
            MapType::LpmTrie,
            size_of::<abi::address_prefix_key>(),
            size_of::<abi::prefilter>(),
            BPF_F_NO_PREALLOC,
        ),
        outer: "dpd_prefilter",
        rows: |state| {
            let mut rows = Rows::default();
            for (prefix, entry) in &state.prefilter {
                let number = entry.number;
                rows.push(&encode::prefix(prefix), &abi::prefilter { number });
            }
            rows
        },
        same: |a, b| a.prefilter == b.prefilter,
    },
];

/// Each table with the number of rows that a state gives it.
pub fn sizes(state: &State) -> impl Iterator<Item = (Kind, u32)> {
    TABLES
        .iter()
        .map(|table| (table.kind, (table.rows)(state).count))
}

fn service_rows(state: &State) -> Rows {
    let mut rows = Rows::default();
    for (frontend, entry) in &state.services {
        rows.push(&encode::frontend(frontend), &encode::service(entry));
    }
    for address in state.service_addresses() {
        rows.push(&encode::service_address(address), &abi::service::default());
    }
    rows
}
