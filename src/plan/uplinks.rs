//! The uplinks, and the other nodes behind them.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::config::Interface;
use crate::model::catalog::{NodeInfo, UplinkInfo};
use crate::model::families::Families;
use crate::model::host::LinkHeader;
use crate::model::state::{State, Uplink};
use crate::model::xdp::XdpMode;

use super::forwarding::decide;
use super::host_addresses;
use super::inputs::Inputs;
use super::snat;

/// Names the uplinks and the other nodes in the catalog.
pub fn compile(inputs: Inputs<'_>, snat: Families, state: &mut State) {
    for (name, interface) in &inputs.config.interfaces {
        let Interface::Uplink {
            xdp,
            forwarding,
            masquerade,
            l2_announce,
        } = interface
        else {
            continue;
        };
        let link = inputs.host.links.get(name);
        let (way, reason) = decide(
            (*forwarding, *masquerade),
            inputs.host.kernel_name(name),
            &inputs.host.stack,
        );
        let info = UplinkInfo {
            ifindex: link.map(|link| link.ifindex),
            is_ethernet: link.is_none_or(|link| link.header == LinkHeader::Ethernet),
            xdp: *xdp,
            forwarding: way,
            forwarding_reason: reason,
            masquerade: *masquerade,
            announced: l2_announce.then(BTreeSet::new),
        };
        if let Some(link) = link {
            let uplink = Uplink {
                forwarding: way,
                reverse_path: link.reverse_path,
                prefilters: !info.is_ethernet
                    && *xdp != XdpMode::Off
                    && !inputs.config.prefilter.is_empty(),
                host: host_addresses::on_link(&link.addresses, state.settings.node),
                masquerade: *masquerade,
                snat: snat::source(link, snat, inputs.host),
            };
            state.uplinks.insert(link.ifindex, uplink);
        }
        state.catalog_mut().uplinks.insert(name.clone(), info);
    }
    for (name, node) in &inputs.config.nodes {
        let info = NodeInfo {
            addresses: node.addresses.iter().copied().collect(),
            cidrs: node.cidrs.iter().map(IpNet::trunc).collect(),
        };
        state.catalog_mut().nodes.insert(name.clone(), info);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::XdpMode;
    use crate::model::host::LinkHeader;
    use crate::plan::testing::{TestConfig, ip, net};

    #[test]
    fn an_uplink_without_its_interface_is_pending() {
        let mut test = TestConfig::new()
            .uplink("ens5", XdpMode::Auto)
            .uplink("ens6", XdpMode::Native)
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1");
        test.host.links.remove("ens6");
        let state = test.compile();
        let infos = state.catalog.uplinks.iter();
        let infos: Vec<_> = infos
            .map(|(name, info)| (name.as_str(), info.ifindex, info.xdp.name()))
            .collect();
        assert_eq!(
            infos,
            [("ens5", Some(10), "auto"), ("ens6", None, "native")]
        );
        assert!(!state.catalog.endpoints.contains_key("ens5"));
    }

    #[test]
    fn an_uplink_without_ethernet_has_the_prefilter_while_that_has_prefixes() {
        let rows = [
            (XdpMode::Auto, "", false),
            (XdpMode::Auto, "192.0.2.0/24", true),
            (XdpMode::Off, "192.0.2.0/24", false),
        ];
        for (xdp, deny, prefilters) in rows {
            let mut test = TestConfig::new().uplink("wg0", xdp);
            if !deny.is_empty() {
                test = test.prefilter("bad", deny);
            }
            let link = test.host.links.get_mut("wg0").unwrap();
            link.header = LinkHeader::None;
            let state = test.compile();
            let found: Vec<bool> = state.uplinks.values().map(|up| up.prefilters).collect();
            assert_eq!(found, [prefilters], "{xdp:?} {deny}");
        }
    }

    #[test]
    fn nodes_keep_their_names() {
        let test = TestConfig::new().node("node-b", "192.0.2.2 2001:db8::2", "10.2.0.9/16");
        let state = test.compile();
        let info = &state.catalog.nodes["node-b"];
        assert_eq!(info.addresses, [ip("192.0.2.2"), ip("2001:db8::2")].into());
        assert_eq!(info.cidrs, [net("10.2.0.0/16")].into());
    }
}
