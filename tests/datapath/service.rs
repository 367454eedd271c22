//! Services: translation there and back, the choice of a backend, and the response where there is none.

use crate::common::packet::{self, echo_reply, echo_request};
use crate::lab::*;
use crate::walk::{Expect::*, Walk};

#[test]
fn a_question_goes_through_the_service_and_back() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let (asked, reply) = (family.question(54764), family.reply(54764));
        let at_backend = asked.clone().dst(family.dns);
        let from_service = reply.clone().src(family.dns_service);

        let answer = walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, at_backend.clone()),
        );
        let line =
            "to-endpoint forwarded client -> kube-dns (service kube-dns) by dns-clients/ingress/0";
        walk.reported("the question is reported", &answer, &[line]);
        let answer = walk.from(
            "the reply",
            DNS,
            &reply,
            Delivered(CLIENT, from_service.clone()),
        );
        let line = "to-endpoint forwarded kube-dns -> client reply (service kube-dns) by dns-clients/ingress/0";
        walk.reported("the reply is reported", &answer, &[line]);

        let answer = walk.from(
            "a second question",
            CLIENT,
            &asked,
            Delivered(DNS, at_backend),
        );
        walk.reported("and is one of many", &answer, &[]);
        let answer = walk.from(
            "a second reply",
            DNS,
            &reply,
            Delivered(CLIENT, from_service),
        );
        walk.reported("and is one of many too", &answer, &[]);

        let connections = walk.node().connections();
        walk.check(
            "that is one connection",
            connections.len() == 1,
            &connections,
        );
        for connection in connections {
            walk.check(
                "its client",
                connection.src == at(family.client, 54764),
                connection.src,
            );
            walk.check(
                "its service",
                connection.dst == at(family.dns_service, 53),
                connection.dst,
            );
            walk.check(
                "its backend",
                connection.backend == Some(at(family.dns, 53)),
                connection.backend,
            );
            let identities = (connection.src_identity, connection.dst_identity);
            walk.check("its identities", identities == (20001, 18203), identities);
            let packets = (connection.packets, connection.reply_packets);
            walk.check("its packets", packets == (2, 2), packets);
        }
        walk.end();
    }
}

#[test]
fn the_port_is_rewritten_with_the_address() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let service = at(family.web_service, 80);
        let backend = at(family.web, 8080);

        let syn = family.syn(40000, service).tcp_options(&[2, 4, 5, 0xb4]);
        walk.from(
            "TCP there",
            CLIENT,
            &syn,
            Delivered(WEB, syn.clone().dst(backend)),
        );
        let syn_ack = packet::tcp(backend, at(family.client, 40000))
            .syn()
            .ack()
            .seq(9)
            .ack_number(1001);
        walk.from(
            "TCP back",
            WEB,
            &syn_ack,
            Delivered(CLIENT, syn_ack.clone().src(service)),
        );

        for (says, payload) in [
            ("an odd length", &b"odd"[..]),
            ("no payload", b""),
            ("all ones", &[0xff; 64]),
        ] {
            let asked = packet::udp(at(family.client, 40001), service).payload(payload);
            let reply = packet::udp(backend, at(family.client, 40001)).payload(payload);
            walk.from(
                &format!("UDP there: {says}"),
                CLIENT,
                &asked,
                Delivered(WEB, asked.clone().dst(backend)),
            );
            walk.from(
                &format!("UDP back: {says}"),
                WEB,
                &reply,
                Delivered(CLIENT, reply.clone().src(service)),
            );
        }
        walk.end();
    }
}

#[test]
fn a_udp_sum_of_zero_stays_zero() {
    let [family, _] = families();
    let mut walk = Walk::new(family.name, CONFIG);
    let asked = family.question(50000).no_checksum();
    let reply = family.reply(50000).no_checksum();
    for time in ["first", "second"] {
        let at_backend = asked.clone().dst(family.dns);
        walk.from(
            &format!("the {time} question"),
            CLIENT,
            &asked,
            Delivered(DNS, at_backend),
        );
        let from_service = reply.clone().src(family.dns_service);
        walk.from(
            &format!("the {time} reply"),
            DNS,
            &reply,
            Delivered(CLIENT, from_service),
        );
    }
    walk.end();
}

/// A sum that comes out as zero by translation is sent as ones: zero would say that there is none (RFC 768).
#[test]
fn a_udp_sum_that_becomes_zero_is_sent_as_ones() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let question = |last: u16| family.question(50001).payload(&last.to_be_bytes());
        let becomes_ones = |last: &u16| {
            let at_backend = question(*last).dst(family.dns).build();
            packet::parse(&at_backend).checksum == Some(0xffff)
        };
        let last = (0..=u16::MAX)
            .find(becomes_ones)
            .expect("one value makes the sum zero");
        let asked = question(last);
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        walk.end();
    }
}

/// The CRC of SCTP covers no address, and the port stays.
#[test]
fn sctp_is_translated_without_its_checksum() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let service = at(family.web_service, 3868);
        let init = packet::sctp(at(family.client, 3868), service)
            .payload(&[1, 0, 0, 20])
            .payload(&[7; 16]);
        let reply = packet::sctp(at(family.web, 3868), at(family.client, 3868))
            .tag(7)
            .payload(&[2, 0, 0, 4]);
        walk.from(
            "INIT",
            CLIENT,
            &init,
            Delivered(WEB, init.clone().dst(family.web)),
        );
        walk.from(
            "its answer",
            WEB,
            &reply,
            Delivered(CLIENT, reply.clone().src(family.web_service)),
        );
        walk.end();
    }
}

#[test]
fn what_surrounds_the_addresses_is_kept() {
    let [v4, v6] = families();
    let rows = [
        (v4, "type of service", v4.question(1).tos(0xb8)),
        (
            v4,
            "don't fragment, and the identification",
            v4.question(2).dont_fragment().id(0xbeef),
        ),
        (
            v4,
            "IPv4 options",
            v4.question(3).ip_options(&[7, 7, 4, 0, 0, 0, 0, 1]),
        ),
        (
            v4,
            "Ethernet padding",
            packet::udp(at(v4.client, 4), at(v4.dns_service, 53)).pad(18),
        ),
        (v6, "traffic class", v6.question(1).tos(0xb8)),
        (v6, "flow label", v6.question(2).flow_label(0xabcde)),
    ];
    let mut walk = Walk::new("both", CONFIG);
    for (family, says, asked) in rows {
        walk.from(
            says,
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
    }
    walk.end();
}

#[test]
fn an_echo_to_a_service_address_is_answered_here() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let ping =
            echo_request(family.client, family.dns_service, 77, 1).payload(b"are you there?");
        let pong = echo_reply(family.dns_service, family.client, 77, 1).payload(b"are you there?");
        walk.from("ping", CLIENT, &ping, Answered(pong));
        walk.check(
            "leaves no connection",
            walk.node().connections().is_empty(),
            walk.node().connections(),
        );
        walk.end();
    }
}

#[test]
fn where_nothing_is_served_the_sender_is_told() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let from = at(family.client, 5000);
        let udp = |to, port| packet::udp(from, at(to, port)).payload(b"hello?");
        let syn = |to, port| packet::tcp(from, at(to, port)).syn().seq(4);
        let rows = [
            (
                "a port that the service has not",
                220,
                udp(family.dns_service, 54),
            ),
            (
                "a port that the service has not, by TCP",
                220,
                syn(family.dns_service, 54),
            ),
            (
                "a protocol that the service has not at its port",
                220,
                syn(family.web_service, 3868),
            ),
            (
                "a service whose backends are under maintenance",
                158,
                udp(family.asleep, 80),
            ),
            ("the same by TCP", 158, syn(family.asleep, 80)),
            ("a wrong port of that service", 220, udp(family.asleep, 81)),
        ];
        for (says, reason, asked) in rows {
            let response = port_unreachable(&family, &asked);
            walk.from(says, CLIENT, &asked, Refused(reason, response));
        }
        walk.check(
            "leaves no connection",
            walk.node().connections().is_empty(),
            walk.node().connections(),
        );
        walk.end();
    }
}

/// No error answers an error, nor a fragment that is not the first (RFC 1122 3.2.2, RFC 4443 2.4).
#[test]
fn where_nothing_is_served_not_everybody_is_told() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let long = packet::udp(at(family.client, 5001), at(family.dns_service, 54))
            .id(3)
            .payload(&[1; 100]);
        let first = long.clone().fragment(0, 64);
        let quote = port_unreachable(&family, &first);
        walk.from(
            "a first fragment is answered",
            CLIENT,
            &first,
            Refused(220, quote),
        );
        walk.from(
            "a later one is not",
            CLIENT,
            &long.fragment(64, 108),
            Dropped(220),
        );
        walk.end();
    }
}

#[test]
fn answers_are_limited() {
    let [family, _] = families();
    let node = Walk::new(family.name, CONFIG);
    let asked = packet::udp(at(family.client, 5000), at(family.dns_service, 54));
    let frame = asked
        .macs(
            crate::common::runner::workload_mac(CLIENT),
            crate::common::runner::host_mac(CLIENT),
        )
        .build();
    // A hundred a second are answered; no machine is so slow that it sends fewer.
    let limited = (0..10_000).any(|_| {
        let answer = node.node().from_container(CLIENT, &frame);
        assert_eq!(answer.drops, [220], "a packet is one drop");
        node.node().responses_limited() > 0
    });
    assert!(limited, "ten thousand questions in a row were all answered");
}

#[test]
fn a_backend_that_vanishes_takes_its_connections_along() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let service = at(family.web_service, 80);
        let old = at(family.web, 8080);
        let new = at(family.web_2, 8080);
        let moved = changed(
            &changed(
                CONFIG,
                r#"backends = ["10.200.0.45:8080", "[fd00:200::45]:8080"]

[services.diameter]"#,
                r#"backends = ["10.200.0.46:8080", "[fd00:200::46]:8080"]

[services.diameter]"#,
            ),
            "name = \"node-a\"",
            "name = \"node-b\"",
        );
        let asked = packet::udp(at(family.client, 6000), service).payload(b"again");
        let reply = packet::udp(old, at(family.client, 6000)).payload(b"here");
        let syn = family.syn(6001, service);
        let syn_ack = packet::tcp(old, at(family.client, 6001))
            .syn()
            .ack()
            .seq(50)
            .ack_number(1001);
        let data = packet::tcp(at(family.client, 6001), service)
            .ack()
            .psh()
            .seq(1001)
            .ack_number(51)
            .payload(b"GET /");
        walk.from(
            "UDP before",
            CLIENT,
            &asked,
            Delivered(WEB, asked.clone().dst(old)),
        );
        walk.from(
            "its reply",
            WEB,
            &reply,
            Delivered(CLIENT, reply.clone().src(service)),
        );
        walk.from(
            "SYN before",
            CLIENT,
            &syn,
            Delivered(WEB, syn.clone().dst(old)),
        );
        walk.from(
            "its answer",
            WEB,
            &syn_ack,
            Delivered(CLIENT, syn_ack.clone().src(service)),
        );

        walk.reload(&moved);

        walk.from(
            "UDP gets another backend",
            CLIENT,
            &asked,
            Delivered(WEB_2, asked.clone().dst(new)),
        );
        let reply = packet::udp(new, at(family.client, 6000)).payload(b"here");
        walk.from(
            "and is answered from there",
            WEB_2,
            &reply,
            Delivered(CLIENT, reply.clone().src(service)),
        );
        walk.from(
            "TCP gets a reset at once",
            CLIENT,
            &data,
            Refused(158, reset(&data)),
        );
        let syn = family.syn(6001, service);
        walk.from(
            "and may connect again",
            CLIENT,
            &syn,
            Delivered(WEB_2, syn.clone().dst(new)),
        );
        walk.end();
    }
}

/// The web service's backend is `lxc-web-2` now.
fn moved() -> String {
    changed(
        CONFIG,
        r#"backends = ["10.200.0.45:8080", "[fd00:200::45]:8080"]

[services.diameter]"#,
        r#"backends = ["10.200.0.46:8080", "[fd00:200::46]:8080"]

[services.diameter]"#,
    )
}

/// The same, and `lxc-web-2` has another identity than `lxc-web`.
fn moved_to_intruder() -> String {
    let interface = |identity: &str| {
        format!(
            "[interfaces.lxc-web-2]\nrole = \"endpoint\"\naddresses = [\"10.200.0.46\", \"fd00:200::46\"]\nidentity = \"{identity}\"\n"
        )
    };
    changed(&moved(), &interface("web"), &interface("intruder"))
}

/// A client that went without a word comes back by the same port, before any segment of its old connection was reset.
#[test]
fn a_syn_whose_backend_is_gone_gets_another() {
    for family in families() {
        for is_open in [false, true] {
            let place = format!("{}, replied {is_open}", family.name);
            let mut walk = Walk::new(place, CONFIG);
            let (client, service) = (at(family.client, 6002), at(family.web_service, 80));
            let (old, new) = (at(family.web, 8080), at(family.web_2, 8080));
            let syn = family.syn(6002, service);
            let expect = Delivered(WEB, syn.clone().dst(old));
            walk.from("SYN", CLIENT, &syn, expect);
            if is_open {
                let reply = packet::tcp(old, client).syn().ack();
                let expect = Delivered(CLIENT, reply.clone().src(service));
                walk.from("SYN-ACK", WEB, &reply, expect);
                let ack = packet::tcp(client, service).ack();
                let expect = Delivered(WEB, ack.clone().dst(old));
                walk.from("ACK", CLIENT, &ack, expect);
            }
            walk.reload(&moved());
            let syn = syn.seq(7000);
            let expect = Delivered(WEB_2, syn.clone().dst(new));
            walk.from("a SYN of the same port", CLIENT, &syn, expect);
            let reply = packet::tcp(new, client).syn().ack();
            let expect = Delivered(CLIENT, reply.clone().src(service));
            walk.from("is answered", WEB_2, &reply, expect);
            let connections = walk.node().connections();
            walk.check("one connection", connections.len() == 1, &connections);
            walk.end();
        }
    }
}

/// The backend works on a question while it leaves the file: what it answers is not lost, unless policy says so.
#[test]
fn an_answer_under_way_outlives_its_backend() {
    let denied = "\n[policies.web]\nsubject = \"web\"\ningress = []\n";
    for family in families() {
        for is_allowed in [true, false] {
            let place = format!("{}, allowed {is_allowed}", family.name);
            let mut walk = Walk::new(place, CONFIG);
            let (client, service) = (at(family.client, 6003), at(family.web_service, 80));
            let (old, new) = (at(family.web, 8080), at(family.web_2, 8080));
            let asked = packet::udp(client, service).payload(b"a long one");
            let expect = Delivered(WEB, asked.clone().dst(old));
            walk.from("the question", CLIENT, &asked, expect);
            let answer = packet::udp(old, client).payload(b"at last");
            let heard = Delivered(CLIENT, answer.clone().src(service));
            if !is_allowed {
                walk.reload(&format!("{}{denied}", moved_to_intruder()));
                walk.from("a denied answer", WEB, &answer, Dropped(133));
                walk.from("more of it", WEB, &answer, Dropped(133));
                let expect = Delivered(WEB_2, asked.clone().dst(new));
                walk.from("the next question", CLIENT, &asked, expect);
                let answer = packet::udp(new, client).payload(b"at once");
                let heard = Delivered(CLIENT, answer.clone().src(service));
                walk.from("its answer", WEB_2, &answer, heard);
                walk.end();
                continue;
            }
            walk.reload(&moved());
            walk.from("the answer", WEB, &answer, heard.clone());
            walk.from("more of it", WEB, &answer, heard);
            let expect = Delivered(WEB_2, asked.clone().dst(new));
            walk.from("the next question", CLIENT, &asked, expect);
            let late = Delivered(CLIENT, answer.clone());
            walk.from("later the old one is nobody's answer", WEB, &answer, late);
            walk.end();
        }
    }
}

/// A backend's state, of the two that the web service has: `lxc-web` changes, `lxc-web-2` is active.
pub fn with_state(state: &str) -> String {
    let both = format!(
        r#"backends = [
    {{ address = "10.200.0.45:8080", state = "{state}" }},
    {{ address = "[fd00:200::45]:8080", state = "{state}" }},
    "10.200.0.46:8080",
    "[fd00:200::46]:8080",
]

[services.diameter]"#
    );
    let alone = r#"backends = ["10.200.0.45:8080", "[fd00:200::45]:8080"]

[services.diameter]"#;
    changed(CONFIG, alone, &both)
}

#[test]
fn a_draining_backend_keeps_what_it_has() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let service = at(family.web_service, 80);
        let old = at(family.web, 8080);
        let asked = packet::udp(at(family.client, 6100), service);
        let syn = family.syn(6101, service);
        let syn_ack = packet::tcp(old, at(family.client, 6101)).syn().ack();
        let data = packet::tcp(at(family.client, 6101), service)
            .ack()
            .payload(b"GET /");
        walk.from(
            "UDP before",
            CLIENT,
            &asked,
            Delivered(WEB, asked.clone().dst(old)),
        );
        walk.from(
            "SYN before",
            CLIENT,
            &syn,
            Delivered(WEB, syn.clone().dst(old)),
        );
        walk.from(
            "its answer",
            WEB,
            &syn_ack,
            Delivered(CLIENT, syn_ack.clone().src(service)),
        );

        walk.reload(&with_state("draining"));

        walk.from(
            "UDP stays",
            CLIENT,
            &asked,
            Delivered(WEB, asked.clone().dst(old)),
        );
        walk.from(
            "TCP stays",
            CLIENT,
            &data,
            Delivered(WEB, data.clone().dst(old)),
        );
        for port in 6110..6130 {
            let syn = family.syn(port, service);
            let elsewhere = syn.clone().dst(at(family.web_2, 8080));
            walk.from(
                "nothing new comes to it",
                CLIENT,
                &syn,
                Delivered(WEB_2, elsewhere),
            );
        }
        walk.end();
    }
}

#[test]
fn a_backend_under_maintenance_loses_udp_at_once() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let service = at(family.web_service, 80);
        let (old, new) = (at(family.web, 8080), at(family.web_2, 8080));
        let asked = packet::udp(at(family.client, 6200), service);
        let syn = family.syn(6201, service);
        let syn_ack = packet::tcp(old, at(family.client, 6201)).syn().ack();
        let data = packet::tcp(at(family.client, 6201), service)
            .ack()
            .payload(b"GET /");
        walk.from(
            "UDP before",
            CLIENT,
            &asked,
            Delivered(WEB, asked.clone().dst(old)),
        );
        walk.from(
            "SYN before",
            CLIENT,
            &syn,
            Delivered(WEB, syn.clone().dst(old)),
        );
        walk.from(
            "its answer",
            WEB,
            &syn_ack,
            Delivered(CLIENT, syn_ack.clone().src(service)),
        );

        walk.reload(&with_state("maintenance"));

        walk.from(
            "UDP goes elsewhere",
            CLIENT,
            &asked,
            Delivered(WEB_2, asked.clone().dst(new)),
        );
        walk.from(
            "TCP runs out",
            CLIENT,
            &data,
            Delivered(WEB, data.clone().dst(old)),
        );
        walk.end();
    }
}

#[test]
fn draining_backends_are_chosen_while_none_is_active() {
    for family in families() {
        let all_drain = changed(
            &with_state("draining"),
            r#"    "10.200.0.46:8080",
    "[fd00:200::46]:8080",
"#,
            "",
        );
        let mut walk = Walk::new(family.name, &all_drain);
        let syn = family.syn(6300, at(family.web_service, 80));
        walk.from(
            "SYN",
            CLIENT,
            &syn,
            Delivered(WEB, syn.clone().dst(at(family.web, 8080))),
        );
        walk.end();
    }
}
