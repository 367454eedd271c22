//! An edge that balances for the network, with the file that people start from; its servers are hosts without dpd.

use std::collections::BTreeSet;

use crate::lab::{NetnsLab, eventually, text};

const FILE: &str = include_str!("../../../examples/edge.toml");

/// Clients of the world, by their addresses.
fn clients() -> impl Iterator<Item = String> {
    (10..30).map(|last| format!("203.0.113.{last}"))
}

fn laid() -> NetnsLab {
    let (edge, _servers) = NetnsLab::north_south_laid();
    // The file names the network card, which the lab calls otherwise.
    edge.ok("node-a", "ip link property add dev uplink0 altname ens5");
    for client in clients().chain(["203.0.113.66".to_owned()]) {
        edge.ok("world", &format!("ip address add {client}/24 dev eth0"));
    }
    // The second server, on a host without dpd.
    crate::web::serve_in(&edge, "node-b", "198.51.100.2", "2001:db8:2::2", "second");
    edge.save(FILE);
    edge.start();
    edge
}

/// What a client of the world gets: a server's answer, which names the address that it sees, or curl's error.
fn ask(edge: &NetnsLab, client: &str, url: &str) -> String {
    let line = format!("curl -sS --max-time 2 --interface {client} {url}");
    text(&edge.run("world", &line))
}

#[test]
fn an_edge_balances_for_the_network_as_its_example_says() {
    let edge = laid();
    let web = |client: &str| ask(&edge, client, "http://192.0.2.80/hello");
    let servers: Vec<String> = clients().map(|client| web(&client)).collect();
    let known = ["web-b answers 192.0.2.1\n", "hello 192.0.2.1\n"];
    let seen: BTreeSet<&str> = servers.iter().map(String::as_str).collect();
    assert_eq!(
        seen,
        known.into(),
        "both serve, by SNAT: {}",
        edge.dpd("observe --last 20")
    );
    // Affinity.
    for (client, first) in clients().zip(&servers) {
        assert_eq!(web(&client), *first, "{client} keeps its server");
    }
    let by_ipv6 = edge.run("world", "curl -sS --max-time 2 'http://[2001:db8:1::80]/'");
    assert_eq!(text(&by_ipv6), "web-b answers 2001:db8:1::1\n");

    // Whom the file excludes.
    let refused = ask(&edge, "203.0.113.10", "http://192.0.2.80:8443/");
    assert!(refused.starts_with("curl: (28)"), "{refused}");
    assert!(edge.dropped("source range") > 0, "{:?}", edge.drops());
    let refused = web("203.0.113.66");
    assert!(refused.starts_with("curl: (28)"), "{refused}");
    eventually("the prefilter counts", || {
        let dropped = edge.dropped("prefilter");
        (dropped > 0).then_some(()).ok_or(edge.drops())
    });
}
