//! The chains of iptables-legacy. What iptables-nft makes is nftables.
//!
//! A request for a table that does not exist creates it, with its hooks, so the kernel's list of those that exist is read
//! before.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::unsupported::is_unsupported;
use crate::model::families::Families;
use crate::model::forwarding::{StackFilter, StackHook};
use crate::net::netlink::text;
use crate::net::sockopt;

/// The chains that forwarded packets meet, with the numbers of their hooks.
const CHAINS: [(&str, usize, StackHook); 3] = [
    ("FORWARD", 2, StackHook::Forward),
    ("PREROUTING", 0, StackHook::Routing),
    ("POSTROUTING", 4, StackHook::Routing),
];

/// Options of a socket (`linux/netfilter_ipv4/ip_tables.h`), the same for IPv6.
const SO_GET_INFO: i32 = 64;
const SO_GET_ENTRIES: i32 = 65;

/// Bytes of the name with which a request begins, and of `struct ipt_getinfo`.
const NAME: usize = 32;
const INFO: usize = 84;
/// Bytes of `struct ipt_get_entries` before the entries.
const ENTRIES_HEADER: usize = 40;
/// The offset of a verdict in a standard target, and the verdict of a policy that drops: `-NF_DROP - 1`.
const VERDICT: usize = 32;
const DROP: i32 = -1;

/// What differs between the families.
struct Family {
    name: &'static str,
    /// Below `/proc/thread-self`, so that it is of the calling thread's namespace.
    tables: &'static str,
    domain: AddressFamily,
    level: i32,
    /// The offset of `target_offset` in an entry.
    target_offset: usize,
    family: Families,
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "iptables-legacy",
        tables: "/proc/thread-self/net/ip_tables_names",
        domain: AddressFamily::INET,
        level: libc::IPPROTO_IP,
        target_offset: 88,
        family: Families::IPV4,
    },
    Family {
        name: "ip6tables-legacy",
        tables: "/proc/thread-self/net/ip6_tables_names",
        domain: AddressFamily::INET6,
        level: libc::IPPROTO_IPV6,
        target_offset: 140,
        family: Families::IPV6,
    },
];

/// `struct ipt_getinfo`: where the chains of a table begin and end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Info {
    valid_hooks: u32,
    hook_entry: [u32; 5],
    /// The offset of each chain's policy, which is its last entry.
    underflow: [u32; 5],
    size: u32,
}

pub fn filters() -> io::Result<Vec<StackFilter>> {
    let mut filters = Vec::new();
    for family in &FAMILIES {
        for table in existing_tables(family)? {
            filters.extend(filters_of_table(family, &table)?);
        }
    }
    Ok(filters)
}

fn existing_tables(family: &Family) -> io::Result<Vec<String>> {
    match fs::read_to_string(family.tables) {
        Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn filters_of_table(family: &Family, table: &str) -> io::Result<Vec<StackFilter>> {
    let socket = socket_with(family.domain, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let info = match read_info(&socket, family, table) {
        // It has gone meanwhile.
        Err(error) if is_unsupported(&error) || error.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        info => info?,
    };
    let entries = read_entries(&socket, family, table, &info)?;
    Ok(filters_in(family, table, &info, &entries))
}

fn read_info(socket: &OwnedFd, family: &Family, table: &str) -> io::Result<Info> {
    let mut buffer = vec![0; INFO];
    put_name(&mut buffer, table);
    sockopt::get(socket, family.level, SO_GET_INFO, &mut buffer)?;
    let word = |index: usize| word_at(&buffer, NAME + 4 * index).unwrap_or_default();
    Ok(Info {
        valid_hooks: word(0),
        hook_entry: std::array::from_fn(|hook| word(1 + hook)),
        underflow: std::array::from_fn(|hook| word(6 + hook)),
        size: word(12),
    })
}

/// The kernel refuses with EAGAIN if the table has changed since its size was read; the next look finds it.
fn read_entries(
    socket: &OwnedFd,
    family: &Family,
    table: &str,
    info: &Info,
) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; ENTRIES_HEADER + info.size as usize];
    put_name(&mut buffer, table);
    buffer[NAME..NAME + 4].copy_from_slice(&info.size.to_ne_bytes());
    sockopt::get(socket, family.level, SO_GET_ENTRIES, &mut buffer)?;
    Ok(buffer.split_off(ENTRIES_HEADER))
}

fn put_name(buffer: &mut [u8], table: &str) {
    let name = table.as_bytes();
    let length = name.len().min(NAME - 1);
    buffer[..length].copy_from_slice(&name[..length]);
}

fn filters_in(family: &Family, table: &str, info: &Info, entries: &[u8]) -> Vec<StackFilter> {
    let mut filters = Vec::new();
    for (chain, hook, at) in CHAINS {
        if info.valid_hooks & (1 << hook) == 0 {
            continue;
        }
        let has_rules = info.hook_entry[hook] != info.underflow[hook];
        let why = match drops(family, info.underflow[hook], entries) {
            true => "drops by policy",
            false if has_rules => "has rules",
            false => continue,
        };
        let translates = match (table, chain) {
            ("nat", "POSTROUTING") if has_rules => family.family,
            _ => Families::NONE,
        };
        filters.push(StackFilter {
            hook: at,
            name: format!("{} {}/{chain}", family.name, text(table.as_bytes())),
            why,
            translates,
        });
    }
    filters
}

/// Whether the entry at this offset, a policy, drops.
fn drops(family: &Family, at: u32, entries: &[u8]) -> bool {
    let entry = entries.get(at as usize..).unwrap_or_default();
    let offset = entry.get(family.target_offset..family.target_offset + 2);
    let target = offset.and_then(|bytes| bytes.try_into().ok());
    let target = usize::from(target.map(u16::from_ne_bytes).unwrap_or_default());
    word_at(entry, target + VERDICT).map(u32::cast_signed) == Some(DROP)
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    word.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 entry of this verdict without matches: 112 bytes, and a standard target of 40.
    fn entry(verdict: i32) -> Vec<u8> {
        let mut bytes = vec![0; 152];
        bytes[88..90].copy_from_slice(&112u16.to_ne_bytes());
        bytes[144..148].copy_from_slice(&verdict.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_chain_has_rules_or_a_policy_that_drops() {
        const ACCEPT: i32 = -2;
        let filter = 0b1110; // INPUT, FORWARD, OUTPUT
        let info = |hook_entry, underflow| Info {
            valid_hooks: filter,
            hook_entry,
            underflow,
            size: 0,
        };
        let chains = |policies: [i32; 4]| policies.map(entry).concat();
        let empty = info([0, 0, 152, 304, 0], [0, 0, 152, 304, 0]);
        let with_a_rule = info([0, 0, 152, 456, 0], [0, 0, 304, 456, 0]);
        let of_input = info([0, 0, 304, 456, 0], [0, 152, 304, 456, 0]);
        let rows: [(&str, &Info, Vec<u8>, &[&str]); 5] = [
            ("an empty table", &empty, chains([ACCEPT; 4]), &[]),
            (
                "a policy",
                &empty,
                chains([ACCEPT, DROP, ACCEPT, ACCEPT]),
                &["iptables-legacy filter/FORWARD drops by policy"],
            ),
            (
                "the policy of another chain",
                &empty,
                chains([DROP, ACCEPT, DROP, ACCEPT]),
                &[],
            ),
            (
                "a rule, which drops too",
                &with_a_rule,
                chains([ACCEPT, DROP, ACCEPT, ACCEPT]),
                &["iptables-legacy filter/FORWARD has rules"],
            ),
            (
                "a rule of another chain",
                &of_input,
                chains([DROP, ACCEPT, ACCEPT, ACCEPT]),
                &[],
            ),
        ];
        for (what, info, entries, expected) in rows {
            let found = filters_in(&FAMILIES[0], "filter", info, &entries);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, *expected, "{what}");
        }
        assert!(!drops(&FAMILIES[0], 7, &[]), "a reply that is cut short");
    }
}
