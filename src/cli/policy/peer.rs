//! Resolves the PEER of a command: the addresses behind a name, one of each kind that policy distinguishes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::policy::reserved;
use crate::model::state::{AddressScope, IpcacheEntry, State};
use crate::plan::ipcache;

/// An address with its ipcache entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    pub entry: IpcacheEntry,
}

impl Peer {
    pub fn is_workload(&self) -> bool {
        matches!(self.entry.scope, AddressScope::Endpoint { .. })
    }
}

/// The peers that a text names: an address or prefix, `cidr:PREFIX`, `any`, `host`, `remote-node`, `world`,
/// `label:KEY=VALUE`, an identity by name or number, or the interface of an endpoint; `identity:NAME` and
/// `interface:NAME` where one name is both.
///
/// Of addresses that no rule and none of `sources` can distinguish the first stands for all.
///
/// # Errors
/// If there is no such name, an identity and an interface have it, or it has no address now.
pub fn find(state: &State, text: &str, sources: &BTreeSet<IpNet>) -> Result<Vec<Peer>> {
    let mut areas = areas(state, text)?;
    let inside = |source: &&IpNet| areas.iter().any(|area| area.contains(*source));
    let of_sources: Vec<IpNet> = sources.iter().filter(inside).copied().collect();
    areas.extend(of_sources);
    let mut seen = BTreeSet::new();
    let mut peers = Vec::new();
    let mut is_pending = false;
    for area in areas {
        let Some(address) = first_of_its_own(state, area, sources) else {
            continue;
        };
        let Some(entry) = ipcache::find(state, address) else {
            continue;
        };
        let ifindex = match entry.scope {
            AddressScope::Pending => {
                is_pending = true;
                continue;
            }
            AddressScope::Endpoint { ifindex } => ifindex,
            AddressScope::Host | AddressScope::Remote => 0,
        };
        let is_source = sources.iter().any(|source| source.contains(&address));
        let kind = (entry.identity, entry.class, ifindex);
        if seen.insert((address.is_ipv6(), kind, is_source)) {
            peers.push(Peer {
                address,
                entry: entry.clone(),
            });
        }
    }
    if peers.is_empty() && is_pending {
        bail!("the interface of {text:?} is pending: it does not exist yet");
    }
    if peers.is_empty() {
        bail!("{text:?} has no address on this host");
    }
    Ok(peers)
}

/// The named prefixes, each without the longer ones in it.
fn areas(state: &State, text: &str) -> Result<Vec<IpNet>> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(vec![address.to_canonical().into()]);
    }
    if let Some(prefix) = text.strip_prefix("cidr:") {
        let prefix = read_prefix(prefix);
        return Ok(within(
            state,
            prefix.with_context(|| format!("{text:?} is not a prefix"))?,
        ));
    }
    if let Some(prefix) = read_prefix(text) {
        return Ok(within(state, prefix));
    }
    if let Some(label) = text.strip_prefix("label:") {
        return of_label(state, label);
    }
    match text {
        "any" => {
            let mut all = within(state, Ipv4Net::default().into());
            all.extend(within(state, Ipv6Net::default().into()));
            Ok(all)
        }
        "host" => Ok(of_identity(state, reserved::HOST)),
        "remote-node" => Ok(of_identity(state, reserved::REMOTE_NODE)),
        "world" => Ok(of_identity(state, reserved::WORLD)),
        _ => named(state, text),
    }
}

fn read_prefix(text: &str) -> Option<IpNet> {
    let whole = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(whole)
}

/// The prefix itself and all that is in it.
fn within(state: &State, prefix: IpNet) -> Vec<IpNet> {
    let prefix = prefix.trunc();
    let inside = state.ipcache.keys().filter(|row| prefix.contains(*row));
    let mut areas: Vec<IpNet> = inside.copied().collect();
    if !areas.contains(&prefix) {
        areas.push(prefix);
    }
    areas
}

fn of_identity(state: &State, id: u32) -> Vec<IpNet> {
    let rows = state.ipcache.iter();
    let of_it = rows.filter(|(_, entry)| entry.identity == id);
    of_it.map(|(prefix, _)| *prefix).collect()
}

fn of_label(state: &State, label: &str) -> Result<Vec<IpNet>> {
    let identities = state.catalog.identities.iter();
    let carriers: Vec<u32> = identities
        .filter(|(_, info)| info.labels.iter().any(|carried| carried == label))
        .map(|(id, _)| *id)
        .collect();
    if carriers.is_empty() {
        bail!("no identity has the label {label:?}");
    }
    let areas = carriers.into_iter().flat_map(|id| of_identity(state, id));
    Ok(areas.collect())
}

fn named(state: &State, text: &str) -> Result<Vec<IpNet>> {
    let catalog = &state.catalog;
    let interface = |name: &str| {
        let endpoint = catalog.endpoints.get(name)?;
        Some(endpoint.addresses.iter().copied().collect::<Vec<IpNet>>())
    };
    let identity = |name: &str| {
        let id = super::super::identity::find(catalog, name).ok()?;
        Some((id, of_identity(state, id)))
    };
    if let Some(name) = text.strip_prefix("interface:") {
        return interface(name).with_context(|| format!("no endpoint has the interface {name:?}"));
    }
    if let Some(name) = text.strip_prefix("identity:") {
        let found = identity(name).map(|(_, areas)| areas);
        return found.with_context(|| format!("no identity is called {name:?}"));
    }
    match (interface(text), identity(text)) {
        (Some(areas), None) | (None, Some((_, areas))) => Ok(areas),
        (Some(areas), Some((id, _))) if catalog.endpoints[text].identity == id => Ok(areas),
        (Some(_), Some(_)) => {
            bail!(
                "{text:?} is an identity and an interface: give identity:{text} or interface:{text}"
            )
        }
        (None, None) => bail!(
            "{text:?} is no address, identity or endpoint's interface: see `dpd identity list` and `dpd endpoint list`"
        ),
    }
}

/// The first address of a prefix that is in no longer prefix of the ipcache and of these sources.
fn first_of_its_own(state: &State, area: IpNet, sources: &BTreeSet<IpNet>) -> Option<IpAddr> {
    let mut address = area.network();
    while area.contains(&address) {
        let mut around = ipcache::covering(address);
        let known = |prefix: &IpNet| state.ipcache.contains_key(prefix) || sources.contains(prefix);
        match around.find(known) {
            Some(row) if row.prefix_len() > area.prefix_len() => {
                address = next(row.broadcast())?;
            }
            _ => return Some(address),
        }
    }
    None
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => Some(IpAddr::V4(u32::from(v4).checked_add(1)?.into())),
        IpAddr::V6(v6) => Some(IpAddr::V6(u128::from(v6).checked_add(1)?.into())),
    }
}
