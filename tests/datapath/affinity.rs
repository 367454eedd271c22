//! Affinity: a client's connections go to the backend that it had last.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use dpd::bpf::abi::{self, Plain};
use dpd::bpf::tables::encode;
use libbpf_rs::{MapCore, MapFlags};

use crate::balanced::{self, FRONTENDS, config_of, destination, frontend, number};
use crate::common::packet;
use crate::common::runner::{Node, Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::uplink::UPLINK;

const COUNT: u8 = 8;

/// Backends of each family, behind `lxc-web`, with the keys of some in TOML.
fn service(affinity: &str, keys: &[(u8, &str)], more: &str) -> String {
    let row = |n: u8| {
        let key = keys
            .iter()
            .find(|(of, _)| *of == n)
            .map_or("", |(_, key)| key);
        [
            format!("10.200.5.{n}:8080"),
            format!("[fd00:200:5::{n}]:8080"),
        ]
        .map(|address| format!("{{ address = \"{address}\", {key} }}"))
        .join(", ")
    };
    let backends: Vec<String> = (1..=COUNT).map(row).collect();
    let services = format!(
        r#"
[services.kept]
frontends = {FRONTENDS}
backends = [{}]
affinity = "{affinity}"
external = true
{more}
"#,
        backends.join(", ")
    );
    config_of(&services)
}

/// The backend of a new connection of the workload.
fn pick(node: &Node, family: &Family, port: u16, is_tcp: bool) -> u8 {
    let (client, to) = (at(family.client, port), frontend(family));
    let packet = match is_tcp {
        true => packet::tcp(client, to).syn(),
        false => packet::udp(client, to).payload(b"?"),
    };
    number(balanced::pick(node, &packet))
}

/// The same of a client of the network.
fn pick_for(node: &Node, family: &Family, client: SocketAddr) -> u8 {
    let packet = packet::tcp(client, frontend(family)).syn();
    let frame = packet.macs(workload_mac(UPLINK), host_mac(UPLINK)).build();
    let answer = node.from_netdev(UPLINK, &frame);
    assert_eq!(answer.verdict, Verdict::Redirect, "{:?}", answer.drops);
    number(destination(&answer.packet))
}

/// Those of connections from ports of their own.
fn picks(node: &Node, family: &Family, ports: std::ops::Range<u16>) -> BTreeSet<u8> {
    let both = |port| {
        [
            pick(node, family, port, true),
            pick(node, family, port, false),
        ]
    };
    ports.flat_map(both).collect()
}

#[test]
fn a_client_keeps_its_backend() {
    let node = Node::new(&service("1h", &[], ""));
    for family in families() {
        let kept = picks(&node, &family, 20_000..20_020);
        assert_eq!(kept.len(), 1, "{}: {kept:?}", family.name);
        let others: BTreeSet<u8> = (1..=40u16)
            .map(|n| {
                let client = match family.world {
                    IpAddr::V4(v4) => IpAddr::from([v4.octets()[0], v4.octets()[1], 7, n as u8]),
                    IpAddr::V6(v6) => {
                        let mut words = v6.segments();
                        words[7] = n;
                        IpAddr::from(words)
                    }
                };
                let first = pick_for(&node, &family, at(client, 30_000));
                let second = pick_for(&node, &family, at(client, 30_001));
                assert_eq!(first, second, "{}: {client}", family.name);
                first
            })
            .collect();
        assert!(others.len() > 3, "each client has its own: {others:?}");
        // Another host would choose at random; a reload and another algorithm change nothing.
        node.reload(&service("1h", &[], "algorithm = \"maglev\""));
        assert_eq!(
            picks(&node, &family, 20_020..20_030),
            kept,
            "{}",
            family.name
        );
        node.reload(&service("1h", &[], ""));
    }
}

#[test]
fn with_maglev_the_first_backend_is_the_same_on_every_host() {
    let config = service("1h", &[], "algorithm = \"maglev\"");
    let (here, there) = (Node::new(&config), Node::new(&config));
    for family in families() {
        let own = picks(&here, &family, 20_000..20_001);
        assert_eq!(
            own,
            picks(&there, &family, 40_000..40_001),
            "{}",
            family.name
        );
    }
}

#[test]
fn a_backend_that_gets_no_new_connections_is_not_kept() {
    let rows = [
        ("draining", "state = \"draining\""),
        ("maintenance", "state = \"maintenance\""),
        ("weight 0", "weight = 0"),
    ];
    for (what, key) in rows {
        let node = Node::new(&service("1h", &[], ""));
        for family in families() {
            node.reload(&service("1h", &[], ""));
            let first = pick(&node, &family, 20_000, true);
            node.reload(&service("1h", &[(first, key)], ""));
            let next = picks(&node, &family, 20_001..20_020);
            assert_eq!(next.len(), 1, "{what}, {}: {next:?}", family.name);
            assert!(!next.contains(&first), "{what}, {}", family.name);
            if what == "draining" {
                assert_eq!(
                    pick(&node, &family, 20_000, true),
                    first,
                    "its connection stays"
                );
            }
            node.reload(&service("1h", &[], ""));
            let back = picks(&node, &family, 20_020..20_040);
            assert_eq!(
                back, next,
                "{what}, {}: the client keeps the new one",
                family.name
            );
        }
    }
}

/// The time at which the workload was last seen, as the table has it.
fn last_seen(node: &Node, family: &Family, set_to: Option<u64>) -> u64 {
    let table = node.map("dpd_affinity");
    let state = node.state();
    let known = state.catalog.services.iter();
    let (service, _) = known
        .clone()
        .find(|(_, info)| info.name == "kept")
        .expect("the service");
    let key = abi::affinity_key {
        client: encode::address(family.client),
        service: *service,
        ..Default::default()
    };
    let row = table
        .lookup(key.as_bytes(), MapFlags::ANY)
        .expect("read the table");
    let mut row = abi::affinity::from_bytes(&row.expect("a row")).expect("a row");
    let seen = row.last_seen_ns;
    if let Some(time) = set_to {
        row.last_seen_ns = time;
        table
            .update(key.as_bytes(), row.as_bytes(), MapFlags::ANY)
            .expect("write the table");
    }
    seen
}

#[test]
fn affinity_lasts_from_the_last_packet_on() {
    let node = Node::new(&service("1h", &[], ""));
    for family in families() {
        let first = pick(&node, &family, 20_000, false);
        last_seen(&node, &family, Some(1));
        // The entry is renewed once a second.
        sleep(Duration::from_millis(1100));
        assert_eq!(pick(&node, &family, 20_000, false), first);
        assert!(
            last_seen(&node, &family, None) > 1,
            "{}: by its packet",
            family.name
        );
    }
    // What has lasted too long is over: sixteen picks of the same backend are no chance.
    node.reload(&service("1ms", &[], ""));
    for family in families() {
        let picked = (20_100..20_116).map(|port| {
            sleep(Duration::from_millis(3));
            pick(&node, &family, port, true)
        });
        let picked: BTreeSet<u8> = picked.collect();
        assert!(picked.len() > 1, "{}: {picked:?}", family.name);
    }
}
