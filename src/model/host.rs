//! The state of the host: interfaces, addresses and what its stack does, as the kernel reports them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::forwarding::HostStack;
use super::socket_ports::SocketPorts;

/// A link-layer address.
pub type Mac = [u8; 6];

/// `02:00:00:00:00:01`
pub fn mac_text(mac: Mac) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

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
    /// The ports that its own sockets get by themselves.
    pub socket_ports: SocketPorts,
    /// Addresses of frontends that nobody on the link has, as probes have shown.
    pub announced: BTreeSet<LinkAddress>,
    /// The kernel's number of its network namespace; 0: not known.
    pub netns_cookie: u64,
}

/// An address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress {
    pub ifindex: u32,
    pub address: IpAddr,
}

/// The interfaces by which the host's routes lead to the world, by ifindex; `None`: there is no such route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldRoutes {
    pub ipv4: Option<u32>,
    pub ipv6: Option<u32>,
}

/// Two names of a file that are one interface.
pub type SameInterface = (String, String);

impl HostState {
    /// The kernel's name of an interface of the file.
    pub fn kernel_name<'a>(&'a self, name: &'a str) -> &'a str {
        let link = self.links.get(name);
        link.map_or(name, |link| link.kernel_name(name))
    }

    /// Interfaces by the names that a file has for them: the kernel's first, else an alternative one. Of two names for one
    /// interface the second is returned with the first, and has none.
    pub fn named_by<'a>(
        mut self,
        names: impl Iterator<Item = &'a String> + Clone,
    ) -> (HostState, Vec<SameInterface>) {
        let mut taken: BTreeMap<u32, String> = BTreeMap::new();
        for name in names.clone() {
            if let Some(link) = self.links.get(name) {
                taken.insert(link.ifindex, name.clone());
            }
        }
        let mut same = Vec::new();
        for name in names {
            if self.links.contains_key(name) {
                continue;
            }
            let mut links = self.links.iter();
            let Some((known, link)) = links.find(|(_, link)| link.alternative_names.contains(name))
            else {
                continue;
            };
            if let Some(first) = taken.get(&link.ifindex) {
                same.push((first.clone(), name.clone()));
                continue;
            }
            let known = known.clone();
            taken.insert(link.ifindex, name.clone());
            if let Some(mut link) = self.links.remove(&known) {
                link.renamed_from = Some(known);
                self.links.insert(name.clone(), link);
            }
        }
        (self, same)
    }

    /// The addresses of its interfaces at which others can reach it from beyond a link.
    pub fn unicast_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let own = self.addresses.iter().copied();
        own.filter(|address| is_routable(*address))
    }

    /// Whether the host's stack receives what is sent to `address`.
    pub fn receives(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
            || self
                .local_prefixes
                .iter()
                .any(|prefix| prefix.contains(&address))
    }
}

/// Whether one host has the address, and others reach it from beyond a link (RFC 3927; RFC 4291, 2.5.6).
pub fn is_routable(address: IpAddr) -> bool {
    let is_limited = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let is_none = address.is_unspecified() || address.is_multicast();
    !is_limited && !is_none && !address.is_loopback()
}

/// One interface of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub mac: Mac,
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// How often its link has come up; `None`: it is down now.
    pub carrier_ups: Option<u32>,
    pub header: LinkHeader,
    /// The host's addresses on it.
    pub addresses: BTreeSet<IpAddr>,
    /// Those of them that no new connection may take: temporary, deprecated, or not settled (RFC 4862, RFC 8981).
    pub unsteady: BTreeSet<IpAddr>,
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
    /// The kernel's name, where the file has it by another one.
    pub renamed_from: Option<String>,
    /// The kind of its root qdisc, as `tc qdisc show` names it.
    pub qdisc: String,
}

impl Link {
    /// Its name in sysctls and in other tools' rules; `name` is the file's.
    pub fn kernel_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.renamed_from.as_deref().unwrap_or(name)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routable_addresses_are_reached_from_beyond_a_link() {
        let rows = [
            ("192.0.2.1", true),
            ("10.0.0.1", true),
            ("2001:db8::1", true),
            ("fd00::1", true),
            ("169.254.1.1", false),
            ("fe80::1", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
            ("255.255.255.255", false),
        ];
        for (address, expected) in rows {
            assert_eq!(is_routable(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn a_file_names_an_interface_by_the_kernels_name_or_an_alternative_one() {
        let link = |ifindex, names: &[&str]| Link {
            ifindex,
            alternative_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Link::default()
        };
        let links = [
            ("eth0", link(2, &["enp0s31f6", "enx02"])),
            ("eth1", link(3, &["lxc-a"])),
            ("lxc-a", link(4, &[])),
        ];
        let host = HostState {
            links: links.map(|(name, link)| (name.to_owned(), link)).into(),
            ..HostState::default()
        };
        // (names of the file, those that are found with their interfaces, two for one)
        type Row = (
            &'static str,
            &'static [(&'static str, u32)],
            &'static [(&'static str, &'static str)],
        );
        let rows: [Row; 5] = [
            ("eth0", &[("eth0", 2)], &[]),
            ("enp0s31f6", &[("enp0s31f6", 2)], &[]),
            ("eth0 enp0s31f6", &[("eth0", 2)], &[("eth0", "enp0s31f6")]),
            (
                "enp0s31f6 enx02",
                &[("enp0s31f6", 2)],
                &[("enp0s31f6", "enx02")],
            ),
            ("lxc-a eth7", &[("lxc-a", 4)], &[]),
        ];
        for (names, found, same) in rows {
            let names: Vec<String> = names.split(' ').map(str::to_owned).collect();
            let (named, two) = host.clone().named_by(names.iter());
            let links = names
                .iter()
                .filter_map(|name| Some((name.as_str(), named.links.get(name)?.ifindex)));
            assert_eq!(links.collect::<Vec<_>>(), found, "{names:?}");
            let two: Vec<_> = two.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(two, same, "{names:?}");
            assert_eq!(named.links.len(), 3, "{names:?}");
            assert_eq!(named.clone().named_by(names.iter()).0, named, "{names:?}");
            for (name, link) in &named.links {
                assert_eq!(
                    host.links[link.kernel_name(name)].ifindex,
                    link.ifindex,
                    "{names:?}"
                );
            }
        }
    }
}
