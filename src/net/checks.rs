//! What the host lacks for the file, each with the command that fixes it. Only reads, and needs no privilege.
//!
//! Delivery between local endpoints needs nothing of the host. What an endpoint sends to the world goes to the host's
//! stack, which forwards it only if forwarding is on; replies, and what the host itself sends, reach the endpoint by
//! the host's routes. The reverse path filter looks up the same routes, and needs no fix where they are right.
//!
//! Between hosts dpd itself looks up the routes, for the next hop of what an endpoint sends: the kernel's FIB lookup
//! fails where the interface does not forward.

mod endpoint;
mod frontend;
mod host_services;
mod name;
mod node;
mod route;
mod uplink;

use std::collections::BTreeSet;

use ipnet::IpNet;

pub use self::name::{absent, same_interfaces};

use self::endpoint::Endpoint;
use self::uplink::Uplink;
use super::netlink::Netlink;
use super::sysctl::{is_known, is_on, set};
use crate::config::{Config, Interface, Members};
use crate::model::host::HostState;

/// What the host lacks for the file: sentences, in the order in which their commands are to be run.
///
/// Reads the network namespace of the calling thread, of which `host` is the snapshot. Pending endpoints lack nothing.
pub fn checks(config: &Config, host: &HostState) -> Vec<String> {
    let endpoints: Vec<_> = config
        .interfaces
        .iter()
        .filter_map(|(interface, role)| match role {
            Interface::Endpoint { addresses, .. } => Endpoint::new(host, interface, addresses),
            Interface::Uplink { .. } => None,
        })
        .collect();
    let mut lacks = same_interfaces(config, host);
    lacks.extend(endpoints.iter().filter_map(check_up));
    lacks.extend(check_bridges(&endpoints));
    lacks.extend(endpoints.iter().filter_map(check_ipv6));
    let (uplinks, of_uplinks) = uplink::check(config, host);
    lacks.extend(of_uplinks);
    lacks.extend(host_services::check(config));
    for family in &Family::ALL {
        let relays = relays(config, family);
        lacks.extend(check_forwarding(family, &endpoints, &uplinks, relays));
    }
    let mut rtnetlink = match Netlink::route() {
        Ok(rtnetlink) => rtnetlink,
        Err(error) => {
            lacks.push(format!("read the host's routes: {error}"));
            return lacks;
        }
    };
    lacks.extend(route::check(&mut rtnetlink, host, &endpoints));
    // Without an uplink there are no routes through it.
    if !uplinks.is_empty() {
        let present = node::Present {
            host,
            endpoints: &endpoints,
            uplinks: &uplinks,
        };
        lacks.extend(node::check(config, &present, &mut rtnetlink));
    }
    lacks.extend(frontend::check(config, host));
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

/// The bridges that endpoints are ports of, each once.
fn check_bridges(endpoints: &[Endpoint<'_>]) -> Vec<String> {
    let bridges = endpoints.iter().filter_map(|endpoint| endpoint.bridge);
    let down: BTreeSet<&str> = bridges
        .filter(|(_, link)| !link.up)
        .map(|(name, _)| name)
        .collect();
    let sentence = |bridge| {
        format!("bridge {bridge} is down, its workloads are cut off: ip link set dev {bridge} up")
    };
    down.into_iter().map(sentence).collect()
}

/// Of a port of a bridge the host needs no IPv6: the bridge has it, unless the host has no part in it.
fn check_ipv6(endpoint: &Endpoint<'_>) -> Option<String> {
    if endpoint.bridge.is_some() {
        return None;
    }
    let interface = endpoint.interface;
    let name = endpoint.link.kernel_name(interface);
    let switch = format!("ipv6/conf/{name}/disable_ipv6");
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

/// Whether the network's clients may be sent to backends of a family.
fn relays(config: &Config, family: &Family) -> bool {
    let members = Members::new(config, |_| true);
    let external = config.services.values().filter(|service| service.external);
    let mut backends = external.flat_map(|service| members.backends(service));
    backends.any(|found| (family.has)(&IpNet::from(found.backend.address.ip())))
}

/// Whether the host forwards what the endpoints of a family send to the host, and what external services relay.
fn check_forwarding(
    family: &Family,
    endpoints: &[Endpoint<'_>],
    uplinks: &[Uplink<'_>],
    relays: bool,
) -> Vec<String> {
    let name = family.name;
    let concerned: Vec<_> = endpoints
        .iter()
        .filter(|endpoint| endpoint.addresses.iter().any(family.has))
        .collect();
    let what = match (concerned.is_empty(), relays) {
        (false, _) => "endpoints",
        (true, true) => "external services",
        (true, false) => return Vec::new(),
    };
    match is_on(family.forwarding) {
        None if is_known(family.forwarding) => Vec::new(), // it can't be read now
        None => vec![format!(
            "this kernel runs without {name}, which {what} have addresses of: boot it with {name}"
        )],
        Some(false) => {
            let keep = (family.before_forwarding)(uplinks);
            let fix = format!("{keep}{}", set(family.forwarding, 1));
            vec![format!(
                "{name} forwarding is off, nothing passes between {what} and other hosts: {fix}"
            )]
        }
        Some(true) => {
            let endpoints = concerned
                .iter()
                .map(|endpoint| endpoint.stack_interface().0)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .filter_map(|interface| check_forwarding_from(family, interface));
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
