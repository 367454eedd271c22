//! SNAT to addresses of the host, by masquerade and for external services: its families, addresses and ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::{Config, Interface, Members, Service, ServiceBackend};
use crate::model::families::Families;
use crate::model::host::{HostState, Link, is_routable};
use crate::model::service::Locality;
use crate::model::socket_ports::SocketPorts;
use crate::model::state::{AddressScope, HostAddresses, SnatRole, State};

use super::endpoints;
use super::host_addresses;
use super::inputs::Inputs;
use super::ipcache::Owners;
use super::masquerade;

/// Below are the ports of the system's services (RFC 6335, 6).
const FIRST_PORT: u16 = 1024;
/// With fewer ports that no socket of the host gets by itself, those that sockets get serve too.
const FEW_PORTS: usize = 4096;

/// Fills the table of source ports; it is empty while SNAT is not used.
pub fn compile(inputs: Inputs<'_>, families: Families, state: &mut State) {
    if !families.is_empty() {
        let published = published_ports(inputs.config, inputs.host);
        state.snat_ports = source_ports(&inputs.host.socket_ports);
        state.snat_ports.retain(|port| !published.contains(port));
    }
    state.settings.snat_port_count = u32::try_from(state.snat_ports.len()).unwrap_or_default();
}

/// The ports of external services at the host's addresses: a late reply to one of them would open a connection to the service.
fn published_ports(config: &Config, host: &HostState) -> BTreeSet<u16> {
    let services = config.services.values().filter(|service| service.external);
    let ports = services.flat_map(|service| {
        let own = service.frontends.iter();
        let own = own.filter(|frontend| host.addresses.contains(&frontend.address));
        let node_ports = service.node_ports.iter().map(|node_port| node_port.port);
        own.map(|frontend| frontend.port).chain(node_ports)
    });
    ports.collect()
}

/// The families in which SNAT is used: those that some uplink masquerades, and those in which the network's clients may have been
/// sent to a backend on another host: with `locality = "only"` no new one is, but existing ones continue.
pub fn families(config: &Config, owners: &Owners) -> Families {
    masquerade::families(config).union(relayed(config, owners, |_| true))
}

/// The families of external services' backends on other hosts.
fn relayed(config: &Config, owners: &Owners, concerns: impl Fn(&Service) -> bool) -> Families {
    let mut found = Families::default();
    let members = Members::new(config, |_| true);
    let services = config.services.values();
    for service in services.filter(|service| service.external && concerns(service)) {
        for ServiceBackend { backend, .. } in members.backends(service) {
            let address = backend.address.ip();
            if !found.covers(address) && owners.scope(address) == AddressScope::Remote {
                found = found.union(Families::of(address));
            }
        }
    }
    found
}

/// The role of an address of the host.
pub fn role_of_own(families: Families, host: &HostState, address: IpAddr) -> SnatRole {
    if !families.covers(address) || !host.addresses.contains(&address) || !is_routable(address) {
        return SnatRole::None;
    }
    let mut links = host.links.values();
    match links.any(|link| link.unsteady.contains(&address)) {
        true => SnatRole::Host,
        false => SnatRole::Source,
    }
}

/// What SNAT takes by an uplink where the kernel names no source: an address of its own, else one of the host's.
pub fn source(link: &Link, families: Families, host: &HostState) -> HostAddresses {
    let may_take = |address: &&IpAddr| role_of_own(families, host, **address) == SnatRole::Source;
    let own = link.addresses.iter().filter(may_take);
    let others = host.addresses.iter().filter(may_take);
    host_addresses::first(own.chain(others))
}

/// The ports that SNAT gives to connections, in ascending order.
fn source_ports(ports: &SocketPorts) -> Vec<u16> {
    let outside: Vec<u16> = ports_outside(ports).collect();
    match outside.len() < FEW_PORTS {
        true => free_ports(ports).collect(),
        false => outside,
    }
}

fn free_ports(ports: &SocketPorts) -> impl Iterator<Item = u16> {
    (FIRST_PORT..=u16::MAX).filter(move |port| !ports.is_reserved(*port))
}

/// Those that no socket of the host gets by itself.
fn ports_outside(ports: &SocketPorts) -> impl Iterator<Item = u16> {
    free_ports(ports).filter(move |port| !ports.range.contains(port))
}

/// What the host lacks for SNAT: sentences for `check`, `status` and the log.
pub fn warnings(config: &Config, host: &HostState) -> Vec<String> {
    let owners = Owners::new(config, host, &endpoints::declared(config, host));
    let relayed = relayed(config, &owners, |service| {
        service.locality != Locality::Only
    });
    let families = masquerade::families(config).union(relayed);
    if families.is_empty() {
        return Vec::new();
    }
    let mut warnings: Vec<String> = few_ports(&host.socket_ports).into_iter().collect();
    for (name, interface) in &config.interfaces {
        if let Interface::Uplink { masquerade, .. } = interface
            && let Some(link) = host.links.get(name)
        {
            let source = source(link, families, host);
            warnings.extend(no_source(name, *masquerade, families, source));
        }
    }
    warnings
}

/// The families of which there is no address to take by an uplink, and what is lost with them.
fn no_source(
    uplink: &str,
    masquerade: Families,
    families: Families,
    source: HostAddresses,
) -> Vec<String> {
    let rows = [
        (
            masquerade.ipv4,
            families.ipv4,
            source.ipv4.is_none(),
            "IPv4",
            "-4",
        ),
        (
            masquerade.ipv6,
            families.ipv6,
            source.ipv6.is_none(),
            "IPv6",
            "-6",
        ),
    ];
    let lacking = rows
        .into_iter()
        .filter(|(_, is_used, lacks, ..)| *is_used && *lacks);
    lacking
        .map(|(masquerades, _, _, family, option)| {
            let (whose, loss) = match masquerades {
                true => (
                    format!("uplink {uplink} masquerades {family}"),
                    "what workloads send to the world by it is dropped",
                ),
                false => (
                    format!("external services have {family} backends on other hosts"),
                    "what the network sends to those is dropped",
                ),
            };
            format!(
                "{whose}, of which the host has no address that lasts: {loss}: ip {option} address add ADDRESS/LENGTH dev \
                 {uplink}"
            )
        })
        .collect()
}

fn few_ports(ports: &SocketPorts) -> Option<String> {
    let outside = ports_outside(ports).count();
    (outside < FEW_PORTS).then(|| {
        format!(
            "SNAT has {outside} source ports outside of net.ipv4.ip_local_port_range, and takes those inside, too, as \
             far as no socket of the host has them: sysctl -w net.ipv4.ip_local_port_range='32768 60999'"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::model::socket_ports::ranges;
    use crate::plan::testing::{TestConfig, ip};

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
        set(&mut test, Families::BOTH);
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
        set(&mut test, Families::IPV4);
        assert_eq!(found(&test), [""; 0]);
    }

    #[test]
    fn external_services_need_an_address_of_the_host_too() {
        let mut test = TestConfig::new()
            .uplink("ens5", XdpMode::Auto)
            .service("s", "203.0.113.1:80/tcp", "10.9.0.1:80")
            .external("s", "");
        let found = |test: &TestConfig| warnings(&test.config, &test.host);
        assert_eq!(found(&test), [""; 0]);
        test.host.addresses.remove(&ip("192.0.2.1"));
        let lacks = "external services have IPv4 backends on other hosts, of which the host has no address that lasts: what \
                     the network sends to those is dropped: ip -4 address add ADDRESS/LENGTH dev ens5";
        assert_eq!(found(&test), [lacks]);
        test.host.socket_ports.range = 1024..=65535;
        assert_eq!(found(&test).len(), 2, "and ports");
        test.config.services.get_mut("s").unwrap().locality = Locality::Only;
        assert_eq!(found(&test), [""; 0], "none elsewhere is taken");
        test.config.services.get_mut("s").unwrap().locality = Locality::Any;
        test.config.services.get_mut("s").unwrap().external = false;
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
        assert_eq!(of(Families::BOTH), (v4.clone(), v6.clone()));
        assert_eq!(of(Families::IPV4), (v4, None));
        assert_eq!(of(Families::IPV6), (None, v6));
    }

    #[test]
    fn ports_of_frontends_at_the_host_are_no_source_ports() {
        let frontends = "192.0.2.1:5000/tcp 203.0.113.1:5001/udp";
        let mut test = TestConfig::new()
            .uplink("ens5", XdpMode::Auto)
            .service("s", frontends, "10.9.0.1:80")
            .external("s", "8443/tcp")
            .service("inside", "192.0.2.1:5002/tcp", "10.9.0.1:80");
        test.host.addresses.insert(ip("192.0.2.1"));
        let ports = test.compile().snat_ports;
        let is_there = [5000, 5001, 5002, 8443].map(|port| ports.contains(&port));
        assert_eq!(is_there, [false, true, true, false]);
    }

    #[test]
    fn external_services_with_backends_elsewhere_use_snat() {
        let rows = [
            (
                "a backend elsewhere",
                "10.9.0.1:80",
                true,
                Locality::Any,
                "4",
            ),
            ("of IPv6", "[fd00:9::1]:80", true, Locality::Prefer, "6"),
            (
                "one of each",
                "10.9.0.1:80 [fd00:9::1]:80",
                true,
                Locality::Any,
                "46",
            ),
            (
                "in maintenance",
                "10.9.0.1:80!maintenance",
                true,
                Locality::Any,
                "4",
            ),
            (
                "there once, and here from now on",
                "10.9.0.1:80",
                true,
                Locality::Only,
                "4",
            ),
            ("not external", "10.9.0.1:80", false, Locality::Any, ""),
            ("here", "10.1.1.1:80", true, Locality::Any, ""),
            ("pending", "10.1.1.2:80", true, Locality::Any, ""),
        ];
        for (what, backends, is_external, locality, expected) in rows {
            let mut test = TestConfig::new()
                .uplink("ens5", XdpMode::Auto)
                .identity("web", 300, "")
                .endpoint("web", "web", "10.1.1.1")
                .endpoint("gone", "web", "10.1.1.2")
                .service("s", "", backends)
                .external("s", "80/tcp");
            test.host.links.remove("lxc-gone");
            let service = test.config.services.get_mut("s").unwrap();
            (service.external, service.locality) = (is_external, locality);
            let state = test.compile();
            let role = |address: &str| {
                let entry = crate::plan::ipcache::find(&state, ip(address)).unwrap();
                entry.snat == SnatRole::Source
            };
            let uplink = state.uplinks.values().next().unwrap();
            let found = [
                (role("192.0.2.1"), uplink.snat.ipv4.is_some(), "4"),
                (role("2001:db8::1"), uplink.snat.ipv6.is_some(), "6"),
            ];
            let mut families = String::new();
            for (is_source, has_source, family) in found {
                assert_eq!(is_source, has_source, "{what}: IPv{family}");
                families.push_str(if is_source { family } else { "" });
            }
            assert_eq!(families, expected, "{what}");
            let count = state.settings.snat_port_count as usize;
            assert_eq!(count, state.snat_ports.len(), "{what}");
            assert_eq!(count > 0, !expected.is_empty(), "{what}");
            let world = crate::plan::ipcache::find(&state, ip("8.8.8.8")).unwrap();
            assert_eq!(world.snat, SnatRole::None, "{what}: masquerade alone");
        }
    }
}
