//! Random configurations for property tests.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Rng, TestConfig, ip};
use crate::config::EnforcementMode;

pub const IDENTITIES: [&str; 4] = ["a", "b", "c", "d"];
pub const PORTS: [u16; 9] = [0, 1, 51, 52, 53, 54, 80, 1024, 65535];

/// Sixteen addresses of each family: all that random packets and prefixes lie in.
pub fn random_address(rng: &mut Rng) -> IpAddr {
    let last = rng.below(16);
    ip(&if rng.below(4) == 0 {
        format!("fd00::{last:x}")
    } else {
        format!("10.0.0.{last}")
    })
}

pub fn all_addresses() -> impl Iterator<Item = IpAddr> {
    let last = 0..16;
    let both = last.flat_map(|last| [format!("10.0.0.{last}"), format!("fd00::{last:x}")]);
    both.map(|address| ip(&address))
}

fn random_prefix(rng: &mut Rng) -> IpNet {
    let address = random_address(rng);
    let full = IpNet::from(address).prefix_len();
    let length = if rng.below(12) == 0 {
        0
    } else {
        full - rng.below(5) as u8
    };
    IpNet::new(address, length).unwrap().trunc()
}

fn random_rules(rng: &mut Rng) -> String {
    let rule = |rng: &mut Rng| {
        let peers: Vec<String> = (0..=rng.below(3))
            .map(|_| match rng.below(8) {
                0 => "any".to_owned(),
                1 => "host".to_owned(),
                2 => "world".to_owned(),
                3 => format!("label:tier={}", rng.below(2)),
                4 => "remote-node".to_owned(),
                5 => rng.pick(&IDENTITIES).to_owned(),
                _ => format!("cidr:{}", random_prefix(rng)),
            })
            .collect();
        let ports: Vec<String> = (0..rng.below(3))
            .map(|_| {
                let protocol = rng.pick(&["tcp", "udp"]);
                let (a, b) = (PORTS[rng.below(9)], PORTS[rng.below(9)]);
                match rng.below(4) {
                    0 => "icmp".to_owned(),
                    1 => protocol.to_owned(),
                    2 => format!("{a}/{protocol}"),
                    _ => format!("{}-{}/{protocol}", a.min(b), a.max(b)),
                }
            })
            .collect();
        let action = rng.pick(&["allow", "allow", "deny"]);
        format!("{action} {} {}", peers.join(","), ports.join(","))
    };
    let rules: Vec<String> = (0..rng.below(4)).map(|_| rule(rng)).collect();
    rules.join(";").replace(" ;", ";").trim_end().to_owned()
}

/// A small configuration in which prefixes, identities and rules overlap.
pub fn random_config(rng: &mut Rng) -> TestConfig {
    let mut test = TestConfig::new();
    test.host.addresses = (0..2).map(|_| random_address(rng)).collect();
    let local = (0..2).map(|_| random_prefix(rng));
    test.host.local_prefixes = local.filter(|prefix| prefix.prefix_len() > 0).collect();
    for (number, name) in IDENTITIES.iter().enumerate() {
        test = test.identity(name, 300 + number as u32, &format!("tier={}", number % 2));
    }
    let mut taken = Vec::new();
    for name in ["one", "two", "three"] {
        let prefixes: Vec<IpNet> = (0..2).map(|_| random_prefix(rng)).collect();
        let free = prefixes
            .iter()
            .filter(|p| p.prefix_len() > 0 && !taken.contains(*p));
        let free: Vec<String> = free.map(IpNet::to_string).collect();
        test = test.endpoint(name, rng.pick(&IDENTITIES), &free.join(" "));
        taken.extend(prefixes);
    }
    let mut named = Vec::new();
    for name in ["a", "b", "c"] {
        let cidrs: Vec<IpNet> = (0..rng.below(3)).map(|_| random_prefix(rng)).collect();
        let free = cidrs.iter().filter(|cidr| !named.contains(*cidr));
        let free: Vec<String> = free.map(IpNet::to_string).collect();
        test = test.cidrs(name, &free.join(" "));
        named.extend(cidrs);
    }
    for name in ["node-b", "node-c"] {
        let address = random_address(rng).to_string();
        test = test.node(name, &address, &random_prefix(rng).to_string());
        let endpoint = random_address(rng);
        let prefix = IpNet::from(endpoint);
        if !named.contains(&prefix) {
            let identity = rng.pick(&IDENTITIES);
            test = test.node_endpoints(name, &format!("{endpoint}={identity}"));
            named.push(prefix);
        }
    }
    for name in ["p", "q", "r", "s"] {
        let ingress = Some(random_rules(rng)).filter(|_| rng.below(4) > 0);
        let egress = Some(random_rules(rng)).filter(|_| rng.below(4) > 0);
        let subject = rng.pick(&IDENTITIES);
        test = test.policy(name, subject, ingress.as_deref(), egress.as_deref());
    }
    test.config.policy.allow_host = rng.below(2) == 0;
    test.config.policy.enforcement = match rng.below(8) {
        0 => EnforcementMode::Always,
        1 => EnforcementMode::Never,
        _ => EnforcementMode::Default,
    };
    test
}
