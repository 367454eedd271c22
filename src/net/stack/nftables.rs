//! The base chains of nftables, also those that iptables-nft makes.

use std::collections::BTreeSet;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::unsupported::is_unsupported;
use crate::model::families::Families;
use crate::model::forwarding::{StackFilter, StackHook};
use crate::net::netlink::{Netlink, Reply, Request, attributes, text};

/// Kinds of messages: the subsystem in the upper byte (`linux/netfilter/nfnetlink.h`, `nf_tables.h`).
const NFT_MSG_GETTABLE: u16 = 0x0a01;
const NFT_MSG_GETCHAIN: u16 = 0x0a04;

/// Bytes of `struct nfgenmsg`, of which the first is the family.
const HEADER: usize = 4;

/// Attributes of tables, chains, hooks and lists of devices (`linux/netfilter/nf_tables.h`).
mod attribute {
    pub const NFTA_TABLE_NAME: u16 = 1;
    pub const NFTA_TABLE_FLAGS: u16 = 2;
    pub const NFTA_CHAIN_TABLE: u16 = 1;
    pub const NFTA_CHAIN_NAME: u16 = 3;
    pub const NFTA_CHAIN_HOOK: u16 = 4;
    pub const NFTA_CHAIN_POLICY: u16 = 5;
    pub const NFTA_CHAIN_USE: u16 = 6;
    pub const NFTA_CHAIN_TYPE: u16 = 7;
    pub const NFTA_HOOK_HOOKNUM: u16 = 1;
    pub const NFTA_HOOK_DEV: u16 = 3;
    pub const NFTA_HOOK_DEVS: u16 = 4;
    pub const NFTA_DEVICE_PREFIX: u16 = 2;
}

/// A table whose chains are not hooked.
const NFT_TABLE_F_DORMANT: u32 = 1;
const NF_DROP: u32 = 0;

/// Families (`linux/netfilter.h`).
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_NETDEV: u8 = 5;
const NFPROTO_BRIDGE: u8 = 7;
const NFPROTO_IPV6: u8 = 10;

/// Hooks of IP, of bridges, and of a device.
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const POSTROUTING: u32 = 4;
const INET_INGRESS: u32 = 5;
const NETDEV_INGRESS: u32 = 0;
const NETDEV_EGRESS: u32 = 1;

/// A base chain of a table that is in use.
#[derive(Debug, Default)]
struct Chain {
    family: u8,
    table: String,
    name: String,
    /// The hook's number in the family.
    hook: Option<u32>,
    /// Interfaces that it is hooked to, as the kernel names them.
    devices: Vec<String>,
    drops: bool,
    /// Of the type `nat`: no other has rules that translate.
    is_nat: bool,
    /// The rules of a base chain: nothing else can refer to it.
    uses: u32,
}

pub fn filters() -> io::Result<Vec<StackFilter>> {
    let (tables, chains) = match read() {
        Err(error) if is_unsupported(&error) => return Ok(Vec::new()),
        read => read?,
    };
    let dormant: BTreeSet<(u8, String)> = tables.iter().filter_map(dormant_table).collect();
    Ok(chains
        .iter()
        .filter_map(parse)
        .filter(|chain| !dormant.contains(&(chain.family, chain.table.clone())))
        .flat_map(|chain| filters_of(&chain))
        .collect())
}

fn read() -> io::Result<(Vec<Reply>, Vec<Reply>)> {
    let mut netlink = Netlink::open(NETLINK_NETFILTER)?;
    // All families: 0 in the first byte.
    let request = |kind| Request {
        kind,
        body: vec![0; HEADER],
    };
    let tables = netlink.dump(request(NFT_MSG_GETTABLE))?;
    Ok((tables, netlink.dump(request(NFT_MSG_GETCHAIN))?))
}

fn dormant_table(reply: &Reply) -> Option<(u8, String)> {
    let family = *reply.body.first()?;
    let (mut name, mut flags) = (String::new(), 0);
    for (kind, value) in reply.attributes(HEADER) {
        match kind {
            attribute::NFTA_TABLE_NAME => name = text(value),
            attribute::NFTA_TABLE_FLAGS => flags = number(value).unwrap_or_default(),
            _ => {}
        }
    }
    (flags & NFT_TABLE_F_DORMANT != 0).then_some((family, name))
}

fn parse(reply: &Reply) -> Option<Chain> {
    let mut chain = Chain {
        family: *reply.body.first()?,
        ..Chain::default()
    };
    for (kind, value) in reply.attributes(HEADER) {
        match kind {
            attribute::NFTA_CHAIN_TABLE => chain.table = text(value),
            attribute::NFTA_CHAIN_NAME => chain.name = text(value),
            attribute::NFTA_CHAIN_POLICY => chain.drops = number(value) == Some(NF_DROP),
            attribute::NFTA_CHAIN_USE => chain.uses = number(value).unwrap_or_default(),
            attribute::NFTA_CHAIN_TYPE => chain.is_nat = text(value) == "nat",
            attribute::NFTA_CHAIN_HOOK => parse_hook(value, &mut chain),
            _ => {}
        }
    }
    Some(chain)
}

fn parse_hook(bytes: &[u8], chain: &mut Chain) {
    for (kind, value) in attributes(bytes) {
        match kind {
            attribute::NFTA_HOOK_HOOKNUM => chain.hook = number(value),
            // A chain of one device has both: the device, and a list of it.
            attribute::NFTA_HOOK_DEV => chain.devices = vec![text(value)],
            attribute::NFTA_HOOK_DEVS => {
                chain.devices = attributes(value).map(device).collect();
            }
            _ => {}
        }
    }
}

fn device((kind, value): (u16, &[u8])) -> String {
    match kind {
        attribute::NFTA_DEVICE_PREFIX => format!("{}*", text(value)),
        _ => text(value),
    }
}

/// What a chain is to forwarded packets: one filter, or one for each of its devices.
fn filters_of(chain: &Chain) -> Vec<StackFilter> {
    let why = match chain {
        Chain { hook: None, .. } => return Vec::new(),
        Chain { drops: true, .. } => "drops by policy",
        Chain { uses: 1.., .. } => "has rules",
        _ => return Vec::new(),
    };
    let (family, hooks) = match (chain.family, chain.hook.unwrap_or_default()) {
        // What a program at ingress redirects skips the egress, too (include/linux/netfilter_netdev.h, `nf_skip_egress`).
        (NFPROTO_NETDEV, NETDEV_INGRESS | NETDEV_EGRESS) => ("netdev", on_devices(chain)),
        (NFPROTO_INET, INET_INGRESS) => ("inet", on_devices(chain)),
        (NFPROTO_INET, hook) => ("inet", ip_hook(hook)),
        (NFPROTO_IPV4, hook) => ("ip", ip_hook(hook)),
        (NFPROTO_IPV6, hook) => ("ip6", ip_hook(hook)),
        (NFPROTO_BRIDGE, PREROUTING | FORWARD | POSTROUTING) => ("bridge", vec![StackHook::Bridge]),
        _ => return Vec::new(),
    };
    let name = format!("nftables {family} {}/{}", chain.table, chain.name);
    let filter = |hook| StackFilter {
        hook,
        name: name.clone(),
        why,
        translates: translates(chain),
    };
    hooks.into_iter().map(filter).collect()
}

/// The families whose sources the chain's rules may translate.
fn translates(chain: &Chain) -> Families {
    match (chain.family, chain.hook) {
        (family, Some(POSTROUTING)) if chain.is_nat && chain.uses > 0 => Families::new(
            matches!(family, NFPROTO_INET | NFPROTO_IPV4),
            matches!(family, NFPROTO_INET | NFPROTO_IPV6),
        ),
        _ => Families::NONE,
    }
}

fn ip_hook(hook: u32) -> Vec<StackHook> {
    match hook {
        FORWARD => vec![StackHook::Forward],
        PREROUTING | POSTROUTING => vec![StackHook::Routing],
        _ => Vec::new(),
    }
}

fn on_devices(chain: &Chain) -> Vec<StackHook> {
    let devices = chain.devices.iter().cloned();
    devices.map(StackHook::Interface).collect()
}

/// nfnetlink's numbers are in network order.
fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_concerns_forwarded_packets_by_family_hook_and_contents() {
        let chain = |family, hook, uses, drops| Chain {
            family,
            table: "t".to_owned(),
            name: "c".to_owned(),
            hook,
            devices: vec!["ens5".to_owned(), "ens6".to_owned()],
            drops,
            is_nat: false,
            uses,
        };
        let rows: [(&str, Chain, &[&str]); 15] = [
            ("no base chain", chain(NFPROTO_INET, None, 3, false), &[]),
            (
                "an empty one",
                chain(NFPROTO_INET, Some(FORWARD), 0, false),
                &[],
            ),
            (
                "rules",
                chain(NFPROTO_INET, Some(FORWARD), 1, false),
                &["Forward: nftables inet t/c has rules"],
            ),
            (
                "a policy",
                chain(NFPROTO_IPV4, Some(FORWARD), 0, true),
                &["Forward: nftables ip t/c drops by policy"],
            ),
            (
                "before routing",
                chain(NFPROTO_IPV6, Some(PREROUTING), 2, false),
                &["Routing: nftables ip6 t/c has rules"],
            ),
            (
                "after routing",
                chain(NFPROTO_IPV4, Some(POSTROUTING), 2, false),
                &["Routing: nftables ip t/c has rules"],
            ),
            (
                "what the host receives",
                chain(NFPROTO_IPV4, Some(1), 2, true),
                &[],
            ),
            (
                "what the host sends",
                chain(NFPROTO_INET, Some(3), 2, true),
                &[],
            ),
            (
                "the ingress of two devices",
                chain(NFPROTO_INET, Some(INET_INGRESS), 1, false),
                &[
                    "Interface(\"ens5\"): nftables inet t/c has rules",
                    "Interface(\"ens6\"): nftables inet t/c has rules",
                ],
            ),
            (
                "the same of another family",
                chain(NFPROTO_NETDEV, Some(NETDEV_INGRESS), 1, false),
                &[
                    "Interface(\"ens5\"): nftables netdev t/c has rules",
                    "Interface(\"ens6\"): nftables netdev t/c has rules",
                ],
            ),
            (
                "the egress of two devices",
                chain(NFPROTO_NETDEV, Some(NETDEV_EGRESS), 1, false),
                &[
                    "Interface(\"ens5\"): nftables netdev t/c has rules",
                    "Interface(\"ens6\"): nftables netdev t/c has rules",
                ],
            ),
            ("ARP", chain(3, Some(FORWARD), 1, true), &[]),
            (
                "a bridge",
                chain(NFPROTO_BRIDGE, Some(FORWARD), 1, false),
                &["Bridge: nftables bridge t/c has rules"],
            ),
            (
                "into a bridge's host",
                chain(NFPROTO_BRIDGE, Some(1), 1, false),
                &[],
            ),
            (
                "a hook of the future",
                chain(NFPROTO_INET, Some(9), 1, true),
                &[],
            ),
        ];
        for (what, chain, expected) in rows {
            let found = filters_of(&chain).into_iter();
            let found: Vec<String> = found
                .map(|filter| format!("{:?}: {filter}", filter.hook))
                .collect();
            assert_eq!(found, *expected, "{what}");
        }
    }

    #[test]
    fn rules_of_nat_behind_routing_may_translate_sources() {
        let rows = [
            ("IPv4", NFPROTO_IPV4, POSTROUTING, true, 1, Families::IPV4),
            ("IPv6", NFPROTO_IPV6, POSTROUTING, true, 1, Families::IPV6),
            ("both", NFPROTO_INET, POSTROUTING, true, 2, Families::BOTH),
            ("empty", NFPROTO_INET, POSTROUTING, true, 0, Families::NONE),
            (
                "mangle",
                NFPROTO_INET,
                POSTROUTING,
                false,
                1,
                Families::NONE,
            ),
            ("DNAT", NFPROTO_INET, PREROUTING, true, 1, Families::NONE),
        ];
        for (what, family, hook, is_nat, uses, expected) in rows {
            let chain = Chain {
                family,
                hook: Some(hook),
                is_nat,
                uses,
                drops: true,
                ..Chain::default()
            };
            let found = filters_of(&chain);
            assert_eq!(found.len(), 1, "{what}");
            assert_eq!(found[0].translates, expected, "{what}");
        }
    }
}
