//! The state of the host: interfaces, addresses and what its stack does, as the kernel reports them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::forwarding::HostStack;

/// A link-layer address.
pub type Mac = [u8; 6];

/// A snapshot of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// Interfaces by name.
    pub links: BTreeMap<String, Link>,
    /// Every address of the host, on any interface.
    pub addresses: BTreeSet<IpAddr>,
    /// What else its stack receives by its routes, broadcast and anycast included: these are the host's as well.
    pub local_prefixes: BTreeSet<IpNet>,
    /// What the stack does with packets that it forwards.
    pub stack: HostStack,
}

impl HostState {
    /// Whether the host's stack receives what is sent to `address`.
    pub fn receives(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
            || self
                .local_prefixes
                .iter()
                .any(|prefix| prefix.contains(&address))
    }
}

/// One interface of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub mac: Mac,
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    pub header: LinkHeader,
    /// The host's addresses on it.
    pub addresses: BTreeSet<IpAddr>,
    /// The peer of a veth, if the kernel reveals it.
    pub peer: Option<LinkPeer>,
    /// What the kernel asks of the route back to IPv4 sources of what comes by it.
    pub reverse_path: ReversePath,
    /// The interface that it is a port of.
    pub master: Option<Master>,
    /// The interface of this namespace that it is on, if it is a VLAN, a macvlan or the like.
    pub below: Option<u32>,
    /// Other names that `ip link` knows it by.
    pub alternative_names: BTreeSet<String>,
    /// The kind of its root qdisc, as `tc qdisc show` names it.
    pub qdisc: String,
}

impl Link {
    /// The index of the bridge that it is a port of.
    pub fn bridge(&self) -> Option<u32> {
        let master = self.master.filter(|master| master.is_bridge);
        master.map(|master| master.ifindex)
    }
}

/// What a link's packets have before the network header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkHeader {
    #[default]
    Ethernet,
    /// Nothing: tun, WireGuard, ipip, gre, PPP.
    None,
    /// Something else, by the kernel's number of the link type (`ARPHRD_*`, `linux/if_arp.h`).
    Other(u16),
}

/// The interface that another one is a port of: a bridge, a bond, a VRF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Master {
    pub ifindex: u32,
    pub is_bridge: bool,
}

/// The peer of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPeer {
    pub ifindex: u32,
    /// Its link-layer address; `None` while the kernel does not reveal it.
    pub mac: Option<Mac>,
    /// 0 while the kernel does not reveal it.
    pub mtu: u32,
    /// It is in this network namespace, where `bpf_redirect_peer` would drop the packet.
    pub same_namespace: bool,
    /// It is a port of a bridge: receivers behind it have MACs of their own.
    pub is_bridge_port: bool,
}

/// `rp_filter` of an interface: the greater number of its own and that of `all` (`ip-sysctl.rst`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReversePath {
    #[default]
    Off,
    /// The route back leads out of the same interface.
    Strict,
    /// There is a route back.
    Loose,
}

impl ReversePath {
    pub fn name(self) -> &'static str {
        match self {
            ReversePath::Off => "off",
            ReversePath::Strict => "strict",
            ReversePath::Loose => "loose",
        }
    }
}
