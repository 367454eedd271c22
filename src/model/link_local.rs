//! Link-local addresses of IPv6 with their link, as the tables of the datapath have them: `fe80::/10` with the ifindex of the link
//! in bytes 4 to 7, in network byte order, where packets have zeros (RFC 4291, 2.5.6).

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

/// The shortest prefix of a link's own addresses: what comes before is the same on every link.
pub const PREFIX_MIN: u8 = 64;

pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The prefix on one link; as it is, if it is of no link alone.
pub fn scope(prefix: IpNet, link_ifindex: u32) -> IpNet {
    match prefix {
        IpNet::V6(v6) if is_of_a_link(prefix) => {
            let scoped = with_link(v6.addr(), link_ifindex);
            Ipv6Net::new(scoped, v6.prefix_len()).map_or(prefix, IpNet::V6)
        }
        other => other,
    }
}

/// Whether it has addresses of a single link only, once it is scoped.
pub fn is_of_a_link(prefix: IpNet) -> bool {
    is_link_local(prefix.addr()) && prefix.prefix_len() >= PREFIX_MIN
}

/// The address as packets have it.
pub fn unscope(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => with_link(v6, 0).into(),
        other => other,
    }
}

/// The same of a prefix.
pub fn unscope_prefix(prefix: IpNet) -> IpNet {
    scope(prefix, 0)
}

fn with_link(address: Ipv6Addr, link_ifindex: u32) -> Ipv6Addr {
    let mut segments = address.segments();
    segments[2] = (link_ifindex >> 16) as u16;
    segments[3] = link_ifindex as u16;
    segments.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_a_link_has_its_index() {
        let rows = [
            ("fe80::1/128", "fe80:0:0:5::1/128"),
            ("fe80::/64", "fe80:0:0:5::/64"),
            ("fe80::/10", "fe80::/10"),
            ("fd00::1/128", "fd00::1/128"),
            ("169.254.1.1/32", "169.254.1.1/32"),
        ];
        for (plain, scoped) in rows {
            let (plain, scoped): (IpNet, IpNet) = (plain.parse().unwrap(), scoped.parse().unwrap());
            assert_eq!(scope(plain, 5), scoped, "{plain}");
            assert_eq!(unscope_prefix(scoped), plain, "{plain}");
            assert_eq!(unscope(scoped.addr()), plain.addr(), "{plain}");
        }
    }
}
