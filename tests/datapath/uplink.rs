//! Uplinks: what comes from the network for a workload, what leaves for it, and the rest, which is left alone.

use std::net::IpAddr;

use crate::common::packet::{
    self, Packet, echo_request, fragmentation_needed, time_exceeded, unreachable,
};
use crate::common::runner::workload_mac;
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

pub const UPLINK: &str = "ens5";
const INVALID_SOURCE: u8 = 132;
const MARTIAN: u8 = 228;

/// The lab with an uplink, another host with its workloads, and a web service whose backend is over there.
pub fn config() -> String {
    let uplink = r#"
[interfaces.ens5]
role = "uplink"

[nodes.node-b]
addresses = ["192.0.2.2", "2001:db8::2"]
cidrs = ["10.200.1.0/24", "fd00:201::/64"]

[services.far]
frontends = ["10.32.0.40:80/udp", "10.32.0.40:80/tcp", "[fd00:32::40]:80/udp", "[fd00:32::40]:80/tcp"]
backends = ["10.200.1.45:8080", "[fd00:201::45]:8080"]

[conntrack]"#;
    changed(CONFIG, "\n[conntrack]", uplink)
}

/// Addresses beyond the uplink.
pub struct Far {
    /// Another host, and two workloads behind it, of which no identity ever names the second.
    pub node: IpAddr,
    pub backend: IpAddr,
    pub unnamed: IpAddr,
    /// A service whose backend is the first.
    pub service: IpAddr,
    /// On the way.
    pub router: IpAddr,
}

pub fn far(family: &Family) -> Far {
    let address = |v4: &str, v6: &str| ip(if family.is_v4() { v4 } else { v6 });
    Far {
        node: address("192.0.2.2", "2001:db8::2"),
        backend: address("10.200.1.45", "fd00:201::45"),
        unnamed: address("10.200.1.99", "fd00:201::99"),
        service: address("10.32.0.40", "fd00:32::40"),
        router: address("192.0.2.254", "2001:db8::fe"),
    }
}

#[test]
fn the_world_speaks_to_a_workload_and_is_answered() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let asked = packet::udp(at(family.world, 4000), at(family.web, 9)).payload(b"?");
        let reply = packet::udp(at(family.web, 9), at(family.world, 4000)).payload(b"!");
        for time in ["the first", "the second", "the established"] {
            let there = Delivered(WEB, asked.clone());
            let answer = walk.net(&format!("{time} question"), UPLINK, &asked, there);
            if time == "the first" {
                let line = "to-endpoint forwarded world -> web";
                walk.reported(time, &answer, &[line]);
            }
            let back = Routed(reply.clone());
            let answer = walk.from(&format!("{time} reply"), WEB, &reply, back);
            let seen: Vec<_> = answer
                .events
                .iter()
                .map(|flow| (flow.point, flow.interface.as_str()))
                .collect();
            let is_first = time == "the first";
            let expected: &[_] = if is_first {
                &[("to-network", UPLINK)]
            } else {
                &[]
            };
            walk.check(
                "a reply is reported where it leaves",
                seen == expected,
                &seen,
            );
        }
        walk.end();
    }
}

#[test]
fn a_service_with_its_backend_on_another_host() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let far = far(&family);
        let (service, backend) = (at(far.service, 80), at(far.backend, 8080));
        let syn = family.syn(4100, service);
        let answer = walk.from("SYN", CLIENT, &syn, Routed(syn.clone().dst(backend)));
        let line = "to-network forwarded client -> world (service far)";
        walk.reported("SYN", &answer, &[line]);
        let reported = packet::tcp(backend, at(family.client, 4100)).syn().ack();
        let heard = reported.clone().src(service);
        walk.net("SYN ACK", UPLINK, &reported, Delivered(CLIENT, heard));
        let ack = packet::tcp(at(family.client, 4100), service).ack();
        let data = packet::tcp(backend, at(family.client, 4100))
            .ack()
            .payload(b"<html>");
        for time in ["once", "again"] {
            let there = Routed(ack.clone().dst(backend));
            walk.from(&format!("ACK {time}"), CLIENT, &ack, there);
            let heard = data.clone().src(service);
            walk.net(
                &format!("data {time}"),
                UPLINK,
                &data,
                Delivered(CLIENT, heard),
            );
        }
        walk.end();
    }
}

#[test]
fn what_is_no_workloads_passes() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let far = far(&family);
        let rows = [
            (
                "ssh to the host",
                packet::tcp(at(family.world, 5), at(family.host, 22)).syn(),
            ),
            (
                "ping to the host",
                echo_request(family.world, family.host, 1, 1),
            ),
            (
                "through the host",
                packet::udp(at(family.world, 5), at(far.backend, 53)),
            ),
            (
                "to a service",
                packet::udp(at(family.world, 5), at(family.web_service, 80)),
            ),
            (
                "from the host itself",
                packet::udp(at(family.host, 5), at(family.host, 6)),
            ),
            (
                "as a workload, to the host",
                packet::udp(at(family.web, 5), at(family.host, 6)),
            ),
            (
                "of another protocol",
                packet::gre(family.world, family.host),
            ),
            (
                "about to die",
                packet::udp(at(family.world, 5), at(family.host, 6)).ttl(1),
            ),
        ];
        for (says, packet) in &rows {
            walk.net(says, UPLINK, packet, Passed);
            walk.out(&format!("{says}, leaving"), UPLINK, packet, Passed);
        }
        walk.end();
    }
}

/// The kernel forwards nothing that was not sent to this host, and no more do we.
#[test]
fn what_was_sent_to_another_host_passes() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let packet = packet::udp(at(family.world, 5), at(family.web, 6));
        let rows = [
            ("another host's", [2, 0, 0, 0, 0, 9]),
            ("everybody's", [0xff; 6]),
            ("a group's", [1, 0, 0x5e, 0, 0, 1]),
        ];
        for (says, mac) in rows {
            let frame = packet.clone().macs(workload_mac(UPLINK), mac).build();
            walk.net_frame(says, UPLINK, &frame, Passed);
        }
        walk.net("ours", UPLINK, &packet, Delivered(WEB, packet.clone()));
        walk.end();
    }
}

#[test]
fn other_ethertypes_pass() {
    let mut walk = Walk::new("both", &config());
    let arp = packet::arp_request(workload_mac(UPLINK), "192.0.2.254", "192.0.2.1");
    walk.net("ARP", UPLINK, &arp, Passed);
    let lldp = packet::raw("192.0.2.254", "192.0.2.1", 6).ethertype(0x88cc);
    walk.net("LLDP", UPLINK, &lldp, Passed);
    for family in families() {
        let packet = packet::udp(at(family.world, 5), at(family.web, 6)).vlan(100);
        walk.net("in a VLAN", UPLINK, &packet, Passed);
    }
    walk.end();
}

#[test]
fn nobody_out_there_is_one_of_us() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let ours = [family.client, family.web, family.host];
        // What the kernel calls a martian.
        let of_nobody: &[&str] = match family.is_v4() {
            true => &[
                "127.0.0.2",
                "0.0.0.0",
                "0.1.2.3",
                "224.0.0.1",
                "255.255.255.255",
            ],
            false => &["::1", "::", "ff02::1", "fe80::9"],
        };
        let ours = ours.map(|source| (source, INVALID_SOURCE));
        let of_nobody = of_nobody.iter().map(|source| (ip(source), MARTIAN));
        for (source, reason) in ours.into_iter().chain(of_nobody) {
            let packet = packet::udp(at(source, 5), at(family.web, 6));
            walk.net(&source.to_string(), UPLINK, &packet, Dropped(reason));
        }
        walk.end();
    }
}

/// The established path knows who is on the host too.
#[test]
fn nobody_out_there_joins_a_connection_of_the_hosts_or_of_workloads() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let asked = packet::udp(at(family.host, 5), at(family.web, 6));
        let reply = packet::udp(at(family.web, 6), at(family.host, 5));
        for _ in 0..3 {
            walk.to("the host asks", WEB, &asked, Passed);
            walk.from("it is answered", WEB, &reply, Passed);
        }
        walk.net("as the host", UPLINK, &asked, Dropped(INVALID_SOURCE));
        let asked = packet::udp(at(family.client, 5), at(family.web, 6));
        let reply = packet::udp(at(family.web, 6), at(family.client, 5));
        for _ in 0..3 {
            walk.from(
                "a workload asks",
                CLIENT,
                &asked,
                Delivered(WEB, asked.clone()),
            );
            walk.from(
                "it is answered",
                WEB,
                &reply,
                Delivered(CLIENT, reply.clone()),
            );
        }
        walk.net("as the client", UPLINK, &asked, Dropped(INVALID_SOURCE));
        walk.net("as the server", UPLINK, &reply, Dropped(INVALID_SOURCE));
        walk.end();
    }
}

/// One policy for each kind of peer; the named and the prefixes overlap.
#[test]
fn the_receiver_asks_who_sent_it() {
    let with = |ingress: &str| {
        let named = "[identities]\nfriend = { id = 20010, cidrs = [\"10.200.1.44\", \"10.200.1.45\", \"fd00:201::44\", \
                     \"fd00:201::45\"] }\n";
        let config = changed(&config(), "[identities]\n", named);
        let policy =
            format!("[policies.web]\nsubject = \"web\"\ningress = [{ingress}]\n\n[conntrack]");
        changed(&config, "[conntrack]", &policy)
    };
    // Whom no identity names is of the world, also behind another host.
    let [all, friend, node, nobody] = [
        &["friend", "node", "unnamed", "world"][..],
        &["friend"],
        &["node"],
        &[],
    ];
    let rows = [
        ("nobody", "", nobody, 133),
        ("an identity", r#"{ from = ["friend"] }"#, friend, 133),
        ("another host", r#"{ from = ["remote-node"] }"#, node, 133),
        (
            "the world",
            r#"{ from = ["world"] }"#,
            &["friend", "unnamed", "world"],
            133,
        ),
        ("any", r#"{ from = ["any"] }"#, all, 133),
        (
            "a prefix",
            r#"{ from = ["cidr:10.200.1.0/24", "cidr:fd00:201::/64"] }"#,
            &["friend", "unnamed"],
            133,
        ),
        (
            "a prefix but for one",
            r#"{ from = ["any"] }, { from = ["cidr:10.200.1.45/32", "cidr:fd00:201::45/128"], action = "deny" }"#,
            &["node", "unnamed", "world"],
            181,
        ),
        (
            "the named but for a prefix",
            r#"{ from = ["friend"] }, { from = ["cidr:10.200.0.0/15", "cidr:fd00:200::/23"], action = "deny" }"#,
            nobody,
            0,
        ),
        (
            "everything's prefix",
            r#"{ from = ["cidr:0.0.0.0/0", "cidr:::/0"] }"#,
            all,
            133,
        ),
        (
            "another port",
            r#"{ from = ["any"], ports = ["7/udp"] }"#,
            nobody,
            133,
        ),
    ];
    for family in families() {
        let far = far(&family);
        let senders = [
            ("friend", far.backend),
            ("node", far.node),
            ("unnamed", far.unnamed),
            ("world", family.world),
        ];
        for (says, ingress, allowed, reason) in rows {
            let mut walk = Walk::new(format!("{}, {says}", family.name), &with(ingress));
            for (sender, address) in senders {
                let packet = packet::udp(at(address, 5), at(family.web, 6));
                let expect = if allowed.contains(&sender) {
                    Delivered(WEB, packet.clone())
                } else if reason == 0 {
                    Dropped(if address == far.node || address == family.world {
                        133
                    } else {
                        181
                    })
                } else {
                    Dropped(reason)
                };
                walk.net(sender, UPLINK, &packet, expect);
            }
            walk.end();
        }
    }
}

#[test]
fn an_error_on_the_way_reaches_the_client_as_about_its_own() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let far = far(&family);
        let (service, backend) = (at(far.service, 80), at(far.backend, 8080));
        let asked = packet::udp(at(family.client, 4200), service).payload(b"a question");
        let sent = asked.clone().dst(backend);
        walk.from("the question", CLIENT, &asked, Routed(sent.clone()));
        let (sent, asked) = (sent.ttl(63), asked.ttl(63));
        let net = if family.is_v4() { 1 } else { 0 };
        let errors = |about: &Packet, by: IpAddr| {
            [
                ("unreachable", unreachable(by, family.client, net, about)),
                ("time exceeded", time_exceeded(by, family.client, about)),
                (
                    "too big",
                    fragmentation_needed(by, family.client, 1400, about),
                ),
            ]
        };
        for (by, heard_by) in [(far.router, far.router), (far.backend, far.service)] {
            let pairs = errors(&sent, by).into_iter().zip(errors(&asked, heard_by));
            for ((says, error), (_, heard)) in pairs {
                walk.net(says, UPLINK, &error, Delivered(CLIENT, heard));
            }
        }
        for source in [family.host, family.web] {
            let error = unreachable(source, family.client, net, &sent);
            walk.net("in our name", UPLINK, &error, Dropped(INVALID_SOURCE));
        }
        walk.end();
    }
}

#[test]
fn who_sends_too_much_for_the_way_is_told() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let far = far(&family);
        let route = format!("route add {} dev {UPLINK} mtu lock 1400", far.backend);
        walk.node().namespace().ip(&route);
        let (service, backend) = (at(far.service, 80), at(far.backend, 8080));
        let header = if family.is_v4() { 28 } else { 48 };
        let of = |length: usize| {
            let packet = packet::udp(at(family.client, 4300), service);
            let packet = packet.payload(&vec![7; length - header]);
            if family.is_v4() {
                packet.dont_fragment()
            } else {
                packet
            }
        };
        let response = |packet: &Packet| {
            let error = fragmentation_needed(family.host, family.client, 1400, packet);
            if family.is_v4() {
                error.quote_at_most(576 - 28).tos(0xc0)
            } else {
                error.quote_at_most(1280 - 48)
            }
        };
        let (fits, big) = (of(1400), of(1401));
        walk.from("a new one", CLIENT, &big, Refused(136, response(&big)));
        for _ in 0..2 {
            walk.from(
                "what fits",
                CLIENT,
                &fits,
                Routed(fits.clone().dst(backend)),
            );
        }
        let reply = packet::udp(backend, at(family.client, 4300)).payload(b"!");
        let heard = Delivered(CLIENT, reply.clone().src(service));
        walk.net("the reply", UPLINK, &reply, heard);
        walk.from(
            "again what fits",
            CLIENT,
            &fits,
            Routed(fits.clone().dst(backend)),
        );
        walk.from(
            "of the connection",
            CLIENT,
            &big,
            Refused(136, response(&big)),
        );
        if family.is_v4() {
            let may = packet::udp(at(family.client, 4300), service).payload(&[7; 1401 - 28]);
            walk.from(
                "the stack cuts it",
                CLIENT,
                &may,
                PassedAs(may.clone().dst(backend)),
            );
        }
        walk.end();
    }
}

#[test]
fn a_packet_that_dies_here_is_told_of_on_both_sides() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let inward = packet::udp(at(family.world, 5), at(family.web, 6)).ttl(1);
        let response = time_exceeded_here(&family, &inward);
        walk.net("from the network", UPLINK, &inward, Refused(196, response));
        let outward = packet::udp(at(family.web, 5), at(family.world, 6)).ttl(1);
        let response = time_exceeded_here(&family, &outward);
        walk.from("for the network", WEB, &outward, Refused(196, response));
        walk.end();
    }
}

#[test]
fn a_workload_reaches_no_neighbour_of_another_link() {
    let mut walk = Walk::new("IPv6", &config());
    let packet = packet::udp("[fd00:200::64]:5", "[fe80::99]:6");
    walk.from("the kernel's to refuse", CLIENT, &packet, Passed);
    walk.end();
}

#[test]
fn where_no_route_leads() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let packet = packet::udp(at(family.web, 5), at(family.world, 6));
        let namespace = walk.node().namespace();
        namespace.ip(&format!("route add blackhole {}", family.world));
        walk.from("a black hole", WEB, &packet, Dropped(169));
        let namespace = walk.node().namespace();
        namespace.ip(&format!("route delete blackhole {}", family.world));
        walk.from("repaired", WEB, &packet, Routed(packet.clone()));
        walk.node().namespace().ip("link delete ens5");
        walk.from(
            "without an uplink: the stack's to say",
            WEB,
            &packet,
            Passed,
        );
        walk.end();
    }
}

/// A cut packet for a workload is refused by name; the rest of a frame's life is the host's.
#[test]
fn a_malformed_packet_for_a_workload_is_refused() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let packet = packet::udp(at(family.world, 5), at(family.web, 6));
        let long = packet.clone().ip_length(2000);
        walk.net("longer than its frame", UPLINK, &long, Dropped(134));
        walk.end();
    }
}

#[test]
fn a_tightened_policy_cuts_what_the_world_began() {
    for family in families() {
        let mut walk = Walk::new(family.name, &config());
        let asked = packet::udp(at(family.world, 5), at(family.web, 6));
        let reply = packet::udp(at(family.web, 6), at(family.world, 5));
        for _ in 0..3 {
            walk.net("a question", UPLINK, &asked, Delivered(WEB, asked.clone()));
            walk.from("a reply", WEB, &reply, Routed(reply.clone()));
        }
        let policy = "[policies.web]\nsubject = \"web\"\ningress = []\n\n[conntrack]";
        walk.reload(&changed(&config(), "[conntrack]", policy));
        walk.from("the reply", WEB, &reply, Dropped(133));
        walk.net("the question", UPLINK, &asked, Dropped(133));
        walk.reload(&config());
        walk.net(
            "allowed again",
            UPLINK,
            &asked,
            Delivered(WEB, asked.clone()),
        );
        walk.end();
    }
}

#[test]
fn every_packet_is_told_where_it_comes_in_and_where_it_leaves() {
    let config = changed(&config(), "\"medium\"", "\"none\"");
    for family in families() {
        let mut walk = Walk::new(family.name, &config);
        let asked = packet::udp(at(family.world, 4000), at(family.web, 9)).payload(b"?");
        let reply_packet = packet::udp(at(family.web, 9), at(family.world, 4000)).payload(b"!");
        for time in ["the first", "the second", "the established"] {
            let there = Delivered(WEB, asked.clone());
            let question = walk.net(&format!("{time} question"), UPLINK, &asked, there);
            let back = Routed(reply_packet.clone());
            let reply = walk.from(&format!("{time} reply"), WEB, &reply_packet, back);
            let events = question.events.iter().chain(&reply.events);
            let seen: Vec<_> = events
                .map(|flow| (flow.point, flow.interface.as_str()))
                .collect();
            let expected = [
                ("from-network", UPLINK),
                ("to-endpoint", WEB),
                ("from-endpoint", WEB),
                ("to-network", UPLINK),
            ];
            walk.check(time, seen == expected, &seen);
        }
        walk.end();
    }
}
