//! Whether the host's routes lead to the endpoints.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::endpoint::{Endpoint, find_link, interface_name};
use crate::model::host::HostState;
use crate::model::link_local::{is_link_local, is_of_a_link};
use crate::net::netlink::Netlink;
use crate::net::route::{Route, look_up};
use crate::net::sysctl::{is_on, is_strict};

/// Addresses of a prefix that are tried for one that the host does not receive itself.
const SAMPLES_MAX: usize = 1024;

/// Whether the host has a route to each address of each endpoint.
pub fn check(rtnetlink: &mut Netlink, host: &HostState, endpoints: &[Endpoint<'_>]) -> Vec<String> {
    let mut lacks = Vec::new();
    for endpoint in endpoints {
        // Link-local ones need none.
        for prefix in endpoint
            .addresses
            .iter()
            .filter(|prefix| !is_of_a_link(**prefix))
        {
            match check_route(rtnetlink, host, endpoint, prefix) {
                Ok(lack) => lacks.extend(lack),
                Err(error) => lacks.push(format!("look up the route to {prefix}: {error}")),
            }
        }
    }
    lacks
}

fn check_route(
    rtnetlink: &mut Netlink,
    host: &HostState,
    endpoint: &Endpoint<'_>,
    prefix: &IpNet,
) -> io::Result<Option<String>> {
    let interface = endpoint.interface;
    let address = sample(host, prefix);
    if let Some(lack) = check_receiver(host, endpoint, prefix, address) {
        return Ok(Some(lack));
    }
    let leads = match look_up(rtnetlink, address)? {
        Route::Through { ifindex, .. } if is_healthy(host, endpoint, ifindex) => return Ok(None),
        Route::Through { ifindex, .. } => format!("leads to {}", interface_name(host, ifindex)),
        Route::Other => "does not lead to an interface".to_owned(),
        Route::None if is_link_only(endpoint, address) => return Ok(None),
        Route::None => "is missing".to_owned(),
    };
    let (receiver, _) = endpoint.stack_interface();
    let filter = if is_strict(host.kernel_name(receiver), prefix) {
        format!(", and the strict reverse path filter of {receiver} drops what comes from there")
    } else {
        String::new()
    };
    let fix = route_command(endpoint, prefix);
    Ok(Some(format!(
        "the host's route to {prefix} of endpoint {interface} {leads}{filter}: {fix}"
    )))
}

/// Whether the host itself receives what is sent to the endpoint's address.
fn check_receiver(
    host: &HostState,
    endpoint: &Endpoint<'_>,
    prefix: &IpNet,
    address: IpAddr,
) -> Option<String> {
    let interface = endpoint.interface;
    if is_whole(prefix) && host.addresses.contains(&address) {
        return Some(format!(
            "{address} of endpoint {interface} is an address of the host too, which receives its packets: find it with \
             'ip address show to {address}' and remove it with 'ip address delete'"
        ));
    }
    let ip = if address.is_ipv6() { "ip -6" } else { "ip" };
    host.receives(address).then(|| {
        format!(
            "the host itself receives packets to {prefix} of endpoint {interface}: find the route with \
             '{ip} route show table local match {address}' and remove it, or the address that it comes from"
        )
    })
}

/// Whether a route by this interface reaches the endpoint. To a port of a bridge it leads to the bridge, or to a VLAN on it;
/// where the host has no address on the bridge, it may lead through a router. One to the port itself gets no reply to ARP:
/// the bridge receives it.
fn is_healthy(host: &HostState, endpoint: &Endpoint<'_>, ifindex: u32) -> bool {
    let Some((_, bridge)) = endpoint.bridge else {
        return ifindex == endpoint.link.ifindex;
    };
    let is_on_bridge =
        find_link(host, ifindex).is_some_and(|(_, link)| link.below == Some(bridge.ifindex));
    let is_through_router = bridge
        .addresses
        .iter()
        .all(|address| is_link_local(*address))
        && find_link(host, ifindex).is_some_and(|(_, link)| link.master.is_none());
    ifindex == bridge.ifindex || is_on_bridge || is_through_router
}

/// Whether the host has no part in the IPv6 of the bridge, and needs no route.
fn is_link_only(endpoint: &Endpoint<'_>, address: IpAddr) -> bool {
    let switch = |bridge| format!("ipv6/conf/{bridge}/disable_ipv6");
    let bridge = endpoint.bridge.filter(|_| address.is_ipv6());
    bridge.is_some_and(|(name, _)| is_on(&switch(name)) == Some(true))
}

/// Whether the prefix is one address.
fn is_whole(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

/// An address of the prefix to look up a route for: none that the host receives, as the gateway of the workloads, the
/// broadcast address of the subnet, and the anycast address of its routers.
fn sample(host: &HostState, prefix: &IpNet) -> IpAddr {
    prefix
        .hosts()
        .take(SAMPLES_MAX)
        .find(|address| !host.receives(*address))
        .unwrap_or(prefix.addr())
}

/// The command that adds the route. A prefix behind a workload is routed via the workload's own address: the workload
/// answers no ARP for addresses of the prefix.
fn route_command(endpoint: &Endpoint<'_>, prefix: &IpNet) -> String {
    let (interface, _) = endpoint.stack_interface();
    let gateway = endpoint
        .addresses
        .iter()
        .find(|other| is_whole(other) && other.addr().is_ipv4() == prefix.addr().is_ipv4())
        .filter(|_| !is_whole(prefix));
    match gateway {
        Some(gateway) => {
            let gateway = gateway.addr();
            format!("ip route replace {prefix} via {gateway} dev {interface} onlink")
        }
        None => format!("ip route replace {prefix} dev {interface}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_looked_up_for_an_address_that_only_the_endpoint_has() {
        let rows = [
            ("10.9.0.0/24", "10.9.0.1", "not a subnet's first address"),
            ("10.200.0.64/32", "10.200.0.64", "a single address"),
            ("10.0.0.2/31", "10.0.0.2", "a pair has no broadcast address"),
            ("192.0.2.0/24", "192.0.2.2", "not the host's own address"),
            ("fd00::/64", "fd00::", "IPv6 has no broadcast address"),
            ("fd01::/64", "fd01::2", "not the anycast address of routers"),
            (
                "198.51.100.0/24",
                "198.51.100.64",
                "not a prefix of the host's",
            ),
        ];
        let host = HostState {
            addresses: ["192.0.2.1".parse().unwrap()].into(),
            local_prefixes: ["fd01::/128", "fd01::1/128", "198.51.100.0/26"]
                .map(|prefix| prefix.parse().unwrap())
                .into(),
            ..HostState::default()
        };
        for (prefix, expected, why) in rows {
            let address = sample(&host, &prefix.parse().unwrap());
            assert_eq!(address.to_string(), expected, "{why}");
        }
    }
}
