//! ICMP: echoes between workloads, errors that belong to a connection, and those that dpd sends itself.

use crate::common::packet::{
    self, Packet, echo_reply, echo_request, fragmentation_needed, parameter_problem, time_exceeded,
    unreachable,
};
use crate::lab::*;
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
