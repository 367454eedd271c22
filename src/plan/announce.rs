//! What the uplinks with `l2_announce` answer for on their links: the external frontends that no interface of the
//! host has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::{Config, Interface};
use crate::model::announce::AnnouncingLink;
use crate::model::host::{HostState, LinkAddress, LinkHeader};
use crate::model::state::State;

use super::inputs::Inputs;

/// Fills the table of announced addresses: of those that are to be, the ones that nobody else on the link has.
pub fn compile(inputs: Inputs<'_>, state: &mut State) {
    for link in links(inputs.config, inputs.host) {
        let of_link = |address: &IpAddr| LinkAddress {
            ifindex: link.ifindex,
            address: *address,
        };
        let all = link.addresses.iter().map(of_link);
        let announced: BTreeSet<LinkAddress> = all
            .filter(|wanted| inputs.host.announced.contains(wanted))
            .collect();
        if let Some(info) = state.catalog_mut().uplinks.get_mut(&link.interface) {
            info.announced = Some(announced.iter().map(|row| row.address).collect());
        }
        let rows = announced.into_iter().map(|row| (row, link.mac));
        state.announced.extend(rows);
    }
}

/// The uplinks that announce, and their addresses. A link that is down hears no request: it has no row.
pub fn links(config: &Config, host: &HostState) -> Vec<AnnouncingLink> {
    let addresses = addresses(config, host);
    let announcing = announcing(config).filter_map(|interface| {
        let link = host.links.get(interface)?;
        let is_ethernet = link.header == LinkHeader::Ethernet;
        let carrier_ups = link.carrier_ups.filter(|_| is_ethernet)?;
        Some(AnnouncingLink {
            interface: interface.clone(),
            ifindex: link.ifindex,
            mac: link.mac,
            carrier_ups,
            addresses: addresses.clone(),
        })
    });
    announcing.collect()
}

/// What `check`, `status` and the log say of uplinks that announce nothing.
pub fn warnings(config: &Config, host: &HostState) -> Vec<String> {
    let is_l3 = |interface: &&String| {
        let link = host.links.get(*interface);
        link.is_some_and(|link| link.header != LinkHeader::Ethernet)
    };
    let mut warnings: Vec<String> = announcing(config)
        .filter(is_l3)
        .map(|interface| {
            format!("uplink {interface} has no Ethernet headers, so `l2_announce` has no effect: remove it")
        })
        .collect();
    if announcing(config).next().is_some() && addresses(config, host).is_empty() {
        warnings.push(
            "nothing is announced: the file has no external frontend whose address no interface of the host has, so \
             `l2_announce` has no effect"
                .to_owned(),
        );
    }
    warnings
}

/// The interfaces with `l2_announce`.
fn announcing(config: &Config) -> impl Iterator<Item = &String> {
    let interfaces = config.interfaces.iter();
    interfaces
        .filter(|(_, interface)| {
            matches!(
                interface,
                Interface::Uplink {
                    l2_announce: true,
                    ..
                }
            )
        })
        .map(|(name, _)| name)
}

/// The addresses of external frontends that the kernel does not answer for.
fn addresses(config: &Config, host: &HostState) -> BTreeSet<IpAddr> {
    let external = config.services.values().filter(|service| service.external);
    let frontends = external.flat_map(|service| &service.frontends);
    let addresses = frontends.map(|frontend| frontend.address);
    addresses
        .filter(|address| !host.addresses.contains(address))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::plan::testing::{TestConfig, ip};

    /// An uplink that announces, and frontends of which the host has one.
    fn base() -> TestConfig {
        let mut test = TestConfig::new()
            .uplink("ens5", XdpMode::Auto)
            .uplink("ens6", XdpMode::Auto)
            .service(
                "web",
                "203.0.113.10:443/tcp 192.0.2.1:443/tcp",
                "10.1.1.1:443",
            )
            .service(
                "dns",
                "203.0.113.10:53/udp [2001:db8:9::10]:53/udp",
                "10.1.1.1:53",
            )
            .external("web", "")
            .external("dns", "8053/udp")
            .service("inside", "203.0.113.11:80/tcp", "10.1.1.1:80");
        announce(&mut test, "ens5");
        for link in test.host.links.values_mut() {
            link.carrier_ups = Some(3);
        }
        test
    }

    fn announce(test: &mut TestConfig, interface: &str) {
        let interface = test.config.interfaces.get_mut(interface);
        if let Some(Interface::Uplink { l2_announce, .. }) = interface {
            *l2_announce = true;
        }
    }

    /// `ens5 203.0.113.10`
    fn wanted(test: &TestConfig) -> Vec<String> {
        let links = links(&test.config, &test.host);
        let rows = links.iter().flat_map(|link| {
            let addresses = link.addresses.iter();
            addresses.map(|address| format!("{} {address}", link.interface))
        });
        rows.collect()
    }

    #[test]
    fn frontends_that_no_interface_has_are_for_each_uplink_that_announces() {
        let mut test = base();
        let of_ens5 = ["ens5 203.0.113.10", "ens5 2001:db8:9::10"];
        assert_eq!(wanted(&test), of_ens5);
        announce(&mut test, "ens6");
        let of_ens6 = ["ens6 203.0.113.10", "ens6 2001:db8:9::10"];
        assert_eq!(wanted(&test), [of_ens5, of_ens6].concat());
        test.host.addresses.insert(ip("203.0.113.10"));
        assert_eq!(
            wanted(&test),
            [of_ens5[1], of_ens6[1]],
            "the host has it now"
        );
        test.host.links.get_mut("ens6").unwrap().carrier_ups = None;
        assert_eq!(wanted(&test), [of_ens5[1]], "a link that is down");
        test.host.links.get_mut("ens5").unwrap().header = LinkHeader::None;
        assert_eq!(wanted(&test), [""; 0], "a link without Ethernet headers");
    }

    #[test]
    fn what_is_announced_has_a_row_with_the_links_mac() {
        let mut test = base();
        assert_eq!(test.compile().announced.len(), 0, "nothing is known yet");
        let link = test.host.links["ens5"].clone();
        let on_link = |ifindex, address: &str| LinkAddress {
            ifindex,
            address: ip(address),
        };
        let own = on_link(link.ifindex, "203.0.113.10");
        let others = [
            on_link(link.ifindex, "203.0.113.99"),
            on_link(link.ifindex + 1, "203.0.113.10"),
        ];
        test.host.announced = [own].into_iter().chain(others).collect();
        let state = test.compile();
        assert_eq!(state.announced, [(own, link.mac)].into());
        let info = &state.catalog.uplinks;
        assert_eq!(info["ens5"].announced, Some([own.address].into()));
        assert_eq!(info["ens6"].announced, None);
        assert_eq!(state.catalog.announced(), [own].into());
    }

    #[test]
    fn an_uplink_that_announces_nothing_is_warned_of() {
        let mut test = base();
        let found = |test: &TestConfig| warnings(&test.config, &test.host);
        assert_eq!(found(&test), [""; 0]);
        test.host.links.get_mut("ens5").unwrap().header = LinkHeader::None;
        let of_l3 = found(&test);
        assert_eq!(of_l3.len(), 1, "{of_l3:?}");
        assert!(of_l3[0].contains("ens5 has no Ethernet"), "{of_l3:?}");
        test.host.links.get_mut("ens5").unwrap().header = LinkHeader::Ethernet;
        test.config.services.clear();
        let of_none = found(&test);
        assert_eq!(of_none.len(), 1, "{of_none:?}");
        assert!(of_none[0].contains("nothing is announced"), "{of_none:?}");
        test.config.interfaces.remove("ens5");
        assert_eq!(found(&test), [""; 0], "nobody is to");
    }
}
