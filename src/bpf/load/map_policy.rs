//! Which maps a load has for itself and which it shares with the loads before and after it. The table is an argument of loading:
//! with another one the same programs can be loaded a second time, on maps of their own.

use crate::bpf::takeover::policy::OnTakeover;

/// What a load does with a map of the object.
#[derive(Clone, Copy, Debug)]
pub struct MapPolicy {
    pub name: &'static str,
    pub scope: MapScope,
}

/// Who has a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapScope {
    /// Each load a new one, pinned with its programs.
    Private,
    /// All loads of a datapath the same one, pinned among the datapath's maps.
    Shared(OnTakeover),
}

/// The maps of the datapath.
pub const DATAPATH: [MapPolicy; 45] = [
    private("dpd_calls"),
    private("dpd_scratch"),
    private("dpd_prev_progs"),
    private("dpd_prev_ct"),
    shared("dpd_live", OnTakeover::Create),
    shared("dpd_settings", OnTakeover::Create),
    shared("dpd_services", OnTakeover::Create),
    shared("dpd_service_sources", OnTakeover::Create),
    shared("dpd_backend_lut", OnTakeover::Create),
    shared("dpd_maglev", OnTakeover::Create),
    shared("dpd_backends", OnTakeover::Create),
    shared("dpd_endpoints", OnTakeover::Create),
    shared("dpd_uplinks", OnTakeover::Create),
    shared("dpd_snat_ports", OnTakeover::Create),
    shared("dpd_announced", OnTakeover::Create),
    shared("dpd_ipcache", OnTakeover::Create),
    shared("dpd_policy", OnTakeover::Create),
    shared("dpd_prefilter", OnTakeover::Create),
    shared("dpd_ct_tcp", OnTakeover::MigrateConntrack),
    shared("dpd_ct_other", OnTakeover::MigrateConntrack),
    shared("dpd_ct_unreplied", OnTakeover::MigrateConntrack),
    shared("dpd_endpoint_conns", OnTakeover::Migrate),
    shared("dpd_fragments", OnTakeover::Migrate),
    shared("dpd_unmanaged", OnTakeover::Migrate),
    shared("dpd_counters", OnTakeover::Migrate),
    shared("dpd_endpoint_counters", OnTakeover::Migrate),
    shared("dpd_drop_counts", OnTakeover::Migrate),
    shared("dpd_rule_hits", OnTakeover::Migrate),
    shared("dpd_prefilter_hits", OnTakeover::Migrate),
    shared("dpd_drop_throttle", OnTakeover::Migrate),
    shared("dpd_event_ratelimit", OnTakeover::Migrate),
    shared("dpd_response_ratelimit", OnTakeover::Migrate),
    shared("dpd_link_ratelimit", OnTakeover::Migrate),
    shared("dpd_link_sources", OnTakeover::Migrate),
    shared("dpd_link_local_owners", OnTakeover::Migrate),
    shared("dpd_link_locals", OnTakeover::Migrate),
    shared("dpd_neighbour_uses", OnTakeover::Migrate),
    shared("dpd_snat_searched", OnTakeover::Migrate),
    shared("dpd_socket_peers", OnTakeover::Adopt),
    shared("dpd_socket_flows", OnTakeover::Migrate),
    shared("dpd_affinity", OnTakeover::Migrate),
    shared("dpd_asked", OnTakeover::Adopt),
    shared("dpd_drop_throttle_init", OnTakeover::Adopt),
    shared("dpd_reader", OnTakeover::Adopt),
    shared("dpd_events", OnTakeover::AdoptOfSameVersion),
];

const fn private(name: &'static str) -> MapPolicy {
    MapPolicy {
        name,
        scope: MapScope::Private,
    }
}

const fn shared(name: &'static str, on_takeover: OnTakeover) -> MapPolicy {
    MapPolicy {
        name,
        scope: MapScope::Shared(on_takeover),
    }
}

/// The scope of a map; `None`: programs don't use it, as the sections of globals that exist to name types.
pub fn scope(policies: &[MapPolicy], name: &str) -> Option<MapScope> {
    let policy = policies.iter().find(|policy| policy.name == name);
    policy.map(|policy| policy.scope)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use libbpf_rs::ObjectBuilder;

    use super::*;
    use crate::bpf::abi;

    #[test]
    fn every_map_of_the_object_has_a_policy() {
        let mut builder = ObjectBuilder::default();
        let open = builder.open_memory(abi::OBJECT).unwrap();
        let names = open
            .maps()
            .map(|map| map.name().to_string_lossy().into_owned());
        let maps: BTreeSet<String> = names.filter(|name| !name.contains('.')).collect();
        let policies = DATAPATH.iter().map(|policy| policy.name.to_owned());
        assert_eq!(policies.collect::<BTreeSet<_>>(), maps);
    }
}
