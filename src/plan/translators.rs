//! Who translates what workloads send to the world: dpd, the host's netfilter, both, or nobody on this host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Config, ForwardingMode, Interface};
use crate::model::families::Families;
use crate::model::forwarding::{Forwarding, HostStack, StackFilter};
use crate::model::host::{HostState, Link, WorldRoutes, is_routable};

use super::forwarding::{decide, list, list_names};

/// Warnings of uplinks whose sources both dpd and netfilter may translate.
pub fn warnings(config: &Config, host: &HostState) -> Vec<String> {
    let uplinks = config.interfaces.iter();
    let both = uplinks.filter_map(|(name, interface)| match interface {
        Interface::Uplink { masquerade, .. } if host.links.contains_key(name) => {
            translated_by_both(name, *masquerade, &host.stack)
        }
        _ => None,
    });
    both.collect()
}

/// The chains of the host's netfilter that may translate sources of these families.
fn translators(families: Families, stack: &HostStack) -> impl Iterator<Item = &StackFilter> {
    let filters = stack.filters.iter();
    filters.filter(move |filter| !filter.translates.intersection(families).is_empty())
}

fn translated_by_both(uplink: &str, families: Families, stack: &HostStack) -> Option<String> {
    let chains = list(translators(families, stack));
    let families = families.name();
    (!chains.is_empty()).then(|| {
        format!(
            "uplink {uplink}: both masquerade = \"{families}\" and {chains} may translate what workloads send: dpd does, and \
             its packets bypass the chain: remove the rules there that are for workloads, or set masquerade = \"none\""
        )
    })
}

/// Hints about workloads that the world may have no way back to. A router beyond the uplink may translate, too: dpd can't know.
pub fn hints(config: &Config, host: &HostState, world: WorldRoutes) -> Vec<String> {
    let ways = [
        (Families::IPV4, "IPv4", world.ipv4),
        (Families::IPV6, "IPv6", world.ipv6),
    ];
    let mut hints = Vec::new();
    for (family, family_name, way) in ways {
        let workloads = list_names(&private_endpoints(config, family));
        let Some((uplink, help)) = way.and_then(|way| untranslated_by(config, host, family, way))
        else {
            continue;
        };
        if !workloads.is_empty() {
            hints.push(format!(
                "{workloads}: private {family_name} addresses alone, which nothing on this host translates by uplink {uplink} to \
                 the world: it has a way back to them only if a router beyond translates. Else {help}"
            ));
        }
    }
    hints
}

/// The endpoints with addresses of a family, of which none is public (RFC 1918; RFC 4193).
fn private_endpoints(config: &Config, family: Families) -> BTreeSet<String> {
    let interfaces = config.interfaces.iter();
    let private = interfaces.filter_map(|(name, interface)| {
        let Interface::Endpoint { addresses, .. } = interface else {
            return None;
        };
        let addresses = addresses.iter().map(IpNet::addr);
        let mut routed =
            addresses.filter(|address| family.covers(*address) && is_routable(*address));
        let first = routed.next()?;
        (is_private(first) && routed.all(is_private)).then(|| name.clone())
    });
    private.collect()
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// The uplink that an interface is, or is the master of, with what to do, if neither dpd nor netfilter translates there.
fn untranslated_by<'a>(
    config: &'a Config,
    host: &HostState,
    family: Families,
    ifindex: u32,
) -> Option<(&'a str, String)> {
    let is_it = |link: &Link| {
        link.ifindex == ifindex || link.master.is_some_and(|master| master.ifindex == ifindex)
    };
    config.interfaces.iter().find_map(|(name, interface)| {
        let Interface::Uplink {
            forwarding,
            masquerade,
            ..
        } = interface
        else {
            return None;
        };
        host.links.get(name).filter(|link| is_it(link))?;
        let (way, _) = decide(
            (*forwarding, *masquerade),
            host.kernel_name(name),
            &host.stack,
        );
        let by_stack =
            way == Forwarding::Stack && translators(family, &host.stack).next().is_some();
        if by_stack || !masquerade.intersection(family).is_empty() {
            return None;
        }
        let help = match forwarding {
            ForwardingMode::Stack => "let a rule of netfilter masquerade them".to_owned(),
            _ => format!(
                "set interfaces.{name}.masquerade = \"{}\"",
                masquerade.union(family).name()
            ),
        };
        Some((name.as_str(), help))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::model::forwarding::StackHook;
    use crate::model::host::Master;
    use crate::plan::testing::TestConfig;

    fn nat_chain(families: Families) -> StackFilter {
        StackFilter {
            hook: StackHook::Routing,
            name: "nftables ip nat/post".to_owned(),
            why: "has rules",
            translates: families,
        }
    }

    fn set_uplink(test: &mut TestConfig, mode: ForwardingMode, families: Families) {
        let uplink = Interface::Uplink {
            l2_announce: false,
            xdp: XdpMode::Auto,
            forwarding: mode,
            masquerade: families,
        };
        test.config.interfaces.insert("ens5".to_owned(), uplink);
    }

    #[test]
    fn a_host_that_translates_besides_dpd_is_warned_of() {
        let rows = [
            ("no masquerade", Families::NONE, Families::IPV4, false),
            ("no chain", Families::BOTH, Families::NONE, false),
            ("of the same family", Families::IPV4, Families::IPV4, true),
            ("of both", Families::BOTH, Families::IPV6, true),
            ("of the other", Families::IPV6, Families::IPV4, false),
        ];
        for (what, families, chain, expected) in rows {
            let mut test = TestConfig::new().uplink("ens5", XdpMode::Auto);
            set_uplink(&mut test, ForwardingMode::Auto, families);
            test.host.stack.filters.insert(nat_chain(chain));
            let found = warnings(&test.config, &test.host);
            let says = found.iter().any(|warning| {
                warning.contains("uplink ens5: both masquerade")
                    && warning.contains("nftables ip nat/post may translate")
            });
            assert_eq!(says, expected, "{what}: {found:?}");
        }
    }

    #[test]
    fn private_workloads_that_nothing_translates_are_hinted_at() {
        use ForwardingMode::{Auto, Direct, Stack};
        type Row<'a> = (
            &'a str,
            &'a str,
            ForwardingMode,
            Families,
            Families,
            bool,
            &'a [&'a str],
        );
        let to_ipv4 = "set interfaces.ens5.masquerade = \"ipv4\"";
        let to_ipv6 = "set interfaces.ens5.masquerade = \"ipv6\"";
        let to_both = "set interfaces.ens5.masquerade = \"both\"";
        let by_netfilter = "let a rule of netfilter masquerade them";
        let rows: [Row<'_>; 12] = [
            (
                "private",
                "10.1.1.1",
                Auto,
                Families::NONE,
                Families::NONE,
                true,
                &[to_ipv4],
            ),
            (
                "no route",
                "10.1.1.1",
                Auto,
                Families::NONE,
                Families::NONE,
                false,
                &[],
            ),
            (
                "public",
                "203.0.113.5",
                Auto,
                Families::NONE,
                Families::NONE,
                true,
                &[],
            ),
            (
                "one public",
                "10.1.1.1 203.0.113.5",
                Auto,
                Families::NONE,
                Families::NONE,
                true,
                &[],
            ),
            (
                "local to the link",
                "169.254.7.7 fe80::5",
                Auto,
                Families::NONE,
                Families::NONE,
                true,
                &[],
            ),
            (
                "ULA",
                "fd00::5",
                Auto,
                Families::NONE,
                Families::NONE,
                true,
                &[to_ipv6],
            ),
            (
                "both",
                "172.16.0.5 fd00::5",
                Auto,
                Families::NONE,
                Families::NONE,
                true,
                &[to_ipv4, to_ipv6],
            ),
            (
                "dpd translates",
                "192.168.1.5",
                Auto,
                Families::BOTH,
                Families::NONE,
                true,
                &[],
            ),
            (
                "the other family",
                "fd00::5",
                Auto,
                Families::IPV4,
                Families::NONE,
                true,
                &[to_both],
            ),
            (
                "netfilter does",
                "10.1.1.1",
                Auto,
                Families::NONE,
                Families::IPV4,
                true,
                &[],
            ),
            (
                "it is bypassed",
                "10.1.1.1",
                Direct,
                Families::NONE,
                Families::IPV4,
                true,
                &[to_ipv4],
            ),
            (
                "of the other family",
                "10.1.1.1",
                Stack,
                Families::NONE,
                Families::IPV6,
                true,
                &[by_netfilter],
            ),
        ];
        for (what, addresses, mode, families, chain, has_route, expected) in rows {
            let mut test = TestConfig::new()
                .uplink("ens5", XdpMode::Auto)
                .identity("web", 300, "")
                .endpoint("web", "web", addresses);
            set_uplink(&mut test, mode, families);
            if chain != Families::NONE {
                test.host.stack.filters.insert(nat_chain(chain));
            }
            let way = has_route.then(|| test.host.links["ens5"].ifindex);
            let world = WorldRoutes {
                ipv4: way,
                ipv6: way,
            };
            let found = hints(&test.config, &test.host, world);
            let says = |hint: &String, part: &str| hint.contains("lxc-web") && hint.ends_with(part);
            assert_eq!(found.len(), expected.len(), "{what}: {found:?}");
            let are_shown = found
                .iter()
                .zip(expected)
                .all(|(hint, part)| says(hint, part));
            assert!(are_shown, "{what}: {found:?}");
        }
    }

    #[test]
    fn the_way_to_the_world_decides_on_the_uplink() {
        let mut test = TestConfig::new()
            .uplink("ens5", XdpMode::Auto)
            .identity("web", 300, "")
            .endpoint("web", "web", "10.1.1.1");
        let own = test.host.links["ens5"].ifindex;
        let found = |test: &TestConfig, ifindex| {
            let world = WorldRoutes {
                ipv4: Some(ifindex),
                ipv6: None,
            };
            hints(&test.config, &test.host, world).len()
        };
        assert_eq!(found(&test, own), 1);
        assert_eq!(found(&test, 99), 0, "another interface");
        let link = test.host.links.get_mut("ens5").unwrap();
        link.master = Some(Master {
            ifindex: 99,
            is_bridge: true,
        });
        assert_eq!(found(&test, 99), 1, "its master");
    }
}
