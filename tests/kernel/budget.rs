//! The memory that `dpd check --budget` computes is what the kernel counts.

use std::collections::BTreeMap;

use dpd::bpf::attach::Mechanism;
use dpd::bpf::load::budget::budget;
use dpd::bpf::state::ct_table::Sizes;
use dpd::model::budget::MapBudget;
use dpd::plan;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::generate::{self, Size};
use crate::host::on_host;

const SIZE: Size = Size {
    services: 300,
    backends_per_service: 5,
    endpoints: 40,
    identities: 100,
    rules: 400,
    prefixes: 300,
};

/// More than one byte in fifty off, and more than another kernel's own structs can be.
fn is_off(computed: u64, counted: u64) -> bool {
    let difference = computed.abs_diff(counted);
    difference > 1024 && difference * 50 > counted
}

#[test]
fn the_budget_is_what_the_kernel_counts() {
    on_host(|host| {
        // Some of them with Maglev tables.
        let (from, to) = ("\nbackends = [", "\nalgorithm = \"maglev\"\nbackends = [");
        let config = host.config(&generate::config(&SIZE).replacen(from, to, 50));
        let mut reconciler = host.take_over(&config, Mechanism::Tcx);
        host.apply(&mut reconciler, &config);
        let state = reconciler.live().expect("what is live");
        let rules = MapHandle::from_pinned_path(host.pins().map("dpd_rule_hits"))
            .expect("open the hits of rules");
        let cpus = libbpf_rs::num_possible_cpus().expect("count CPUs");
        for number in state.catalog.rules.keys() {
            let hits = vec![1u64.to_ne_bytes().to_vec(); cpus];
            rules
                .update_percpu(&number.to_ne_bytes(), &hits, MapFlags::ANY)
                .expect("count a hit");
        }

        let connections = config.conntrack.size;
        let budget = budget(Sizes { connections }, state).expect("compute the budget");
        let computed: BTreeMap<&str, &MapBudget> = budget
            .maps
            .iter()
            .map(|map| (map.name.as_str(), map))
            .collect();
        let counted = host.reader().maps().expect("ask the kernel");
        for map in &counted {
            let own = computed[map.name.as_str()];
            let is_full = map.entries.is_none_or(|entries| entries == own.entries);
            let grows = [
                "dpd_drop_counts",
                "dpd_unmanaged",
                "dpd_endpoint_conns",
                "dpd_prefilter_hits",
            ];
            if grows.contains(&map.name.as_str()) && !is_full {
                assert!(own.bytes >= map.memory_bytes, "{own:?} {map:?}");
                continue;
            }
            assert!(!is_off(own.bytes, map.memory_bytes), "{own:?} {map:?}");
        }
        let own = ["dpd_calls", "dpd_prev_ct", "dpd_prev_progs", "dpd_scratch"];
        let mut left: Vec<&str> = computed.keys().copied().collect();
        left.retain(|name| !counted.iter().any(|map| map.name == *name));
        assert_eq!(left, own, "only private maps are not among the pinned");

        // The file alone gives the same as what runs: none of its interfaces is here.
        let file = plan::compile(plan::Inputs {
            config: &config,
            host: &plan::assumed_host(&config),
            now_ns: 0,
            previous: &Default::default(),
            previous_maglev: &Default::default(),
        });
        let file = file.expect("compile the file");
        assert_eq!(file.endpoints.len(), SIZE.endpoints);
        for table in ["services", "backend_lut", "maglev", "backends", "policy"] {
            let of_file = dpd::bpf::load::budget::budget(Sizes { connections }, &file);
            let of_file = of_file.expect("compute the budget").maps;
            let of_file = of_file.iter().find(|map| map.name == table);
            assert_eq!(of_file, Some(computed[table]), "{table}");
        }
    });
}
