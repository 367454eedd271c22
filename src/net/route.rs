//! Where the host's own routing sends a packet.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::rtnetlink::{self, Rtnetlink};

/// Bytes of `struct rtmsg`, and the attribute that names the interface (`linux/rtnetlink.h`).
const ROUTE_HEADER: usize = 12;
const RTA_OIF: u16 = 4;
/// The attribute that names the next router.
const RTA_GATEWAY: u16 = 5;

/// The answer for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of the interface with this index; without a gateway to a neighbour.
    Through {
        ifindex: u32,
        gateway: Option<IpAddr>,
    },
    /// To the host itself, or to nobody alone: a broadcast or multicast address.
    Other,
    None,
}

/// Asks the kernel where the host would send a packet for `address`.
pub fn look_up(rtnetlink: &mut Rtnetlink, address: IpAddr) -> io::Result<Route> {
    let mut question = RouteMessage::default();
    let (family, bits, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
    };
    question.header.address_family = family;
    question.header.destination_prefix_length = bits;
    question.attributes = vec![RouteAttribute::Destination(destination)];
    let answer = match rtnetlink.get(RouteNetlinkMessage::GetRoute(question)) {
        Ok(answer) => answer,
        // What the kernel says to no route at all, and to one that is unreachable, prohibited or a black hole.
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
    let header = RouteHeader::parse(&answer.body).map_err(io::Error::other)?;
    let attribute = |wanted| {
        let mut attributes = answer.attributes(ROUTE_HEADER);
        attributes
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let ifindex = attribute(RTA_OIF).and_then(|value| value.try_into().ok());
    let gateway = attribute(RTA_GATEWAY).and_then(rtnetlink::address);
    Ok(match (header.kind, ifindex) {
        (RouteType::Unicast, Some(ifindex)) => Route::Through {
            ifindex: u32::from_ne_bytes(ifindex),
            gateway,
        },
        _ => Route::Other,
    })
}
