//! Services that the network reaches: at addresses that are routed here, and at those of the host.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use crate::common::packet::{
    self, Packet, echo_reply, echo_request, fragmentation_needed, parse, unreachable,
};
use crate::common::runner::{Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::uplink::{Far, UPLINK, config as uplink_config, far};
use crate::walk::{Expect::*, Walk};

const INVALID_SOURCE: u8 = 132;
const POLICY: u8 = 133;
const NO_BACKEND: u8 = 158;
const NO_PORT: u8 = 167;
const NO_ROUTE: u8 = 169;
const SOURCE_RANGE: u8 = 177;
const NO_SERVICE: u8 = 220;
const MARTIAN: u8 = 228;
const UNRELATED: u8 = 231;
/// The only source port of SNAT.
const PORT: u16 = 40000;

/// Services of the network: `site` is at an address that is routed here, at one of the host, and at a port of all of them, with a
/// backend here; `beyond` has one on another host.
const SERVICES: &str = r#"
[services.site]
frontends = [
    "203.0.113.10:443/tcp", "203.0.113.10:443/udp", "203.0.113.10:3868/sctp", "192.0.2.1:443/tcp", "192.0.2.1:443/udp",
    "[2001:db8:113::10]:443/tcp", "[2001:db8:113::10]:443/udp", "[2001:db8:113::10]:3868/sctp",
    "[2001:db8::1]:443/tcp", "[2001:db8::1]:443/udp",
]
backends = ["10.200.0.45:3868", "[fd00:200::45]:3868"]
external = true

[services.ports]
frontends = ["node:8443/tcp", "node:8443/udp"]
backends = ["10.200.0.45:8080", "[fd00:200::45]:8080"]
external = true

[services.beyond]
frontends = [
    "203.0.113.20:80/udp", "203.0.113.20:80/tcp", "203.0.113.20:3868/sctp", "192.0.2.1:81/udp", "192.0.2.1:81/tcp",
    "[2001:db8:113::20]:80/udp", "[2001:db8:113::20]:80/tcp", "[2001:db8:113::20]:3868/sctp",
    "[2001:db8::1]:81/udp", "[2001:db8::1]:81/tcp",
]
backends = ["10.200.1.45:3868", "[fd00:201::45]:3868"]
external = true

[services.down]
frontends = ["203.0.113.30:80/udp", "[2001:db8:113::30]:80/udp"]
backends = [
    { address = "10.200.0.45:1", state = "maintenance" },
    { address = "[fd00:200::45]:1", state = "maintenance" },
]
external = true

[services.inside]
frontends = ["203.0.113.10:9000/udp", "[2001:db8:113::10]:9000/udp", "192.0.2.1:9000/udp", "[2001:db8::1]:9000/udp"]
backends = ["10.200.0.45:8080", "[fd00:200::45]:8080"]

[conntrack]"#;

fn config() -> String {
    changed(&uplink_config(), "\n[conntrack]", SERVICES)
}

/// Frontends of the family.
struct Vips {
    site: IpAddr,
    beyond: IpAddr,
    down: IpAddr,
}

fn vips(family: &Family) -> Vips {
    let address = |n: u8| {
        ip(&match family.is_v4() {
            true => format!("203.0.113.{n}"),
            false => format!("2001:db8:113::{n}"),
        })
    };
    Vips {
        site: address(10),
        beyond: address(20),
        down: address(30),
    }
}

/// A node that has one source port for SNAT.
fn walk_of(family: &Family, config: &str) -> Walk {
    let walk = Walk::new(family.name, config);
    walk.node()
        .namespace()
        .sysctl("net.ipv4.ip_local_reserved_ports=1024-39999,40001-65535");
    walk.reload(config);
    walk
}

fn walk(family: &Family) -> Walk {
    walk_of(family, &config())
}

fn udp(src: SocketAddr, dst: SocketAddr) -> Packet {
    packet::udp(src, dst).payload(b"question")
}

/// The frontends of a service at an address that is routed here and at one of the host's, with the same backend.
fn site(family: &Family) -> [(&'static str, SocketAddr); 2] {
    [
        ("routed", at(vips(family).site, 443)),
        ("the host's", at(family.host, 443)),
    ]
}

fn beyond(family: &Family) -> [(&'static str, SocketAddr); 2] {
    [
        ("routed", at(vips(family).beyond, 80)),
        ("the host's", at(family.host, 81)),
    ]
}

/// A whole TCP connection: `client` and `frontend` as its opener knows them, `source` and `backend` as the server does.
struct Tcp {
    client: SocketAddr,
    frontend: SocketAddr,
    source: SocketAddr,
    backend: SocketAddr,
}

impl Tcp {
    fn walk(&self, walk: &mut Walk, says: &str, family: &Family) {
        let is_here = [family.web, family.web_2].contains(&self.backend.ip());
        let of = |src, dst| packet::tcp(src, dst);
        let out = |walk: &mut Walk, step: &str, edit: &dyn Fn(Packet) -> Packet| {
            let seen = edit(of(self.source, self.backend));
            let expect = if is_here {
                Delivered(WEB, seen)
            } else {
                Routed(seen)
            };
            let sent = edit(of(self.client, self.frontend));
            walk.net(&format!("{says}: {step}"), UPLINK, &sent, expect);
        };
        let back = |walk: &mut Walk, step: &str, edit: &dyn Fn(Packet) -> Packet| {
            let sent = edit(of(self.backend, self.source));
            let expect = Routed(edit(of(self.frontend, self.client)));
            let step = format!("{says}: {step}");
            if is_here {
                walk.from(&step, WEB, &sent, expect);
            } else {
                walk.net(&step, UPLINK, &sent, expect);
            }
        };
        out(walk, "SYN", &|p| p.syn().seq(1000));
        back(walk, "SYN-ACK", &|p| p.syn().ack().seq(7).ack_number(1001));
        for _ in 0..2 {
            out(walk, "data", &|p| {
                p.ack().seq(1001).ack_number(8).payload(b"GET /")
            });
            back(walk, "page", &|p| {
                p.ack().seq(8).ack_number(1006).payload(b"<html>")
            });
        }
        out(walk, "FIN", &|p| p.ack().fin().seq(1006).ack_number(14));
        back(walk, "FIN", &|p| p.ack().fin().seq(14).ack_number(1007));
    }
}

#[test]
fn a_backend_here_sees_the_clients_address() {
    for family in families() {
        let mut walk = walk(&family);
        let frontends = site(&family);
        for (n, (says, frontend)) in (0..).zip(frontends) {
            let client = at(family.world, 5000 + n);
            let backend = at(family.web, 3868);
            Tcp {
                client,
                frontend,
                source: client,
                backend,
            }
            .walk(&mut walk, says, &family);
            for time in ["first", "second", "third"] {
                let sent = udp(client, frontend);
                let answer = walk.net(time, UPLINK, &sent, Delivered(WEB, udp(client, backend)));
                if time == "first" {
                    let line = "to-endpoint forwarded world -> web (service site)";
                    walk.reported(says, &answer, &[line]);
                }
                let reply = udp(backend, client);
                walk.from(time, WEB, &reply, Routed(udp(frontend, client)));
            }
        }
        let sctp = |src, dst| packet::sctp(src, dst).payload(b"chunk");
        let (client, backend) = (at(family.world, 3868), at(family.web, 3868));
        let frontend = at(vips(&family).site, 3868);
        walk.net(
            "SCTP",
            UPLINK,
            &sctp(client, frontend),
            Delivered(WEB, sctp(client, backend)),
        );
        walk.from(
            "its reply",
            WEB,
            &sctp(backend, client),
            Routed(sctp(frontend, client)),
        );
        walk.end();
    }
}

#[test]
fn a_backend_on_another_host_answers_through_this_one() {
    for family in families() {
        let mut walk = walk(&family);
        let Far { backend, node, .. } = far(&family);
        let (backend, source) = (at(backend, 3868), at(family.host, PORT));
        for (says, frontend) in beyond(&family) {
            // Clients of the world, and a workload of another host.
            for client in [at(family.world, 5000), at(node, 5000)] {
                Tcp {
                    client,
                    frontend,
                    source,
                    backend,
                }
                .walk(&mut walk, says, &family);
                for time in ["first", "second", "third"] {
                    let sent = udp(client, frontend);
                    let answer = walk.net(says, UPLINK, &sent, Routed(udp(source, backend)));
                    if time == "first" {
                        let event = answer.events.first().map(|flow| {
                            (flow.point, flow.src.ip, flow.dst.ip, flow.service.clone())
                        });
                        let expected = (
                            "to-network",
                            client.ip(),
                            backend.ip(),
                            Some("beyond".into()),
                        );
                        walk.check("the event", event == Some(expected), &answer.events);
                    }
                    let reply = udp(backend, source);
                    walk.net(time, UPLINK, &reply, Routed(udp(frontend, client)));
                }
                let translated = walk.node().connections();
                let translated = translated.iter().find(|c| c.src == client);
                let public = translated.and_then(|c| c.source_translation);
                walk.check(
                    "conntrack names the address",
                    public == Some(source),
                    public,
                );
                for protocol in [6, 17] {
                    forget(&walk, protocol, client, frontend, source, backend);
                }
            }
        }
        let sctp = |src, dst| packet::sctp(src, dst).payload(b"chunk");
        let client = at(family.world, 3868);
        let (frontend, source) = (at(vips(&family).beyond, 3868), at(family.host, 3868));
        walk.net(
            "SCTP",
            UPLINK,
            &sctp(client, frontend),
            Routed(sctp(source, backend)),
        );
        walk.net(
            "its reply",
            UPLINK,
            &sctp(backend, source),
            Routed(sctp(frontend, client)),
        );
        walk.end();
    }
}

/// Takes a connection out of the tables, so that its source port is free.
fn forget(
    walk: &Walk,
    protocol: u8,
    client: SocketAddr,
    frontend: SocketAddr,
    source: SocketAddr,
    backend: SocketAddr,
) {
    walk.node().evict(protocol, client, frontend);
    walk.node().evict(protocol, backend, source);
}

#[test]
fn a_port_of_the_node_is_one_of_all_its_addresses() {
    for family in families() {
        let config = config();
        let mut walk = Walk::new(family.name, &config);
        let later = ip(if family.is_v4() {
            "192.0.2.77"
        } else {
            "2001:db8::77"
        });
        let backend = at(family.web, 8080);
        let ask =
            |walk: &mut Walk, says: &str, client: SocketAddr, address: IpAddr, is_served: bool| {
                let frontend = at(address, 8443);
                let expect = match is_served {
                    true => Delivered(WEB, udp(client, backend)),
                    false => Passed,
                };
                walk.net(says, UPLINK, &udp(client, frontend), expect);
                if is_served {
                    walk.from(
                        says,
                        WEB,
                        &udp(backend, client),
                        Routed(udp(frontend, client)),
                    );
                }
            };
        ask(
            &mut walk,
            "an address",
            at(family.world, 1),
            family.host,
            true,
        );
        ask(
            &mut walk,
            "not yet the host's",
            at(family.world, 2),
            later,
            false,
        );
        let length = if family.is_v4() { 24 } else { 64 };
        let add = format!("address add {later}/{length} dev {UPLINK} nodad");
        walk.node().namespace().ip(&if family.is_v4() {
            add.replace(" nodad", "")
        } else {
            add
        });
        walk.reload(&config);
        ask(
            &mut walk,
            "one that came later",
            at(family.world, 3),
            later,
            true,
        );
        walk.end();
    }
}

#[test]
fn what_is_no_frontend_is_the_hosts_where_the_address_is() {
    for family in families() {
        let mut walk = walk(&family);
        let Vips { site, down, .. } = vips(&family);
        let client = at(family.world, 5000);
        let rows = [
            ("another port", udp(client, at(family.host, 444))),
            (
                "a port of workloads alone",
                udp(client, at(family.host, 9000)),
            ),
            ("SSH", packet::tcp(client, at(family.host, 22)).syn()),
            ("an echo", echo_request(family.world, family.host, 443, 1)),
            (
                "a reply to the host",
                packet::tcp(client, at(family.host, 50000)).syn().ack(),
            ),
            (
                "another protocol",
                udp(client, at(family.host, 443)).protocol(47),
            ),
            (
                "a fragment of another port",
                udp(client, at(family.host, 9)).id(9).fragment(0, 8),
            ),
            (
                "its end",
                udp(client, at(family.host, 9)).id(9).fragment(8, 16),
            ),
            (
                "a fragment without a first",
                udp(client, at(family.host, 9)).id(10).fragment(8, 16),
            ),
        ];
        for (says, sent) in rows {
            let answer = walk.net(says, UPLINK, &sent, Passed);
            walk.reported(says, &answer, &[]);
        }
        for (says, port) in [("another port", 444), ("a port of workloads alone", 9000)] {
            let sent = udp(client, at(site, port));
            let refused = Refused(NO_SERVICE, port_unreachable(&family, &sent));
            walk.net(says, UPLINK, &sent, refused);
        }
        let sent = udp(client, at(down, 80));
        let refused = Refused(NO_BACKEND, port_unreachable(&family, &sent));
        walk.net("no backend", UPLINK, &sent, refused);
        let echo = echo_request(family.world, site, 7, 1).payload(b"?");
        let reply = echo_reply(site, family.world, 7, 1).payload(b"?").ttl(64);
        walk.net("an echo to a service", UPLINK, &echo, Answered(reply));
        // Workloads reach what the network does not, and the host's other ports, too.
        let sent = udp(at(family.client, 5000), at(site, 9000));
        let there = udp(at(family.client, 5000), at(family.web, 8080));
        walk.from("a workload", CLIENT, &sent, Delivered(WEB, there));
        let sent = udp(at(family.client, 5001), at(family.host, 444));
        walk.from("a workload, to the host", CLIENT, &sent, Passed);
        walk.end();
    }
}

#[test]
fn sources_say_who_of_the_network_may() {
    for family in families() {
        let admit = |networks: &str| {
            let sources = format!("external = true\nsources = [{networks}]\n\n[services.ports]");
            changed(&config(), "external = true\n\n[services.ports]", &sources)
        };
        let others = admit("\"203.0.113.0/24\", \"2001:db8:113::/48\"");
        let these = admit("\"198.51.100.0/24\", \"2001:db8:ffff::/64\"");
        let everybody = admit("\"0.0.0.0/0\"");
        let mut walk = Walk::new(family.name, &others);
        let backend = at(family.web, 3868);
        let frontend = at(vips(&family).site, 443);
        let client = at(family.world, 5000);
        let sent = udp(client, frontend);
        let there = Delivered(WEB, udp(client, backend));
        let reply = udp(backend, client);
        let heard = Routed(udp(frontend, client));
        walk.net("somebody else", UPLINK, &sent, Dropped(SOURCE_RANGE));
        let workload = udp(at(family.client, 5000), frontend);
        let seen = udp(at(family.client, 5000), backend);
        walk.from("a workload", CLIENT, &workload, Delivered(WEB, seen));
        walk.reload(&these);
        for _ in 0..3 {
            walk.net("one of them", UPLINK, &sent, there.clone());
            walk.from("its reply", WEB, &reply, heard.clone());
        }
        walk.reload(&others);
        walk.from("no more: the reply", WEB, &reply, Dropped(SOURCE_RANGE));
        walk.net("no more", UPLINK, &sent, Dropped(SOURCE_RANGE));
        walk.reload(&these);
        walk.net("again", UPLINK, &sent, there.clone());
        walk.reload(&everybody);
        let expect = match family.is_v4() {
            true => there,
            false => Dropped(SOURCE_RANGE),
        };
        walk.net("all of IPv4", UPLINK, &sent, expect);
        walk.end();
    }
}

#[test]
fn the_backends_policy_is_asked_with_the_clients_identity() {
    for family in families() {
        let policy = |ingress: &str| {
            let policy =
                format!("[policies.web]\nsubject = \"web\"\ningress = {ingress}\n\n[conntrack]");
            changed(&config(), "[conntrack]", &policy)
        };
        let rows = [
            ("nobody", "[]", Some(POLICY)),
            ("the world", "[{ from = [\"world\"] }]", None),
            (
                "the backend's port",
                "[{ from = [\"world\"], ports = [\"3868/udp\"] }]",
                None,
            ),
            (
                "the frontend's port",
                "[{ from = [\"world\"], ports = [\"443/udp\"] }]",
                Some(POLICY),
            ),
            ("the host", "[{ from = [\"host\"] }]", Some(POLICY)),
        ];
        for (says, ingress, reason) in rows {
            let mut walk = Walk::new(format!("{}, {says}", family.name), &policy(ingress));
            for (kind, frontend) in site(&family) {
                let client = at(family.world, 5000);
                let sent = udp(client, frontend);
                let there = Delivered(WEB, udp(client, at(family.web, 3868)));
                walk.net(kind, UPLINK, &sent, reason.map_or(there, Dropped));
                if reason.is_none() {
                    forget(&walk, 17, client, frontend, client, at(family.web, 3868));
                }
            }
            walk.end();
        }
    }
}

#[test]
fn connections_of_the_network_end_with_what_they_used() {
    for family in families() {
        let Far { backend, .. } = far(&family);
        let internal = changed(
            &config(),
            "external = true\n\n[services.down]",
            "\n[services.down]",
        );
        let internal = changed(
            &internal,
            "external = true\n\n[services.ports]",
            "\n[services.ports]",
        );
        let gone = changed(
            &config(),
            ":3868\", \"[fd00:201::45]",
            ":1\", \"[fd00:201::46]",
        );
        let gone = changed(&gone, "10.200.0.45:3868\"", "10.200.0.46:3868\"");
        let gone = changed(&gone, "[fd00:200::45]:3868\"", "[fd00:200::46]:3868\"");
        let sctp = "\"203.0.113.20:3868/sctp\", ";
        let gone = changed(&gone, sctp, "").replace("\"[2001:db8:113::20]:3868/sctp\", ", "");
        for (says, next) in [("internal", &internal), ("without its backend", &gone)] {
            let mut walk = walk(&family);
            walk.check(says, true, ());
            for (n, (kind, frontend)) in (0..).zip(site(&family)) {
                let client = at(family.world, 5000 + n);
                let server = at(family.web, 3868);
                let says = format!("{says}, {kind}");
                let syn = |src, dst| packet::tcp(src, dst).syn().seq(1);
                let there = Delivered(WEB, syn(client, server));
                walk.net(&says, UPLINK, &syn(client, frontend), there);
            }
            for (n, (kind, frontend)) in (0..).zip(beyond(&family)) {
                let client = at(family.world, 6000 + n);
                let says = format!("{says}, {kind}");
                let syn = |src, dst| packet::tcp(src, dst).syn().seq(1);
                let answer = walk
                    .node()
                    .from_netdev(UPLINK, &frame(&syn(client, frontend)));
                // One of the two has the only source port.
                let is_sent = matches!(answer.verdict, Verdict::Redirect);
                let source = at(family.host, parse(&answer.packet).src_port);
                walk.check(&says, is_sent == (n == 0), &answer);
                if n == 0 {
                    let reply = packet::tcp(at(backend, 3868), source)
                        .syn()
                        .ack()
                        .ack_number(2);
                    let heard = Routed(reply.clone().src(frontend).dst(client));
                    walk.net(&says, UPLINK, &reply, heard);
                }
            }
            walk.reload(next);
            for (n, (kind, frontend)) in (0..).zip(site(&family)) {
                let segment = packet::tcp(at(family.world, 5000 + n), frontend)
                    .ack()
                    .seq(2);
                let refused = Refused(NO_BACKEND, reset(&segment));
                walk.net(&format!("{says}, {kind}"), UPLINK, &segment, refused);
            }
            let (kind, frontend) = beyond(&family)[0];
            let segment = packet::tcp(at(family.world, 6000), frontend).ack().seq(2);
            walk.net(kind, UPLINK, &segment, Refused(NO_BACKEND, reset(&segment)));
            walk.end();
        }
    }
}

fn frame(packet: &Packet) -> Vec<u8> {
    let packet = packet.clone();
    packet.macs(workload_mac(UPLINK), host_mac(UPLINK)).build()
}

#[test]
fn errors_reach_both_sides_as_about_their_own() {
    for family in families() {
        let mut walk = walk(&family);
        let Far {
            backend, router, ..
        } = far(&family);
        let code = if family.is_v4() { 1 } else { 0 };
        let errors = |about: &Packet, by: IpAddr, to: IpAddr| {
            [
                unreachable(by, to, code, about),
                fragmentation_needed(by, to, 1400, about),
            ]
        };
        let source = at(family.host, PORT);
        let far_end = at(backend, 3868);
        for (kind, frontend) in beyond(&family) {
            let client = at(family.world, 5000);
            walk.net(
                kind,
                UPLINK,
                &udp(client, frontend),
                Routed(udp(source, far_end)),
            );
            let reply = udp(far_end, source);
            walk.net(kind, UPLINK, &reply, Routed(udp(frontend, client)));
            // About what the client has sent: by the backend, and on the way to it.
            let (sent, asked) = (udp(source, far_end).ttl(63), udp(client, frontend).ttl(63));
            for (by, heard_by) in [(backend, frontend.ip()), (router, router)] {
                let heard = errors(&asked, heard_by, client.ip());
                for (error, heard) in errors(&sent, by, source.ip()).into_iter().zip(heard) {
                    walk.net(kind, UPLINK, &error, Routed(heard));
                }
            }
            // About a reply: by the client, and on the way to it.
            let (got, replied) = (udp(frontend, client).ttl(63), reply.clone().ttl(63));
            for by in [client.ip(), router] {
                let heard = errors(&replied, source.ip(), backend);
                for (error, heard) in errors(&got, by, frontend.ip()).into_iter().zip(heard) {
                    walk.net(kind, UPLINK, &error, Routed(heard));
                }
            }
            forget(&walk, 17, client, frontend, source, far_end);
        }
        for (n, (kind, frontend)) in (0..).zip(site(&family)) {
            let (client, server) = (at(family.world, 5000 + n), at(family.web, 3868));
            walk.net(
                kind,
                UPLINK,
                &udp(client, frontend),
                Delivered(WEB, udp(client, server)),
            );
            let reply = udp(server, client);
            walk.from(kind, WEB, &reply, Routed(udp(frontend, client)));
            let got = udp(frontend, client).ttl(63);
            for by in [client.ip(), router] {
                let heard = errors(&reply.clone().ttl(63), by, family.web);
                for (error, heard) in errors(&got, by, frontend.ip()).into_iter().zip(heard) {
                    walk.net(kind, UPLINK, &error, Delivered(WEB, heard));
                }
            }
            let asked = udp(client, frontend).ttl(63);
            let heard = errors(&asked, frontend.ip(), client.ip());
            let sent = errors(&udp(client, server).ttl(63), family.web, client.ip());
            for (error, heard) in sent.into_iter().zip(heard) {
                walk.from(kind, WEB, &error, Routed(heard));
            }
            let stranger = unreachable(
                router,
                frontend.ip(),
                code,
                &udp(frontend, at(family.world, 9)),
            );
            let expect = match frontend.ip() == family.host {
                true => Passed,
                false => Dropped(UNRELATED),
            };
            walk.net("about nothing", UPLINK, &stranger, expect);
        }
        walk.end();
    }
}

#[test]
fn fragments_find_their_connection() {
    for family in families() {
        let mut walk = walk(&family);
        let Far { backend, .. } = far(&family);
        let client = at(family.world, 5000);
        let whole = |src, dst, id| packet::udp(src, dst).payload(&[7; 100]).id(id);
        let rows = site(&family).map(|row| (row, client, at(family.web, 3868), true));
        let others =
            beyond(&family).map(|row| (row, at(family.host, PORT), at(backend, 3868), false));
        for ((kind, frontend), source, server, is_here) in rows.into_iter().chain(others) {
            for (n, (from, to)) in (1..).zip([(0, 64), (64, 108)]) {
                let says = format!("{kind}, part {n}");
                let sent = whole(client, frontend, 5).fragment(from, to);
                let seen = whole(source, server, 5).fragment(from, to);
                let expect = if is_here {
                    Delivered(WEB, seen)
                } else {
                    Routed(seen)
                };
                walk.net(&says, UPLINK, &sent, expect);
                let _ = n;
            }
            for (from, to) in [(0, 64), (64, 108)] {
                let sent = whole(server, source, 6).fragment(from, to);
                let heard = Routed(whole(frontend, client, 6).fragment(from, to));
                match is_here {
                    true => walk.from(kind, WEB, &sent, heard),
                    false => walk.net(kind, UPLINK, &sent, heard),
                };
            }
            forget(&walk, 17, client, frontend, source, server);
        }
        walk.end();
    }
}

#[test]
fn workloads_reach_them_too() {
    for family in families() {
        let mut walk = walk(&family);
        let Far { backend, .. } = far(&family);
        let (own, server) = (at(family.client, 5000), at(family.web, 3868));
        for (kind, frontend) in site(&family) {
            walk.from(
                kind,
                CLIENT,
                &udp(own, frontend),
                Delivered(WEB, udp(own, server)),
            );
            walk.from(
                kind,
                WEB,
                &udp(server, own),
                Delivered(CLIENT, udp(frontend, own)),
            );
            let itself = at(family.web, 5000);
            let hairpin = at(family.hairpin, 5000);
            let sent = udp(itself, frontend);
            walk.from("itself", WEB, &sent, Delivered(WEB, udp(hairpin, server)));
            let reply = udp(server, hairpin);
            walk.from(
                "from itself",
                WEB,
                &reply,
                Delivered(WEB, udp(frontend, itself)),
            );
            for (src, dst) in [
                (own, frontend),
                (server, own),
                (itself, frontend),
                (server, hairpin),
            ] {
                walk.node().evict(17, src, dst);
            }
        }
        let server = at(backend, 3868);
        for (kind, frontend) in beyond(&family) {
            walk.from(kind, CLIENT, &udp(own, frontend), Routed(udp(own, server)));
            walk.net(
                kind,
                UPLINK,
                &udp(server, own),
                Delivered(CLIENT, udp(frontend, own)),
            );
            for (src, dst) in [(own, frontend), (server, own)] {
                walk.node().evict(17, src, dst);
            }
        }
        walk.end();
    }
}

#[test]
fn forged_packets_to_frontends_drop() {
    for family in families() {
        let mut walk = walk(&family);
        let none = if family.is_v4() { "127.0.0.1" } else { "::1" };
        for (kind, frontend) in site(&family) {
            let rows = [
                ("a workload's", family.client, INVALID_SOURCE),
                ("the host's", family.host, INVALID_SOURCE),
                ("a frontend's", vips(&family).site, INVALID_SOURCE),
                ("loopback", ip(none), MARTIAN),
            ];
            for (says, source, reason) in rows {
                let says = format!("{kind}: {says}");
                let sent = udp(at(source, 443), frontend);
                let expect = match source == frontend.ip() && source == family.host {
                    true => INVALID_SOURCE,
                    false => reason,
                };
                walk.net(&says, UPLINK, &sent, Dropped(expect));
            }
        }
        walk.end();
    }
}

#[test]
fn uplinks_without_ethernet_headers_serve_them_too() {
    for family in families() {
        let mut walk = walk(&family);
        let client = at(family.world, 5000);
        for (kind, frontend) in site(&family) {
            let server = at(family.web, 3868);
            let client = at(family.world, frontend.port() + u16::from(kind == "routed"));
            for _ in 0..3 {
                let there = Delivered(WEB, udp(client, server));
                walk.l3(kind, UPLINK, &udp(client, frontend), there);
                let reply = udp(server, client);
                walk.from(kind, WEB, &reply, Routed(udp(frontend, client)));
            }
        }
        let (source, server) = (at(family.host, PORT), at(far(&family).backend, 3868));
        let frontend = at(family.host, 81);
        for _ in 0..3 {
            let sent = udp(client, frontend);
            walk.l3("beyond", UPLINK, &sent, Routed(udp(source, server)));
            let reply = udp(server, source);
            walk.l3("its reply", UPLINK, &reply, Routed(udp(frontend, client)));
        }
        walk.l3(
            "the host's",
            UPLINK,
            &udp(client, at(family.host, 444)),
            Passed,
        );
        let closed = udp(client, at(vips(&family).site, 444));
        let refused = Refused(NO_SERVICE, port_unreachable(&family, &closed));
        walk.l3("no frontend", UPLINK, &closed, refused);
        walk.end();
    }
}

/// What the network opens to other hosts is bounded like what it opens to one workload: it evicts nothing that works.
#[test]
fn connections_to_other_hosts_have_the_room_of_one_workload() {
    let bounded = changed(
        &config(),
        "[conntrack]\n",
        "[conntrack]\nper_endpoint = 2\n",
    );
    for family in families() {
        let mut walk = Walk::new(family.name, &bounded);
        let (frontend, server) = (at(vips(&family).beyond, 80), at(far(&family).backend, 3868));
        for port in 1..=4 {
            let client = at(family.world, port);
            let sent = walk
                .node()
                .from_netdev(UPLINK, &frame(&udp(client, frontend)));
            let source = at(family.host, parse(&sent.packet).src_port);
            for says in ["a reply", "another"] {
                let reply = udp(server, source);
                walk.net(says, UPLINK, &reply, Routed(udp(frontend, client)));
            }
        }
        let replied = walk.node().conntrack_rows("dpd_ct_other");
        walk.check("two moved to what works", replied == 4, replied);
        let unreplied = walk.node().conntrack_rows("dpd_ct_unreplied");
        walk.check("the others are served", unreplied == 4, unreplied);
        walk.end();
    }
}

/// A socket that listens gets nothing where a service is; one that has a peer keeps what that sends.
#[test]
fn connections_of_the_hosts_own_sockets_continue() {
    for family in families() {
        let mut walk = walk(&family);
        let (client, other) = (at(family.world, 5000), at(family.world, 5001));
        let (own, server) = (at(family.host, 443), at(family.web, 3868));
        let sockets = walk.node().namespace().run(move || {
            let socket = UdpSocket::bind(own).expect("bind");
            socket.connect(client).expect("connect");
            (socket, TcpListener::bind(own).expect("listen"))
        });
        walk.net("its peer", UPLINK, &udp(client, own), Passed);
        walk.net(
            "another",
            UPLINK,
            &udp(other, own),
            Delivered(WEB, udp(other, server)),
        );
        let syn = |src, dst| packet::tcp(src, dst).syn();
        walk.net(
            "a SYN",
            UPLINK,
            &syn(client, own),
            Delivered(WEB, syn(client, server)),
        );
        let ack = |src, dst| packet::tcp(src, dst).ack();
        walk.net(
            "mid-stream",
            UPLINK,
            &ack(other, own),
            Delivered(WEB, ack(other, server)),
        );
        drop(sockets);
        let mut answer = walk.node().from_netdev(UPLINK, &frame(&udp(client, own)));
        let end = Instant::now() + Duration::from_secs(10);
        // A process that another test starts may hold the closed socket for a moment.
        while matches!(answer.verdict, Verdict::Pass) && Instant::now() < end {
            answer = walk.node().from_netdev(UPLINK, &frame(&udp(client, own)));
        }
        walk.check(
            "when it is closed",
            matches!(answer.verdict, Verdict::Redirect),
            answer,
        );
        walk.end();
    }
}

#[test]
fn what_no_uplink_leads_to_is_not_served() {
    for family in families() {
        let mut walk = walk(&family);
        let Far { backend, .. } = far(&family);
        let frontend = at(vips(&family).beyond, 80);
        let sent = udp(at(family.world, 5000), frontend);
        walk.node()
            .namespace()
            .ip(&format!("route add blackhole {backend}"));
        walk.net("a black hole", UPLINK, &sent, Dropped(NO_ROUTE));
        walk.node()
            .namespace()
            .ip(&format!("route delete blackhole {backend}"));
        let seen = udp(at(family.host, PORT), at(backend, 3868));
        walk.net("repaired", UPLINK, &sent, Routed(seen));
        walk.end();
    }
}

/// What is no service's any more is nobody's connection: the host's, or for its routes.
#[test]
fn the_sweep_counts_what_the_network_opened() {
    for family in families() {
        let mut walk = walk(&family);
        let Far { backend, .. } = far(&family);
        let client = at(family.world, 5000);
        let here = at(family.web, 3868);
        let [(_, near), _] = site(&family);
        let [(_, far), _] = beyond(&family);
        let own = at(family.client, 5000);
        walk.net(
            "to a backend here",
            UPLINK,
            &udp(client, near),
            Delivered(WEB, udp(client, here)),
        );
        let there = udp(at(family.host, PORT), at(backend, 3868));
        walk.net("elsewhere", UPLINK, &udp(client, far), Routed(there));
        walk.from(
            "of a workload",
            CLIENT,
            &udp(own, near),
            Delivered(WEB, udp(own, here)),
        );
        let tally = walk.node().tally();
        let through: u64 = tally.by_backend.values().map(|of| of.tcp + of.other).sum();
        walk.check("through services", through == 3, &tally);
        let opened = tally.by_external_backend.into_values();
        let opened: Vec<u64> = opened.map(|of| of.tcp + of.other).collect();
        walk.check("by the network", opened == [1, 1], opened);
        walk.end();
    }
}

#[test]
fn a_frontend_that_is_gone_leaves_no_connection() {
    let gone = changed(&config(), "203.0.113.10:443/udp\", \"", "")
        .replace("\"192.0.2.1:443/udp\"", "\"203.0.113.11:443/udp\"")
        .replace("\"[2001:db8:113::10]:443/udp\", ", "")
        .replace(", \"[2001:db8::1]:443/udp\"", "")
        .replace("203.0.113.10", "203.0.113.11")
        .replace("2001:db8:113::10", "2001:db8:113::11");
    for family in families() {
        let mut walk = walk(&family);
        for (n, (kind, frontend)) in (0..).zip(site(&family)) {
            let client = at(family.world, 5000 + n);
            let there = udp(client, at(family.web, 3868));
            let sent = udp(client, frontend);
            walk.net(kind, UPLINK, &sent, Delivered(WEB, there));
        }
        walk.reload(&gone);
        for (n, (kind, frontend)) in (0..).zip(site(&family)) {
            let sent = udp(at(family.world, 5000 + n), frontend);
            for time in ["the first after", "the second"] {
                let says = format!("{kind}, {time}");
                let answer = walk.net(&says, UPLINK, &sent, Passed);
                walk.reported(&says, &answer, &[]);
            }
        }
        let known = walk.node().connections().len();
        walk.check("no connection is left", known == 0, known);
        walk.end();
    }
}

/// Connections to frontends are direct whatever the uplink's way is, and their errors, too: the stack drops what has a source of
/// its own.
#[test]
fn errors_take_the_way_of_their_connection() {
    let stack = "role = \"uplink\"\nforwarding = \"stack\"";
    let config = changed(&config(), "role = \"uplink\"", stack);
    for family in families() {
        let mut walk = walk_of(&family, &config);
        let code = family.port_unreachable;
        for (n, (kind, frontend)) in (0..).zip(site(&family)) {
            let (client, server) = (at(family.world, 5000 + n), at(family.web, 3868));
            let (sent, seen) = (udp(client, frontend), udp(client, server));
            walk.net(kind, UPLINK, &sent, Delivered(WEB, seen.clone()));
            let error = unreachable(family.web, client.ip(), code, &seen.ttl(63));
            let heard = unreachable(frontend.ip(), client.ip(), code, &sent.ttl(63));
            let answer = walk.from(kind, WEB, &error, Routed(heard));
            let line = "to-network forwarded web -> world reply (service site)";
            walk.reported(kind, &answer, &[line]);
        }
        let (source, server) = (at(family.host, PORT), at(far(&family).backend, 3868));
        let (kind, frontend) = beyond(&family)[1];
        let client = at(family.world, 5000);
        let (sent, seen) = (udp(client, frontend), udp(source, server));
        walk.net(kind, UPLINK, &sent, Routed(seen.clone()));
        let error = unreachable(server.ip(), source.ip(), code, &seen.ttl(63));
        let heard = unreachable(frontend.ip(), client.ip(), code, &sent.ttl(63));
        walk.net(kind, UPLINK, &error, Routed(heard));
        walk.end();
    }
}

#[test]
fn an_address_that_the_host_receives_by_a_route_is_the_hosts() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let address = vips(&family).site;
        let (client, server) = (at(family.world, 5000), at(family.web, 3868));
        let ssh = packet::tcp(client, at(address, 22)).syn();
        let from_here = packet::tcp(at(family.client, 5000), at(address, 22)).syn();
        let refused = |sent: &Packet| Refused(NO_SERVICE, port_unreachable(&family, sent));
        let route = match family.is_v4() {
            true => "local 203.0.113.0/24 dev lo",
            false => "local 2001:db8:113::/64 dev lo",
        };
        let option = if family.is_v4() { "-4" } else { "-6" };
        for (words, is_hosts) in [("add", true), ("delete", false)] {
            let command = format!("{option} route {words} {route}");
            walk.node().namespace().ip(&command);
            walk.reload(&config());
            let sent = udp(client, at(address, 443));
            let there = Delivered(WEB, udp(client, server));
            walk.net(&format!("{words}: the frontend"), UPLINK, &sent, there);
            let heard = Routed(udp(at(address, 443), client));
            let reply = udp(server, client);
            walk.from(&format!("{words}: its reply"), WEB, &reply, heard);
            for (says, interface, sent) in
                [("SSH", UPLINK, &ssh), ("of a workload", CLIENT, &from_here)]
            {
                let says = format!("{words}: {says}");
                let expect = if is_hosts { Passed } else { refused(sent) };
                match interface {
                    UPLINK => walk.net(&says, UPLINK, sent, expect),
                    _ => walk.from(&says, interface, sent, expect),
                };
            }
        }
        walk.end();
    }
}

/// An address that moves between hosts, as a router's of VRRP does.
#[test]
fn a_frontends_address_comes_to_the_host_and_goes() {
    // Without node ports, so that the frontends stay the same.
    let named = "[\"203.0.113.40:80/tcp\", \"[2001:db8:113::40]:80/tcp\"]";
    let config = changed(&config(), "[\"node:8443/tcp\", \"node:8443/udp\"]", named);
    for family in families() {
        let mut walk = Walk::new(family.name, &config);
        let address = vips(&family).site;
        let sent = packet::tcp(at(family.world, 5000), at(address, 22)).syn();
        let of_workload = packet::tcp(at(family.client, 5000), at(address, 22)).syn();
        let (length, nodad) = if family.is_v4() {
            (32, "")
        } else {
            (128, "nodad")
        };
        for words in ["add", "delete", "add"] {
            let is_hosts = words == "add";
            let nodad = if is_hosts { nodad } else { "" };
            let command = format!("address {words} {address}/{length} dev {UPLINK} {nodad}");
            walk.node().namespace().ip(&command);
            walk.reload(&config);
            let expect = |sent: &Packet| match is_hosts {
                true => Passed,
                false => Refused(NO_SERVICE, port_unreachable(&family, sent)),
            };
            walk.net(words, UPLINK, &sent, expect(&sent));
            walk.from(words, CLIENT, &of_workload, expect(&of_workload));
        }
        walk.end();
    }
}

/// A flood of what nobody acknowledges keeps no port from those who come later; what works keeps its own.
#[test]
fn what_nobody_acknowledges_gives_its_port_away() {
    let config = changed(
        &config(),
        "[conntrack]\n",
        "[conntrack]\ntcp_syn = \"1h\"\nudp = \"1h\"\nudp_once = \"1h\"\n",
    );
    for family in families() {
        let mut walk = walk_of(&family, &config);
        let (source, server) = (at(family.host, PORT), at(far(&family).backend, 3868));
        let (_, frontend) = beyond(&family)[0];
        let syn = |port, to| packet::tcp(at(family.world, port), to).syn().seq(1);
        let (client, next) = (at(family.world, 1), at(family.world, 2));
        let asked = Routed(udp(source, server));
        walk.net("UDP", UPLINK, &udp(client, frontend), asked);
        let reply = udp(server, source);
        walk.net("its reply", UPLINK, &reply, Routed(udp(frontend, client)));
        let seen = packet::tcp(source, server).syn().seq(1);
        walk.net("a SYN", UPLINK, &syn(1, frontend), Routed(seen.clone()));
        let accepted = packet::tcp(server, source).syn().ack().ack_number(2);
        let heard = accepted.clone().src(frontend).dst(client);
        walk.net("its SYN-ACK", UPLINK, &accepted, Routed(heard));
        let end = Instant::now() + Duration::from_secs(20);
        let mut sent = walk.node().from_netdev(UPLINK, &frame(&syn(2, frontend)));
        while !matches!(sent.verdict, Verdict::Redirect) && Instant::now() < end {
            std::thread::yield_now();
            sent = walk.node().from_netdev(UPLINK, &frame(&syn(2, frontend)));
        }
        let heard = accepted.clone().src(frontend).dst(next);
        walk.net("the port is the second's", UPLINK, &accepted, Routed(heard));
        let more = udp(next, frontend);
        walk.net("of what works it is not", UPLINK, &more, Dropped(NO_PORT));
        walk.end();
    }
}
