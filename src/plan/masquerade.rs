//! Masquerade: which addresses and ports SNAT takes, and which destinations it concerns.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Config, Interface};
use crate::model::host::{HostState, Link};
use crate::model::masquerade::{Masquerade, SnatRole};
use crate::model::socket_ports::SocketPorts;
use crate::model::state::{HostAddresses, State};

use super::host_addresses;
use super::inputs::Inputs;

/// Below are the ports of the system's services (RFC 6335, 6).
const FIRST_PORT: u16 = 1024;
/// With fewer ports that no socket of the host gets by itself, those that sockets get serve too.
const FEW_PORTS: usize = 4096;

/// Fills the table of source ports; it is empty while nothing is masqueraded.
pub fn compile(inputs: Inputs<'_>, state: &mut State) {
    if families(inputs.config) != Masquerade::None {
        state.snat_ports = source_ports(&inputs.host.socket_ports);
    }
    state.settings.snat_port_count = u32::try_from(state.snat_ports.len()).unwrap_or_default();
}

/// The families that some uplink masquerades.
pub fn families(config: &Config) -> Masquerade {
    let mut found = [false; 2];
    for interface in config.interfaces.values() {
        if let Interface::Uplink { masquerade, .. } = interface {
            found[0] |= masquerade.has_ipv4();
            found[1] |= masquerade.has_ipv6();
        }
    }
    match found {
        [true, true] => Masquerade::Both,
        [true, false] => Masquerade::Ipv4,
        [false, true] => Masquerade::Ipv6,
        [false, false] => Masquerade::None,
    }
}

/// The prefixes that see the workloads' own addresses: those of the file, and of the other nodes.
pub fn exempt(config: &Config) -> BTreeSet<IpNet> {
    if families(config) == Masquerade::None {
        return BTreeSet::new();
    }
    let nodes = config.nodes.values();
    let addresses = nodes.clone().flat_map(|node| &node.addresses);
    let cidrs = nodes.flat_map(|node| &node.cidrs).map(IpNet::trunc);
    let named = config.masquerade.except.iter().copied();
    let addresses = addresses.map(|address| IpNet::from(*address));
    addresses.chain(cidrs).chain(named).collect()
}

/// The role of an address of the host.
pub fn role_of_own(families: Masquerade, host: &HostState, address: IpAddr) -> SnatRole {
    if !families.covers(address) || !host.addresses.contains(&address) || is_of_link(address) {
        return SnatRole::None;
    }
    let mut links = host.links.values();
    match links.any(|link| link.unsteady.contains(&address)) {
        true => SnatRole::Host,
        false => SnatRole::Source,
    }
}

/// What SNAT takes by an uplink where the kernel names no source: an address of its own, else one of the host's.
pub fn source(link: &Link, masquerade: Masquerade, host: &HostState) -> HostAddresses {
    let may_take = |address: &&IpAddr| {
        role_of_own(masquerade, host, **address) == SnatRole::Source && !address.is_loopback()
    };
    let own = link.addresses.iter().filter(may_take);
    let others = host.addresses.iter().filter(may_take);
    host_addresses::first(own.chain(others))
}

fn is_of_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

/// The ports that SNAT gives to connections, in ascending order.
fn source_ports(ports: &SocketPorts) -> Vec<u16> {
    let free = (FIRST_PORT..=u16::MAX).filter(|port| !ports.is_reserved(*port));
    let outside: Vec<u16> = free
        .clone()
        .filter(|port| !ports.range.contains(port))
        .collect();
    match outside.len() < FEW_PORTS {
        true => free.collect(),
        false => outside,
    }
}

/// What `check`, `status` and the log say of a host that masquerades.
pub fn warnings(config: &Config, host: &HostState) -> Vec<String> {
    let families = families(config);
    if families == Masquerade::None {
        return Vec::new();
    }
    let mut warnings: Vec<String> = few_ports(&host.socket_ports).into_iter().collect();
    for (name, interface) in &config.interfaces {
        let Interface::Uplink { masquerade, .. } = interface else {
            continue;
        };
        let Some(link) = host.links.get(name) else {
            continue;
        };
        let source = source(link, *masquerade, host);
        let lacks_ipv4 = masquerade.has_ipv4() && source.ipv4.is_none();
        let lacks_ipv6 = masquerade.has_ipv6() && source.ipv6.is_none();
        for (lacks, family, option) in [(lacks_ipv4, "IPv4", "-4"), (lacks_ipv6, "IPv6", "-6")] {
            if lacks {
                warnings.push(format!(
                    "uplink {name} masquerades {family}, of which the host has no address that lasts: what workloads send to \
                     the world by it is dropped: ip {option} address add ADDRESS/LENGTH dev {name}"
                ));
            }
        }
    }
    warnings
}

fn few_ports(ports: &SocketPorts) -> Option<String> {
    let free = (FIRST_PORT..=u16::MAX).filter(|port| !ports.is_reserved(*port));
    let outside = free.filter(|port| !ports.range.contains(port)).count();
    (outside < FEW_PORTS).then(|| {
        format!(
            "masquerade has {outside} source ports outside of net.ipv4.ip_local_port_range, and takes those inside, too, as \
             far as no socket of the host has them: sysctl -w net.ipv4.ip_local_port_range='32768 60999'"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::model::socket_ports::ranges;
    use crate::plan::testing::{TestConfig, ip, net};

    #[test]
    fn source_ports_are_those_that_no_socket_gets_by_itself() {
        let rows = [
            (
                "the kernel's default",
                32768..=60999,
                &[][..],
                "1024-32767 61000-65535",
            ),
            (
                "reserved ones",
                32768..=60999,
                &[8080..=8080, 61000..=61009, 40000..=40000],
                "1024-8079 8081-32767 61010-65535",
            ),
            ("a wide range", 1024..=65000, &[], "1024-65535"),
            (
                "a wide range, and reserved ones",
                1024..=65000,
                &[2000..=65535],
                "1024-1999",
            ),
            ("as many as are enough", 1024..=61439, &[], "61440-65535"),
            ("one less", 1024..=61440, &[], "1024-65535"),
            ("none", 1..=65535, &[1..=65535], ""),
        ];
        for (what, range, reserved, expected) in rows {
            let ports = SocketPorts {
                range,
                reserved: reserved.to_vec(),
            };
            assert_eq!(ranges(&source_ports(&ports)), expected, "{what}");
        }
    }

    #[test]
    fn a_host_that_lacks_ports_or_addresses_is_warned_of() {
        let mut test = TestConfig::new().uplink("ens5", XdpMode::Auto);
        let set = |test: &mut TestConfig, families| {
            if let Some(Interface::Uplink { masquerade, .. }) =
                test.config.interfaces.get_mut("ens5")
            {
                *masquerade = families;
            }
        };
        let found = |test: &TestConfig| warnings(&test.config, &test.host);
        test.host.socket_ports.range = 1024..=65535;
        assert_eq!(found(&test), [""; 0], "nothing is masqueraded");
        set(&mut test, Masquerade::Both);
        let few = found(&test);
        assert_eq!(few.len(), 1, "{few:?}");
        assert!(few[0].contains("has 0 source ports outside"), "{few:?}");
        test.host.socket_ports = SocketPorts::default();
        assert_eq!(found(&test), [""; 0]);
        test.host.addresses.remove(&ip("2001:db8::1"));
        let lacks = found(&test);
        assert_eq!(lacks.len(), 1, "{lacks:?}");
        assert!(lacks[0].contains("ens5 masquerades IPv6"), "{lacks:?}");
        let link = test.host.links.get_mut("ens5").unwrap();
        link.addresses = [ip("2001:db8::5")].into();
        link.unsteady = link.addresses.clone();
        test.host.addresses.insert(ip("2001:db8::5"));
        assert_eq!(found(&test).len(), 1, "a temporary address does not count");
        set(&mut test, Masquerade::Ipv4);
        assert_eq!(found(&test), [""; 0]);
    }

    #[test]
    fn an_uplink_takes_its_own_address_first() {
        let mut test = TestConfig::new().uplink("ens5", XdpMode::Auto);
        let link = test.host.links.get_mut("ens5").unwrap();
        link.addresses = [
            "169.254.1.1",
            "198.51.100.5",
            "fe80::5",
            "2001:db8:5::5",
            "2001:db8:5::6",
        ]
        .map(ip)
        .into();
        link.unsteady = [ip("2001:db8:5::5")].into();
        test.host.addresses.extend(link.addresses.clone());
        let link = test.host.links["ens5"].clone();
        let of = |families| {
            let found = source(&link, families, &test.host);
            (
                found.ipv4.map(|v4| v4.to_string()),
                found.ipv6.map(|v6| v6.to_string()),
            )
        };
        let (v4, v6) = (
            Some("198.51.100.5".to_owned()),
            Some("2001:db8:5::6".to_owned()),
        );
        assert_eq!(of(Masquerade::Both), (v4.clone(), v6.clone()));
        assert_eq!(of(Masquerade::Ipv4), (v4, None));
        assert_eq!(of(Masquerade::Ipv6), (None, v6));
    }

    #[test]
    fn the_ipcache_says_what_is_masqueraded() {
        let mut test = TestConfig::new()
            .uplink("ens5", XdpMode::Auto)
            .identity("web", 300, "")
            .identity("far", 301, "")
            .endpoint("web", "web", "10.1.1.1")
            .cidrs("far", "203.0.113.0/24 10.2.1.0/24")
            .node("node-b", "192.0.2.2", "10.2.0.0/16");
        test.host.links.get_mut("ens5").unwrap().unsteady = [ip("192.0.2.9")].into();
        test.host.addresses.insert(ip("192.0.2.9"));
        test.host.local_prefixes = [net("127.0.0.0/8"), net("192.0.2.255/32")].into();
        test.config.masquerade.except = vec![net("198.51.0.0/16")];
        let role = |test: &TestConfig, address: &str| {
            let state = test.compile();
            let entry = crate::plan::ipcache::find(&state, ip(address)).unwrap();
            entry.snat
        };
        assert_eq!(
            role(&test, "8.8.8.8"),
            SnatRole::None,
            "no uplink masquerades"
        );
        if let Some(Interface::Uplink { masquerade, .. }) = test.config.interfaces.get_mut("ens5") {
            *masquerade = Masquerade::Ipv4;
        }
        let rows = [
            ("the world", "8.8.8.8", SnatRole::Masqueraded),
            (
                "the world of the other family",
                "2001:db8::9",
                SnatRole::None,
            ),
            ("an identity's prefix", "203.0.113.9", SnatRole::Masqueraded),
            ("an exception", "198.51.100.7", SnatRole::None),
            ("another node", "192.0.2.2", SnatRole::None),
            ("a workload behind it", "10.2.0.9", SnatRole::None),
            ("one that an identity names", "10.2.1.9", SnatRole::None),
            ("a workload", "10.1.1.1", SnatRole::None),
            ("the host", "192.0.2.1", SnatRole::Source),
            ("an address that does not last", "192.0.2.9", SnatRole::Host),
            ("broadcast", "192.0.2.255", SnatRole::None),
            ("loopback", "127.0.0.1", SnatRole::None),
        ];
        for (what, address, expected) in rows {
            assert_eq!(role(&test, address), expected, "{what}");
        }
    }
}
