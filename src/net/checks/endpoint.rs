//! The endpoints of the file on this host.

use ipnet::IpNet;

use crate::model::host::{HostState, Link};

/// An endpoint of the file whose interface exists.
pub struct Endpoint<'a> {
    pub interface: &'a str,
    pub link: &'a Link,
    pub addresses: &'a [IpNet],
    /// The bridge that it is a port of, to which the host's routes lead then.
    pub bridge: Option<(&'a str, &'a Link)>,
}

impl<'a> Endpoint<'a> {
    pub fn new(
        host: &'a HostState,
        interface: &'a str,
        addresses: &'a [IpNet],
    ) -> Option<Endpoint<'a>> {
        let link = host.links.get(interface)?;
        Some(Endpoint {
            interface,
            link,
            addresses,
            bridge: find_bridge(host, link),
        })
    }

    /// The interface by which the host's stack has the workload: the bridge, or its own.
    pub fn stack_interface(&self) -> (&'a str, &'a Link) {
        self.bridge.unwrap_or((self.interface, self.link))
    }
}

/// The bridge that an interface is a port of, with its name.
pub fn find_bridge<'a>(host: &'a HostState, link: &Link) -> Option<(&'a str, &'a Link)> {
    let bridge = link.master.filter(|master| master.is_bridge)?;
    find_link(host, bridge.ifindex)
}

/// The interface with this index, with its name.
pub fn find_link(host: &HostState, ifindex: u32) -> Option<(&str, &Link)> {
    let mut links = host.links.iter();
    links
        .find(|(_, link)| link.ifindex == ifindex)
        .map(|(name, link)| (name.as_str(), link))
}

/// The name of an interface of the host, or its index.
pub fn interface_name(host: &HostState, ifindex: u32) -> String {
    find_link(host, ifindex).map_or_else(
        || format!("interface {ifindex}"),
        |(name, _)| name.to_owned(),
    )
}
