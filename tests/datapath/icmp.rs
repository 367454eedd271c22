//! ICMP: echoes between workloads, errors that belong to a connection, and those that dpd sends itself.

use crate::common::packet::{
    self, Packet, echo_reply, echo_request, fragmentation_needed, parameter_problem, time_exceeded,
    unreachable,
};
use crate::lab::*;
use crate::uplink;
use crate::walk::{Expect::*, Walk};

/// An ICMP message that no connection stands behind.
const UNRELATED: u8 = 231;

#[test]
fn workloads_ping_each_other() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        for seq in 1..=3 {
            let ping = echo_request(family.client, family.web, 77, seq).payload(b"ping");
            let pong = echo_reply(family.web, family.client, 77, seq).payload(b"ping");
            walk.from(
                &format!("ping {seq}"),
                CLIENT,
                &ping,
                Delivered(WEB, ping.clone()),
            );
            walk.from(
                &format!("pong {seq}"),
                WEB,
                &pong,
                Delivered(CLIENT, pong.clone()),
            );
        }
        let connections = walk.node().connections();
        walk.check("one conversation", connections.len() == 1, &connections);
        walk.end();
    }
}

#[test]
fn a_reply_that_nobody_asked_for_is_a_connection_of_its_own() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let pong = echo_reply(family.intruder, family.dns, 77, 1);
        walk.from("to the protected", INTRUDER, &pong, Dropped(133));
        walk.end();
    }
}

/// Errors of every kind about one packet, from one address to another.
fn errors(
    family: &Family,
    src: std::net::IpAddr,
    dst: std::net::IpAddr,
    about: &Packet,
) -> Vec<(&'static str, Packet)> {
    let net = if family.is_v4() { 1 } else { 0 };
    vec![
        ("unreachable", unreachable(src, dst, net, about)),
        (
            "port unreachable",
            unreachable(src, dst, family.port_unreachable, about),
        ),
        ("time exceeded", time_exceeded(src, dst, about)),
        ("too big", fragmentation_needed(src, dst, 1400, about)),
        ("a parameter problem", parameter_problem(src, dst, 8, about)),
    ]
}

/// With the wholly quoted packet and with the least that a router quotes, whose checksum no longer covers what is there.
fn both_quotes(error: Packet) -> [Packet; 2] {
    [error.clone(), error.quote_at_most(1000)]
}

#[test]
fn an_error_about_the_question_reaches_the_client_as_about_its_own() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked =
            packet::udp(at(family.client, 5000), at(family.web_service, 80)).payload(b"a question");
        let at_backend = asked.clone().dst(at(family.web, 8080)).ttl(63);
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(WEB, asked.clone().dst(at(family.web, 8080))),
        );
        let sent = errors(&family, family.web, family.client, &at_backend);
        let heard = errors(
            &family,
            family.web_service,
            family.client,
            &asked.clone().ttl(63),
        );
        for ((says, sent), (_, heard)) in sent.into_iter().zip(heard) {
            for (sent, heard) in both_quotes(sent).into_iter().zip(both_quotes(heard)) {
                walk.from(says, WEB, &sent, Delivered(CLIENT, heard));
            }
        }
        walk.end();
    }
}

#[test]
fn an_error_about_the_reply_reaches_the_backend_as_about_its_own() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let service = at(family.web_service, 80);
        let (client, backend) = (at(family.client, 5001), at(family.web, 8080));
        let syn = family.syn(5001, service);
        let reply = packet::tcp(backend, client)
            .syn()
            .ack()
            .seq(9)
            .payload(b"early");
        let heard = reply.clone().src(service).ttl(63);
        walk.from(
            "SYN",
            CLIENT,
            &syn,
            Delivered(WEB, syn.clone().dst(backend)),
        );
        walk.from(
            "the reply",
            WEB,
            &reply,
            Delivered(CLIENT, reply.clone().src(service)),
        );
        let sent = errors(&family, family.client, family.web_service, &heard);
        let wanted = errors(&family, family.client, family.web, &reply.clone().ttl(63));
        for ((says, sent), (_, wanted)) in sent.into_iter().zip(wanted) {
            for (sent, wanted) in both_quotes(sent).into_iter().zip(both_quotes(wanted)) {
                walk.from(says, CLIENT, &sent, Delivered(WEB, wanted));
            }
        }
        walk.end();
    }
}

#[test]
fn an_error_passes_with_the_connection_that_it_is_about() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = family.question(5002);
        let at_backend = asked.clone().dst(family.dns).ttl(63);
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        let reply = family.reply(5002);
        walk.from(
            "the reply",
            DNS,
            &reply,
            Delivered(CLIENT, reply.clone().src(family.dns_service)),
        );
        // Nobody may send ICMP to the server; errors about its own packets reach it nevertheless.
        let heard = reply.clone().src(family.dns_service).ttl(63);
        let error = unreachable(
            family.client,
            family.dns_service,
            family.port_unreachable,
            &heard,
        );
        let wanted = unreachable(
            family.client,
            family.dns,
            family.port_unreachable,
            &reply.clone().ttl(63),
        );
        walk.from("the client is gone", CLIENT, &error, Delivered(DNS, wanted));

        let error = unreachable(
            family.dns,
            family.client,
            family.port_unreachable,
            &at_backend,
        );
        let wanted = unreachable(
            family.dns_service,
            family.client,
            family.port_unreachable,
            &asked.ttl(63),
        );
        walk.from("the server is gone", DNS, &error, Delivered(CLIENT, wanted));
        walk.end();
    }
}

#[test]
fn an_echo_is_a_connection_that_errors_belong_to() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let ping = echo_request(family.client, family.web, 78, 1).payload(b"ping");
        walk.from("ping", CLIENT, &ping, Delivered(WEB, ping.clone()));
        let error = time_exceeded(family.web, family.client, &ping.clone().ttl(63));
        walk.from(
            "an error about it",
            WEB,
            &error,
            Delivered(CLIENT, error.clone()),
        );
        walk.end();
    }
}

/// Who may send ICMP may send errors too; what they quote earns them nothing.
#[test]
fn an_error_about_nothing_is_dropped_whatever_policy_allows() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let never_sent = packet::udp(at(family.client, 5999), at(family.web, 8080));
        let cut = unreachable(family.web, family.client, 0, &never_sent).quote_at_most(10);
        walk.from("a quote that is too short", WEB, &cut, Dropped(UNRELATED));
        for (says, error) in errors(&family, family.web, family.client, &never_sent) {
            walk.from(says, WEB, &error, Dropped(UNRELATED));
        }
        let never_sent = packet::udp(at(family.dns, 53), at(family.intruder, 9));
        for (says, error) in errors(&family, family.intruder, family.dns, &never_sent) {
            walk.from(
                &format!("{says}, to the protected"),
                INTRUDER,
                &error,
                Dropped(UNRELATED),
            );
        }
        walk.end();
    }
}

/// A connection speaks only for errors that come from its own two sides.
#[test]
fn an_error_about_anothers_flow_is_dropped() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = family.question(5004);
        let at_backend = asked.clone().dst(family.dns);
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, at_backend.clone()),
        );
        let reply = family.reply(5004);
        let heard = reply.clone().src(family.dns_service);
        walk.from("the reply", DNS, &reply, Delivered(CLIENT, heard.clone()));
        let about = reply.ttl(63);
        let error = fragmentation_needed(family.intruder, family.dns, 1280, &about);
        walk.from(
            "an intruder about the reply",
            INTRUDER,
            &error,
            Dropped(UNRELATED),
        );
        for (says, error) in errors(&family, family.intruder, family.client, &at_backend) {
            let says = format!("{says}, an intruder about the question");
            walk.from(&says, INTRUDER, &error, Dropped(UNRELATED));
        }
        walk.end();
    }
}

/// A TCP connection of the client to the far service, of which two segments are not acknowledged: 1101 to 1301.
struct FarStream {
    family: Family,
    router: std::net::IpAddr,
    sent: Packet,
    at_backend: Packet,
    replied: Packet,
    heard: Packet,
}

impl FarStream {
    fn open(walk: &mut Walk, family: Family) -> FarStream {
        let far = uplink::far(&family);
        let (client, service, backend) = (
            at(family.client, 5007),
            at(far.service, 80),
            at(far.backend, 8080),
        );
        let stream = FarStream {
            family,
            router: far.router,
            sent: packet::tcp(client, service),
            at_backend: packet::tcp(client, backend),
            replied: packet::tcp(backend, client),
            heard: packet::tcp(service, client),
        };
        stream.send(walk, "SYN", |tcp| tcp.syn().seq(1000));
        stream.hear(walk, "SYN-ACK", |tcp| {
            tcp.syn().ack().seq(5000).ack_number(1001)
        });
        let data = |seq| move |tcp: Packet| tcp.ack().seq(seq).ack_number(5001).payload(&[1; 100]);
        stream.send(walk, "data", data(1001));
        let back = |tcp: Packet| tcp.ack().seq(5001).ack_number(1101);
        stream.hear(walk, "data back", |tcp| back(tcp).payload(&[2; 50]));
        stream.send(walk, "more", data(1101));
        stream.send(walk, "and more", data(1201));
        stream
    }

    fn send(&self, walk: &mut Walk, says: &str, segment: impl Fn(Packet) -> Packet) {
        let expect = Routed(segment(self.at_backend.clone()));
        walk.from(says, CLIENT, &segment(self.sent.clone()), expect);
    }

    fn hear(&self, walk: &mut Walk, says: &str, segment: impl Fn(Packet) -> Packet) {
        let expect = Delivered(CLIENT, segment(self.heard.clone()));
        walk.net(says, uplink::UPLINK, &segment(self.replied.clone()), expect);
    }

    /// Errors of a router about a segment of the client, and whether they reach it.
    fn errors_about(&self, walk: &mut Walk, says: &str, seq: u32, is_believed: bool) {
        let quoted = |packet: &Packet| packet.clone().ack().seq(seq).ack_number(5001).ttl(63);
        let client = self.family.client;
        let sent = errors(&self.family, self.router, client, &quoted(&self.at_backend));
        let heard = errors(&self.family, self.router, client, &quoted(&self.sent));
        for ((kind, sent), (_, heard)) in sent.into_iter().zip(heard) {
            let expect = match is_believed {
                true => Delivered(CLIENT, heard),
                false => Dropped(UNRELATED),
            };
            walk.net(&format!("{kind}, {says}"), uplink::UPLINK, &sent, expect);
        }
    }
}

/// Who can't see the segments of a connection can't name one that its sender still waits for (RFC 5927, 4.1).
#[test]
fn an_error_about_a_segment_names_one_under_way() {
    let rows = [
        ("the first that is not acknowledged", 1101, true),
        ("the next", 1201, true),
        ("at the end, as an acknowledgement alone", 1301, true),
        ("acknowledged", 1100, false),
        ("long acknowledged", 1001, false),
        ("not sent yet", 1302, false),
        ("a guess", 0x8000_0000, false),
        ("zero", 0, false),
    ];
    for family in families() {
        for (says, seq, is_believed) in rows {
            let mut walk = Walk::new(family.name, &uplink::config());
            let stream = FarStream::open(&mut walk, family);
            stream.errors_about(&mut walk, says, seq, is_believed);
            walk.end();
        }
    }
}

#[test]
fn an_error_about_a_syn_names_its_number() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let (service, backend) = (at(family.web_service, 80), at(family.web, 8080));
        let syn = family.syn(5008, service);
        let expect = Delivered(WEB, syn.clone().dst(backend));
        walk.from("SYN", CLIENT, &syn, expect);
        let about = |seq, dst: std::net::SocketAddr| {
            let about = syn.clone().seq(seq).dst(dst).ttl(63);
            unreachable(dst.ip(), family.client, family.port_unreachable, &about)
        };
        let guess = about(77, backend);
        walk.from("a guess", WEB, &guess, Dropped(UNRELATED));
        let expect = Delivered(CLIENT, about(1000, service));
        walk.from("the SYN", WEB, &about(1000, backend), expect);
        walk.end();
    }
}

/// Nothing beyond the host sees a packet between two workloads: an error about one from there is guessed.
#[test]
fn an_error_about_workloads_does_not_come_from_outside() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = packet::udp(at(family.client, 5005), at(family.dns, 53));
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone()),
        );
        let reply = packet::udp(at(family.dns, 53), at(family.client, 5005));
        walk.from("the reply", DNS, &reply, Delivered(CLIENT, reply.clone()));
        for (says, error) in errors(&family, family.world, family.dns, &reply) {
            walk.to(says, DNS, &error, Dropped(UNRELATED));
        }
        walk.end();
    }
}

/// Everything but an echo is somebody's error, or nobody's business: it opens no flow, though a rule names ICMP.
#[test]
fn nothing_but_an_echo_opens_a_flow() {
    for family in families() {
        let rule = format!(
            "\n[policies.web]\nsubject = \"web\"\ningress = [{{ from = [\"client\"], ports = [\"{}\"] }}]\n",
            family.icmp
        );
        let mut walk = Walk::new(family.name, &format!("{CONFIG}{rule}"));
        let kinds: &[(&str, u8)] = match family.is_v4() {
            true => &[
                ("source quench", 4),
                ("redirect", 5),
                ("router advertisement", 9),
                ("timestamp", 13),
                ("timestamp reply", 14),
                ("information", 15),
                ("mask", 17),
                ("an unknown one", 200),
            ],
            false => &[
                ("router renumbering", 138),
                ("node information", 139),
                ("its reply", 140),
                ("home agent", 144),
                ("an unknown error", 100),
                ("an unknown one", 200),
            ],
        };
        for (says, kind) in kinds {
            for (from, src, dst) in [
                (CLIENT, family.client, family.web),
                (WEB, family.web, family.client),
            ] {
                let message = packet::icmp(src, dst, *kind, 0, [0, 7, 0, 1]).payload(&[0; 12]);
                walk.from(says, from, &message, Dropped(UNRELATED));
            }
        }
        let connections = walk.node().connections();
        walk.check("no flow", connections.is_empty(), &connections);
        let ping = echo_request(family.client, family.web, 7, 1);
        walk.from("an echo", CLIENT, &ping, Delivered(WEB, ping.clone()));
        walk.end();
    }
}

/// A redirect quotes a packet too, but it is no error about it: nobody but a router may send one.
#[test]
fn a_redirect_belongs_to_no_connection() {
    let [family, _] = families();
    let mut walk = Walk::new(family.name, CONFIG);
    let asked = packet::udp(at(family.client, 5006), at(family.dns, 53));
    walk.from(
        "the question",
        CLIENT,
        &asked,
        Delivered(DNS, asked.clone()),
    );
    let reply = packet::udp(at(family.dns, 53), at(family.client, 5006));
    walk.from("the reply", DNS, &reply, Delivered(CLIENT, reply.clone()));
    let redirect = packet::icmp(family.client, family.dns, 5, 1, [10, 200, 0, 64])
        .payload(&reply.ip_bytes()[..28]);
    walk.from(
        "from the client to the protected",
        CLIENT,
        &redirect,
        Dropped(UNRELATED),
    );
    walk.end();
}

#[test]
fn an_error_comes_from_who_says_so() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = family.question(5003);
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        let error = unreachable(
            family.dns,
            family.client,
            family.port_unreachable,
            &asked.clone().dst(family.dns),
        );
        walk.from(
            "another in the server's name",
            INTRUDER,
            &error,
            Dropped(132),
        );
        walk.end();
    }
}

#[test]
fn a_packet_that_dies_here_is_answered() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let udp = packet::udp(at(family.client, 33434), at(family.web, 33434)).payload(b"how far?");
        let cases = [
            ("UDP", udp.clone()),
            ("TCP", family.syn(33434, at(family.web, 80))),
            (
                "ping",
                echo_request(family.client, family.web, 1, 1).payload(b"how far?"),
            ),
        ];
        for (says, packet) in cases {
            let dying = packet.clone().ttl(1);
            walk.from(
                says,
                CLIENT,
                &dying,
                Refused(196, time_exceeded_here(&family, &dying)),
            );
            let living = packet.ttl(2);
            walk.from(
                &format!("{says} with one hop more"),
                CLIENT,
                &living,
                Delivered(WEB, living.clone()),
            );
        }
        walk.end();
    }
}

/// The established path knows of it too: a traceroute along a connection that runs.
#[test]
fn a_packet_of_a_connection_dies_here_too() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let (asked, reply) = (family.question(5100), family.reply(5100));
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        walk.from(
            "the reply",
            DNS,
            &reply,
            Delivered(CLIENT, reply.clone().src(family.dns_service)),
        );
        let dying = asked.clone().ttl(1);
        // What is quoted is what the client sent, not what it became.
        walk.from(
            "a dying question",
            CLIENT,
            &dying,
            Refused(196, time_exceeded_here(&family, &dying)),
        );
        let dying = reply.ttl(1);
        walk.from(
            "a dying reply",
            DNS,
            &dying,
            Refused(196, time_exceeded_here(&family, &dying)),
        );
        walk.end();
    }
}

/// An error that dies is not answered by another.
#[test]
fn a_dying_error_is_dropped_in_silence() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = family.question(5200);
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        let about = asked.clone().dst(family.dns).ttl(63);
        let error = unreachable(family.dns, family.client, family.port_unreachable, &about).ttl(1);
        walk.from("a dying error", DNS, &error, Dropped(196));
        walk.end();
    }
}

/// Who says it may be neither of the connection's parties.
#[test]
fn an_error_is_reported_as_its_senders() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = packet::udp(at(family.client, 5), at(family.web, 9));
        walk.from("a question", CLIENT, &asked, Delivered(WEB, asked.clone()));
        let heard = unreachable(family.host, family.client, 0, &asked);
        walk.reload(&CONFIG.replace("aggregation = \"medium\"", "aggregation = \"low\""));
        let answer = walk.to("the host's error", CLIENT, &heard, Passed);
        walk.reported(
            "it",
            &answer,
            &["to-endpoint forwarded host -> client reply"],
        );
        walk.end();
    }
}
