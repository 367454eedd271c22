//! Maglev: which backend a flow gets, on every host the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::balanced::{FRONTENDS, config_of, destination, frontend, number, pick};
use crate::common::packet::{self, Packet};
use crate::common::runner::{Node, Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::uplink::UPLINK;

const UDP: u8 = 17;
const TCP: u8 = 6;

/// Flows that are looked at, each from a port of its own.
const PORTS: std::ops::Range<u16> = 20_000..20_100;

/// Ten backends of each family, all of them addresses behind `lxc-web`.
fn backends() -> Vec<String> {
    let v4 = (1..=10).map(|n| format!("10.200.5.{n}:8080"));
    let v6 = (1..=10).map(|n| format!("[fd00:200:5::{n:x}]:8080"));
    v4.chain(v6).collect()
}

/// A service at `10.32.0.50` and `fd00:32::50`; `keys` are further ones, in TOML.
fn service(name: &str, backends: &[String], keys: &str) -> String {
    format!(
        r#"
[services.{name}]
frontends = {FRONTENDS}
backends = [{}]
algorithm = "maglev"
{keys}
"#,
        backends.join(", ")
    )
}

fn quoted(backends: &[String]) -> Vec<String> {
    backends
        .iter()
        .map(|backend| format!("\"{backend}\""))
        .collect()
}

fn config() -> String {
    config_of(&service("sticky", &quoted(&backends()), ""))
}

/// The same service on another host: other names, orders and numbers, and other tables before its own.
fn elsewhere(keys: &str) -> String {
    let mut reversed = quoted(&backends());
    reversed.reverse();
    let before = r#"
[services.another]
frontends = ["10.32.0.51:80/udp", "[fd00:32::51]:80/udp"]
backends = ["10.200.5.77:1", "10.200.5.78:1", "[fd00:200:5::77]:1"]
algorithm = "maglev"
table_size = 4093
"#;
    let config = config_of(&(before.to_owned() + &service("same", &reversed, keys)));
    changed(&config, "name = \"node-a\"", "name = \"node-b\"")
}

/// Every flow to the service's frontend in a family: the packet, and the port that it is from.
fn flows(family: &Family, protocol: u8) -> impl Iterator<Item = (u16, Packet)> {
    let frontend = frontend(family);
    let client = family.client;
    PORTS.map(move |port| {
        let client = at(client, port);
        let packet = match protocol {
            UDP => packet::udp(client, frontend).payload(b"?"),
            _ => packet::tcp(client, frontend).syn(),
        };
        (port, packet)
    })
}

/// The backend of each flow, by the flow's port.
fn picks(node: &Node, family: &Family, protocol: u8) -> BTreeMap<u16, SocketAddr> {
    let flows = flows(family, protocol);
    flows
        .map(|(port, packet)| (port, pick(node, &packet)))
        .collect()
}

/// Removes the flows' entries.
fn evict(node: &Node, family: &Family, protocol: u8, flows: &BTreeMap<u16, SocketAddr>) {
    for (port, backend) in flows {
        let client = at(family.client, *port);
        node.evict(protocol, client, frontend(family));
        node.evict(protocol, *backend, client);
    }
}

/// The last numbers of the backends' addresses.
fn numbers(picks: &BTreeMap<u16, SocketAddr>) -> Vec<u8> {
    picks.values().copied().map(number).collect()
}

/// The first ones are from an implementation in another language. They must not change: hosts with different versions of dpd
/// pick the same backends.
#[test]
fn every_host_picks_the_same_backend() {
    let (here, there) = (Node::new(&config()), Node::new(&elsewhere("")));
    let [v4, v6] = families();
    let rows: [(Family, u8, [u8; 12]); 4] = [
        (v4, UDP, [2, 6, 9, 5, 7, 5, 8, 1, 6, 4, 5, 3]),
        (v4, TCP, [3, 7, 4, 7, 2, 2, 6, 1, 8, 5, 5, 1]),
        (v6, UDP, [10, 1, 7, 6, 10, 6, 10, 7, 8, 8, 7, 4]),
        (v6, TCP, [4, 7, 2, 10, 4, 5, 7, 6, 2, 9, 8, 4]),
    ];
    for (family, protocol, first) in rows {
        let what = format!("{}, protocol {protocol}", family.name);
        let own = picks(&here, &family, protocol);
        assert_eq!(numbers(&own)[..12], first, "{what}");
        assert_eq!(own, picks(&there, &family, protocol), "{what}");
        let used: BTreeSet<&SocketAddr> = own.values().collect();
        assert!(used.len() >= 8, "{what}: {used:?}");
    }
}

#[test]
fn every_host_picks_the_same_backend_for_the_network() {
    let nodes = [
        &config_of(&service("sticky", &quoted(&backends()), "external = true")),
        &elsewhere("external = true"),
    ];
    let nodes = nodes.map(|config| Node::new(config));
    for family in families() {
        let picks = nodes.each_ref().map(|node| {
            let pick = |port| {
                let packet = packet::tcp(at(family.world, port), frontend(&family)).syn();
                let frame = packet.macs(workload_mac(UPLINK), host_mac(UPLINK)).build();
                let answer = node.from_netdev(UPLINK, &frame);
                assert_eq!(answer.verdict, Verdict::Redirect, "{:?}", answer.drops);
                destination(&answer.packet)
            };
            PORTS.map(pick).collect::<Vec<_>>()
        });
        assert_eq!(picks[0], picks[1], "{}", family.name);
        assert!(picks[0].iter().collect::<BTreeSet<_>>().len() >= 8);
    }
}

#[test]
fn a_flow_gets_its_backend_again_when_its_entry_is_gone() {
    let node = Node::new(&config());
    for family in families() {
        let first = picks(&node, &family, UDP);
        evict(&node, &family, UDP, &first);
        assert!(node.connections().is_empty(), "{}", family.name);
        let again = picks(&node, &family, UDP);
        assert_eq!(again, first, "{}", family.name);
        evict(&node, &family, UDP, &first);
        let pinned = service("sticky", &quoted(&backends()), "table_size = 1021");
        node.reload(&config_of(&pinned));
        let again = picks(&node, &family, UDP);
        assert_eq!(again, first, "{}: the same size, pinned", family.name);
        evict(&node, &family, UDP, &first);
        node.reload(&config());
    }
}

#[test]
fn weights_are_shares_of_the_flows() {
    let weighted = |n: usize, weight| {
        [
            format!("10.200.5.{n}:8080"),
            format!("[fd00:200:5::{n}]:8080"),
        ]
        .map(|address| format!("{{ address = \"{address}\", weight = {weight} }}"))
    };
    let backends = [weighted(1, 0), weighted(2, 1), weighted(3, 3)].concat();
    let node = Node::new(&config_of(&service("sticky", &backends, "")));
    for family in families() {
        let numbers = numbers(&picks(&node, &family, UDP));
        let count = |number| numbers.iter().filter(|own| **own == number).count();
        assert_eq!(count(1), 0, "{}: weight 0", family.name);
        assert!((60..90).contains(&count(3)), "{}: {numbers:?}", family.name);
    }
}

#[test]
fn a_draining_backend_keeps_its_flows_and_gets_no_others() {
    let of_state = |drains: &dyn Fn(usize) -> bool| {
        let backends = backends().into_iter().enumerate();
        let backends = backends.map(|(nth, address)| match drains(nth % 10) {
            true => format!("{{ address = \"{address}\", state = \"draining\" }}"),
            false => format!("\"{address}\""),
        });
        config_of(&service("sticky", &backends.collect::<Vec<_>>(), ""))
    };
    let node = Node::new(&config());
    for family in families() {
        node.reload(&config());
        let before = picks(&node, &family, UDP);
        let draining = *before.values().next().expect("a flow");
        let number = numbers(&before)[0];
        node.reload(&of_state(&|nth| nth + 1 == usize::from(number)));
        assert_eq!(picks(&node, &family, UDP), before, "open flows stay");
        // TCP has not been seen yet: its flows are new ones.
        let after = picks(&node, &family, TCP);
        assert!(
            after.values().all(|backend| *backend != draining),
            "{after:?}"
        );
        evict(&node, &family, UDP, &before);
        let moved = picks(&node, &family, UDP)
            .iter()
            .filter(|(port, backend)| before[port] != **backend && before[port] != draining)
            .count();
        assert!(moved <= 10, "{moved} of {} flows", before.len());
        // The backends are the same while all drain, and so is the table.
        node.reload(&of_state(&|_| true));
        let other = packet::udp(at(family.client, 30_000), frontend(&family));
        let while_draining = pick(&node, &other);
        node.evict(UDP, at(family.client, 30_000), frontend(&family));
        node.evict(UDP, while_draining, at(family.client, 30_000));
        node.reload(&config());
        assert_eq!(pick(&node, &other), while_draining, "{}", family.name);
    }
}

/// The client has a flow with the backend already, by the same port, so that the backend's replies would be ambiguous.
#[test]
fn a_backend_whose_reply_tuple_is_taken_is_not_the_one() {
    for family in families() {
        let (port, packet) = flows(&family, UDP).next().expect("a flow");
        let usual = pick(&Node::new(&config()), &packet);
        let node = Node::new(&config());
        let direct = packet::udp(at(family.client, port), usual).payload(b"?");
        assert_eq!(pick(&node, &direct), usual);
        let other = pick(&node, &packet);
        assert_ne!(other, usual, "{}", family.name);
        assert!(backends().contains(&other.to_string()), "{other}");
    }
}
