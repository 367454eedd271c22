//! Services that the network reaches, with real clients in the world, on the other host, and in workloads.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::lab::{NetnsLab, eventually, text};
use crate::stream::Streams;
use crate::web;

/// `near` has its backend on node-a, `far` on node-b; `both` one on each. Each is at an address that is routed to node-a, at one of
/// node-a's own, and at a port of all of these.
const SERVICES: &str = r#"
[services.near]
frontends = ["10.90.0.1:80/tcp", "10.90.0.1:7/udp", "10.90.0.1:7/tcp", "192.0.2.1:80/tcp", "node:8001/tcp",
             "[fd00:90::1]:80/tcp", "[fd00:90::1]:7/udp", "[fd00:90::1]:7/tcp", "[2001:db8:1::1]:80/tcp"]
backends = ["10.200.0.65:8080", "[fd00:200::65]:8080"]
external = true

[services.far]
frontends = ["10.90.0.2:80/tcp", "10.90.0.2:7/udp", "10.90.0.2:7/tcp", "192.0.2.1:81/tcp", "node:8002/tcp",
             "[fd00:90::2]:80/tcp", "[fd00:90::2]:7/udp", "[fd00:90::2]:7/tcp", "[2001:db8:1::1]:81/tcp"]
backends = ["10.200.1.64:8080", "[fd00:201::64]:8080"]
external = true

[services.both]
frontends = ["10.90.0.3:80/tcp"]
backends = ["10.200.0.65:8080", "10.200.1.64:8080"]
external = true
"#;

/// Two hosts, with the services on node-a and routes to their addresses.
pub(super) fn published(mtu: u16) -> (NetnsLab, NetnsLab) {
    let (a, b) = NetnsLab::hosts_laid(mtu);
    a.drop_in("services", SERVICES);
    a.start();
    b.start();
    for (prefix, via) in [
        ("10.90.0.0/24", "192.0.2.1"),
        ("fd00:90::/64", "2001:db8:1::1"),
    ] {
        a.ok("router", &format!("ip route add {prefix} via {via}"));
    }
    (a, b)
}

pub(super) fn serve(lab: &NetnsLab) {
    web::serve_in(lab, "intruder", "10.200.0.65", "fd00:200::65", "near");
    web::serve_in(lab, "client-b", "10.200.1.64", "fd00:201::64", "far");
}

/// The page of a web server, which names the client's address.
pub(super) fn asked(lab: &NetnsLab, place: &str, server: &str) -> String {
    lab.ok(place, &format!("curl -sS -m 10 'http://{server}/hello'"))
}

#[test]
fn clients_everywhere_are_answered_by_a_backend_here() {
    let (a, _b) = published(1500);
    serve(&a);
    let servers4 = ["10.90.0.1", "192.0.2.1", "192.0.2.1:8001"];
    let servers6 = ["[fd00:90::1]", "[2001:db8:1::1]", "[2001:db8:1::1]:8001"];
    for (client, four, six) in [
        ("world", "203.0.113.9", "2001:db8:3::9"),
        ("client-b", "10.200.1.64", "fd00:201::64"),
        ("node-b", "198.51.100.2", "2001:db8:2::2"),
        ("client", "10.200.0.64", "fd00:200::64"),
    ] {
        for (servers, address) in [(servers4, four), (servers6, six)] {
            for server in servers {
                let page = asked(&a, client, server);
                assert_eq!(page, format!("hello {address}\n"), "{client} asks {server}");
            }
        }
    }
    // A workload that reaches itself, by the uplink's address too.
    for server in servers4 {
        assert_eq!(asked(&a, "intruder", server), "hello 169.254.42.1\n");
    }
    // An address that came later.
    a.ok("node-a", "ip address add 192.0.2.77/24 dev uplink0");
    eventually("the new address is served", || {
        let page = a.run("world", "curl -sS -m 2 'http://192.0.2.77:8001/hello'");
        let page = text(&page);
        (page == "hello 203.0.113.9\n").then_some(()).ok_or(page)
    });
    assert_eq!(a.drops(), Vec::<String>::new());
}

#[test]
fn clients_everywhere_are_answered_by_a_backend_on_another_host() {
    let (a, b) = published(1500);
    serve(&a);
    let servers4 = ["10.90.0.2", "192.0.2.1:81", "192.0.2.1:8002"];
    let servers6 = ["[fd00:90::2]", "[2001:db8:1::1]:81", "[2001:db8:1::1]:8002"];
    for (client, four, six) in [
        ("world", "192.0.2.1", "2001:db8:1::1"),
        ("node-b", "192.0.2.1", "2001:db8:1::1"),
        ("client-b", "192.0.2.1", "2001:db8:1::1"),
        ("client", "10.200.0.64", "fd00:200::64"),
    ] {
        for (servers, address) in [(servers4, four), (servers6, six)] {
            for server in servers {
                let page = asked(&a, client, server);
                assert_eq!(page, format!("hello {address}\n"), "{client} asks {server}");
            }
        }
    }
    let find = |lab: &NetnsLab, key: &str, value: &Value| {
        let rows = lab.connections();
        let row = rows.iter().find(|row| row[key] == *value);
        let row = row.cloned();
        row.unwrap_or_else(|| panic!("{key} {value}: {rows:?}"))
    };
    // The same connection on both hosts.
    let here = find(&a, "src_ip", &"203.0.113.9".into());
    assert_eq!(here["snat_ip"], "192.0.2.1");
    assert_eq!(here["service"], "far");
    assert_eq!(here["src_name"], "world");
    let there = find(&b, "src_port", &here["snat_port"]);
    assert_eq!(there["src_ip"], "192.0.2.1");
    assert_eq!(there["src_name"], "remote-node");
    for lab in [&a, &b] {
        assert_eq!(lab.drops(), Vec::<String>::new());
    }
}

#[test]
fn the_hosts_own_servers_and_clients_keep_their_addresses() {
    let (a, _b) = published(1500);
    serve(&a);
    web::serve_in(&a, "node-a", "192.0.2.1", "2001:db8:1::1", "own");
    web::serve_in(&a, "world", "203.0.113.9", "2001:db8:3::9", "world");
    for round in 0..3 {
        assert_eq!(
            asked(&a, "world", "192.0.2.1:8080"),
            "hello 203.0.113.9\n",
            "{round}"
        );
        assert_eq!(
            asked(&a, "world", "[2001:db8:1::1]:8080"),
            "hello 2001:db8:3::9\n"
        );
        assert_eq!(asked(&a, "node-a", "203.0.113.9:8080"), "hello 192.0.2.1\n");
        assert_eq!(
            asked(&a, "node-a", "[2001:db8:3::9]:8080"),
            "hello 2001:db8:1::1\n"
        );
        assert_eq!(asked(&a, "world", "192.0.2.1"), "hello 203.0.113.9\n");
        a.ok("world", "ping -n -c 1 -W 5 192.0.2.1");
        a.ok("world", "ping -n -c 1 -W 5 -s 4000 192.0.2.1");
        a.ok("world", "ping -n -c 1 -W 5 10.90.0.1");
    }
    let closed = a.run("world", "curl -sS -m 10 http://10.90.0.1:8080/");
    assert!(
        text(&closed).contains("refused") || text(&closed).contains("Couldn't connect"),
        "{}",
        text(&closed)
    );
}

#[test]
fn bulk_data_passes_in_both_directions() {
    let (a, _b) = published(1500);
    let ports = "\n[services.volume]\nexternal = true\nfrontends = [\"10.90.0.4:5201/tcp\", \"10.90.0.4:5201/udp\", \
        \"[fd00:90::4]:5201/tcp\", \"[fd00:90::4]:5201/udp\"]\nbackends = [\"ADDRESS4:5201\", \"[ADDRESS6]:5201\"]\n";
    a.serve("intruder", "iperf3 -s -p 5201", 5201);
    a.serve("client-b", "iperf3 -s -p 5201", 5201);
    for (four, six) in [
        ("10.200.0.65", "fd00:200::65"),
        ("10.200.1.64", "fd00:201::64"),
    ] {
        a.apply(
            "volume",
            &ports.replace("ADDRESS4", four).replace("ADDRESS6", six),
        );
        for server in ["10.90.0.4", "fd00:90::4"] {
            for words in [
                "-n 50M",
                "-n 50M -R",
                "-u -b 20M -n 1M -l 4000",
                "-u -b 20M -n 1M -l 4000 -R",
            ] {
                let line = format!("timeout 60 iperf3 -J -c {server} -p 5201 {words}");
                let printed = a.ok("world", &line);
                let report: Value = serde_json::from_str(&printed).expect(words);
                let received = match words.contains("-u") {
                    true => &report["end"]["sum"],
                    false => &report["end"]["sum_received"],
                };
                let is_received = received["bytes"].as_u64().is_some_and(|bytes| bytes > 0);
                assert!(is_received, "{four}: {words}: {printed}");
            }
        }
    }
}

#[test]
fn a_small_mtu_on_the_way_is_found() {
    let (a, _b) = published(1400);
    serve(&a);
    let length = 100_000;
    for folder in ["near", "far"] {
        let page = a.folder().join(folder).join("page");
        std::fs::write(page, vec![b'x'; length]).expect("write a page");
    }
    for server in ["10.90.0.1", "10.90.0.2", "[fd00:90::1]", "[fd00:90::2]"] {
        let line =
            format!("curl -sS -m 20 -o /dev/null -w '%{{size_download}}' 'http://{server}/page'");
        assert_eq!(a.ok("world", &line), length.to_string(), "{server}");
    }
}

#[test]
fn connections_survive_reloads_and_restarts() {
    let (a, _b) = published(1500);
    let backends = "\n[services.near-echo]\nexternal = true\nfrontends = [\"10.90.0.5:7777/tcp\", \"10.90.0.5:7777/udp\"]\n\
        backends = [\"10.200.0.65:7777\"]\n[services.far-echo]\nexternal = true\nfrontends = [\"192.0.2.1:7777/tcp\", \
        \"192.0.2.1:7777/udp\"]\nbackends = [\"10.200.1.64:7777\"]\n";
    a.apply("echo", backends);
    let near = Streams::start(
        &a,
        "world",
        &["10.90.0.5:7777"],
        "intruder",
        &["10.200.0.65:7777"],
    );
    let far = Streams::start(
        &a,
        "world",
        &["192.0.2.1:7777"],
        "client-b",
        &["10.200.1.64:7777"],
    );
    for round in 0..3 {
        let identity = format!("[identities.extra{round}]\nid = {}\n", 40000 + round);
        a.apply("extra", &identity);
        near.more_without_loss("a change of the file", 0);
        far.more_without_loss("a change of the file", 0);
    }
    a.kill();
    near.more_without_loss("without dpd", 0);
    far.more_without_loss("without dpd", 0);
    a.start();
    near.more_without_loss("with the next dpd", 0);
    far.more_without_loss("with the next dpd", 0);
}

#[test]
fn sources_and_an_internal_service_refuse_the_network() {
    let (a, _b) = published(1500);
    serve(&a);
    assert_eq!(asked(&a, "world", "10.90.0.1"), "hello 203.0.113.9\n");
    let sources =
        "external = true\nsources = [\"198.51.100.0/24\", \"2001:db8:2::/64\"]\n\n[services.far]";
    a.drop_in(
        "services",
        &SERVICES.replace("external = true\n\n[services.far]", sources),
    );
    a.dpd("reload");
    let refused = a.run("world", "curl -sS -m 2 http://10.90.0.1/hello");
    assert!(!refused.status.success(), "{}", text(&refused));
    assert_eq!(asked(&a, "node-b", "10.90.0.1"), "hello 198.51.100.2\n");
    assert!(a.dropped("source range") > 0, "{:?}", a.drops());
    a.drop_in(
        "services",
        &SERVICES
            .replacen("external = true\n", "", 1)
            .replace("\"node:8001/tcp\",", ""),
    );
    a.dpd("reload");
    let refused = a.run("world", "curl -sS -m 2 http://10.90.0.1/hello");
    assert!(!refused.status.success(), "{}", text(&refused));
    assert_eq!(asked(&a, "client", "10.90.0.1"), "hello 10.200.0.64\n");
}

#[test]
fn backends_on_both_hosts_share_the_connections() {
    let (a, _b) = published(1500);
    serve(&a);
    let pages: Vec<String> = (0..40).map(|_| asked(&a, "world", "10.90.0.3")).collect();
    let near = pages
        .iter()
        .filter(|page| *page == "hello 203.0.113.9\n")
        .count();
    let far = pages
        .iter()
        .filter(|page| *page == "hello 192.0.2.1\n")
        .count();
    assert!(near > 0 && far > 0 && near + far == 40, "{near} and {far}");
    for (locality, expected) in [
        ("prefer", "hello 203.0.113.9\n"),
        ("only", "hello 203.0.113.9\n"),
    ] {
        let both = "frontends = [\"10.90.0.3:80/tcp\"]";
        let edited = SERVICES.replace(both, &format!("{both}\nlocality = \"{locality}\""));
        a.drop_in("services", &edited);
        a.dpd("reload");
        for _ in 0..10 {
            assert_eq!(asked(&a, "world", "10.90.0.3"), expected, "{locality}");
        }
    }
}

/// A UDP client that has no port of its own reached: it is refused at once.
#[test]
fn a_port_without_a_service_is_refused_at_once() {
    let (a, _b) = published(1500);
    let to: SocketAddr = "10.90.0.1:9".parse().expect("an address");
    let refused = a.within("world", || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.connect(to).expect("a receiver");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a deadline");
        socket.send(b"?").expect("send");
        socket
            .recv(&mut [0; 16])
            .expect_err("nobody answers")
            .kind()
    });
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
}
