//! The host's route to an address.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{self, Netlink};
use crate::model::host::WorldRoutes;

/// Bytes of `struct rtmsg`, and the attribute that names the interface (`linux/rtnetlink.h`).
const ROUTE_HEADER: usize = 12;
const RTA_OIF: u16 = 4;
/// The attribute with the next hop.
const RTA_GATEWAY: u16 = 5;

/// The route to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through the interface with this index; without a gateway the address is on link.
    Through {
        ifindex: u32,
        gateway: Option<IpAddr>,
    },
    /// Local, broadcast or multicast.
    Other,
    None,
}

/// Addresses that no host has a route for but that to the world: root name servers. Nothing is sent to them.
const WORLD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// Looks up the host's routes to the world.
///
/// # Errors
/// If netlink fails.
pub fn world_routes() -> io::Result<WorldRoutes> {
    let mut rtnetlink = Netlink::route()?;
    let mut find = |address| -> io::Result<Option<u32>> {
        match look_up(&mut rtnetlink, address)? {
            Route::Through { ifindex, .. } => Ok(Some(ifindex)),
            Route::Other | Route::None => Ok(None),
        }
    };
    let [ipv4, ipv6] = WORLD.map(&mut find);
    Ok(WorldRoutes {
        ipv4: ipv4?,
        ipv6: ipv6?,
    })
}

/// Looks up the host's route to `address`.
///
/// # Errors
/// If netlink fails.
pub fn look_up(rtnetlink: &mut Netlink, address: IpAddr) -> io::Result<Route> {
    let mut request = RouteMessage::default();
    let (family, bits, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
    };
    request.header.address_family = family;
    request.header.destination_prefix_length = bits;
    request.attributes = vec![RouteAttribute::Destination(destination)];
    let reply = match rtnetlink.get(RouteNetlinkMessage::GetRoute(request)) {
        Ok(reply) => reply,
        // The kernel's errors for no route, and for one that is unreachable, prohibited or a blackhole.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NetworkUnreachable
                    | ErrorKind::HostUnreachable
                    | ErrorKind::PermissionDenied
                    | ErrorKind::InvalidInput
            ) =>
        {
            return Ok(Route::None);
        }
        Err(error) => return Err(error),
    };
    let header = RouteHeader::parse(&reply.body).map_err(io::Error::other)?;
    let attribute = |wanted| {
        let mut attributes = reply.attributes(ROUTE_HEADER);
        attributes
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let ifindex = attribute(RTA_OIF).and_then(|value| value.try_into().ok());
    let gateway = attribute(RTA_GATEWAY).and_then(netlink::address);
    Ok(match (header.kind, ifindex) {
        (RouteType::Unicast, Some(ifindex)) => Route::Through {
            ifindex: u32::from_ne_bytes(ifindex),
            gateway,
        },
        _ => Route::Other,
    })
}
