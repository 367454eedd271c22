//! The tables of a generation, read back as the state that they were written from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use ipnet::IpNet;
use libbpf_rs::MapHandle;

use super::{catalog, encode};
use crate::bpf::abi::{self, Plain};
use crate::bpf::sys::map;
use crate::bpf::sys::pins::Pins;
use crate::model::host::{LinkAddress, Mac};
use crate::model::service::Frontend;
use crate::model::state::{
    Endpoint, IpcacheEntry, LutEntry, PolicyEntry, PolicyKey, PrefilterEntry, ServiceEntry,
    Settings, State,
};

/// The settings of a generation.
pub fn settings(pins: &Pins, epoch: u64) -> Result<Settings> {
    let map = map::open(&pins.generation(epoch).join("settings"))?;
    let rows: Vec<(u32, abi::settings)> = map::read(&map)?;
    let row = rows.first();
    Ok(row
        .map(|(_, settings)| encode::decode_settings(settings))
        .unwrap_or_default())
}

/// The contents of a generation's tables.
pub fn read(pins: &Pins, epoch: u64) -> Result<State> {
    read_parts(pins, epoch, &Part::ALL)
}

/// What a listing may need of a state, besides its settings and its catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Frontends, their sources, and backends.
    Services,
    /// The tables by which backends are picked, after `Services`.
    BackendTables,
    Endpoints,
    Uplinks,
    Ipcache,
    Policy,
    Prefilter,
}

impl Part {
    pub const ALL: [Part; 7] = [
        Part::Services,
        Part::BackendTables,
        Part::Endpoints,
        Part::Uplinks,
        Part::Ipcache,
        Part::Policy,
        Part::Prefilter,
    ];
}

/// The same of these parts; others are empty. A large table takes a second to read.
pub fn read_parts(pins: &Pins, epoch: u64, parts: &[Part]) -> Result<State> {
    let folder = pins.generation(epoch);
    let open = |name: &str| map::open(&folder.join(name));
    let mut state = State {
        settings: settings(pins, epoch)?,
        catalog: Arc::new(catalog::read(pins, epoch)?),
        ..State::default()
    };
    for part in parts {
        match part {
            Part::Services => {
                state.services = read_services(&open("services")?)?;
                state.service_sources = read_service_sources(&open("service_sources")?)?;
                state.backends = rows(&open("backends")?, encode::decode_backend)?;
            }
            Part::BackendTables => {
                state.backend_lut = read_backend_lut(&open("backend_lut")?)?;
                state.maglev =
                    encode::decode_maglev(&state.services, &map::read(&open("maglev")?)?);
            }
            Part::Endpoints => {
                state.endpoints = rows(&open("endpoints")?, encode::decode_endpoint)?;
            }
            Part::Uplinks => {
                state.uplinks = rows(&open("uplinks")?, encode::decode_uplink)?;
                state.snat_ports = read_snat_ports(&open("snat_ports")?)?;
                state.announced = read_announced(&open("announced")?)?;
            }
            Part::Ipcache => state.ipcache = read_ipcache(&open("ipcache")?)?,
            Part::Policy => state.policy = read_policy(&open("policy")?)?,
            Part::Prefilter => state.prefilter = read_prefilter(&open("prefilter")?)?,
        }
    }
    Ok(state)
}

/// The rows of a table with a number as its key.
fn rows<V: Plain, T>(map: &MapHandle, decode: fn(&V) -> T) -> Result<BTreeMap<u32, T>> {
    let rows: Vec<(u32, V)> = map::read(map)?;
    let rows = rows.iter();
    Ok(rows.map(|(number, row)| (*number, decode(row))).collect())
}

fn read_ipcache(map: &MapHandle) -> Result<BTreeMap<IpNet, IpcacheEntry>> {
    let rows: Vec<(abi::address_prefix_key, abi::ipcache_entry)> = map::read(map)?;
    let rows = rows.iter().filter_map(|(key, row)| {
        let prefix = encode::decode_prefix(key)?;
        Some((prefix, encode::decode_ipcache_entry(row)))
    });
    Ok(rows.collect())
}

fn read_policy(map: &MapHandle) -> Result<BTreeMap<PolicyKey, PolicyEntry>> {
    let rows: Vec<(abi::policy_key, abi::policy)> = map::read(map)?;
    let rows = rows.iter();
    Ok(rows
        .map(|(key, row)| (encode::decode_policy_key(key), encode::decode_policy(row)))
        .collect())
}

fn read_prefilter(map: &MapHandle) -> Result<BTreeMap<IpNet, PrefilterEntry>> {
    let rows: Vec<(abi::address_prefix_key, abi::prefilter)> = map::read(map)?;
    let rows = rows.iter().filter_map(|(key, row)| {
        let number = row.number;
        Some((encode::decode_prefix(key)?, PrefilterEntry { number }))
    });
    Ok(rows.collect())
}

fn read_services(map: &MapHandle) -> Result<BTreeMap<Frontend, ServiceEntry>> {
    let rows: Vec<(abi::service_key, abi::service)> = map::read(map)?;
    let services = rows.iter();
    Ok(services
        .filter_map(|(key, row)| Some((encode::decode_frontend(key)?, encode::decode_service(row))))
        .collect())
}

fn read_announced(map: &MapHandle) -> Result<BTreeMap<LinkAddress, Mac>> {
    let rows: Vec<(abi::link_address, abi::announced)> = map::read(map)?;
    let announced = rows.iter();
    Ok(announced
        .map(|(key, row)| (encode::decode_link_address(key), row.mac))
        .collect())
}

fn read_service_sources(map: &MapHandle) -> Result<BTreeSet<(u32, IpNet)>> {
    let rows: Vec<(abi::service_source_key, abi::service_source)> = map::read(map)?;
    let sources = rows.iter().map(|(key, _)| key);
    Ok(sources.filter_map(encode::decode_service_source).collect())
}

/// An array map has one row at least, of zeroes; no backend has the number 0.
fn read_backend_lut(map: &MapHandle) -> Result<Vec<LutEntry>> {
    let rows: Vec<(u32, abi::backend_lut_entry)> = map::read(map)?;
    let entries = rows.iter().map(|(_, row)| encode::decode_lut_entry(row));
    Ok(entries.filter(|entry| entry.backend != 0).collect())
}

/// The same; 0 is no port.
fn read_snat_ports(map: &MapHandle) -> Result<Vec<u16>> {
    let rows: Vec<(u32, abi::snat_port)> = map::read(map)?;
    let ports = rows.iter().map(|(_, row)| u16::from_be(row.port));
    Ok(ports.filter(|port| *port != 0).collect())
}

/// The live state of the datapath that is taken over. Of another version only the catalog is read: its tables have another
/// layout, and are written from the configuration anyway.
pub fn read_previous(previous: &Pins, epoch: u64, version: u32) -> Result<State> {
    if previous.number() == version {
        return read(previous, epoch);
    }
    Ok(State {
        catalog: Arc::new(catalog::read(previous, epoch)?),
        ..State::default()
    })
}

/// The endpoints of a generation by ifindex.
pub fn read_endpoints(pins: &Pins, epoch: u64) -> Result<BTreeMap<u32, Endpoint>> {
    let map = map::open(&pins.generation(epoch).join("endpoints"))?;
    rows(&map, encode::decode_endpoint)
}
