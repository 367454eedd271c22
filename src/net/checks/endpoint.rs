//! The endpoints of the file on this host.

use ipnet::IpNet;

use crate::model::host::{HostState, Link};

/// An endpoint of the file whose interface exists.
pub struct Endpoint<'a> {
    pub interface: &'a str,
    pub link: &'a Link,
    pub addresses: &'a [IpNet],
}

/// The name of an interface of the host, or its index.
pub fn interface_name(host: &HostState, ifindex: u32) -> String {
    host.links
        .iter()
        .find(|(_, link)| link.ifindex == ifindex)
        .map_or_else(|| format!("interface {ifindex}"), |(name, _)| name.clone())
}
