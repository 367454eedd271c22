//! Whether the host's routes to the other nodes and to their workloads go through an uplink.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::endpoint::{Endpoint, interface_name};
use super::uplink::Uplink;
use crate::config::{Config, RemoteNode};
use crate::model::host::{HostState, Link};
use crate::net::netlink::Netlink;
use crate::net::route::{Route, look_up};
use crate::net::sysctl::is_strict;

/// Addresses of a prefix that are tried for one that is not local.
const SAMPLES_MAX: usize = 1024;

/// What the host has, for comparing its routes.
pub struct Present<'a> {
    pub host: &'a HostState,
    pub endpoints: &'a [Endpoint<'a>],
    /// At least one.
    pub uplinks: &'a [Uplink<'a>],
}

/// The routes to nodes that are missing or wrong.
pub fn check(config: &Config, present: &Present<'_>, rtnetlink: &mut Netlink) -> Vec<String> {
    let mut lacks = Vec::new();
    for (name, node) in &config.nodes {
        let addresses = node.addresses.iter().copied().map(IpNet::from);
        for prefix in addresses.chain(node.cidrs.iter().copied()) {
            match present.check_route(rtnetlink, name, node, prefix) {
                Ok(lack) => lacks.extend(lack),
                Err(error) => lacks.push(format!("look up the route to {prefix}: {error}")),
            }
        }
    }
    lacks
}

impl Present<'_> {
    fn check_route(
        &self,
        rtnetlink: &mut Netlink,
        name: &str,
        node: &RemoteNode,
        prefix: IpNet,
    ) -> io::Result<Option<String>> {
        let target = format!("{} of node {name}", shown(prefix));
        let leads = match look_up(rtnetlink, self.sample(prefix))? {
            Route::Through { ifindex, .. } if self.find_uplink(ifindex).is_some() => {
                return Ok(None);
            }
            Route::Through { ifindex, .. } => {
                let other = interface_name(self.host, ifindex);
                format!("leads to {other}, which is no uplink")
            }
            Route::Other if self.host.addresses.contains(&prefix.addr()) => {
                return Ok(Some(format!(
                    "{target} is an address of this host too: find it with 'ip address show to {}'",
                    prefix.addr()
                )));
            }
            Route::Other => "does not lead to an interface".to_owned(),
            Route::None => "is missing".to_owned(),
        };
        let strict = self
            .uplinks
            .iter()
            .find(|uplink| is_strict(uplink.link.kernel_name(uplink.interface), &prefix));
        let filter = strict.map(|uplink| {
            let interface = uplink.interface;
            format!(
                ", and the strict reverse path filter of {interface} drops what comes from there to this host"
            )
        });
        let filter = filter.unwrap_or_default();
        let via = self.next_hop(rtnetlink, node, prefix)?;
        let fix = format!("ip route replace {} {via}", shown(prefix));
        Ok(Some(format!(
            "the host's route to {target} {leads}{filter}: {fix}"
        )))
    }

    fn find_uplink(&self, ifindex: u32) -> Option<&Uplink<'_>> {
        // Of an uplink that is a port, the master has the routes.
        let is_by = |link: &Link| {
            link.ifindex == ifindex || link.master.is_some_and(|master| master.ifindex == ifindex)
        };
        self.uplinks.iter().find(|uplink| is_by(uplink.link))
    }

    /// An address of the prefix that is not local.
    fn sample(&self, prefix: IpNet) -> IpAddr {
        let is_here = |address: &IpAddr| {
            let local = self
                .endpoints
                .iter()
                .flat_map(|endpoint| endpoint.addresses);
            self.host.receives(*address) || local.into_iter().any(|p| p.contains(address))
        };
        let mut samples = prefix.hosts().take(SAMPLES_MAX);
        samples
            .find(|address| !is_here(address))
            .unwrap_or(prefix.addr())
    }

    /// The next hop to the node itself, which is the next hop to its workloads too.
    fn next_hop(
        &self,
        rtnetlink: &mut Netlink,
        node: &RemoteNode,
        prefix: IpNet,
    ) -> io::Result<String> {
        for address in &node.addresses {
            let is_other_family = address.is_ipv4() != prefix.addr().is_ipv4();
            if is_other_family || prefix.contains(address) {
                continue;
            }
            if let Route::Through { ifindex, gateway } = look_up(rtnetlink, *address)?
                && let Some(uplink) = self.find_uplink(ifindex)
            {
                let via = gateway.unwrap_or(*address);
                return Ok(format!("via {via} dev {}", uplink.interface));
            }
        }
        // The router is unknown.
        let interface = self.uplinks.first().map_or("", |uplink| uplink.interface);
        Ok(format!("via GATEWAY dev {interface}"))
    }
}

/// A single address without its prefix length.
fn shown(prefix: IpNet) -> String {
    match prefix.prefix_len() == prefix.max_prefix_len() {
        true => prefix.addr().to_string(),
        false => prefix.to_string(),
    }
}
