//! Multicast groups to which solicitations of addresses are sent (RFC 4861, 7.2.1). A network card hears no group
//! that nobody has joined, and a switch may forward none: joining sets its filter and sends a report (MLD). The
//! kernel leaves them with the socket.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

/// A socket's memberships are taken from a small budget (`net.core.optmem_max`).
const GROUPS_OF_A_SOCKET: usize = 64;

/// The group of an address.
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// A group on the link with this index.
type Membership = (u32, Ipv6Addr);

/// The groups that are joined.
#[derive(Debug, Default)]
pub struct Groups(Vec<(OwnedFd, BTreeSet<Membership>)>);

impl Groups {
    /// Joins the groups of these addresses on their links, and leaves all others.
    ///
    /// # Errors
    /// The first group that can't be joined, as on a link without IPv6. Others are.
    pub fn follow(&mut self, addresses: impl Iterator<Item = (u32, Ipv6Addr)>) -> io::Result<()> {
        let wanted: BTreeSet<Membership> = addresses
            .map(|(ifindex, address)| (ifindex, solicited_node(address)))
            .collect();
        for (socket, joined) in &mut self.0 {
            joined.retain(|membership| {
                let (ifindex, group) = membership;
                let stays = wanted.contains(membership);
                if !stays {
                    // A link that is gone has left them all.
                    let _ = sockopt::set_ipv6_drop_membership(&*socket, group, *ifindex);
                }
                stays
            });
        }
        self.0.retain(|(_, joined)| !joined.is_empty());
        let is_joined = |membership: &Membership| {
            let mut sockets = self.0.iter();
            sockets.any(|(_, joined)| joined.contains(membership))
        };
        let missing: Vec<Membership> = wanted.into_iter().filter(|new| !is_joined(new)).collect();
        let mut result = Ok(());
        for membership in missing {
            result = result.and(self.join(membership));
        }
        result
    }

    fn join(&mut self, membership: Membership) -> io::Result<()> {
        let has_room =
            |(_, joined): &&mut (OwnedFd, BTreeSet<_>)| joined.len() < GROUPS_OF_A_SOCKET;
        let (ifindex, group) = membership;
        if let Some((socket, joined)) = self.0.iter_mut().find(has_room) {
            sockopt::set_ipv6_add_membership(socket, &group, ifindex)?;
            joined.insert(membership);
            return Ok(());
        }
        let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
        let socket = socket_with(AddressFamily::INET6, kind, flags, None)?;
        sockopt::set_ipv6_add_membership(&socket, &group, ifindex)?;
        self.0.push((socket, [membership].into()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_has_the_last_three_bytes() {
        let group = solicited_node("2001:db8::abcd:12ef".parse().unwrap());
        assert_eq!(group.to_string(), "ff02::1:ffcd:12ef");
    }
}
