//! Whether the uplinks exist, are up and have an address.

use super::endpoint::find_bridge;
use super::name::find_alternative;
use crate::config::{Config, Interface};
use crate::model::host::{HostState, Link, is_routable};
use crate::net::sysctl::{read, set};

/// An uplink of the file whose interface exists.
pub struct Uplink<'a> {
    pub interface: &'a str,
    pub link: &'a Link,
}

/// The file's uplinks that exist, and sentences about those that do not or can't be used.
pub fn check<'a>(config: &'a Config, host: &'a HostState) -> (Vec<Uplink<'a>>, Vec<String>) {
    let (mut uplinks, mut lacks) = (Vec::new(), Vec::new());
    // Addresses of lo are announced by a routing protocol, and reached by each uplink.
    let mut of_lo = host
        .links
        .get("lo")
        .into_iter()
        .flat_map(|lo| &lo.addresses);
    let is_unnumbered = of_lo.any(|address| is_routable(*address));
    for (interface, role) in &config.interfaces {
        let Interface::Uplink { .. } = role else {
            continue;
        };
        let Some(link) = host.links.get(interface) else {
            // A name that is an alternative one has its own sentence.
            if find_alternative(host, interface).is_none() {
                lacks.push(format!(
                    "uplink {interface} does not exist yet and is pending: find the NIC's name with 'ip -brief link'"
                ));
            }
            continue;
        };
        if !link.up {
            lacks.push(format!(
                "uplink {interface} is down, other hosts are cut off: ip link set dev {interface} up"
            ));
        }
        if let Some((bridge, _)) = find_bridge(host, link) {
            lacks.push(format!(
                "uplink {interface} is a port of bridge {bridge}, to which the host's addresses and routes belong: \
                 write {bridge} in the file instead"
            ));
        } else if !has_routable(link) && !is_unnumbered {
            lacks.push(format!(
                "uplink {interface} has no address, other hosts can't reach this one by it: \
                 ip address add ADDRESS/LENGTH dev {interface}"
            ));
        }
        uplinks.push(Uplink { interface, link });
    }
    (uplinks, lacks)
}

fn has_routable(link: &Link) -> bool {
    link.addresses.iter().any(|address| is_routable(*address))
}

/// A host that forwards IPv6 accepts router advertisements on an interface only if `accept_ra` is 2: turning forwarding
/// on must not remove the routes that the host is administered by.
pub fn keep_advertisements(uplinks: &[Uplink<'_>]) -> String {
    let switches = uplinks.iter().filter_map(|uplink| {
        let switch = format!(
            "ipv6/conf/{}/accept_ra",
            uplink.link.kernel_name(uplink.interface)
        );
        (read(&switch)? == 1).then(|| format!("{} && ", set(&switch, 2)))
    });
    switches.collect()
}
