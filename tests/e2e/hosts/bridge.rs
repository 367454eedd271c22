//! A host as people have them: workloads on a bridge beside containers that dpd does not know, masquerade, a published port and
//! a forward chain by nftables. All of that goes on, and dpd's services and policies are for the workload of the file.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::netns::Netns;
use crate::lab::{NetnsLab, eventually, text};

const WORKLOADS: &str = r#"
[interfaces.br-app]
role = "endpoint"
addresses = ["192.168.77.10", "fd00:77::10"]
identity = "client"

[interfaces.br-vm]
role = "endpoint"
addresses = ["192.168.77.16/28", "fd00:77::1:0/112"]
identity = "client"
"#;

/// Publishes port 8088 of the host for the workload's port 80, masquerades what leaves, and lets nothing else in.
const RULES: &str = "
table inet nat {
    chain prerouting { type nat hook prerouting priority dstnat
        iifname uplink0 tcp dport 8088 dnat ip to 192.168.77.10:80
        iifname uplink0 tcp dport 8088 dnat ip6 to [fd00:77::10]:80
    }
    chain postrouting { type nat hook postrouting priority srcnat
        oifname uplink0 ip saddr 192.168.77.0/24 masquerade
        oifname uplink0 ip6 saddr fd00:77::/64 masquerade
    }
}
table inet filter {
    chain forward { type filter hook forward priority filter; policy drop
        ct state established,related accept
        ct status dnat accept
        iifname br0 accept
        oifname lo accept
    }
}";

/// A host with the bridge, and what is behind its ports.
struct Bridged {
    app: Netns,
    /// A container that dpd does not know.
    other: Netns,
    /// Behind a bridge inside of the workload `br-vm`.
    inner: Netns,
    _vm: Netns,
    a: NetnsLab,
    _b: NetnsLab,
}

fn lay() -> Bridged {
    let (a, b) = NetnsLab::hosts_laid(1500);
    a.ok(
        "node-a",
        "ip link add br0 type bridge && ip link set br0 up
        ip address add 192.168.77.1/24 dev br0 && ip address add fd00:77::1/64 dev br0 nodad",
    );
    let [app, other, vm, inner] = std::array::from_fn(|_| Netns::new());
    for (port, namespace, number) in [("br-app", &app, 10), ("br-other", &other, 11)] {
        plug(&a, port, namespace);
        address(
            namespace,
            &format!("192.168.77.{number}/24"),
            &format!("fd00:77::{number}/64"),
        );
    }
    plug(&a, "br-vm", &vm);
    vm.ip("link add inside type bridge");
    vm.ip("link set eth0 master inside");
    vm.ip("link set inside up");
    vm.veth("port", &inner, "eth0");
    vm.ip("link set port master inside");
    address(&inner, "192.168.77.17/24", "fd00:77::1:17/64");
    let mut nft = a.command("node-a", "nft");
    let mut nft = nft
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("run nft");
    let rules = RULES.as_bytes();
    std::io::Write::write_all(&mut nft.stdin.take().expect("a pipe"), rules)
        .expect("write the rules");
    assert!(nft.wait().expect("wait for nft").success());
    a.drop_in("bridge", WORKLOADS);
    Bridged {
        app,
        other,
        inner,
        _vm: vm,
        a,
        _b: b,
    }
}

/// Makes a namespace's `eth0` a port of the bridge.
fn plug(a: &NetnsLab, port: &str, namespace: &Netns) {
    let name = namespace.name();
    a.ok(
        "node-a",
        &format!(
            "ip link add {port} type veth peer name eth0 netns {name}
            ip link set {port} master br0 up"
        ),
    );
    namespace.ip("link set eth0 up");
}

fn address(namespace: &Netns, ipv4: &str, ipv6: &str) {
    namespace.ip(&format!("address add {ipv4} dev eth0"));
    namespace.ip(&format!("address add {ipv6} dev eth0 nodad"));
    namespace.ip("route add default via 192.168.77.1");
    namespace.ip("route add default via fd00:77::1");
}

/// Serves a page with this text on port 80 until the namespace goes.
fn serve(namespace: &Netns, page: &str) {
    const SERVER: &str = "
import http.server, socket, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(sys.argv[1].encode())
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer): address_family = socket.AF_INET6
Server(('::', 80), Page).serve_forever()";
    let mut server = namespace.command("python3");
    let server = server.args(["-c", SERVER, page]).stdin(Stdio::null());
    let mut server = server.spawn().expect("run python3");
    std::thread::spawn(move || server.wait());
    eventually(&format!("{page} is served"), || {
        let listening = namespace.run("ss", "-Hltn sport = :80");
        if listening.is_empty() {
            Err(listening)
        } else {
            Ok(())
        }
    });
}

const CURL: [&str; 5] = ["-g", "-s", "-S", "--max-time", "6"];

fn curl(namespace: &Netns, url: &str) -> String {
    let output = namespace.command("curl").args(CURL).arg(url).output();
    text(&output.expect("run curl"))
}

fn curl_in(lab: &NetnsLab, place: &str, url: &str) -> String {
    let mut command: Command = lab.command(place, "curl");
    text(&command.args(CURL).arg(url).output().expect("run curl"))
}

#[test]
fn masquerade_a_published_port_and_a_forward_chain_go_on() {
    let host = lay();
    let Bridged { app, other, a, .. } = &host;
    serve(app, "app");
    serve(other, "other");
    serve(&host.inner, "inner");
    a.start();
    let status = a.json("status");
    let interfaces = status["interfaces"].as_array().expect("interfaces");
    let uplink = interfaces.iter().find(|row| row["role"] == "uplink");
    assert_eq!(
        uplink.expect("an uplink")["forwarding"],
        "stack",
        "{status}"
    );
    neighbours_reach_each_other(&host);
    the_way_out_is_masqueraded(app, a);
    for address in ["192.0.2.1", "[2001:db8:1::1]"] {
        let page = curl_in(a, "world", &format!("http://{address}:8088"));
        assert_eq!(page, "app", "published: {}", a.dpd("observe --last 20"));
    }
    the_chain_drops_what_it_does_not_publish(a);
    // dpd's services and policies are for the workload on the bridge.
    for frontend in ["10.32.0.12", "fd00:32::12"] {
        let server = format!("@{frontend}");
        let name = "kubernetes.default.svc.cluster.local";
        let words = ["+short", "+tries=1", "+time=3", server.as_str(), name];
        let out = app.command("dig").args(words).output();
        assert_eq!(
            text(&out.expect("run dig")).trim(),
            "10.32.0.1",
            "{frontend}"
        );
    }
    a.apply(
        "closed",
        "[policies.closed]\nsubject = \"client\"\ningress = []\n",
    );
    let page = curl(other, "http://192.168.77.10");
    assert!(page.starts_with("curl:"), "policy of the workload: {page}");
}

fn neighbours_reach_each_other(host: &Bridged) {
    let Bridged {
        app,
        other,
        inner,
        a,
        ..
    } = host;
    let rows = [
        ("one that is not in the file", app, "192.168.77.11", "other"),
        ("the same, IPv6", app, "[fd00:77::11]", "other"),
        ("its own question", other, "192.168.77.10", "app"),
        ("the same, IPv6", other, "[fd00:77::10]", "app"),
        ("behind another bridge", app, "192.168.77.17", "inner"),
        ("the same, IPv6", app, "[fd00:77::1:17]", "inner"),
        ("a question from there", inner, "192.168.77.10", "app"),
        ("through both bridges", other, "192.168.77.17", "inner"),
    ];
    for (says, from, to, page) in rows {
        let got = curl(from, &format!("http://{to}"));
        assert_eq!(got, page, "{says}: {}", a.dpd("observe --last 20"));
    }
}

/// Nobody out there has a route to the bridge.
fn the_way_out_is_masqueraded(app: &Netns, a: &NetnsLab) {
    for to in ["203.0.113.9", "2001:db8:3::9"] {
        let mut ping = app.command("ping");
        let out = ping.args(["-n", "-c", "2", "-W", "4", to]).output();
        let out = text(&out.expect("run ping"));
        let is_answered = out.contains(" 0% packet loss");
        assert!(is_answered, "{to}: {out}\n{}", a.dpd("observe --last 20"));
    }
}

/// Though there is a route now.
fn the_chain_drops_what_it_does_not_publish(a: &NetnsLab) {
    a.ok(
        "router",
        "ip route add 192.168.77.0/24 via 192.0.2.1
        ip route add fd00:77::/64 via 2001:db8:1::1",
    );
    for url in ["http://192.168.77.10", "http://[fd00:77::10]"] {
        let page = curl_in(a, "world", url);
        assert!(page.starts_with("curl:"), "{url}: {page}");
    }
}

/// The host has asked for the neighbour, nobody has answered: the sender hears of it, and so does the operator.
#[test]
fn nobody_behind_an_interface_is_host_unreachable_and_a_drop() {
    let host = lay();
    let Bridged { app, a, .. } = &host;
    a.start();
    for (to, says) in [
        ("192.168.77.18", "Destination Host Unreachable"),
        ("fd00:77::1:18", "Address unreachable"),
    ] {
        let before = endpoint(a, "br-app");
        let out = app
            .command("ping")
            .args(["-n", "-c", "1", "-W", "8", to])
            .output();
        let out = text(&out.expect("run ping"));
        assert!(out.contains(says), "{to}: {out}");
        let of_it = || -> Vec<Value> {
            a.flows()
                .into_iter()
                .filter(|flow| flow["dst_ip"] == to)
                .collect()
        };
        eventually("the drop is observed", || {
            let flows = of_it();
            let dropped = flows
                .iter()
                .find(|flow| flow["drop_reason"] == "neighbour failed");
            dropped.map(|_| ()).ok_or(format!("{flows:?}"))
        });
        let passed: Vec<Value> = of_it()
            .into_iter()
            .filter(|flow| flow["verdict"] != "dropped")
            .collect();
        assert!(passed.is_empty(), "{passed:?}");
        let after = endpoint(a, "br-app");
        let drops = |row: &Value| row["drops_out"].as_u64().unwrap_or_default();
        assert_eq!(drops(&after) - drops(&before), 1, "{before} {after}");
        assert_eq!(forwarded(&after), forwarded(&before), "{before} {after}");
    }
}

/// The kernel asks a neighbour in use whether it is still there, and so do packets that reach it past the kernel.
#[test]
fn a_neighbour_with_another_mac_is_found() {
    let host = lay();
    let Bridged { app, inner, a, .. } = &host;
    a.ok(
        "node-a",
        "cd /proc/sys/net
        for family in ipv4 ipv6; do
            echo 1000 > $family/neigh/br0/base_reachable_time_ms
            echo 1 > $family/neigh/br0/delay_first_probe_time
            echo 1 > $family/neigh/br0/ucast_solicit
        done",
    );
    a.start();
    for (number, to) in [(1, "192.168.77.17"), (2, "fd00:77::1:17")] {
        let ping = || match pings(app, &[to]) {
            true => Ok(()),
            false => Err(a.dpd("observe --last 20")),
        };
        eventually("it is reached", ping);
        let neighbour = format!("ip neighbour change {to} dev br0 nud stale");
        a.ok("node-a", &neighbour); // as after a while
        inner.ip(&format!("link set eth0 address 02:00:00:00:77:0{number}"));
        eventually(&format!("{to} is found again"), ping);
    }
}

/// The host's stack cuts what may be cut, and what it sends on is counted as one packet of the sender's.
#[test]
fn what_is_too_long_for_a_neighbours_link_is_cut() {
    let host = lay();
    let Bridged { app, a, .. } = &host;
    a.start();
    a.ok("node-a", "ip link set br0 mtu 1400");
    eventually("a long packet arrives", || {
        match pings(app, &["-s", "1472", "-M", "dont", "192.168.77.17"]) {
            true => Ok(()),
            false => Err(a.dpd("observe --last 20")),
        }
    });
    let before = endpoint(a, "br-app");
    let long = [
        "-c",
        "3",
        "-i",
        "0.2",
        "-s",
        "1472",
        "-M",
        "dont",
        "192.168.77.17",
    ];
    assert!(pings(app, &long), "{}", a.dpd("observe --last 20"));
    let after = endpoint(a, "br-app");
    assert_eq!(
        forwarded(&after),
        forwarded(&before) + 3,
        "{before} {after}"
    );
}

/// Whether all are answered.
fn pings(from: &Netns, arguments: &[&str]) -> bool {
    let mut ping = from.command("ping");
    let ping = ping.args(["-n", "-c", "1", "-W", "1"]).args(arguments);
    ping.output().expect("run ping").status.success()
}

/// What dpd has forwarded itself of an endpoint's: neighbour discovery is answered, or goes up the stack.
fn forwarded(endpoint: &Value) -> u64 {
    let number = |key: &str| endpoint[key].as_u64().expect("a number");
    number("packets_out") - number("answered") - number("to_stack")
}

fn endpoint(a: &NetnsLab, interface: &str) -> Value {
    let list = a.json("endpoint list");
    let rows = list.as_array().expect("a list");
    let row = rows.iter().find(|row| row["interface"] == interface);
    row.unwrap_or_else(|| panic!("no {interface}: {list}"))
        .clone()
}

/// The host's NIC is a port of a bridge that has the host's addresses, and so is a workload of the file.
#[test]
fn a_bridge_is_an_uplink() {
    let (a, b) = NetnsLab::hosts_laid(1500);
    a.ok(
        "node-a",
        "ip link add lan type bridge && ip link set lan up
        ip address flush dev uplink0 && ip link set uplink0 master lan
        ip address add 192.0.2.1/24 dev lan && ip address add 2001:db8:1::1/64 dev lan nodad
        ip route replace default via 192.0.2.254
        ip route replace default via 2001:db8:1::254
        ip route replace 10.200.1.0/24 via 192.0.2.254
        ip route replace fd00:201::/64 via 2001:db8:1::254",
    );
    let app = Netns::new();
    let name = app.name();
    a.ok(
        "node-a",
        &format!(
            "ip link add lan-app type veth peer name eth0 netns {name}
            ip link set lan-app master lan up"
        ),
    );
    app.ip("link set eth0 up");
    app.ip("address add 192.0.2.50/24 dev eth0");
    app.ip("address add 2001:db8:1::50/64 dev eth0 nodad");
    app.ip("route add default via 192.0.2.254");
    app.ip("route add default via 2001:db8:1::254");
    a.edit("[interfaces.uplink0]", "[interfaces.lan]");
    a.drop_in(
        "lan",
        "[interfaces.lan-app]\nrole = \"endpoint\"\nidentity = \"client\"\n\
        addresses = [\"192.0.2.50\", \"2001:db8:1::50\"]\n",
    );
    a.start();
    b.start();
    for (frontend, app_address) in [
        ("10.32.0.10", "192.0.2.50"),
        ("fd00:32::10", "2001:db8:1::50"),
    ] {
        a.dig("client", frontend)
            .unwrap_or_else(|printed| panic!("{frontend}: {printed}\n{}", a.log()));
        a.ok("world", &format!("ping -n -c 1 -W 5 {app_address}"));
        a.ok("client", &format!("ping -n -c 1 -W 5 {app_address}"));
        a.ok("node-a", &format!("ping -n -c 1 -W 5 {app_address}"));
    }
    for world in ["203.0.113.9", "2001:db8:3::9"] {
        let mut ping = app.command("ping");
        let out = ping.args(["-n", "-c", "1", "-W", "5", world]).output();
        let out = text(&out.expect("run ping"));
        assert!(out.contains(" 0% packet loss"), "{world}: {out}");
    }
}
