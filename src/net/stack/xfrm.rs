//! XFRM policies (IPsec) that concern forwarded packets.

use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_XFRM;

use super::unsupported::is_unsupported;
use crate::model::families::Families;
use crate::model::forwarding::{StackFilter, StackHook};
use crate::net::netlink::{Netlink, Reply, Request, address};

/// `linux/xfrm.h`.
const XFRM_MSG_GETPOLICY: u16 = 0x15;
/// Bytes of `struct xfrm_userpolicy_id`.
const REQUEST: usize = 64;
const XFRM_POLICY_OUT: u8 = 1;
const XFRM_POLICY_FWD: u8 = 2;

/// Offsets in `struct xfrm_userpolicy_info`, which begins with the selector.
mod offset {
    use std::ops::Range;

    pub const DESTINATION: usize = 0;
    pub const SOURCE: usize = 16;
    pub const FAMILY: Range<usize> = 40..42;
    pub const DESTINATION_LENGTH: usize = 42;
    pub const SOURCE_LENGTH: usize = 43;
    pub const DIRECTION: usize = 160;
}

pub fn policies() -> io::Result<Vec<StackFilter>> {
    match read() {
        Err(error) if is_unsupported(&error) => Ok(Vec::new()),
        read => Ok(read?.iter().filter_map(parse).collect()),
    }
}

fn read() -> io::Result<Vec<Reply>> {
    let mut netlink = Netlink::open(NETLINK_XFRM)?;
    netlink.dump(Request {
        kind: XFRM_MSG_GETPOLICY,
        body: vec![0; REQUEST],
    })
}

/// `None`: it concerns what the host itself receives, or one socket.
fn parse(reply: &Reply) -> Option<StackFilter> {
    let body = &reply.body;
    let direction = match *body.get(offset::DIRECTION)? {
        XFRM_POLICY_OUT => "out",
        XFRM_POLICY_FWD => "fwd",
        _ => return None,
    };
    let source = prefix(body, offset::SOURCE, offset::SOURCE_LENGTH)?;
    let destination = prefix(body, offset::DESTINATION, offset::DESTINATION_LENGTH)?;
    Some(StackFilter {
        hook: StackHook::Xfrm,
        name: format!("XFRM policy {direction} {source} to {destination}"),
        why: "exists",
        translates: Families::NONE,
    })
}

fn prefix(body: &[u8], at: usize, length: usize) -> Option<String> {
    let family = body.get(offset::FAMILY)?.try_into().ok()?;
    let bytes = match i32::from(u16::from_ne_bytes(family)) {
        libc::AF_INET => 4,
        _ => 16,
    };
    let address: IpAddr = address(body.get(at..at + bytes)?)?;
    Some(format!("{address}/{}", body.get(length)?))
}
