//! What the host lacks for the file, each with the command that fixes it. Only reads, and needs no privilege.
//!
//! Delivery between local endpoints needs nothing of the host. What an endpoint sends to the world goes to the host's
//! stack, which forwards it only if forwarding is on; replies, and what the host itself sends, reach the endpoint by
//! the host's routes. The reverse path filter looks up the same routes, and needs no fix where they are right.
//!
//! Between hosts dpd itself looks up the routes, for the next hop of what an endpoint sends: the kernel's FIB lookup
//! fails where the interface does not forward.

mod endpoint;
mod node;
mod uplink;

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use self::endpoint::{Endpoint, interface_name};
use self::uplink::Uplink;
use super::netlink::Netlink;
use super::route::{Route, look_up};
use super::sysctl::{is_known, is_on, is_strict, set};
use crate::config::{Config, Interface};
use crate::model::host::HostState;

/// What the host lacks for the file: sentences, in the order in which their commands are to be run.
///
/// Reads the network namespace of the calling thread, of which `host` is the snapshot. Pending endpoints lack nothing.
pub fn checks(config: &Config, host: &HostState) -> Vec<String> {
    let endpoints: Vec<_> = config
        .interfaces
        .iter()
        .filter_map(|(interface, role)| match role {
            Interface::Endpoint { addresses, .. } => Some(Endpoint {
                interface,
                link: host.links.get(interface)?,
                addresses,
            }),
            Interface::Uplink { .. } => None,
        })
        .collect();
    let mut lacks: Vec<_> = endpoints.iter().filter_map(check_up).collect();
    lacks.extend(endpoints.iter().filter_map(check_ipv6));
    let (uplinks, of_uplinks) = uplink::check(config, host);
    lacks.extend(of_uplinks);
    for family in &Family::ALL {
        lacks.extend(check_forwarding(family, &endpoints, &uplinks));
    }
    let mut rtnetlink = match Netlink::route() {
        Ok(rtnetlink) => rtnetlink,
        Err(error) => {
            lacks.push(format!("read the host's routes: {error}"));
            return lacks;
        }
    };
    lacks.extend(check_routes(&mut rtnetlink, host, &endpoints));
    // Without an uplink there are no routes through it.
    if !uplinks.is_empty() {
        let present = node::Present {
            host,
            endpoints: &endpoints,
            uplinks: &uplinks,
        };
        lacks.extend(node::check(config, &present, &mut rtnetlink));
    }
    lacks
}

fn check_up(endpoint: &Endpoint<'_>) -> Option<String> {
    let interface = endpoint.interface;
    (!endpoint.link.up).then(|| {
        format!(
            "interface {interface} is down, its workload is cut off: ip link set dev {interface} up"
        )
    })
}

fn check_ipv6(endpoint: &Endpoint<'_>) -> Option<String> {
    let interface = endpoint.interface;
    let switch = format!("ipv6/conf/{interface}/disable_ipv6");
    let is_needed = endpoint.addresses.iter().any(Family::IPV6.has);
    (is_needed && is_on(&switch)?).then(|| {
        let fix = set(&switch, 0);
        format!("IPv6 is off on {interface}, the host can't reach the workload by it: {fix}")
    })
}

/// An address family with its sysctls.
struct Family {
    name: &'static str,
    /// Forwarding of the whole host; writing it writes that of every interface.
    forwarding: &'static str,
    /// The folder of the interfaces' sysctls.
    interfaces: &'static str,
    has: fn(&IpNet) -> bool,
    /// Commands to run before forwarding is turned on.
    before_forwarding: fn(&[Uplink<'_>]) -> String,
}

impl Family {
    const IPV4: Family = Family {
        name: "IPv4",
        forwarding: "ipv4/ip_forward",
        interfaces: "ipv4/conf",
        has: |prefix| prefix.addr().is_ipv4(),
        before_forwarding: |_| String::new(),
    };
    const IPV6: Family = Family {
        name: "IPv6",
        forwarding: "ipv6/conf/all/forwarding",
        interfaces: "ipv6/conf",
        has: |prefix| prefix.addr().is_ipv6(),
        before_forwarding: uplink::keep_advertisements,
    };
    const ALL: [Family; 2] = [Family::IPV4, Family::IPV6];
}

/// Whether the host forwards what the endpoints of a family send to the host.
fn check_forwarding(
    family: &Family,
    endpoints: &[Endpoint<'_>],
    uplinks: &[Uplink<'_>],
) -> Vec<String> {
    let name = family.name;
    let concerned: Vec<_> = endpoints
        .iter()
        .filter(|endpoint| endpoint.addresses.iter().any(family.has))
        .collect();
    if concerned.is_empty() {
        return Vec::new();
    }
    match is_on(family.forwarding) {
        None if is_known(family.forwarding) => Vec::new(), // it can't be read now
        None => vec![format!(
            "this kernel runs without {name}, which endpoints have addresses of: boot it with {name}"
        )],
        Some(false) => {
            let keep = (family.before_forwarding)(uplinks);
            let fix = format!("{keep}{}", set(family.forwarding, 1));
            vec![format!(
                "{name} forwarding is off, nothing passes between endpoints and other hosts: {fix}"
            )]
        }
        Some(true) => {
            let endpoints = concerned
                .iter()
                .filter_map(|endpoint| check_forwarding_from(family, endpoint.interface));
            let uplinks = uplinks
                .iter()
                .filter_map(|uplink| check_forwarding_on(family, uplink));
            endpoints.chain(uplinks).collect()
        }
    }
}

fn check_forwarding_from(family: &Family, interface: &str) -> Option<String> {
    let name = family.name;
    let switch = format!("{}/{interface}/forwarding", family.interfaces);
    (!is_on(&switch)?).then(|| {
        let fix = set(&switch, 1);
        format!(
            "{name} forwarding is off on {interface}, nothing from there gets to other hosts: {fix}"
        )
    })
}

fn check_forwarding_on(family: &Family, uplink: &Uplink<'_>) -> Option<String> {
    let (name, interface) = (family.name, uplink.interface);
    let switch = format!("{}/{interface}/forwarding", family.interfaces);
    (!is_on(&switch)?).then(|| {
        let keep = (family.before_forwarding)(std::slice::from_ref(uplink));
        let fix = set(&switch, 1);
        format!(
            "{name} forwarding is off on uplink {interface}, nothing from there is forwarded: {keep}{fix}"
        )
    })
}

/// Whether the host has a route to each address of each endpoint.
fn check_routes(
    rtnetlink: &mut Netlink,
    host: &HostState,
    endpoints: &[Endpoint<'_>],
) -> Vec<String> {
    let mut lacks = Vec::new();
    for endpoint in endpoints {
        for prefix in endpoint.addresses {
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
    if is_whole(prefix) && host.addresses.contains(&prefix.addr()) {
        let own = prefix.addr();
        return Ok(Some(format!(
            "{own} of endpoint {interface} is an address of the host too, which receives its packets: find it with \
             'ip address show to {own}' and remove it with 'ip address delete'"
        )));
    }
    let leads = match look_up(rtnetlink, sample(host, prefix))? {
        Route::Through { ifindex, .. } if ifindex == endpoint.link.ifindex => return Ok(None),
        Route::Through { ifindex, .. } => format!("leads to {}", interface_name(host, ifindex)),
        Route::Other => "does not lead to an interface".to_owned(),
        Route::None => "is missing".to_owned(),
    };
    let filter = if is_strict(interface, prefix) {
        format!(", and the strict reverse path filter of {interface} drops what comes from there")
    } else {
        String::new()
    };
    let fix = route_command(endpoint, prefix);
    Ok(Some(format!(
        "the host's route to {prefix} of endpoint {interface} {leads}{filter}: {fix}"
    )))
}

/// Whether the prefix is one address.
fn is_whole(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

/// An address of the prefix to look up a route for: not the host's own, which may be the workloads' gateway, and not
/// the first of a subnet, which is its broadcast address.
fn sample(host: &HostState, prefix: &IpNet) -> IpAddr {
    prefix
        .hosts()
        .find(|address| !host.addresses.contains(address))
        .unwrap_or(prefix.addr())
}

/// The command that adds the route. A prefix behind a workload is routed via the workload's own address: the workload
/// answers no ARP for addresses of the prefix.
fn route_command(endpoint: &Endpoint<'_>, prefix: &IpNet) -> String {
    let interface = endpoint.interface;
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
        ];
        let host = HostState {
            addresses: ["192.0.2.1".parse().unwrap()].into(),
            ..HostState::default()
        };
        for (prefix, expected, why) in rows {
            let address = sample(&host, &prefix.parse().unwrap());
            assert_eq!(address.to_string(), expected, "{why}");
        }
    }
}
