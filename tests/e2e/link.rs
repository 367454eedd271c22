//! The link between host and workload: link-local addresses and multicast, with ping and multicast DNS.

use std::process::Stdio;

use crate::common::netns::Netns;
use crate::lab::{NetnsLab, eventually, text};

/// The link-local address that an interface has and uses.
fn link_local(show: impl Fn() -> String) -> String {
    eventually("a link-local address is in use", || {
        let shown = show();
        let words = shown.split_whitespace();
        let own = words.filter_map(|word| word.strip_suffix("/64"));
        let found = own
            .map(str::to_owned)
            .find(|word| word.starts_with("fe80:"));
        found.filter(|_| !shown.contains("tentative")).ok_or(shown)
    })
}

fn of_place(lab: &NetnsLab, place: &str, dev: &str) -> String {
    link_local(|| lab.ok(place, &format!("ip -6 address show dev {dev} scope link")))
}

/// Drops nothing that is under way: the first packets may be those that neighbour discovery precedes.
fn pings(lab: &NetnsLab, place: &str, to: &str) {
    eventually(&format!("{place} pings {to}"), || {
        let output = lab.run(place, &format!("ping -6 -n -c 2 -W 3 {to}"));
        let is_answered = output.status.success() && text(&output).contains(" 0% packet loss");
        let flows = || lab.dpd("observe --last 20");
        is_answered
            .then_some(())
            .ok_or_else(|| text(&output) + &flows())
    });
}

/// Two workloads have the same address, each on its link.
#[test]
fn host_and_workloads_ping_each_other_by_link_local_addresses() {
    let lab = NetnsLab::laid();
    for place in ["client", "intruder"] {
        lab.ok(
            place,
            "ip -6 address flush dev eth0 scope link && ip address add fe80::7:7/64 dev eth0",
        );
        of_place(&lab, place, "eth0");
    }
    lab.start();
    for (place, dev) in [("client", "lxc-client"), ("intruder", "lxc-intruder")] {
        let host = of_place(&lab, lab.node(), dev);
        pings(&lab, lab.node(), &format!("fe80::7:7%{dev}"));
        pings(&lab, place, &format!("{host}%eth0"));
        let connections = lab.connections();
        let is_known = connections.iter().any(|c| {
            c["src_ip"] == "fe80::7:7" && c["dst_ip"] == host.as_str() && c["src_name"] == place
        });
        assert!(is_known, "{place}: {connections:?}");
    }
    // To a workload under policy the host has a way, too.
    let dns = of_place(&lab, "coredns", "eth0");
    pings(&lab, lab.node(), &format!("{dns}%lxc-coredns"));

    let before = lab.dropped("invalid source");
    const FORGE: &str = "
import socket, sys
a = lambda text: socket.inet_pton(socket.AF_INET6, text)
udp = bytes.fromhex('0007000900080000')
ip = bytes.fromhex('6000000000081140') + a('fe80::bad') + a(sys.argv[1])
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
s.sendto(ip + udp, ('eth0', 0x86dd, 0, 0, b'\\xff' * 6))";
    let host = of_place(&lab, lab.node(), "lxc-client");
    lab.ok("client", &format!("python3 -c \"{FORGE}\" {host}"));
    eventually("a forged source is dropped", || {
        let now = lab.dropped("invalid source");
        if now > before { Ok(()) } else { Err(now) }
    });
}

/// One who knows its own name, on a port of its own and on multicast DNS' groups (RFC 6762), and one who asks.
const MDNS: &str = r#"
import socket, struct, sys
role, family, name, dev = sys.argv[1:5]
index = socket.if_nametoindex(dev)
if family == '4':
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    group = ('224.0.0.251', 5353)
    member = socket.inet_aton(group[0]) + struct.pack('=4si', b'\0' * 4, index)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack('=4s4si', b'\0' * 4, b'\0' * 4, index))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    s.bind(('', 5353))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
else:
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    group = ('ff02::fb', 5353, 0, index)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    s.bind(('::', 5353))
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, group[0]) + struct.pack('=I', index))
if role == 'serve':
    while True:
        question, _ = s.recvfrom(512)
        if question == b'who is ' + name.encode():
            s.sendto(name.encode() + b' is here', group)
s.settimeout(2)
s.sendto(b'who is ' + name.encode(), group)
try:
    while s.recvfrom(512)[0] != name.encode() + b' is here':
        pass
    print('found')
except TimeoutError:
    print('not found')
"#;

fn workloads(multicast: &str) -> String {
    format!(
        r#"
[interfaces.br-one]
role = "endpoint"
addresses = ["192.168.77.10", "fd00:77::10"]
identity = "client"
multicast = true

[interfaces.br-two]
role = "endpoint"
addresses = ["192.168.77.11", "fd00:77::11"]
identity = "client"
multicast = {multicast}
"#
    )
}

fn plug(lab: &NetnsLab, port: &str, number: u8) -> Netns {
    let namespace = Netns::new();
    let name = namespace.name();
    let link = format!("ip link add {port} type veth peer name eth0 netns {name}");
    lab.ok(
        lab.node(),
        &format!("{link} && ip link set {port} master br0 up"),
    );
    namespace.ip("link set eth0 up");
    namespace.ip(&format!("address add 192.168.77.{number}/24 dev eth0"));
    namespace.ip(&format!("address add fd00:77::{number}/64 dev eth0 nodad"));
    namespace
}

/// Names somebody until the namespace goes.
fn serve(mut python: std::process::Command, family: &str, name: &str, dev: &str) {
    let python = python.args(["-c", MDNS, "serve", family, name, dev]);
    let mut server = python.stdin(Stdio::null()).spawn().expect("run python3");
    std::thread::spawn(move || server.wait());
}

fn is_found(mut python: std::process::Command, family: &str, name: &str, dev: &str) -> bool {
    let output = python.args(["-c", MDNS, "ask", family, name, dev]).output();
    let printed = text(&output.expect("run python3"));
    assert!(printed.contains("found"), "{printed}");
    printed.trim() == "found"
}

#[test]
fn neighbours_on_a_bridge_have_link_local_addresses_and_multicast() {
    let lab = NetnsLab::laid();
    lab.ok(
        lab.node(),
        "ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up
        ip address add 192.168.77.1/24 dev br0 && ip address add fd00:77::1/64 dev br0 nodad",
    );
    let (one, two) = (plug(&lab, "br-one", 10), plug(&lab, "br-two", 11));
    lab.drop_in("bridge", &workloads("true"));
    lab.start();
    for family in ["4", "6"] {
        serve(two.command("python3"), family, "two", "eth0");
        serve(lab.command(lab.node(), "python3"), family, "host", "br0");
    }
    for family in ["4", "6"] {
        for name in ["two", "host"] {
            eventually(&format!("{name} is found by IPv{family}"), || {
                let found = is_found(one.command("python3"), family, name, "eth0");
                found.then_some(()).ok_or_else(|| lab.dpd("status"))
            });
        }
        eventually(&format!("the host finds two by IPv{family}"), || {
            let python = lab.command(lab.node(), "python3");
            let found = is_found(python, family, "two", "br0");
            found.then_some(()).ok_or_else(|| lab.dpd("status"))
        });
    }
    let of = |namespace: &Netns| link_local(|| namespace.ip("-6 address show dev eth0 scope link"));
    let (first, second) = (of(&one), of(&two));
    pings(&lab, lab.node(), &format!("{first}%br0"));
    for to in [second, of_place(&lab, lab.node(), "br0")] {
        eventually(&format!("one pings {to}"), || {
            let mut ping = one.command("ping");
            let ping = ping.args(["-6", "-n", "-c", "2", "-W", "3", &format!("{to}%eth0")]);
            let output = ping.output().expect("run ping");
            let is_answered = text(&output).contains(" 0% packet loss");
            is_answered
                .then_some(())
                .ok_or_else(|| text(&output) + &lab.dpd("observe --last 20"))
        });
    }
    lab.apply("bridge", &workloads("false"));
    let before = lab.dropped("multicast or broadcast");
    assert!(
        !is_found(one.command("python3"), "4", "two", "eth0"),
        "it has none now"
    );
    assert!(
        lab.dropped("multicast or broadcast") > before,
        "{}",
        lab.dpd("status")
    );
}
