//! Masquerade: what workloads send to the world with an address of the host, and what comes back to it.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use dpd::bpf::attach::hook::Hook;

use crate::common::packet::{
    self, Packet, echo_reply, echo_request, fragmentation_needed, parse, protocol, time_exceeded,
    unreachable,
};
use crate::common::runner::{Verdict, host_mac, workload_mac};
use crate::lab::*;
use crate::uplink::{Far, UPLINK, config as uplink_config, far};
use crate::walk::{Expect::*, Walk};

const NO_SOURCE_PORT: u8 = 167;
const NO_PROTOCOL: u8 = 168;
const ADDRESS_GONE: u8 = 232;
const NO_ROUTE: u8 = 169;
/// The only source port that is left.
const PORT: u16 = 40000;

/// The lab's uplink masquerades both families; a service has a backend in the world.
fn config() -> String {
    let masquerade = r#"
role = "uplink"
masquerade = "both"

[masquerade]
except = ["198.51.100.128/25", "2001:db8:ffff:8000::/49"]

[services.world]
frontends = ["10.32.0.50:80/udp", "[fd00:32::50]:80/udp"]
backends = ["198.51.100.9:8080", "[2001:db8:ffff::9]:8080"]
"#;
    changed(&uplink_config(), "\nrole = \"uplink\"\n", masquerade)
}

/// A node that has these source ports alone.
fn walk_with(family: &Family, reserved: &str) -> Walk {
    let walk = Walk::new(family.name, &config());
    let setting = format!("net.ipv4.ip_local_reserved_ports={reserved}");
    walk.node().namespace().sysctl(&setting);
    walk.reload(&config());
    walk
}

fn walk(family: &Family) -> Walk {
    walk_with(family, "1024-39999,40001-65535")
}

/// The source port that a packet of the client leaves with; `None`: it does not leave.
fn port_of(walk: &Walk, sent: Packet) -> Option<u16> {
    let frame = sent.macs(workload_mac(CLIENT), host_mac(CLIENT)).build();
    let answer = walk.node().from_container(CLIENT, &frame);
    matches!(answer.verdict, Verdict::Redirect).then(|| parse(&answer.packet).src_port)
}

/// A process that another test starts may hold a closed socket for a moment.
fn until_it_leaves(walk: &Walk, sent: &Packet) {
    let end = Instant::now() + Duration::from_secs(10);
    while port_of(walk, sent.clone()).is_none() && Instant::now() < end {
        std::thread::yield_now();
    }
}

fn ping(family: &Family, id: u16) -> Packet {
    echo_request(family.client, family.world, id, 1).payload(b"ping")
}

#[test]
fn the_world_sees_the_host_and_the_workload_itself() {
    for family in families() {
        let mut walk = walk(&family);
        let world = at(family.world, 443);
        let own = at(family.client, 5000);
        let public = at(family.host, PORT);
        type Build = fn(std::net::SocketAddr, std::net::SocketAddr) -> Packet;
        let udp: Build = |src, dst| packet::udp(src, dst).payload(b"question");
        for time in ["first", "second", "third"] {
            walk.from(time, CLIENT, &udp(own, world), Routed(udp(public, world)));
            let heard = udp(world, own);
            walk.net(time, UPLINK, &udp(world, public), Delivered(CLIENT, heard));
        }
        let syn = |src| packet::tcp(src, world).syn().seq(1000);
        let syn_ack = |dst| packet::tcp(world, dst).syn().ack().seq(7).ack_number(1001);
        let ack = |src| packet::tcp(src, world).ack().seq(1001).ack_number(8);
        let data = |dst| {
            let segment = packet::tcp(world, dst).ack().seq(8).ack_number(1001);
            segment.payload(b"<html>")
        };
        walk.from("SYN", CLIENT, &syn(own), Routed(syn(public)));
        walk.net(
            "SYN-ACK",
            UPLINK,
            &syn_ack(public),
            Delivered(CLIENT, syn_ack(own)),
        );
        for _ in 0..2 {
            walk.from("ACK", CLIENT, &ack(own), Routed(ack(public)));
            walk.net("data", UPLINK, &data(public), Delivered(CLIENT, data(own)));
        }
        let seen = echo_request(family.host, family.world, PORT, 1).payload(b"ping");
        let reply = echo_reply(family.world, family.host, PORT, 1).payload(b"ping");
        let heard = echo_reply(family.world, family.client, 77, 1).payload(b"ping");
        for time in ["first", "second"] {
            walk.from(time, CLIENT, &ping(&family, 77), Routed(seen.clone()));
            walk.net(time, UPLINK, &reply, Delivered(CLIENT, heard.clone()));
        }
        let connections = walk.node().connections();
        let sources: BTreeSet<_> = connections
            .iter()
            .map(|c| (c.src.ip(), c.source_translation.map(|s| s.ip())))
            .collect();
        let expected = [(family.client, Some(family.host))].into();
        walk.check(
            "conntrack",
            connections.len() == 3 && sources == expected,
            &connections,
        );
        walk.end();
    }
}

#[test]
fn the_workload_is_reported_by_its_own_address() {
    for family in families() {
        let mut walk = walk(&family);
        let (own, public, world) = (
            at(family.client, 5000),
            at(family.host, PORT),
            at(family.world, 53),
        );
        let question = packet::udp(own, world);
        let answer = walk.from(
            "out",
            CLIENT,
            &question,
            Routed(question.clone().src(public)),
        );
        walk.reported("out", &answer, &["to-network forwarded client -> world"]);
        let reply = packet::udp(world, public);
        let answer = walk.net(
            "back",
            UPLINK,
            &reply,
            Delivered(CLIENT, reply.clone().dst(own)),
        );
        walk.reported(
            "back",
            &answer,
            &["to-endpoint forwarded world -> client reply"],
        );
        let to = answer
            .events
            .first()
            .map(|flow| (flow.dst.ip, flow.dst.port));
        walk.check("its own address", to == Some((family.client, 5000)), to);
        walk.end();
    }
}

#[test]
fn others_than_the_world_see_the_workloads_own_address() {
    for family in families() {
        let mut walk = walk(&family);
        let Far {
            node,
            backend,
            unnamed,
            ..
        } = far(&family);
        let excepted = ip(if family.is_v4() {
            "198.51.100.200"
        } else {
            "2001:db8:ffff:8000::1"
        });
        for (says, to) in [
            ("another host", node),
            ("a workload of another host", backend),
            ("one without a name", unnamed),
            ("an exception", excepted),
        ] {
            let sent = packet::udp(at(family.client, 5000), at(to, 9));
            walk.from(says, CLIENT, &sent, Routed(sent.clone()));
        }
        let sent = packet::udp(at(family.client, 5000), at(family.web, 9));
        walk.from("a workload", CLIENT, &sent, Delivered(WEB, sent.clone()));
        let sent = packet::udp(at(family.client, 5000), at(family.host, 9));
        walk.from("the host", CLIENT, &sent, Passed);
        let asked = packet::udp(at(family.world, 4000), at(family.web, 9));
        walk.net(
            "it was asked",
            UPLINK,
            &asked,
            Delivered(WEB, asked.clone()),
        );
        let reply = packet::udp(at(family.web, 9), at(family.world, 4000));
        walk.from("a reply", WEB, &reply, Routed(reply.clone()));
        let late = packet::tcp(at(family.web, 80), at(family.world, 4000))
            .syn()
            .ack();
        walk.from(
            "a SYN-ACK of a lost connection",
            WEB,
            &late,
            Routed(late.clone()),
        );
        walk.end();
    }
}

#[test]
fn what_is_no_connections_passes_to_the_host_untouched() {
    for family in families() {
        let mut walk = walk(&family);
        let udp = packet::udp(at(family.world, 53), at(family.host, PORT)).payload(&[7; 100]);
        let quoted = packet::udp(at(family.host, 9), at(family.world, 9));
        let code = if family.is_v4() { 1 } else { 0 };
        let rows = [
            ("UDP", udp.clone()),
            (
                "TCP",
                packet::tcp(at(family.world, 1), at(family.host, 22)).syn(),
            ),
            ("an echo", echo_request(family.world, family.host, 1, 1)),
            (
                "an error",
                unreachable(family.world, family.host, code, &quoted),
            ),
            ("a first fragment", udp.clone().id(1).fragment(0, 64)),
            ("a later one", udp.clone().id(1).fragment(64, 108)),
            ("one without a first", udp.clone().id(2).fragment(64, 108)),
            ("from itself", udp.clone().src(at(family.host, 1))),
            ("another protocol", udp.clone().protocol(47)),
            (
                "a wrong length",
                packet::tcp(at(family.world, 1), at(family.host, 22)).data_offset(15),
            ),
        ];
        for (says, packet) in rows {
            let answer = walk.net(says, UPLINK, &packet, Passed);
            walk.reported(says, &answer, &[]);
        }
        walk.check(
            "nothing is tracked",
            walk.node().connections().is_empty(),
            (),
        );
        walk.end();
    }
}

#[test]
fn a_full_range_is_searched_and_then_refused() {
    for family in families() {
        let mut walk = walk_with(&family, "1024-39999,40300-65535");
        let world = at(family.world, 53);
        let mut seen = BTreeSet::new();
        for port in 0..300 {
            let sent = packet::udp(at(family.client, 10000 + port), world);
            let public = port_of(&walk, sent.clone());
            seen.extend(public);
            // What works keeps its port; two questions, for a long life.
            let reply = packet::udp(world, at(family.host, public.unwrap_or(0)));
            let frame = reply.macs(workload_mac(UPLINK), host_mac(UPLINK)).build();
            walk.node().from_netdev(UPLINK, &frame);
            port_of(&walk, sent);
        }
        let all: BTreeSet<u16> = (40000..40300).collect();
        walk.check("each port once", seen == all, seen.len());
        let more = packet::udp(at(family.client, 20000), world);
        walk.from("one more", CLIENT, &more, Dropped(NO_SOURCE_PORT));
        let elsewhere = packet::udp(at(family.client, 20000), at(family.world, 54));
        let port = port_of(&walk, elsewhere);
        walk.check("another destination", port.is_some(), port);
        // One becomes free, and is found.
        let first = walk
            .node()
            .connections()
            .into_iter()
            .find(|c| c.dst == world);
        let first = first.expect("there are connections");
        walk.node().evict(17, first.src, first.dst);
        let public = first.source_translation.expect("it is translated");
        walk.node().evict(17, world, public);
        walk.from(
            "the free one",
            CLIENT,
            &more,
            Routed(more.clone().src(public)),
        );
        walk.end();
    }
}

/// A server that has closed a connection refuses a SYN of another client's by the same port for a while.
#[test]
fn the_next_connection_from_a_port_has_the_same_source_port() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let world = at(family.world, 443);
        let syn = |port| packet::tcp(at(family.client, port), world).syn();
        let first: Vec<_> = (5000..5020).map(|port| port_of(&walk, syn(port))).collect();
        let different: BTreeSet<_> = first.iter().flatten().collect();
        walk.check("each port its own", different.len() == 20, &first);
        for (port, public) in (5000..5020).zip(first.iter().flatten()) {
            walk.node().evict(6, at(family.client, port), world);
            walk.node().evict(6, world, at(family.host, *public));
        }
        let again: Vec<_> = (5000..5020).map(|port| port_of(&walk, syn(port))).collect();
        walk.check("the same again", again == first, (&first, &again));
        walk.end();
    }
}

#[test]
fn ports_are_outside_of_the_range_of_the_hosts_sockets() {
    for family in families() {
        let mut walk = walk_with(&family, "1024-30000");
        for port in 0..400u16 {
            // Half of the clients have a port of the host's range themselves.
            let own = if port % 2 == 0 {
                33000 + port
            } else {
                31000 + port
            };
            let sent = packet::udp(at(family.client, own), at(family.world, 53));
            let public = port_of(&walk, sent);
            let is_right =
                public.is_some_and(|port| (30001..32768).contains(&port) || port > 60999);
            walk.check("a port outside", is_right, public);
        }
        walk.end();
    }
}

#[test]
fn a_socket_of_the_host_wins() {
    for family in families() {
        let mut walk = walk(&family);
        let (own, public, world) = (
            at(family.client, 5000),
            at(family.host, PORT),
            at(family.world, 53),
        );
        let bind = |walk: &Walk| {
            walk.node()
                .namespace()
                .run(move || UdpSocket::bind(public).expect("bind"))
        };
        let sent = packet::udp(own, world).payload(b"?");
        let reply = packet::udp(world, public).payload(b"!");
        let socket = bind(&walk);
        walk.from(
            "the socket was first",
            CLIENT,
            &sent,
            Dropped(NO_SOURCE_PORT),
        );
        walk.net("its own", UPLINK, &reply, Passed);
        drop(socket);
        until_it_leaves(&walk, &sent);
        walk.from(
            "it has gone",
            CLIENT,
            &sent,
            Routed(sent.clone().src(public)),
        );
        walk.net(
            "a reply",
            UPLINK,
            &reply,
            Delivered(CLIENT, reply.clone().dst(own)),
        );
        let socket = bind(&walk);
        // The reload makes each entry due for renewal at once.
        walk.reload(&config());
        walk.net("the socket came later", UPLINK, &reply, Passed);
        walk.check(
            "the pair is gone",
            walk.node().connections().is_empty(),
            walk.node().connections(),
        );
        walk.from("no port", CLIENT, &sent, Dropped(NO_SOURCE_PORT));
        drop(socket);
        let listener = walk
            .node()
            .namespace()
            .run(move || TcpListener::bind(public).expect("listen"));
        let syn = packet::tcp(own, world).syn();
        walk.from("a listener", CLIENT, &syn, Dropped(NO_SOURCE_PORT));
        drop(listener);
        until_it_leaves(&walk, &syn);
        walk.from("none", CLIENT, &syn, Routed(syn.clone().src(public)));
        walk.end();
    }
}

#[test]
fn connections_survive_a_reload_from_both_sides() {
    for family in families() {
        let mut walk = walk(&family);
        let (own, public, world) = (
            at(family.client, 5000),
            at(family.host, PORT),
            at(family.world, 53),
        );
        let sent = packet::udp(own, world).payload(b"?");
        let reply = packet::udp(world, public).payload(b"!");
        walk.from("out", CLIENT, &sent, Routed(sent.clone().src(public)));
        for time in ["the reply", "the first after a reload", "after another"] {
            let heard = reply.clone().dst(own);
            walk.net(time, UPLINK, &reply, Delivered(CLIENT, heard));
            walk.reload(&config());
        }
        walk.from("out again", CLIENT, &sent, Routed(sent.clone().src(public)));
        walk.end();
    }
}

#[test]
fn without_the_address_or_the_masquerade_connections_end() {
    for family in families() {
        for what in ["the address", "the masquerade"] {
            let mut walk = walk(&family);
            let world = at(family.world, 443);
            let own = at(family.client, 5000);
            let public = at(family.host, PORT);
            let ack = packet::tcp(own, world).ack().seq(1).ack_number(2);
            let back = packet::tcp(world, public).ack().seq(2).ack_number(1);
            walk.from("out", CLIENT, &ack, Routed(ack.clone().src(public)));
            let gone = changed(&config(), "masquerade = \"both\"", "masquerade = \"none\"");
            let without = match what {
                "the address" => {
                    let length = if family.is_v4() { 32 } else { 128 };
                    walk.node()
                        .namespace()
                        .ip(&format!("address del {}/{length} dev lo", family.host));
                    let config = config()
                        .replace("\"192.0.2.1\", ", "")
                        .replace(", \"2001:db8::1\"", "");
                    config
                        .replace("addresses = [\"192.0.2.1\"]\n", "")
                        .replace("addresses = [\"2001:db8::1\"]\n", "")
                }
                _ => gone,
            };
            walk.reload(&without);
            walk.from(what, CLIENT, &ack, Refused(ADDRESS_GONE, reset(&ack)));
            walk.check("the pair is gone", walk.node().connections().is_empty(), ());
            if what == "the masquerade" {
                walk.from("afterwards", CLIENT, &ack, Routed(ack.clone()));
                walk.net("and the peer", UPLINK, &back, Passed);
            }
            walk.end();
        }
    }
}

#[test]
fn errors_are_translated_outside_and_inside() {
    for family in families() {
        let mut walk = walk(&family);
        let router = far(&family).router;
        let (own, public, world) = (
            at(family.client, 5000),
            at(family.host, PORT),
            at(family.world, 53),
        );
        let pairs = [
            (
                packet::udp(own, world).payload(b"question"),
                packet::udp(public, world).payload(b"question"),
            ),
            (
                packet::tcp(own, world).syn().seq(1000),
                packet::tcp(public, world).syn().seq(1000),
            ),
            (
                ping(&family, 77),
                echo_request(family.host, family.world, PORT, 1).payload(b"ping"),
            ),
        ];
        let code = if family.is_v4() { 1 } else { 0 };
        for (sent, seen) in pairs {
            walk.from("out", CLIENT, &sent, Routed(seen.clone()));
            for by in [router, family.world] {
                let rows = [
                    (
                        "unreachable",
                        unreachable(by, family.host, code, &seen),
                        unreachable(by, family.client, code, &sent),
                    ),
                    (
                        "time exceeded",
                        time_exceeded(by, family.host, &seen),
                        time_exceeded(by, family.client, &sent),
                    ),
                    (
                        "too big",
                        fragmentation_needed(by, family.host, 1400, &seen),
                        fragmentation_needed(by, family.client, 1400, &sent),
                    ),
                ];
                for (says, error, heard) in rows {
                    walk.net(says, UPLINK, &error, Delivered(CLIENT, heard));
                }
            }
        }
        // The workload says that its port is gone.
        let reply = packet::udp(world, public).payload(b"answer");
        let heard = reply.clone().dst(own);
        walk.net("a reply", UPLINK, &reply, Delivered(CLIENT, heard.clone()));
        let port = family.port_unreachable;
        let error = unreachable(family.client, family.world, port, &heard);
        let seen = unreachable(family.host, family.world, port, &reply);
        walk.from("unreachable", CLIENT, &error, Routed(seen));
        walk.end();
    }
}

#[test]
fn fragments_are_translated_both_ways() {
    for family in families() {
        let mut walk = walk(&family);
        let (own, public, world) = (
            at(family.client, 5000),
            at(family.host, PORT),
            at(family.world, 53),
        );
        let sent = packet::udp(own, world).id(1).payload(&[0x5a; 200]);
        let reply = packet::udp(world, public).id(2).payload(&[0xa5; 200]);
        for (first, end) in [(0, 64), (64, 128), (128, 208)] {
            let seen = sent.clone().src(public).fragment(first, end);
            walk.from(
                "out",
                CLIENT,
                &sent.clone().fragment(first, end),
                Routed(seen),
            );
        }
        for (first, end) in [(0, 104), (104, 208)] {
            let heard = reply.clone().dst(own).fragment(first, end);
            walk.net(
                "back",
                UPLINK,
                &reply.clone().fragment(first, end),
                Delivered(CLIENT, heard),
            );
        }
        walk.end();
    }
}

#[test]
fn a_services_backend_in_the_world_sees_the_host() {
    for family in families() {
        let mut walk = walk(&family);
        let of = |v4: &str, v6: &str| ip(if family.is_v4() { v4 } else { v6 });
        let service = at(of("10.32.0.50", "fd00:32::50"), 80);
        let backend = at(of("198.51.100.9", "2001:db8:ffff::9"), 8080);
        let (own, public) = (at(family.client, 5000), at(family.host, PORT));
        let sent = packet::udp(own, service).payload(b"?");
        let reply = packet::udp(backend, public).payload(b"!");
        for time in ["first", "second", "third"] {
            walk.from(
                time,
                CLIENT,
                &sent,
                Routed(sent.clone().src(public).dst(backend)),
            );
            let heard = reply.clone().src(service).dst(own);
            walk.net(time, UPLINK, &reply, Delivered(CLIENT, heard));
        }
        walk.end();
    }
}

#[test]
fn protocols_without_a_port_of_ones_own() {
    for family in families() {
        let mut walk = walk(&family);
        let world = at(family.world, 3868);
        let init = |src| packet::sctp(at(src, 3868), world);
        walk.from(
            "SCTP keeps its port",
            CLIENT,
            &init(family.client),
            Routed(init(family.host)),
        );
        let back = |dst| packet::sctp(world, at(dst, 3868));
        walk.net(
            "and is answered",
            UPLINK,
            &back(family.host),
            Delivered(CLIENT, back(family.client)),
        );
        walk.from("taken", WEB, &init(family.web), Dropped(NO_SOURCE_PORT));
        let gre = packet::udp(at(family.client, 0), at(family.world, 0)).protocol(protocol::GRE);
        walk.from("GRE", CLIENT, &gre, Dropped(NO_PROTOCOL));
        let reply = echo_reply(family.client, family.world, 1, 1);
        walk.from(
            "an echo reply that nobody has asked for",
            CLIENT,
            &reply,
            Routed(reply.clone()),
        );
        walk.end();
    }
}

#[test]
fn what_is_too_long_for_the_route_is_never_cut_by_the_stack() {
    for family in families() {
        let mut walk = walk(&family);
        walk.node()
            .namespace()
            .ip(&format!("link set {UPLINK} mtu 1400"));
        let big = packet::udp(at(family.client, 5000), at(family.world, 53)).payload(&[7; 1400]);
        let error = fragmentation_needed(family.host, family.client, 1400, &big);
        walk.from("too big", CLIENT, &big, Refused(136, quote(error)));
        let fits = packet::udp(at(family.client, 5000), at(family.world, 53)).payload(&[7; 1300]);
        walk.from(
            "it fits",
            CLIENT,
            &fits,
            Routed(fits.clone().src(at(family.host, PORT))),
        );
        walk.from(
            "too big, of a connection",
            CLIENT,
            &big,
            Refused(
                136,
                quote(fragmentation_needed(family.host, family.client, 1400, &big)),
            ),
        );
        walk.end();
    }
}

#[test]
fn an_uplink_without_ethernet_headers_masquerades_too() {
    for family in families() {
        let mut walk = walk(&family);
        let (own, public) = (at(family.client, 5000), at(family.host, PORT));
        let world = at(family.world, 53);
        let sent = packet::udp(own, world).payload(b"?");
        let reply = packet::udp(world, public).payload(b"!");
        let foreign = packet::udp(world, at(family.host, 9)).payload(b"!");
        walk.from("out", CLIENT, &sent, Routed(sent.clone().src(public)));
        for time in ["first", "second"] {
            let heard = reply.clone().dst(own);
            walk.l3(time, UPLINK, &reply, Delivered(CLIENT, heard));
        }
        walk.l3("the host's", UPLINK, &foreign, Passed);
        let code = if family.is_v4() { 1 } else { 0 };
        let seen = sent.clone().src(public);
        let error = unreachable(family.world, family.host, code, &seen);
        let heard = unreachable(family.world, family.client, code, &sent);
        walk.l3("an error", UPLINK, &error, Delivered(CLIENT, heard));
        walk.end();
    }
}

/// Two uplinks that masquerade; the second has an address of its own, which is taken for what leaves by it.
fn walk_with_two_uplinks(family: &Family) -> (Walk, IpAddr) {
    let second = "\n[interfaces.ens6]\nrole = \"uplink\"\nmasquerade = \"both\"\n\n[conntrack]";
    let config = changed(&config(), "\n[conntrack]", second);
    let walk = Walk::new(family.name, &config);
    let setting = "net.ipv4.ip_local_reserved_ports=1024-39999,40001-65535";
    walk.node().namespace().sysctl(setting);
    let (other, length) = match family.is_v4() {
        true => ("198.18.6.1", 32),
        false => ("2001:db8:6::1", 128),
    };
    // An address is no source until nobody else has claimed it.
    let nodad = if family.is_v4() { "" } else { "nodad" };
    let add = format!("address add {other}/{length} dev ens6 {nodad}");
    walk.node().namespace().ip(&add);
    walk.reload(&config);
    (walk, ip(other))
}

/// Changes a route of the family.
fn route(walk: &Walk, family: &Family, words: &str) {
    let option = if family.is_v4() { "-4" } else { "-6" };
    let words = format!("{option} route {words}");
    walk.node().namespace().ip(&words);
}

/// The lab's router.
fn router(family: &Family) -> &'static str {
    match family.is_v4() {
        true => "198.18.0.1",
        false => "fe80::9",
    }
}

#[test]
fn a_connection_whose_route_leads_elsewhere_opens_again_there() {
    for family in families() {
        let (mut walk, other) = walk_with_two_uplinks(&family);
        let (own, world) = (at(family.client, 5000), at(family.world, 53));
        let sent = packet::udp(own, world).payload(b"?");
        let by = |host| Routed(sent.clone().src(at(host, PORT)));
        walk.from("by the first uplink", CLIENT, &sent, by(family.host));
        let words = format!(
            "add {} via {} dev ens6 onlink src {other}",
            family.world,
            router(&family)
        );
        route(&walk, &family, &words);
        walk.from("the route has changed", CLIENT, &sent, Dropped(NO_ROUTE));
        walk.from("by the second", CLIENT, &sent, by(other));
        walk.end();
    }
}

#[test]
fn of_several_next_hops_the_workloads_own_port_chooses() {
    for family in families() {
        let (mut walk, _) = walk_with_two_uplinks(&family);
        let sysctl = if family.is_v4() { "ipv4" } else { "ipv6" };
        let policy = format!("net.{sysctl}.fib_multipath_hash_policy=1");
        walk.node().namespace().sysctl(&policy);
        let hop = |uplink| format!("nexthop via {} dev {uplink} onlink", router(&family));
        let words = format!("add {} {} {}", family.world, hop(UPLINK), hop("ens6"));
        route(&walk, &family, &words);
        let mut uplinks = BTreeSet::new();
        for port in 5000..5064 {
            // One port is all that there is towards each destination.
            let sent = packet::udp(at(family.client, port), at(family.world, port));
            let frame = sent.macs(workload_mac(CLIENT), host_mac(CLIENT)).build();
            for time in ["first", "second"] {
                let answer = walk.node().from_container(CLIENT, &frame);
                let is_routed = answer.verdict == Verdict::Redirect;
                walk.check(time, is_routed, (port, answer.drops));
                uplinks.extend(answer.events.into_iter().map(|flow| flow.interface));
            }
        }
        walk.check("both are used", uplinks.len() == 2, uplinks);
        walk.end();
    }
}

#[test]
fn what_had_no_route_by_an_uplink_is_masqueraded_once_it_has() {
    for family in families() {
        let mut walk = walk(&family);
        let world = family.world;
        let default = format!("default via {} dev {UPLINK} onlink", router(&family));
        let add = "link add other type veth peer name peer";
        walk.node().namespace().ip(add);
        walk.node().namespace().ip("link set other up");
        walk.node().namespace().ip("link set peer up");
        let rows = [
            (
                "no route",
                format!("del {default}"),
                format!("add {default}"),
            ),
            (
                "another interface",
                format!("add {world} dev other"),
                format!("del {world} dev other"),
            ),
        ];
        for (port, (what, change, undo)) in (5000..).zip(rows) {
            let sent = packet::udp(at(family.client, port), at(world, port)).payload(b"?");
            route(&walk, &family, &change);
            walk.from(what, CLIENT, &sent, Passed);
            walk.from(what, CLIENT, &sent, Passed);
            route(&walk, &family, &undo);
            walk.from("the route has changed", CLIENT, &sent, Dropped(NO_ROUTE));
            let seen = sent.clone().src(at(family.host, PORT));
            walk.from("by the uplink", CLIENT, &sent, Routed(seen));
        }
        walk.end();
    }
}

#[test]
fn what_left_before_there_was_masquerade_keeps_its_address() {
    for family in families() {
        let before = changed(&config(), "masquerade = \"both\"", "masquerade = \"none\"");
        let mut walk = Walk::new(family.name, &before);
        let sent = packet::udp(at(family.client, 5000), at(family.world, 53));
        walk.from("before", CLIENT, &sent, Routed(sent.clone()));
        walk.reload(&config());
        for time in ["the first", "the second"] {
            walk.from(time, CLIENT, &sent, Routed(sent.clone()));
        }
        walk.end();
    }
}

#[test]
fn a_destination_that_the_host_has_got_is_reached_there() {
    for family in families() {
        let mut walk = walk(&family);
        let (own, public) = (at(family.client, 5000), at(family.host, PORT));
        let world = at(family.world, 443);
        let udp = packet::udp(own, world).payload(b"?");
        let ack = packet::tcp(own, world).ack().seq(1).ack_number(2);
        walk.from("UDP", CLIENT, &udp, Routed(udp.clone().src(public)));
        walk.from("TCP", CLIENT, &ack, Routed(ack.clone().src(public)));
        let length = if family.is_v4() { 32 } else { 128 };
        let add = format!("address add {}/{length} dev lo", family.world);
        walk.node().namespace().ip(&add);
        walk.reload(&config());
        walk.from("UDP to the host", CLIENT, &udp, Passed);
        let reset = reset(&ack);
        walk.from("TCP ends", CLIENT, &ack, Refused(ADDRESS_GONE, reset));
        walk.from("TCP to the host", CLIENT, &ack, Passed);
        walk.end();
    }
}

#[test]
fn an_echo_may_have_any_identifier() {
    for family in families() {
        for id in [0, 1, PORT, u16::MAX] {
            let mut walk = walk(&family);
            let seen = echo_request(family.host, family.world, PORT, 1).payload(b"ping");
            let reply = echo_reply(family.world, family.host, PORT, 1).payload(b"ping");
            let heard = echo_reply(family.world, family.client, id, 1).payload(b"ping");
            for time in ["first", "second"] {
                walk.from(time, CLIENT, &ping(&family, id), Routed(seen.clone()));
                walk.net(time, UPLINK, &reply, Delivered(CLIENT, heard.clone()));
            }
            walk.end();
        }
    }
}

#[test]
fn each_port_serves_once_towards_a_destination() {
    const PORTS: usize = 36280; // outside of the kernel's default range
    for family in families() {
        // Room for as many that nobody has replied to, of one workload.
        let size = "size = 262144\nper_endpoint = 0";
        let walk = Walk::new(family.name, &changed(&config(), "size = 4096", size));
        let world = at(family.world, 53);
        let bench = walk.node().bench();
        let send = |number: usize| {
            let (name, address) = match number % 2 {
                0 => (CLIENT, family.client),
                _ => (WEB, family.web),
            };
            let sent = packet::udp(at(address, 1024 + (number / 2) as u16), world);
            let frame = sent.macs(workload_mac(name), host_mac(name)).build();
            let (verdict, packet) = bench.run(Hook::FromContainer, name, &frame);
            (verdict, parse(&packet).src_port)
        };
        let mut ports = BTreeSet::new();
        walk.node().namespace().run(|| {
            for number in 0..PORTS {
                let (verdict, port) = send(number);
                assert_eq!(verdict, Verdict::Redirect, "{number} of {PORTS}");
                assert!(ports.insert(port), "{port} twice: {number} of {PORTS}");
            }
            // Unless one has been silent for long, whose port it gets.
            let (verdict, port) = send(PORTS);
            let is_taken = ports.contains(&port);
            assert!(verdict == Verdict::Drop || is_taken, "none is left: {port}");
        });
        walk.end();
    }
}
