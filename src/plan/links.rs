//! Interfaces of the file whose links can't have the role that they have there.

use crate::config::{Config, Interface};
use crate::model::host::{HostState, LinkHeader};
use crate::model::xdp::XdpMode;

/// An interface that is refused, whatever the kernel would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableLink<'a> {
    pub interface: &'a str,
    /// The key of the interface's table that is in the way.
    pub key: &'static str,
    /// What is wrong with the interface, as the end of a sentence about it.
    pub reason: String,
    /// What the user can do.
    pub help: &'static str,
}

/// The present interfaces of the file that are refused, in the order of their names.
pub fn unusable<'a>(config: &'a Config, host: &HostState) -> Vec<UnusableLink<'a>> {
    let interfaces = config.interfaces.iter();
    let refused = interfaces.filter_map(|(name, interface)| {
        let header = host.links.get(name)?.header;
        let (key, reason, help) = refuse(interface, header)?;
        // XDP is attached only while the prefilter has prefixes.
        if key == "xdp" && config.prefilter.is_empty() {
            return None;
        }
        Some(UnusableLink {
            interface: name,
            key,
            reason,
            help,
        })
    });
    refused.collect()
}

fn refuse(
    interface: &Interface,
    header: LinkHeader,
) -> Option<(&'static str, String, &'static str)> {
    match (interface, header) {
        (_, LinkHeader::Other(kind)) => Some((
            "role",
            format!(
                "its packets have neither an Ethernet header nor none (link type {kind}, linux/if_arp.h)"
            ),
            "remove it from the file: packets by it pass the host's stack, and dpd's hooks at the workloads",
        )),
        (Interface::Endpoint { .. }, LinkHeader::None) => Some((
            "role",
            "it is an endpoint, and its packets have no Ethernet header".to_owned(),
            "connect the workload by a veth or a tap; if the interface leads to other hosts, its role is \"uplink\"",
        )),
        (
            Interface::Uplink {
                xdp: XdpMode::Native,
                ..
            },
            LinkHeader::None,
        ) => Some((
            "xdp",
            "its packets have no Ethernet header, for which there is no native XDP".to_owned(),
            "set xdp = \"auto\": the prefilter is at the interface's tc ingress then",
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::host::Link;
    use crate::plan::testing::TestConfig;

    #[test]
    fn each_role_has_the_links_that_it_can_use() {
        let rows: [(&str, XdpMode, LinkHeader, Option<&str>); 8] = [
            ("lxc-web", XdpMode::Auto, LinkHeader::Ethernet, None),
            ("lxc-web", XdpMode::Auto, LinkHeader::None, Some("role")),
            (
                "lxc-web",
                XdpMode::Auto,
                LinkHeader::Other(32),
                Some("role"),
            ),
            ("up", XdpMode::Native, LinkHeader::Ethernet, None),
            ("up", XdpMode::Native, LinkHeader::None, Some("xdp")),
            ("up", XdpMode::Generic, LinkHeader::None, None),
            ("up", XdpMode::Off, LinkHeader::None, None),
            ("up", XdpMode::Off, LinkHeader::Other(32), Some("role")),
        ];
        for (name, xdp, header, key) in rows {
            let mut test = TestConfig::new()
                .uplink("up", xdp)
                .identity("web", 300, "")
                .endpoint("web", "web", "10.1.1.1")
                .prefilter("abusers", "203.0.113.0/24");
            let link = Link {
                header,
                ..Link::default()
            };
            test.host.links.insert(name.to_owned(), link);
            let refused = unusable(&test.config, &test.host);
            let found: Vec<_> = refused
                .iter()
                .map(|link| (link.interface, link.key))
                .collect();
            let expected: Vec<_> = key.map(|key| (name, key)).into_iter().collect();
            assert_eq!(found, expected, "{name}, xdp {}, {header:?}", xdp.name());
        }
    }
}
