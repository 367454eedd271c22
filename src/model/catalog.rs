//! The meaning of the numbers in the kernel's tables: names, labels, locations in the file.
//!
//! The catalog of a generation is pinned with its tables, so that listings work while the daemon is down and a new daemon
//! gives the same objects the same numbers. A number is never reused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::families::Families;
use super::forwarding::Forwarding;
use super::host::LinkAddress;
use super::policy::{Action, Direction};
use super::service::{Algorithm, Frontend, Locality, NodePort};
use super::xdp::XdpMode;

/// The most endpoints of a host: each has its own row in `dpd_endpoint_counters`.
pub const MAX_ENDPOINTS: u32 = 16383;

/// The runtime drop-ins in effect: a digest of the text by file name.
pub type InEffect = BTreeMap<String, u64>;

/// Names and numbers of one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The file that the generation was compiled from.
    pub config: String,
    /// The runtime drop-ins that it was compiled from: a digest of the text by file name.
    #[serde(default)]
    pub drop_ins: InEffect,
    pub node: String,
    /// Identities by number, the reserved ones among them.
    pub identities: BTreeMap<u32, IdentityInfo>,
    /// Local endpoints by interface name, including pending ones.
    pub endpoints: BTreeMap<String, EndpointInfo>,
    /// The host's uplinks by interface name, including pending ones.
    #[serde(default)]
    pub uplinks: BTreeMap<String, UplinkInfo>,
    /// The other nodes by name.
    #[serde(default)]
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Destinations that see the workloads' own addresses, whatever an uplink masquerades.
    #[serde(default)]
    pub masquerade_except: BTreeSet<IpNet>,
    /// The host's own sockets reach the services.
    #[serde(default)]
    pub host_services: bool,
    /// Services by number.
    pub services: BTreeMap<u32, ServiceInfo>,
    /// Backends by number.
    pub backends: BTreeMap<u32, BackendInfo>,
    /// Rules by number.
    pub rules: BTreeMap<u32, RuleInfo>,
    /// Peer classes by number.
    pub classes: BTreeMap<u32, ClassInfo>,
    /// Prefixes of the prefilter by number.
    #[serde(default)]
    pub prefilter: BTreeMap<u32, PrefilterInfo>,
    /// The next free number of each kind.
    pub next: NextNumbers,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NextNumbers {
    pub service: u32,
    pub backend: u32,
    pub rule: u32,
    pub class: u32,
    pub prefilter: u32,
}

impl Default for NextNumbers {
    /// 0 means "none" in every table, and class 0 is `any`.
    fn default() -> Self {
        NextNumbers {
            service: 1,
            backend: 1,
            rule: 1,
            class: 1,
            prefilter: 1,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityInfo {
    pub name: String,
    /// `KEY=VALUE`, in order.
    pub labels: Vec<String>,
    /// The prefixes that have it.
    pub addresses: BTreeSet<IpNet>,
    /// The policies that put its ingress under enforcement, in name order.
    #[serde(default)]
    pub ingress_enforced_by: Vec<String>,
    /// The same for its egress.
    #[serde(default)]
    pub egress_enforced_by: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// `None` while it is pending.
    pub ifindex: Option<u32>,
    pub identity: u32,
    pub addresses: BTreeSet<IpNet>,
    /// Its row of `dpd_endpoint_counters`, from 1: the one number that is reused after its endpoint is removed.
    #[serde(default)]
    pub row: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkInfo {
    /// `None` while it is pending.
    pub ifindex: Option<u32>,
    /// Its packets have an Ethernet header.
    #[serde(default = "is_ethernet")]
    pub is_ethernet: bool,
    /// The wanted mode of XDP.
    pub xdp: XdpMode,
    /// The way that new connections take.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// Why, in words; empty: nothing speaks against the direct way.
    #[serde(default)]
    pub forwarding_reason: String,
    #[serde(default)]
    pub masquerade: Families,
    /// The addresses that it answers for on its link; `None`: it announces none.
    #[serde(default)]
    pub announced: Option<BTreeSet<IpAddr>>,
}

/// Of a catalog from before there were others.
fn is_ethernet() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub addresses: BTreeSet<IpAddr>,
    /// The prefixes of its workloads.
    pub cidrs: BTreeSet<IpNet>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    pub name: String,
    pub frontends: BTreeSet<Frontend>,
    /// The ports that are frontends at every address of the host.
    #[serde(default)]
    pub node_ports: BTreeSet<NodePort>,
    /// The network reaches it by the uplinks.
    #[serde(default)]
    pub external: bool,
    /// Who of the network may; empty: everybody.
    #[serde(default)]
    pub sources: BTreeSet<IpNet>,
    #[serde(default)]
    pub locality: Locality,
    #[serde(default)]
    pub algorithm: Algorithm,
    /// The sizes of its Maglev tables: one, or two if it has more backends in one family.
    #[serde(default)]
    pub table_sizes: BTreeSet<u32>,
    /// How long a client keeps its backend after its last packet, in nanoseconds; 0: it does not.
    #[serde(default)]
    pub affinity_ns: u64,
    /// How long connections of a backend that drains or has left the file may continue, in nanoseconds; 0: those of a draining one
    /// have no limit, those of one that has left end at once.
    #[serde(default)]
    pub drain_timeout_ns: u64,
}

/// A backend is identified by its service and address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInfo {
    pub service: u32,
    pub address: SocketAddr,
    /// The identity that it came by; `None`: the file names its address.
    #[serde(default)]
    pub identity: Option<String>,
    /// Since when it drains, or has left the file (CLOCK_MONOTONIC, in nanoseconds); `None`: it does neither, or it gets new
    /// connections all the same, as no other backend does.
    #[serde(default)]
    pub drains_since_ns: Option<u64>,
}

/// A rule is identified by its policy, direction and `text`, not by its index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInfo {
    pub policy: String,
    pub direction: Direction,
    pub index: usize,
    /// Identity number of the subject.
    pub subject: u32,
    pub action: Action,
    /// Peers as written in the file.
    pub peers: Vec<String>,
    /// Ports as written in the file; empty: all traffic.
    pub ports: Vec<String>,
    /// The file of the rule.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
}

impl RuleInfo {
    /// `dns-clients/ingress/0`
    pub fn label(&self) -> String {
        format!("{}/{}/{}", self.policy, self.direction, self.index)
    }

    /// The rule in the file's words: `allow from client ports 53/udp, 53/tcp`
    pub fn text(&self) -> String {
        let side = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let mut text = format!("{} {side} {}", self.action, self.peers.join(", "));
        if !self.ports.is_empty() {
            text.push_str(" ports ");
            text.push_str(&self.ports.join(", "));
        }
        text
    }
}

/// A prefix that the prefilter drops. If several tables have it, it belongs to the first by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PrefilterInfo {
    /// The table of the file: `abusers` of `[prefilter.abusers]`.
    pub table: String,
    pub prefix: IpNet,
}

/// A peer class: one set of {identity, world or not, `cidr:` peers that cover it}. The policy table is keyed by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClassInfo {
    pub identity: u32,
    /// Its addresses belong to no endpoint, to no node and not to this host: the peer `world` matches them.
    pub world: bool,
    /// Of each set of `cidr:` peers that the same rules name, and of which one covers the class: the first.
    pub cidrs: BTreeSet<IpNet>,
}

impl Catalog {
    /// An identity's name; reserved ones included.
    pub fn identity_name(&self, id: u32) -> Option<&str> {
        self.identities.get(&id).map(|info| info.name.as_str())
    }

    /// The interfaces of the file, including pending ones, with their ifindex.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, Option<u32>)> {
        let uplinks = self.uplinks.iter();
        let endpoints = self.endpoints.iter();
        uplinks
            .map(|(name, info)| (name.as_str(), info.ifindex))
            .chain(endpoints.map(|(name, info)| (name.as_str(), info.ifindex)))
    }

    /// An interface's name.
    pub fn interface_name(&self, ifindex: u32) -> Option<&str> {
        self.interfaces()
            .find(|(_, known)| *known == Some(ifindex))
            .map(|(name, _)| name)
    }

    /// What the uplinks answer for on their links.
    pub fn announced(&self) -> BTreeSet<LinkAddress> {
        let uplinks = self.uplinks.values();
        let rows = uplinks.flat_map(|uplink| {
            let addresses = uplink.announced.iter().flatten();
            addresses.filter_map(|address| {
                Some(LinkAddress {
                    ifindex: uplink.ifindex?,
                    address: *address,
                })
            })
        });
        rows.collect()
    }

    /// The number of the identity with this name.
    pub fn find_identity(&self, name: &str) -> Option<u32> {
        self.identities
            .iter()
            .find(|(_, info)| info.name == name)
            .map(|(id, _)| *id)
    }

    /// The policies that put a direction of a subject under enforcement, in name order; empty if `policy.enforcement` alone
    /// does.
    pub fn enforced_by(&self, subject: u32, direction: Direction) -> &[String] {
        let info = self.identities.get(&subject);
        info.map_or(&[], |info| match direction {
            Direction::Ingress => &info.ingress_enforced_by,
            Direction::Egress => &info.egress_enforced_by,
        })
    }

    /// The identity of an address, by the prefixes in the catalog.
    pub fn identity_of(&self, address: IpAddr) -> Option<u32> {
        self.identities
            .iter()
            .flat_map(|(id, info)| info.addresses.iter().map(move |prefix| (prefix, id)))
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A catalog of 0.1 with one object of each kind.
    const BEFORE: &str = r#"{
        "config": "/etc/dpd/config.toml", "node": "node-a",
        "identities": {"20001": {"name": "client", "labels": [], "addresses": ["10.200.0.64/32"]}},
        "endpoints": {}, "services": {}, "backends": {}, "rules": {},
        "classes": {"3": {"identity": 20001, "world": false, "cidrs": ["10.0.0.0/8"]}},
        "next": {"service": 2, "backend": 3, "rule": 4, "class": 5}
    }"#;

    #[test]
    fn a_catalog_without_newer_members_is_read() {
        let catalog: Catalog = serde_json::from_str(BEFORE).unwrap();
        assert_eq!(catalog.identity_name(20001), Some("client"));
        assert_eq!(catalog.next.class, 5);
        assert_eq!(catalog.next.prefilter, 1, "no number was used yet");
        assert!(catalog.uplinks.is_empty() && catalog.prefilter.is_empty());
        let again = serde_json::to_string(&catalog).unwrap();
        assert_eq!(serde_json::from_str::<Catalog>(&again).unwrap(), catalog);
    }

    #[test]
    fn interfaces_are_endpoints_and_uplinks() {
        let endpoint = |ifindex| EndpointInfo {
            ifindex,
            identity: 20001,
            addresses: BTreeSet::new(),
            row: 1,
        };
        let uplink = |ifindex| UplinkInfo {
            ifindex,
            is_ethernet: true,
            xdp: XdpMode::Auto,
            forwarding: Forwarding::Direct,
            forwarding_reason: String::new(),
            masquerade: Default::default(),
            announced: Default::default(),
        };
        let catalog = Catalog {
            endpoints: [
                ("lxc-a".to_owned(), endpoint(Some(7))),
                ("lxc-b".to_owned(), endpoint(None)),
            ]
            .into(),
            uplinks: [
                ("ens5".to_owned(), uplink(Some(2))),
                ("ens6".to_owned(), uplink(None)),
            ]
            .into(),
            ..Catalog::default()
        };
        let names = [0, 2, 7, 8].map(|ifindex| catalog.interface_name(ifindex));
        assert_eq!(names, [None, Some("ens5"), Some("lxc-a"), None]);
        let pending = catalog.interfaces().filter(|(_, known)| known.is_none());
        let pending: Vec<&str> = pending.map(|(name, _)| name).collect();
        assert_eq!(pending, ["ens6", "lxc-b"]);
    }

    #[test]
    fn a_truncated_catalog_is_refused() {
        for cut in [0, 1, BEFORE.len() / 2, BEFORE.len() - 1] {
            assert!(serde_json::from_str::<Catalog>(&BEFORE[..cut]).is_err());
        }
    }
}
