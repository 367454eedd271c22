//! The wanted contents of the kernel's tables for one configuration: what `plan` computes and `bpf` writes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::catalog::Catalog;
use super::conntrack::TableRooms;
use super::families::Families;
use super::forwarding::Forwarding;
use super::host::{LinkAddress, Mac, ReversePath};
use super::maglev::MaglevTables;
use super::policy::{Action, Direction};
use super::protocol::Protocol;
use super::service::{BackendState, Frontend};

/// One generation: the contents of every table that a configuration decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub settings: Settings,
    /// The services by frontend.
    pub services: BTreeMap<Frontend, ServiceEntry>,
    /// Who of the network reaches a service that names its sources: the service's number with each prefix.
    pub service_sources: BTreeSet<(u32, IpNet)>,
    /// The services' backend tables, one after the other.
    pub backend_lut: Vec<LutEntry>,
    /// The tables of the services that pick by a hash.
    pub maglev: MaglevTables,
    /// The backends by number.
    pub backends: BTreeMap<u32, Backend>,
    /// The local workloads by the ifindex of the host's side.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// The uplinks by ifindex.
    pub uplinks: BTreeMap<u32, Uplink>,
    /// The ports that SNAT gives to connections; empty while it is not used.
    pub snat_ports: Vec<u16>,
    /// What the uplinks answer for on their links though no interface has it, with the link's address.
    pub announced: BTreeMap<LinkAddress, Mac>,
    /// Prefixes to identities (the ipcache).
    pub ipcache: BTreeMap<IpNet, IpcacheEntry>,
    pub policy: BTreeMap<PolicyKey, PolicyEntry>,
    /// Prefixes that are dropped on the uplinks by XDP.
    pub prefilter: BTreeMap<IpNet, PrefilterEntry>,
    /// What the numbers in the other tables mean; shared with the naming of events.
    pub catalog: Arc<Catalog>,
}

/// Switches and durations that programs read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Lifetimes in nanoseconds.
    pub tcp_ns: u64,
    pub tcp_syn_ns: u64,
    pub tcp_close_ns: u64,
    pub udp_ns: u64,
    pub udp_once_ns: u64,
    pub icmp_ns: u64,
    /// The most open connections of one endpoint; 0: no limit.
    pub per_endpoint: u32,
    /// The most that one endpoint may have in each conntrack table; 0: no limit.
    pub endpoint_share: TableRooms,
    /// A TCP connection starts with a SYN.
    pub strict: bool,
    pub aggregation: Aggregation,
    /// Nanoseconds between two reports of one direction of a connection.
    pub interval_ns: u64,
    /// Events a second on each CPU.
    pub rate: u32,
    /// Report what policy would drop, and forward it.
    pub audit: bool,
    /// The host's own traffic reaches its endpoints unless a rule denies it.
    pub allow_host: bool,
    /// Source of the ICMP errors that the node itself sends.
    pub node: HostAddresses,
    /// The number of `State::snat_ports`.
    pub snat_port_count: u32,
    /// The cookie of the host's network namespace, whose own sockets reach services; 0: none do.
    pub netns_cookie: u64,
}

/// Which events of forwarded packets are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Each packet at each point.
    None,
    /// Each packet, but not at the from-* points.
    Low,
    /// A connection's first packet, new TCP flags, and one per interval each way.
    #[default]
    Medium,
}

/// A frontend's row: which service, and where its rows of the backend table are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The service's number.
    pub service: u32,
    pub lut_first: u32,
    /// 0: no usable backend.
    pub lut_count: u32,
    /// The network reaches it by the uplinks.
    pub is_external: bool,
    /// Of the network, only those of `State::service_sources` do.
    pub has_sources: bool,
    /// The first row of its Maglev table.
    pub maglev_first: u32,
    /// The columns of its Maglev table; 0: backends are picked at random.
    pub maglev_size: u32,
    /// How long a client keeps its backend after its last packet, in nanoseconds; 0: it does not.
    pub affinity_ns: u64,
}

/// One column of the alias table (Vose 1991) by which a backend is picked: a random column, then
/// `backend` if a random 32-bit number is below `threshold` or the same as it, else `alias`. With a Maglev table, which names
/// the column, it is always `backend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LutEntry {
    pub backend: u32,
    pub alias: u32,
    pub threshold: u32,
}

/// A backend of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The service that it belongs to.
    pub service: u32,
    pub address: SocketAddr,
    pub state: BackendState,
    pub weight: u16,
    /// It has a column of the service's backend table: new connections may get it.
    pub is_picked: bool,
}

/// A local workload behind one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub identity: u32,
    pub delivery: Delivery,
    /// Link-layer address of the host's side.
    pub src_mac: Mac,
    /// Link-layer address of the workload; zero where `delivery` does not need it.
    pub dst_mac: Mac,
    pub ingress: Enforcement,
    pub egress: Enforcement,
    /// Its row of `dpd_endpoint_counters`; the catalog's.
    pub counters_index: u32,
    /// The interface on which the host finds its neighbours: the bridge that it is a port of, else its own.
    pub link_ifindex: u32,
    /// The longest packet that both ends of its link take; 0: not known.
    pub mtu: u32,
    /// The host's addresses on that link, or of the node.
    pub host: HostAddresses,
    /// Its multicast and broadcast pass, both ways, as policy says.
    pub multicast: bool,
    /// The file names its link-local addresses of IPv6: none is learnt.
    pub names_link_local: bool,
    /// What the ipcache would have for the link-local address that is learnt from it.
    pub link_local: IpcacheEntry,
}

/// The sources of the errors that the host sends by a link; `None`: it has none of the family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

/// The host's link to the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    pub forwarding: Forwarding,
    pub reverse_path: ReversePath,
    /// Its tc ingress has the prefilter, in the place of XDP.
    pub prefilters: bool,
    /// The host's addresses on it, or of the node.
    pub host: HostAddresses,
    pub masquerade: Families,
    /// What SNAT takes where the kernel names no source.
    pub snat: HostAddresses,
}

/// How a packet reaches a local workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// `bpf_redirect_peer`: a veth whose peer is in another namespace.
    Peer,
    /// `bpf_redirect` with known MACs: a veth whose peer is in this namespace.
    Direct,
    /// `bpf_redirect`: the receiver's MAC is the neighbour table's (a tap, a bridge inside of the workload).
    Neighbour,
}

/// What policy does in one direction of an identity, the stricter the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Enforcement {
    /// Policy is not looked up.
    Off,
    /// What no rule matches passes (a list of denies alone).
    DenyOnly,
    /// What no rule matches is dropped.
    On,
}

/// The owner of the addresses of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpcacheEntry {
    pub identity: u32,
    /// The peer class (see `plan::ipcache`).
    pub class: u32,
    /// It is no endpoint, host or node: the peer `world` matches it.
    pub is_world: bool,
    pub scope: AddressScope,
    pub snat: SnatRole,
    pub external_frontend: ExternalFrontend,
}

/// What SNAT to the host's addresses has to do with an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SnatRole {
    #[default]
    None,
    /// What workloads send there by an uplink that masquerades gets an address of the host.
    Masqueraded,
    /// The host's: replies to translated packets may come to it.
    Host,
    /// The same, and new connections may take it.
    Source,
}

/// What an address is to services that the network reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExternalFrontend {
    #[default]
    None,
    /// An address of frontends that the host does not have: all of it is theirs.
    Routed,
    /// The host's own: what no frontend has is the host's.
    Host,
}

/// The scope of the addresses of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressScope {
    /// Behind a local interface.
    Endpoint { ifindex: u32 },
    /// Of a local endpoint whose interface is not there now.
    Pending,
    /// The host's own.
    Host,
    /// Anywhere else.
    Remote,
}

/// A row of the policy trie. Ports are a prefix: `port_bits` leading bits of `port` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Identity number of the subject.
    pub subject: u32,
    /// The peer's class, or the class of a peer that has its own (`reserved`).
    pub class: u32,
    pub direction: Direction,
    /// IP protocol number; `None`: all (then there is no port either).
    pub protocol: Option<u8>,
    pub port: u16,
    pub port_bits: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyEntry {
    pub action: Action,
    /// The rule's number in the catalog.
    pub rule: u32,
}

/// A prefix of the prefilter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefilterEntry {
    /// Its number in the catalog, by which its drops are counted.
    pub number: u32,
}

impl State {
    /// The catalog while it is being made.
    pub fn catalog_mut(&mut self) -> &mut Catalog {
        Arc::make_mut(&mut self.catalog)
    }

    /// When a backend that drains or has left the file has to lose its connections next (CLOCK_MONOTONIC, in nanoseconds).
    pub fn next_drain_end_ns(&self) -> Option<u64> {
        let ends = self
            .backends
            .keys()
            .filter_map(|number| self.drain_end_ns(*number));
        ends.min()
    }

    /// The same of one backend; `None`: it keeps them without a limit, or has none any more.
    pub fn drain_end_ns(&self, backend: u32) -> Option<u64> {
        let row = self.backends.get(&backend)?;
        if !matches!(row.state, BackendState::Draining | BackendState::Removed) {
            return None;
        }
        let since = self.catalog.backends.get(&backend)?.drains_since_ns?;
        let timeout = self.catalog.services.get(&row.service)?.drain_timeout_ns;
        (timeout != 0).then(|| since.saturating_add(timeout))
    }

    /// Whether the address is a service's in all of its ports.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        let first = Frontend {
            address,
            port: 0,
            protocol: Protocol::Tcp,
        };
        let next = self.services.range(first..).next();
        let has_frontend = next.is_some_and(|(frontend, _)| frontend.address == address);
        has_frontend && !self.keeps_ports(address)
    }

    /// Every address that is a service's in all of its ports: not the host's own, whose others are the host's.
    pub fn service_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let mut last = None;
        self.services.keys().filter_map(move |frontend| {
            let fresh = last != Some(frontend.address);
            last = Some(frontend.address);
            (fresh && !self.keeps_ports(frontend.address)).then_some(frontend.address)
        })
    }

    /// Whether the ports of the address that no frontend has are the host's: it has a row of its own then.
    fn keeps_ports(&self, address: IpAddr) -> bool {
        let entry = self.ipcache.get(&IpNet::from(address));
        entry.is_some_and(|entry| {
            entry.scope == AddressScope::Host && entry.external_frontend != ExternalFrontend::Routed
        })
    }
}
