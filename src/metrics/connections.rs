//! Connections and the services that they use, as the last sweep counted them.

use std::collections::BTreeMap;

use anyhow::Result;

use super::facts::{Facts, Sweep};
use super::family::{Family, Page, Series, counter, gauge, summary};
use crate::model::conntrack::{BackendConnections, ConntrackState, Tally};
use crate::model::protocol::Protocol;
use crate::model::service::BackendState;

const CONNECTIONS: Family = gauge(
    "dpd_conntrack_connections",
    &["protocol", "state"],
    "Connections that have not expired, as counted by the last sweep.",
);
const INSERTED: Family = counter(
    "dpd_conntrack_inserted_entries_total",
    &[],
    "Entries inserted into the conntrack maps, two for each connection.",
);
const DELETED: Family = counter(
    "dpd_conntrack_deleted_entries_total",
    &[],
    "Entries deleted from the conntrack maps, by a packet or by a sweep after they expired.",
);
const EVICTED: Family = counter(
    "dpd_conntrack_evicted_entries_total",
    &[],
    "Entries evicted by the kernel before they expired, since a conntrack map was full.",
);
const SWEEPS: Family = summary(
    "dpd_conntrack_sweep_duration_seconds",
    "Sweeps, which walk over all connections and delete the expired ones.",
);
const SWEEPS_FAILED: Family = counter(
    "dpd_conntrack_sweep_failures_total",
    &[],
    "Sweeps that failed.",
);
const SWEPT: Family = gauge(
    "dpd_conntrack_last_sweep_timestamp_seconds",
    &[],
    "When the last sweep ended, in Unix time.",
);
const SOURCE_PORTS: Family = gauge(
    "dpd_snat_source_ports",
    &[],
    "Source ports that SNAT has towards each destination, as of the last sweep.",
);
const SOURCE_PORTS_FREE: Family = gauge(
    "dpd_snat_source_ports_free",
    &[],
    "Free source ports towards the destination that has fewest, as counted by the last sweep.",
);
const AFFINITY_CLIENTS: Family = gauge(
    "dpd_affinity_clients",
    &[],
    "Clients that keep a backend by affinity, as counted by the last sweep.",
);
const AFFINITY_EVICTED: Family = counter(
    "dpd_affinity_evicted_clients_total",
    &[],
    "Clients that lost their backend before their time was over, since the map of affinity was full.",
);
const SERVICES: Family = gauge("dpd_services", &[], "Services of the file.");
const BACKENDS: Family = gauge("dpd_backends", &["state"], "Backends of all services.");
const SERVICE_CONNECTIONS: Family = gauge(
    "dpd_service_connections",
    &["service"],
    "Open connections through a service, as counted by the last sweep.",
);
const EXTERNAL_CONNECTIONS: Family = gauge(
    "dpd_service_external_connections",
    &["service"],
    "Of the connections through an external service, those that the network opened, as counted by the last sweep.",
);
const BACKEND_CONNECTIONS: Family = gauge(
    "dpd_backend_connections",
    &["service", "backend"],
    "Open connections to a backend of a service, as counted by the last sweep.",
);

pub(super) const FAMILIES: &[Family] = &[
    CONNECTIONS,
    INSERTED,
    DELETED,
    EVICTED,
    SWEEPS,
    SWEEPS_FAILED,
    SWEPT,
    SOURCE_PORTS,
    SOURCE_PORTS_FREE,
    AFFINITY_CLIENTS,
    AFFINITY_EVICTED,
    SERVICES,
    BACKENDS,
    SERVICE_CONNECTIONS,
    EXTERNAL_CONNECTIONS,
    BACKEND_CONNECTIONS,
];

pub(super) fn write(page: &mut Page, facts: &Facts) -> Result<()> {
    let work = &facts.work;
    if let Some(sweep) = &work.sweep {
        write_sweep(page, facts, sweep)?;
    }
    page.write_times(&SWEEPS, work.sweeps)?;
    page.write_one(&SWEEPS_FAILED, work.sweeps_failed as f64)?;
    page.write_one(&SERVICES, facts.catalog.services.len() as f64)?;
    page.write(
        &BACKENDS,
        BackendState::ALL.map(|state| {
            let count = work.backends.get(&state).copied().unwrap_or_default();
            (vec![state.to_string()], count as f64)
        }),
    )
}

fn write_sweep(page: &mut Page, facts: &Facts, sweep: &Sweep) -> Result<()> {
    page.write(&CONNECTIONS, by_protocol(&sweep.tally))?;
    page.write_one(&INSERTED, sweep.counts.inserted as f64)?;
    page.write_one(&DELETED, sweep.counts.deleted as f64)?;
    page.write_one(&EVICTED, sweep.counts.evicted as f64)?;
    page.write_one(&SWEPT, sweep.at_seconds)?;
    page.write_one(&SOURCE_PORTS, f64::from(sweep.tally.source_ports))?;
    page.write_one(&SOURCE_PORTS_FREE, sweep.tally.free_source_ports() as f64)?;
    let affinity = &sweep.tally.affinity;
    page.write_one(&AFFINITY_CLIENTS, affinity.present as f64)?;
    page.write_one(&AFFINITY_EVICTED, affinity.evicted as f64)?;
    write_services(page, facts, &sweep.tally)
}

/// Every protocol and state has its series, so that one without connections shows as 0.
fn by_protocol(tally: &Tally) -> Vec<Series> {
    let names = Protocol::ALL.map(Protocol::name).into_iter();
    let names = names.chain(["other"]);
    let mut counts: BTreeMap<(&str, &str), u64> = names
        .flat_map(|name| ConntrackState::ALL.map(|state| ((name, state.name()), 0)))
        .collect();
    for ((protocol, state), connections) in &tally.by_state {
        let protocol = Protocol::from_number(*protocol).map_or("other", Protocol::name);
        *counts.entry((protocol, state.name())).or_default() += connections;
    }
    let series = counts.into_iter();
    series
        .map(|((protocol, state), count)| {
            (vec![protocol.to_owned(), state.to_owned()], count as f64)
        })
        .collect()
}

fn write_services(page: &mut Page, facts: &Facts, tally: &Tally) -> Result<()> {
    let catalog = &facts.catalog;
    // What belongs to a backend that is gone ends with its next packet, and is not open.
    let open = |of: &BTreeMap<(u32, u32), BackendConnections>, number: u32, service: u32| {
        let connections = of.get(&(service, number)).copied().unwrap_or_default();
        let state = facts.work.ending.get(&number).copied();
        connections.kept(state.unwrap_or(BackendState::Active))
    };
    let mut by_service: BTreeMap<u32, [u64; 2]> = BTreeMap::new();
    for (number, info) in &catalog.backends {
        let [all, external] = by_service.entry(info.service).or_default();
        *all += open(&tally.by_backend, *number, info.service);
        *external += open(&tally.by_external_backend, *number, info.service);
    }
    let of_service = |number: &u32| by_service.get(number).copied().unwrap_or_default();
    let services = catalog.services.iter().map(|(number, info)| {
        let [all, _] = of_service(number);
        (vec![info.name.clone()], all as f64)
    });
    page.write_bounded(&SERVICE_CONNECTIONS, services)?;
    let external = catalog.services.iter().filter(|(_, info)| info.external);
    let external = external.map(|(number, info)| {
        let [_, external] = of_service(number);
        (vec![info.name.clone()], external as f64)
    });
    page.write_bounded(&EXTERNAL_CONNECTIONS, Vec::from_iter(external).into_iter())?;
    let backends = catalog.backends.iter().map(|(number, info)| {
        let service = catalog.services.get(&info.service);
        let service = service.map_or_else(|| info.service.to_string(), |info| info.name.clone());
        let labels = vec![service, info.address.to_string()];
        let connections = open(&tally.by_backend, *number, info.service);
        (labels, connections as f64)
    });
    page.write_bounded(&BACKEND_CONNECTIONS, backends)
}
