//! The host's route to an address.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{self, Netlink};

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
