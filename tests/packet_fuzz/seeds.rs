//! Where the fuzzer starts: conversations as they are, and some that somebody forged, in both families.

use std::net::{IpAddr, SocketAddr};

use crate::common::packet::{
    self, Extension, Packet, arp_reply, arp_request, echo_reply, echo_request,
    fragmentation_needed, igmp_report, mld_report, neighbour_advertisement, neighbour_solicitation,
    parameter_problem, router_advertisement, router_solicitation, time_exceeded, unreachable,
};
use crate::common::runner::workload_mac;
use crate::packet::input::{At, Step, Via};
use crate::packet::world::{CLIENT, DENIED, DNS, ENDPOINTS, FRONTENDS, HOST, INTRUDER, WEB};

type Seed = (String, Vec<Step>);

struct Family {
    name: &'static str,
    at: usize,
}

impl Family {
    fn of(&self, endpoint: usize, port: u16) -> SocketAddr {
        socket(ENDPOINTS[endpoint].addresses[self.at], port)
    }

    fn ip(&self, endpoint: usize) -> IpAddr {
        self.of(endpoint, 0).ip()
    }

    fn dns_service(&self) -> SocketAddr {
        socket(FRONTENDS[self.at], 53)
    }

    fn web_service(&self, port: u16) -> SocketAddr {
        socket(FRONTENDS[2 + self.at], port)
    }

    fn world(&self, port: u16) -> SocketAddr {
        socket(["198.51.100.7", "2001:db8:ffff::7"][self.at], port)
    }

    fn host(&self, port: u16) -> SocketAddr {
        socket(HOST[self.at], port)
    }

    fn denied(&self) -> SocketAddr {
        socket(DENIED[self.at].0, 5)
    }
}

fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn from(endpoint: usize, packet: &Packet) -> Step {
    Step::new(At::FromContainer, endpoint, packet.build())
}

fn to(endpoint: usize, packet: &Packet) -> Step {
    Step::new(At::ToContainer, endpoint, packet.build())
}

fn net(packet: &Packet) -> Step {
    Step::new(At::FromNetdev, 0, packet.build())
}

/// The answer to the packet before, as the hook left it.
fn back(at: At, endpoint: usize, changes: &[u8]) -> Step {
    Step {
        is_reversed: true,
        ..Step::new(at, endpoint, changes.to_vec())
    }
}

fn forwarded(step: Step) -> Step {
    Step {
        via: Via::Uplink,
        ..step
    }
}

pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (at, name) in ["ipv4", "ipv6"].into_iter().enumerate() {
        let family = Family { name, at };
        let lists = [
            services(&family),
            streams(&family),
            policy(&family),
            forged(&family),
            errors(&family),
            shapes(&family),
            places(&family),
        ];
        let named = lists.into_iter().flatten();
        seeds.extend(named.map(|(name, steps)| (format!("{}-{name}", family.name), steps)));
    }
    seeds.extend(link().map(|(name, steps)| (name.to_owned(), steps)));
    seeds
}

fn services(family: &Family) -> Vec<(&'static str, Vec<Step>)> {
    let question = packet::udp(family.of(CLIENT, 4000), family.dns_service()).payload(b"who");
    let syn = packet::tcp(family.of(CLIENT, 4000), family.web_service(80)).syn();
    let hairpin = packet::udp(family.of(WEB, 4000), family.web_service(80)).payload(b"me");
    let again = packet::udp(family.of(CLIENT, 4000), family.of(WEB, 8080)).payload(b"direct");
    let through = packet::udp(family.of(CLIENT, 4000), family.web_service(80)).payload(b"service");
    let ping = echo_request(family.of(CLIENT, 0), family.web_service(0), 7, 1).payload(b"ping");
    let closed = packet::udp(family.of(CLIENT, 4000), family.web_service(81)).payload(b"?");
    let refused = packet::tcp(family.of(CLIENT, 4000), family.web_service(81)).syn();
    vec![
        (
            "dns-through-a-service",
            vec![
                from(CLIENT, &question),
                back(At::FromContainer, DNS, &[]),
                from(CLIENT, &question),
            ],
        ),
        (
            "tcp-through-a-service",
            vec![from(CLIENT, &syn), back(At::FromContainer, WEB, &[47, 16])],
        ),
        (
            "hairpin",
            vec![from(WEB, &hairpin), back(At::FromContainer, WEB, &[])],
        ),
        (
            "directly-and-through-a-service",
            vec![
                from(CLIENT, &again),
                from(CLIENT, &through),
                back(At::FromContainer, WEB, &[]),
            ],
        ),
        ("echo-to-a-service", vec![from(CLIENT, &ping)]),
        (
            "no-such-port-of-a-service",
            vec![from(CLIENT, &closed), from(CLIENT, &refused)],
        ),
    ]
}

fn streams(family: &Family) -> Vec<(&'static str, Vec<Step>)> {
    let out = || packet::tcp(family.world(4000), family.of(WEB, 8080));
    let hear = || packet::tcp(family.of(WEB, 8080), family.world(4000));
    let open = || {
        vec![
            net(&out().syn().seq(1000)),
            from(WEB, &hear().syn().ack().seq(5000).ack_number(1001)),
            net(&out().ack().seq(1001).ack_number(5001).payload(&[1; 100])),
        ]
    };
    let then = |packets: Vec<Step>| [open(), packets].concat();
    let syn = packet::tcp(family.of(CLIENT, 5000), family.of(DNS, 53)).syn();
    let reset = packet::tcp(family.of(DNS, 53), family.of(CLIENT, 5000))
        .rst()
        .ack()
        .seq(0);
    let middle = packet::tcp(family.of(WEB, 5000), family.of(CLIENT, 6000))
        .ack()
        .seq(70);
    vec![
        (
            "a-connection-and-its-reset",
            then(vec![
                from(WEB, &hear().rst().seq(5001)),
                net(&out().rst().seq(1101)),
            ]),
        ),
        (
            "a-forged-reset",
            then(vec![
                net(&out().rst().seq(0x8000_0000)),
                net(&out().ack().seq(1101)),
            ]),
        ),
        (
            "both-finish",
            then(vec![
                from(WEB, &hear().fin().ack().seq(5001).ack_number(1101)),
                net(&out().fin().ack().seq(1101).ack_number(5002)),
                net(&out().syn().seq(9000)),
            ]),
        ),
        (
            "a-workload-opens-to-the-world",
            vec![
                from(
                    WEB,
                    &packet::tcp(family.of(WEB, 4000), family.world(443)).syn(),
                ),
                net(&packet::tcp(family.world(443), family.of(WEB, 4000))
                    .syn()
                    .ack()),
            ],
        ),
        (
            "a-refusal",
            vec![from(CLIENT, &syn), from(DNS, &reset), from(CLIENT, &syn)],
        ),
        (
            "taken-up-in-the-middle",
            vec![
                from(WEB, &middle.clone().payload(b"data")),
                back(At::FromContainer, CLIENT, &[]),
                from(WEB, &middle),
            ],
        ),
        (
            "simultaneous-open",
            vec![
                from(
                    WEB,
                    &packet::tcp(family.of(WEB, 1), family.of(CLIENT, 2)).syn(),
                ),
                from(
                    CLIENT,
                    &packet::tcp(family.of(CLIENT, 2), family.of(WEB, 1)).syn(),
                ),
            ],
        ),
    ]
}

/// What may not be, to the protected workload, with what may be around it.
fn policy(family: &Family) -> Vec<(&'static str, Vec<Step>)> {
    let allowed = packet::udp(family.of(CLIENT, 4000), family.of(DNS, 53)).payload(b"who");
    let denied = packet::udp(family.of(INTRUDER, 4000), family.of(DNS, 53)).payload(b"who");
    let answer = packet::udp(family.of(DNS, 53), family.of(INTRUDER, 4000)).payload(b"is");
    let syn = packet::tcp(family.of(INTRUDER, 4000), family.of(DNS, 53)).syn();
    let middle = packet::tcp(family.of(DNS, 53), family.of(INTRUDER, 4000))
        .syn()
        .ack();
    let service = packet::udp(family.of(INTRUDER, 4000), family.dns_service()).payload(b"who");
    let world = packet::udp(family.world(4000), family.of(DNS, 53)).payload(b"who");
    let notify = packet::udp(family.of(DNS, 700), family.of(CLIENT, 9)).payload(b"new");
    let ping = echo_request(family.of(INTRUDER, 0), family.of(DNS, 0), 7, 1);
    vec![
        (
            "the-intruder-beside-the-client",
            vec![
                from(CLIENT, &allowed),
                from(INTRUDER, &denied),
                from(DNS, &answer),
            ],
        ),
        (
            "the-intruder-by-tcp",
            vec![from(DNS, &middle), from(INTRUDER, &syn), from(DNS, &middle)],
        ),
        (
            "the-intruder-by-the-service",
            vec![from(INTRUDER, &service), from(INTRUDER, &service)],
        ),
        ("the-intruder-by-echo", vec![from(INTRUDER, &ping)]),
        ("the-world", vec![net(&world), forwarded(to(DNS, &world))]),
        (
            "what-it-may-send",
            vec![
                from(DNS, &notify),
                back(At::FromContainer, CLIENT, &[]),
                from(DNS, &answer),
            ],
        ),
    ]
}

fn forged(family: &Family) -> Vec<(&'static str, Vec<Step>)> {
    let allowed = packet::udp(family.of(CLIENT, 4000), family.of(DNS, 53)).payload(b"who");
    let to_itself = packet::tcp(family.of(CLIENT, 80), family.of(CLIENT, 80)).syn();
    let as_service = packet::udp(family.dns_service(), family.of(CLIENT, 4000)).payload(b"is");
    let as_host = packet::udp(family.host(4000), family.of(DNS, 53)).payload(b"who");
    vec![
        (
            "as-the-client",
            vec![
                from(CLIENT, &allowed),
                from(INTRUDER, &allowed),
                net(&allowed),
                to(DNS, &allowed),
            ],
        ),
        ("to-itself", vec![from(CLIENT, &to_itself)]),
        (
            "as-a-service",
            vec![
                net(&as_service),
                to(CLIENT, &as_service),
                from(WEB, &as_service),
            ],
        ),
        (
            "as-the-host",
            vec![
                from(WEB, &as_host),
                net(&as_host),
                forwarded(to(DNS, &as_host)),
                to(DNS, &as_host),
            ],
        ),
        (
            "a-denied-source",
            vec![
                Step::new(
                    At::Xdp,
                    0,
                    packet::udp(family.denied(), family.of(WEB, 8080)).build(),
                ),
                Step::new(
                    At::Xdp,
                    0,
                    packet::udp(family.denied(), family.host(1)).vlan(0).build(),
                ),
                Step::new(
                    At::Xdp,
                    0,
                    packet::udp(family.world(1), family.denied()).build(),
                ),
            ],
        ),
    ]
}

fn errors(family: &Family) -> Vec<(&'static str, Vec<Step>)> {
    let port_unreachable = [3, 4][family.at];
    let asked = packet::udp(family.of(CLIENT, 4000), family.dns_service()).payload(b"who");
    let arrived = asked.clone().dst(family.of(DNS, 53));
    let unasked = packet::udp(family.of(DNS, 53), family.of(INTRUDER, 4000));
    let out = packet::udp(family.of(WEB, 4000), family.world(33434)).payload(&[0; 40]);
    let error =
        |from: IpAddr, to: IpAddr, about: &Packet| unreachable(from, to, port_unreachable, about);
    let (client, dns, intruder) = (family.ip(CLIENT), family.ip(DNS), family.ip(INTRUDER));
    let router = family.world(0).ip();
    let web = family.ip(WEB);
    vec![
        (
            "port-unreachable",
            vec![
                from(CLIENT, &asked),
                from(DNS, &error(dns, client, &arrived)),
            ],
        ),
        (
            "an-error-from-the-way",
            vec![
                from(WEB, &out),
                net(&time_exceeded(router, web, &out)),
                net(&fragmentation_needed(router, web, 1400, &out)),
                net(&parameter_problem(router, web, 1, &out)),
            ],
        ),
        (
            "a-forged-error",
            vec![
                from(CLIENT, &asked),
                from(INTRUDER, &error(intruder, client, &arrived)),
                net(&error(router, client, &arrived)),
                from(INTRUDER, &error(intruder, dns, &unasked)),
            ],
        ),
        (
            "a-ttl-ends",
            vec![
                from(CLIENT, &asked.clone().ttl(1)),
                from(WEB, &out.clone().ttl(1)),
            ],
        ),
        (
            "echo",
            vec![
                from(WEB, &echo_request(web, router, 7, 1).payload(b"ping")),
                net(&echo_reply(router, web, 7, 1).payload(b"ping")),
                net(&echo_request(router, web, 8, 1)),
                from(WEB, &echo_reply(web, router, 8, 1)),
            ],
        ),
    ]
}

fn shapes(family: &Family) -> Vec<(&'static str, Vec<Step>)> {
    let big = packet::udp(family.of(CLIENT, 4000), family.dns_service())
        .payload(&[7; 64])
        .id(9);
    let out = packet::udp(family.of(WEB, 4000), family.world(53))
        .payload(&[7; 64])
        .id(9);
    let data = packet::tcp(family.of(WEB, 4000), family.world(443))
        .ack()
        .payload(&[7; 1400]);
    let merged = |packet: &Packet, size| Step {
        merged: Some((2, size)),
        ..from(WEB, packet)
    };
    let scattered = |step: Step| Step {
        is_scattered: true,
        ..step
    };
    let (first, rest) = (big.clone().fragment(0, 32), big.clone().fragment(32, 72));
    let mut shapes = vec![
        ("fragments", vec![from(CLIENT, &first), from(CLIENT, &rest)]),
        (
            "a-fragment-without-its-first",
            vec![from(CLIENT, &rest), from(CLIENT, &first)],
        ),
        (
            "fragments-to-the-world",
            vec![
                from(WEB, &out.clone().fragment(0, 32)),
                from(WEB, &out.clone().fragment(32, 72)),
            ],
        ),
        (
            "fragments-of-the-intruder",
            vec![
                from(
                    INTRUDER,
                    &first
                        .clone()
                        .src(family.of(INTRUDER, 4000))
                        .dst(family.of(DNS, 53)),
                ),
                from(
                    INTRUDER,
                    &rest
                        .clone()
                        .src(family.of(INTRUDER, 4000))
                        .dst(family.of(DNS, 53)),
                ),
            ],
        ),
        ("segments", vec![merged(&data, 700), merged(&data, 0)]),
        (
            "large",
            vec![
                Step {
                    padding: 2048,
                    ..from(WEB, &data)
                },
                Step {
                    padding: 9024,
                    ..Step::new(At::Xdp, 0, data.build())
                },
            ],
        ),
        (
            "scattered",
            vec![scattered(from(CLIENT, &big)), scattered(from(WEB, &data))],
        ),
        (
            "vlan",
            vec![
                from(CLIENT, &big.clone().vlan(0)),
                from(CLIENT, &big.clone().vlan(5)),
                net(&packet::udp(family.world(1), family.of(WEB, 2)).vlan(0)),
                to(
                    DNS,
                    &packet::udp(family.world(1), family.of(DNS, 2)).vlan(0),
                ),
            ],
        ),
        (
            "cut-short",
            vec![
                from(CLIENT, &big.clone().truncate(38)),
                from(CLIENT, &big.clone().ip_length(9000)),
                from(
                    CLIENT,
                    &packet::tcp(family.of(CLIENT, 1), family.of(WEB, 2)).data_offset(15),
                ),
            ],
        ),
    ];
    if family.at == 1 {
        shapes.push((
            "extension-headers",
            vec![
                from(CLIENT, &big.clone().extension(Extension::HopByHop)),
                from(CLIENT, &big.clone().extension(Extension::Destination(3))),
                from(CLIENT, &big.clone().extension(Extension::Routing(4))),
                from(
                    CLIENT,
                    &big.extension(Extension::Fragment {
                        offset: 0,
                        more: false,
                        id: 3,
                    }),
                ),
            ],
        ));
    } else {
        shapes.push((
            "options",
            vec![
                from(CLIENT, &big.clone().ip_options(&[1, 1, 1, 0])),
                from(CLIENT, &big.ip_options(&[131, 7, 4, 10, 200, 0, 99, 0])),
            ],
        ));
    }
    shapes
}

/// Other protocols, and other ways.
fn places(family: &Family) -> Vec<(&'static str, Vec<Step>)> {
    let (web, dns, world) = (family.of(WEB, 8080), family.of(DNS, 53), family.world(4000));
    let of_host = packet::udp(family.host(4000), dns).payload(b"host");
    let marked = |step| Step {
        is_marked: true,
        ..step
    };
    let by_host = |from, packet: &Packet| Step {
        via: Via::Endpoint(from),
        ..to(WEB, packet)
    };
    let away = packet::udp(web, world).payload(b"out");
    vec![
        (
            "the-host",
            vec![to(DNS, &of_host), back(At::FromContainer, DNS, &[])],
        ),
        (
            "the-host-forwards",
            vec![
                forwarded(to(WEB, &packet::udp(world, web).payload(b"in"))),
                from(WEB, &away),
                marked(to(DNS, &of_host)),
                marked(forwarded(to(DNS, &of_host))),
                Step::new(At::ToNetdev, 0, away.build()),
            ],
        ),
        (
            "by-a-published-port",
            vec![
                by_host(WEB, &packet::tcp(family.of(WEB, 80), web).syn()),
                back(At::FromContainer, WEB, &[]),
                by_host(WEB, &packet::tcp(web, web).syn()),
                by_host(CLIENT, &packet::tcp(family.of(CLIENT, 80), web).syn()),
            ],
        ),
        (
            "sctp",
            vec![
                from(
                    CLIENT,
                    &packet::sctp(family.of(CLIENT, 4000), web).payload(&[1, 0, 0, 20]),
                ),
                back(At::FromContainer, WEB, &[]),
            ],
        ),
        (
            "other-protocols",
            vec![
                from(CLIENT, &packet::gre(family.ip(CLIENT), web.ip())),
                from(
                    CLIENT,
                    &packet::raw(family.ip(CLIENT), web.ip(), 99).payload(b"99"),
                ),
                from(
                    INTRUDER,
                    &packet::raw(family.ip(INTRUDER), dns.ip(), 99).payload(b"99"),
                ),
                from(
                    CLIENT,
                    &packet::udp(family.of(CLIENT, 1), socket(&web.ip().to_string(), 8472)),
                ),
            ],
        ),
    ]
}

/// What is of the link alone.
fn link() -> impl Iterator<Item = (&'static str, Vec<Step>)> {
    let mac = workload_mac(ENDPOINTS[CLIENT].interface);
    let [v4, v6] = ENDPOINTS[CLIENT].addresses;
    let dhcp = packet::udp("0.0.0.0:68", "255.255.255.255:67").payload(&[1; 64]);
    let lists = vec![
        (
            "arp",
            vec![
                from(CLIENT, &arp_request(mac, v4, "10.200.0.1")),
                from(CLIENT, &arp_reply(mac, v4, mac, "10.200.0.1")),
                from(CLIENT, &arp_request(mac, v4, v4)),
                from(CLIENT, &arp_request(mac, "10.200.0.99", "10.200.0.1")),
            ],
        ),
        (
            "neighbour-discovery",
            vec![
                from(CLIENT, &neighbour_solicitation(mac, v6, "fe80::1")),
                from(CLIENT, &neighbour_solicitation(mac, "::", v6)),
                from(
                    CLIENT,
                    &neighbour_advertisement(v6, "fe80::1", 0x60, v6, mac),
                ),
                from(CLIENT, &router_solicitation(mac, "fe80::64")),
                from(CLIENT, &router_advertisement("fe80::64")),
                to(
                    CLIENT,
                    &neighbour_advertisement("fe80::1", v6, 0x60, "fe80::1", mac),
                ),
            ],
        ),
        (
            "groups",
            vec![
                from(CLIENT, &igmp_report(v4, 4, "239.1.2.3")),
                from(CLIENT, &mld_report("fe80::64", "ff05::2")),
                from(
                    CLIENT,
                    &packet::udp((v4.parse().unwrap(), 1), "239.1.2.3:2"),
                ),
            ],
        ),
        (
            "dhcp",
            vec![
                from(CLIENT, &dhcp),
                from(
                    CLIENT,
                    &packet::udp("[fe80::64]:546", "[ff02::1:2]:547").payload(&[1; 9]),
                ),
            ],
        ),
        (
            "other-ethertypes",
            vec![
                from(CLIENT, &dhcp.clone().ethertype(0x88cc)),
                from(CLIENT, &dhcp.clone().ethertype(60)),
                net(&dhcp.ethertype(0x88cc)),
            ],
        ),
    ];
    lists.into_iter()
}
