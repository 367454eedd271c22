//! A state as the packets of open connections meet it: the lookups of the impact analysis, with their results cached.

use std::collections::HashMap;
use std::net::IpAddr;

use super::object::Object;
use super::rules::rules;
use crate::model::conntrack::FlowGroup;
use crate::model::policy::Action;
use crate::model::protocol::Protocol;
use crate::model::service::{Frontend, NodePort};
use crate::model::state::{AddressScope, IpcacheEntry, ServiceEntry, SnatRole, State};
use crate::model::xdp::XdpMode;
use crate::plan::ipcache;
use crate::plan::policy::{Decision, Verdict, verdict_of_entries};

/// All that the verdict on a flow group depends on: class and scope of both peers, protocol, port.
type VerdictKey = ([Option<(u32, AddressScope)>; 2], u8, u16);

pub struct StateView<'a> {
    state: &'a State,
    /// The interfaces of endpoints by ifindex.
    interfaces: HashMap<u32, &'a str>,
    rules: HashMap<u32, Object>,
    /// At least one uplink has the prefilter.
    has_prefilter: bool,
    entries: HashMap<IpAddr, Option<&'a IpcacheEntry>>,
    verdicts: HashMap<VerdictKey, Verdict>,
}

impl<'a> StateView<'a> {
    pub fn new(state: &'a State) -> StateView<'a> {
        let endpoints = state.catalog.endpoints.iter();
        let interfaces = endpoints.filter_map(|(name, info)| Some((info.ifindex?, name.as_str())));
        let mut uplinks = state.catalog.uplinks.values();
        StateView {
            state,
            interfaces: interfaces.collect(),
            rules: rules(&state.catalog).into_iter().collect(),
            has_prefilter: !state.prefilter.is_empty()
                && uplinks.any(|info| info.ifindex.is_some() && info.xdp != XdpMode::Off),
            entries: HashMap::new(),
            verdicts: HashMap::new(),
        }
    }

    fn entry(&mut self, address: IpAddr) -> Option<&'a IpcacheEntry> {
        let state = self.state;
        let entry = self.entries.entry(address);
        *entry.or_insert_with(|| ipcache::find(state, address))
    }

    /// The ipcache entries of the client and the backend.
    pub fn peers(&mut self, group: &FlowGroup) -> [Option<&'a IpcacheEntry>; 2] {
        let [src, backend] = group.link_local_of;
        [(group.src, src), (group.backend.ip(), backend)]
            .map(|(address, ifindex)| self.peer(address, ifindex))
    }

    /// A link-local address that is nobody's by the ipcache is the one that was learnt from its interface.
    fn peer(&mut self, address: IpAddr, ifindex: u32) -> Option<&'a IpcacheEntry> {
        let entry = self.entry(address)?;
        let endpoint = self.state.endpoints.get(&ifindex);
        match endpoint.filter(|endpoint| !endpoint.names_link_local) {
            Some(endpoint) if entry.scope == AddressScope::Remote => Some(&endpoint.link_local),
            _ => Some(entry),
        }
    }

    /// The interface of the endpoint that an address belongs to.
    pub fn interface(&self, entry: Option<&IpcacheEntry>) -> Option<&'a str> {
        match entry?.scope {
            AddressScope::Endpoint { ifindex } => self.interfaces.get(&ifindex).copied(),
            AddressScope::Pending | AddressScope::Host | AddressScope::Remote => None,
        }
    }

    /// Whether the interface is an endpoint's, and not pending.
    pub fn is_attached(&self, interface: &str) -> bool {
        let info = self.state.catalog.endpoints.get(interface);
        info.is_some_and(|info| info.ifindex.is_some())
    }

    /// The name of the uplink with this ifindex.
    pub fn uplink(&self, ifindex: u32) -> Option<&'a str> {
        let mut uplinks = self.state.catalog.uplinks.iter();
        let found = uplinks.find(|(_, info)| info.ifindex == Some(ifindex));
        found.map(|(name, _)| name.as_str())
    }

    /// Whether the connections may have this source behind this uplink.
    pub fn translates_source(
        &mut self,
        group: &FlowGroup,
        (source, uplink): (IpAddr, u32),
    ) -> bool {
        let is_of_network = self.is_of_network(group);
        let uplink = self.state.uplinks.get(&uplink);
        let role = self.entry(source).map(|entry| entry.snat);
        uplink.is_some_and(|uplink| is_of_network || uplink.masquerade.covers(source))
            && matches!(role, Some(SnatRole::Host | SnatRole::Source))
    }

    /// Whether an address is the host's own.
    pub fn is_of_host(&mut self, address: IpAddr) -> bool {
        let entry = self.entry(address);
        entry.is_some_and(|entry| entry.scope == AddressScope::Host)
    }

    /// Whether the network has opened the connections, through a service.
    pub fn is_of_network(&mut self, group: &FlowGroup) -> bool {
        let [client, _] = self.peers(group);
        group.service != 0 && self.interface(client).is_none()
    }

    /// Whether a service answers the connections' client: its network, not whether its sources name it.
    fn answers(&mut self, group: &FlowGroup, service: &ServiceEntry) -> bool {
        service.is_external || !self.is_of_network(group)
    }

    /// Whether the sources of the connections' service, if it has some, name their client.
    pub fn admits(&mut self, group: &FlowGroup) -> bool {
        let has_sources = self.service(group).is_some_and(|found| found.has_sources);
        if !has_sources || !self.is_of_network(group) {
            return true;
        }
        let mut around = ipcache::covering(group.src);
        around.any(|prefix| {
            self.state
                .service_sources
                .contains(&(group.service, prefix))
        })
    }

    /// Whether other connections than TCP may get another backend.
    pub fn has_backends(&mut self, group: &FlowGroup) -> bool {
        let found = self.service(group);
        found.is_some_and(|found| found.lut_count > 0 && self.answers(group, found))
            && self.admits(group)
    }

    /// Who reaches the service of the connections.
    pub fn service_object(&self, group: &FlowGroup) -> Option<Object> {
        let service = self.state.catalog.services.get(&group.service)?;
        Some(Object::service(&service.name))
    }

    pub fn is_audit(&self) -> bool {
        self.state.settings.audit
    }

    pub fn identity_name(&self, identity: u32) -> Option<&'a str> {
        self.state.catalog.identity_name(identity)
    }

    pub fn rule(&self, decision: Decision) -> Option<Object> {
        self.rules.get(&decision.rule?).cloned()
    }

    /// The service whose frontend is the destination.
    pub fn service(&self, group: &FlowGroup) -> Option<&'a ServiceEntry> {
        let protocol = Protocol::from_number(group.protocol)?;
        self.state.services.get(&Frontend {
            address: group.dst.ip(),
            port: group.dst.port(),
            protocol,
        })
    }

    /// The backend of the connections.
    pub fn backend(&self, group: &FlowGroup) -> Option<Object> {
        let backend = self.state.backends.get(&group.backend_id)?;
        Some(Object::backend(backend, &self.state.catalog))
    }

    /// The frontend that is the destination, or else the first one of its address, and what it is by.
    pub fn frontend(&self, group: &FlowGroup) -> Vec<Object> {
        let address = group.dst.ip();
        let first = Frontend {
            address,
            port: 0,
            protocol: Protocol::Tcp,
        };
        let rows = self.state.services.range(first..);
        let mut rows = rows.take_while(|(frontend, _)| frontend.address == address);
        let own = rows.clone().find(|(frontend, _)| {
            frontend.port == group.dst.port() && frontend.protocol.number() == group.protocol
        });
        let found = own.or_else(|| rows.next());
        let service = found.and_then(|(_, entry)| self.state.catalog.services.get(&entry.service));
        let Some(((frontend, _), service)) = found.zip(service) else {
            return Vec::new();
        };
        if service.frontends.contains(frontend) {
            return vec![Object::frontend(&service.name, frontend)];
        }
        let node_port = NodePort {
            port: frontend.port,
            protocol: frontend.protocol,
        };
        vec![
            Object::node_port(&service.name, node_port),
            Object::host_address(address),
        ]
    }

    /// Whether the service of the connections still answers them with their backend; for those without a service, whether their
    /// destination is no service's.
    pub fn service_is_valid(&mut self, group: &FlowGroup) -> bool {
        let found = self.service(group);
        if group.service == 0 {
            return found.is_none() && !self.state.is_service_address(group.dst.ip());
        }
        if !group.is_of_socket {
            let Some(found) = found.filter(|found| found.service == group.service) else {
                return false;
            };
            if !self.answers(group, found) {
                return false;
            }
        }
        let Some(backend) = self.state.backends.get(&group.backend_id) else {
            return false;
        };
        let protocol = Protocol::from_number(group.protocol);
        (backend.service, backend.address) == (group.service, group.backend)
            && protocol.is_some_and(|protocol| backend.state.keeps(protocol))
    }

    pub fn verdict(&mut self, group: &FlowGroup) -> Verdict {
        let state = self.state;
        let [source, destination] = self.peers(group);
        let key = |entry: Option<&IpcacheEntry>| entry.map(|entry| (entry.class, entry.scope));
        let (protocol, port) = (group.protocol, group.backend.port());
        let key = ([key(source), key(destination)], protocol, port);
        *self
            .verdicts
            .entry(key)
            .or_insert_with(|| verdict_of_entries(state, source, destination, protocol, port))
    }

    /// Whether policy lets the next packet pass.
    pub fn allows(&mut self, group: &FlowGroup) -> bool {
        self.is_audit() || self.verdict(group).action() == Action::Allow
    }

    /// Whether the next packet is forwarded.
    pub fn forwards(&mut self, group: &FlowGroup) -> bool {
        let peers = self.peers(group);
        let are_present = peers
            .iter()
            .all(|peer| peer.is_some() && !is_pending(*peer));
        let has_endpoint = peers.iter().any(|peer| self.interface(*peer).is_some());
        are_present
            && (has_endpoint || self.is_of_network(group))
            && self.service_is_valid(group)
            && self.admits(group)
            && self.allows(group)
    }

    /// The prefix of the prefilter by which the uplinks drop the packets of a remote peer.
    pub fn prefilter(&mut self, group: &FlowGroup) -> Option<Object> {
        if !self.has_prefilter {
            return None;
        }
        let addresses = [group.src, group.backend.ip()];
        let peers = addresses.into_iter().zip(self.peers(group));
        let is_remote = |entry: &IpcacheEntry| entry.scope == AddressScope::Remote;
        let mut remote = peers.filter(|(_, entry)| entry.is_some_and(is_remote));
        let prefix = remote.find_map(|(address, _)| {
            ipcache::covering(address).find(|prefix| self.state.prefilter.contains_key(prefix))
        })?;
        let number = self.state.prefilter.get(&prefix)?.number;
        let table = &self.state.catalog.prefilter.get(&number)?.table;
        Some(Object::prefilter(&prefix, table))
    }
}

/// Whether the address belongs to an endpoint whose interface is missing.
pub fn is_pending(entry: Option<&IpcacheEntry>) -> bool {
    entry.is_some_and(|entry| entry.scope == AddressScope::Pending)
}
