//! Large configurations for benchmarks and tests. The same size gives the same file.
//!
//! ```text
//! 10.0.0.0/10   fd00::/16       endpoints gen0, gen1, …
//! 10.64.0.0/10  fd64::/16       services; every eighth has an IPv6 frontend too
//! 10.128.0.0/9  fd80::/16       remote backends; the first backend of each service is an endpoint, if there are any
//! 100.64.0.0/10                 prefixes of identities
//! ```

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The numbers of objects in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// At most 4,194,303.
    pub services: usize,
    /// With `services`, at most 8,388,607 backends in all.
    pub backends_per_service: usize,
    /// At most 4,194,303.
    pub endpoints: usize,
    /// 1 to 65,280, for numbers are 256 to 65,535; endpoints, rules and prefixes need one.
    pub identities: usize,
    /// Ten of them form a policy.
    pub rules: usize,
    /// Remote addresses and networks, as `cidrs` of the identities. At most 1,048,576.
    pub prefixes: usize,
}

/// Rules of one policy, half of them ingress.
const RULES_PER_POLICY: usize = 10;
/// Identities that share a label.
const TIER: usize = 8;

/// The file of this size. It names no uplink and no address of a host, so it is valid on every host.
///
/// # Panics
/// If the address ranges are too small, or an object needs an identity and there is none.
pub fn config(size: &Size) -> String {
    let needs_identity = size.endpoints + size.rules + size.prefixes > 0;
    assert!(size.identities > 0 || !needs_identity, "no identity");
    assert!(size.identities <= 65_280, "too many identities");
    assert!(
        size.services < 1 << 22 && size.endpoints < 1 << 22,
        "too many addresses"
    );
    assert!(
        size.services * size.backends_per_service < 1 << 23,
        "too many backends"
    );
    assert!(size.prefixes <= 1 << 20, "too many prefixes");

    let mut file = String::from("[node]\nname = \"generated\"\n");
    // Writing to a string can't fail.
    let _ = identities(&mut file, size);
    let _ = endpoints(&mut file, size);
    let _ = services(&mut file, size);
    let _ = policies(&mut file, size);
    file
}

fn identities(file: &mut String, size: &Size) -> std::fmt::Result {
    for identity in 0..size.identities {
        let (id, tier) = (256 + identity, identity / TIER);
        writeln!(
            file,
            "\n[identities.id{identity}]\nid = {id}\nlabels = [\"app=gen{identity}\", \"tier=t{tier}\"]"
        )?;
        let of_identity = (identity..size.prefixes).step_by(size.identities);
        let cidrs: Vec<String> = of_identity.map(prefix).collect();
        if !cidrs.is_empty() {
            writeln!(file, "cidrs = [{}]", quoted(&cidrs))?;
        }
    }
    Ok(())
}

/// Every second one is a whole address, the others are networks.
fn prefix(index: usize) -> String {
    let address = v4(Ipv4Addr::new(100, 64, 0, 0), index * 4);
    match index % 2 {
        0 => address.to_string(),
        _ => format!("{address}/30"),
    }
}

fn endpoints(file: &mut String, size: &Size) -> std::fmt::Result {
    for endpoint in 0..size.endpoints {
        let identity = endpoint % size.identities;
        let addresses = [
            endpoint_v4(endpoint).to_string(),
            endpoint_v6(endpoint).to_string(),
        ];
        writeln!(
            file,
            "\n[interfaces.gen{endpoint}]\nrole = \"endpoint\"\naddresses = [{}]\nidentity = \"id{identity}\"",
            quoted(&addresses)
        )?;
    }
    Ok(())
}

fn services(file: &mut String, size: &Size) -> std::fmt::Result {
    for service in 0..size.services {
        let with_v6 = service % 8 == 0;
        let mut frontends = vec![format!(
            "{}:80/tcp",
            v4(Ipv4Addr::new(10, 64, 0, 0), service + 1)
        )];
        if with_v6 && size.backends_per_service > 1 {
            frontends.push(format!("[{}]:80/tcp", v6(0xfd64, service + 1)));
        }
        let backends: Vec<String> = (0..size.backends_per_service)
            .map(|nth| match frontends.len() {
                2 => backend(service, nth, nth % 2 == 1, size),
                _ => backend(service, nth, false, size),
            })
            .collect();
        writeln!(
            file,
            "\n[services.svc{service}]\nfrontends = [{}]\nbackends = [{}]",
            quoted(&frontends),
            quoted(&backends)
        )?;
    }
    Ok(())
}

fn backend(service: usize, nth: usize, is_v6: bool, size: &Size) -> String {
    let number = service * size.backends_per_service + nth + 1;
    match is_v6 {
        _ if nth == 0 && size.endpoints > 0 => {
            format!("{}:8080", endpoint_v4(service % size.endpoints))
        }
        true => format!("[{}]:8080", v6(0xfd80, number)),
        false => format!("{}:8080", v4(Ipv4Addr::new(10, 128, 0, 0), number)),
    }
}

fn policies(file: &mut String, size: &Size) -> std::fmt::Result {
    for first in (0..size.rules).step_by(RULES_PER_POLICY) {
        let policy = first / RULES_PER_POLICY;
        let subject = policy % size.identities;
        writeln!(file, "\n[policies.p{policy}]\nsubject = \"id{subject}\"")?;
        let all = first..size.rules.min(first + RULES_PER_POLICY);
        for (key, parity) in [("ingress", 0), ("egress", 1)] {
            let of_direction = all.clone().filter(|rule| rule % 2 == parity);
            let rules: Vec<String> = of_direction
                .map(|rule| format!("    {},\n", self::rule(rule, key, size.identities)))
                .collect();
            if !rules.is_empty() {
                write!(file, "{key} = [\n{}]\n", rules.concat())?;
            }
        }
    }
    Ok(())
}

/// Of forty rules, one in each direction is of each rarer kind; the others name an identity and one or two ports.
fn rule(index: usize, direction: &str, identities: usize) -> String {
    let side = if direction == "ingress" { "from" } else { "to" };
    let peer = scatter(index) % identities;
    let port = 1024 + index * 7 % 50_000;
    match index % 40 {
        0 | 1 => format!(
            "{{ {side} = [\"cidr:100.{}.0.0/16\"], action = \"deny\" }}",
            64 + index / 40 % 64
        ),
        2 | 3 => format!(
            "{{ {side} = [\"label:tier=t{}\"], ports = [\"{port}-{}/tcp\"] }}",
            peer / TIER,
            port + 99
        ),
        4 | 5 => format!("{{ {side} = [\"any\"], ports = [\"{port}/udp\"] }}"),
        6 | 7 => format!("{{ {side} = [\"world\"], ports = [\"443/tcp\"] }}"),
        8..12 => format!("{{ {side} = [\"id{peer}\"], ports = [\"53/udp\", \"53/tcp\"] }}"),
        _ => format!("{{ {side} = [\"id{peer}\"], ports = [\"{port}/tcp\"] }}"),
    }
}

/// Spreads consecutive numbers.
fn scatter(index: usize) -> usize {
    (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 24
}

fn endpoint_v4(endpoint: usize) -> Ipv4Addr {
    v4(Ipv4Addr::new(10, 0, 0, 0), endpoint + 1)
}

fn endpoint_v6(endpoint: usize) -> Ipv6Addr {
    v6(0xfd00, endpoint + 1)
}

fn v4(base: Ipv4Addr, index: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(base.to_bits() + index as u32)
}

fn v6(first: u16, index: usize) -> Ipv6Addr {
    Ipv6Addr::from_bits((u128::from(first) << 112) + index as u128)
}

fn quoted(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    quoted.join(", ")
}
