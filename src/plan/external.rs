//! What the host lacks for services that the network reaches.

use std::collections::BTreeSet;

use crate::config::{Config, ServiceBackend};
use crate::model::host::HostState;
use crate::model::service::Frontend;
use crate::model::socket_ports::{SocketPorts, ranges};
use crate::model::state::AddressScope;

use super::endpoints;
use super::ipcache::Owners;
use super::services::{own_addresses, ready_members};

pub fn warnings(config: &Config, host: &HostState) -> Vec<String> {
    let services = config.services.iter();
    let external: Vec<_> = services.filter(|(_, service)| service.external).collect();
    if external.is_empty() {
        return Vec::new();
    }
    let owners = Owners::new(config, host, &endpoints::declared(config, host));
    let own = own_addresses(host, &owners);
    let members = ready_members(config, host);
    let mut warnings = Vec::new();
    let mut taken = BTreeSet::new();
    for (name, service) in external {
        let at_node = service.frontends_at(own.iter().copied());
        if let Some(node_port) = service.node_ports.first().filter(|_| at_node.is_empty()) {
            warnings.push(format!(
                "service {name} has {node_port} as a frontend, and the host has no address of the backends' family: \
                 nothing answers there"
            ));
        }
        warnings.extend(named_by_others(config, name, &at_node));
        warnings.extend(own_backends(name, members.backends(service), &owners));
        let named = service.frontends.iter().copied();
        taken.extend(named.filter(|frontend| own.contains(&frontend.address)));
        taken.extend(at_node);
    }
    warnings.extend(ports_of_sockets(&taken, &host.socket_ports));
    warnings
}

/// Frontends of a service's node ports that are those of other services, which name the address.
fn named_by_others(config: &Config, name: &str, at_node: &[Frontend]) -> Vec<String> {
    let services = config.services.iter().filter(|(other, _)| *other != name);
    let named = services.flat_map(|(other, service)| {
        let frontends = service.frontends.iter();
        frontends.map(move |frontend| (other, frontend))
    });
    let both = named.filter(|(_, frontend)| at_node.contains(frontend));
    both.map(|(other, frontend)| {
        let (port, protocol) = (frontend.port, frontend.protocol);
        format!(
            "service {other} has {frontend}, an address of the host, as a frontend: node:{port}/{protocol} of service \
             {name} does not answer there; give one of them another port"
        )
    })
    .collect()
}

/// SNAT and DNAT are for packets that leave the host, or for workloads.
fn own_backends(name: &str, backends: Vec<ServiceBackend<'_>>, owners: &Owners) -> Vec<String> {
    let backends = backends.iter().map(|found| found.backend.address);
    let of_host = backends.filter(|backend| owners.scope(backend.ip()) == AddressScope::Host);
    of_host
        .map(|backend| {
            format!(
                "service {name} has the backend {backend}, an address of the host: what the network sends to it by the \
                 service is dropped; remove it, or remove `external`"
            )
        })
        .collect()
}

/// A connection of the host itself from a frontend's port would lose its replies to the service.
fn ports_of_sockets(taken: &BTreeSet<Frontend>, ports: &SocketPorts) -> Option<String> {
    let taken = taken.iter().map(|frontend| frontend.port);
    let is_at_risk = |port: &u16| ports.range.contains(port) && !ports.is_reserved(*port);
    let at_risk: BTreeSet<u16> = taken.filter(is_at_risk).collect();
    if at_risk.is_empty() {
        return None;
    }
    let list = |ports: BTreeSet<u16>| ranges(&Vec::from_iter(ports)).replace(' ', ",");
    let reserved = ports.reserved.iter().cloned().flatten();
    let fix = list(reserved.chain(at_risk.iter().copied()).collect());
    let at_risk = list(at_risk);
    Some(format!(
        "external services have ports of net.ipv4.ip_local_port_range at addresses of the host ({at_risk}): what the \
         network sends to sockets that get these ports goes to the services, but for connections that the host opens: sysctl -w \
         net.ipv4.ip_local_reserved_ports={fix}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::plan::testing::TestConfig;

    #[test]
    fn what_is_wrong_on_this_host_is_named() {
        let at = |frontends: &str, backends: &str, node_ports: &str| {
            TestConfig::new()
                .uplink("ens5", XdpMode::Auto)
                .service("s", frontends, backends)
                .external("s", node_ports)
        };
        let both = "10.9.0.1:80 [fd00:9::1]:80";
        let risk = |ports: &str, reserved: &str| {
            format!(
                "external services have ports of net.ipv4.ip_local_port_range at addresses of the host ({ports}): what \
                 the network sends to sockets that get these ports goes to the services, but for connections that the host \
                 opens: sysctl -w net.ipv4.ip_local_reserved_ports={reserved}"
            )
        };
        let own = |backend: &str| {
            format!(
                "service s has the backend {backend}, an address of the host: what the network sends to it by the service \
                 is dropped; remove it, or remove `external`"
            )
        };
        let reserved = {
            let mut test = at("", both, "40000/tcp 40001/udp 40003/tcp");
            test.host.socket_ports.reserved = vec![8080..=8081, 40003..=40003];
            test
        };
        let no_address = {
            let mut test = at("", "[fd00:9::1]:80", "8443/tcp");
            test.host.addresses.retain(|address| address.is_ipv4());
            test
        };
        let inner = {
            let mut test = at("192.0.2.1:40000/tcp", "192.0.2.1:80", "");
            test.config.services.get_mut("s").unwrap().external = false;
            test
        };
        let other = at("192.0.2.1:8443/udp", both, "8443/tcp").service(
            "other",
            "192.0.2.1:8443/tcp 198.51.100.1:8443/tcp",
            both,
        );
        let rows = [
            ("nothing", at("203.0.113.1:80/tcp", both, "8443/tcp"), vec![]),
            ("a service for workloads", inner, vec![]),
            (
                "node ports that sockets get",
                reserved,
                vec![risk("40000-40001", "8080-8081,40000-40001,40003")],
            ),
            (
                "frontends that sockets get",
                at("192.0.2.1:40000/tcp 203.0.113.1:40001/tcp", both, ""),
                vec![risk("40000", "40000")],
            ),
            (
                "backends of the host",
                at("203.0.113.1:80/tcp", "192.0.2.1:80 10.9.0.1:80", ""),
                vec![own("192.0.2.1:80")],
            ),
            (
                "no address to answer at",
                no_address,
                vec![
                    "service s has node:8443/tcp as a frontend, and the host has no address of the backends' family: \
                     nothing answers there"
                        .to_owned(),
                ],
            ),
            (
                "the service's own frontend",
                at("192.0.2.1:8443/tcp", both, "8443/tcp"),
                vec![],
            ),
            (
                "another service's frontend",
                other,
                vec![
                    "service other has 192.0.2.1:8443/tcp, an address of the host, as a frontend: node:8443/tcp of service \
                     s does not answer there; give one of them another port"
                        .to_owned(),
                ],
            ),
        ];
        for (what, test, expected) in rows {
            assert_eq!(warnings(&test.config, &test.host), expected, "{what}");
        }
    }
}
