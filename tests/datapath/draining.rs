//! Backends that drain or have left the file: which connections they keep, and how these end.

use std::net::SocketAddr;

use crate::common::packet::{self, Packet};
use crate::lab::*;
use crate::uplink::{UPLINK, config as uplink_config, far};
use crate::walk::Expect::{self, *};
use crate::walk::Walk;

const NO_BACKEND: u8 = 158;

const WEB_BACKENDS: &str = r#"backends = ["10.200.0.45:8080", "[fd00:200::45]:8080"]

[services.diameter]"#;

/// `lxc-web-2` is a backend of the web service; `lxc-web` in this state, unless it is not in the file.
fn config(of_web: Option<&str>, timeout: &str) -> String {
    let web = of_web.map_or_else(String::new, |state| {
        let row = |address: &str| format!("{{ address = \"{address}\", state = \"{state}\" }}, ");
        row("10.200.0.45:8080") + &row("[fd00:200::45]:8080")
    });
    let backends = format!(
        "backends = [{web}\"10.200.0.46:8080\", \"[fd00:200::46]:8080\"]\ndrain_timeout = \"{timeout}\"\n\n\
         [services.diameter]"
    );
    changed(CONFIG, WEB_BACKENDS, &backends)
}

/// TCP between a client and the backend that it has by a frontend.
#[derive(Clone, Copy)]
struct Stream {
    client: SocketAddr,
    frontend: SocketAddr,
    backend: SocketAddr,
}

impl Stream {
    fn out(&self) -> Packet {
        packet::tcp(self.client, self.frontend)
            .ack()
            .seq(1001)
            .ack_number(51)
    }

    fn back(&self) -> Packet {
        packet::tcp(self.backend, self.client)
            .ack()
            .seq(51)
            .ack_number(1001)
    }

    fn is_at_client(&self, packet: &Packet) -> Packet {
        packet.clone().src(self.frontend)
    }

    fn is_at_backend(&self, packet: &Packet) -> Packet {
        packet.clone().dst(self.backend)
    }

    /// What the client gets in the place of data.
    fn reset(&self, seq: u32) -> Packet {
        packet::tcp(self.frontend, self.client)
            .rst()
            .ack()
            .seq(seq)
            .ack_number(1001)
            .window(0)
            .dont_fragment()
    }

    fn open(&self, walk: &mut Walk) {
        let syn = packet::tcp(self.client, self.frontend).syn().seq(1000);
        let there = Delivered(WEB, self.is_at_backend(&syn));
        walk.from("SYN", CLIENT, &syn, there);
        let syn_ack = self.back().syn().seq(50);
        let there = Delivered(CLIENT, self.is_at_client(&syn_ack));
        walk.from("SYN, ACK", WEB, &syn_ack, there);
        let there = Delivered(WEB, self.is_at_backend(&self.out()));
        walk.from("ACK", CLIENT, &self.out(), there);
    }
}

/// A walk with three streams and a UDP flow to `lxc-web`.
fn opened(family: &Family) -> (Walk, [Stream; 3], Packet) {
    let mut walk = Walk::new(family.name, &config(Some("active"), "1h"));
    walk.reload(&changed(CONFIG, "name = \"node-a\"", "name = \"node-b\""));
    let frontend = at(family.web_service, 80);
    let backend = at(family.web, 8080);
    let streams = [6001, 6002, 6003].map(|port| Stream {
        client: at(family.client, port),
        frontend,
        backend,
    });
    streams.iter().for_each(|stream| stream.open(&mut walk));
    let asked = packet::udp(at(family.client, 6000), frontend).payload(b"again");
    let there = Delivered(WEB, asked.clone().dst(backend));
    walk.from("UDP", CLIENT, &asked, there);
    (walk, streams, asked)
}

#[test]
fn connections_continue_until_the_time_to_drain_is_over() {
    for state in [Some("draining"), None] {
        for family in families() {
            let (mut walk, [idle, busy, answered], asked) = opened(&family);
            let (web, web_2) = (at(family.web, 8080), at(family.web_2, 8080));
            walk.reload(&config(state, "1h"));
            for stream in [busy, answered] {
                let (out, back) = (
                    stream.out().payload(b"GET /"),
                    stream.back().payload(b"200"),
                );
                let there = Delivered(WEB, stream.is_at_backend(&out));
                walk.from("it keeps TCP", CLIENT, &out, there);
                let there = Delivered(CLIENT, stream.is_at_client(&back));
                walk.from("and the replies", WEB, &back, there);
            }
            let there = Delivered(WEB, asked.clone().dst(web));
            walk.from("it keeps UDP", CLIENT, &asked, there);
            let syn = family.syn(6009, busy.frontend);
            let there = Delivered(WEB_2, syn.clone().dst(web_2));
            walk.from("it gets nothing new", CLIENT, &syn, there);

            walk.reload(&config(state, "1ms"));
            let data = busy.out().seq(1006).ack_number(54).payload(b"GET /");
            let refused = Refused(NO_BACKEND, reset(&data));
            walk.from("the client sends first", CLIENT, &data, refused);
            for ahead in 0..2 {
                let late = busy.back().seq(54 + ahead).payload(b"1");
                let refused = Refused(NO_BACKEND, reset(&late));
                walk.from("what was under way", WEB, &late, refused);
            }
            let data = answered.back().seq(54).payload(b"more");
            let ended = Ended(NO_BACKEND, Some(CLIENT), answered.reset(54));
            walk.from("the backend sends first", WEB, &data, ended);
            for ahead in 0..2 {
                let next = answered.back().seq(58 + ahead).payload(b"1");
                let refused = Refused(NO_BACKEND, reset(&next));
                walk.from("and learns it with its next", WEB, &next, refused);
            }
            let late = answered.out().ack_number(58);
            let refused = Refused(NO_BACKEND, reset(&late));
            walk.from("a client that sends again", CLIENT, &late, refused);
            let there = Delivered(WEB_2, asked.clone().dst(web_2));
            walk.from("UDP gets another backend", CLIENT, &asked, there);
            let syn = family.syn(6003, answered.frontend);
            let there = Delivered(WEB_2, syn.clone().dst(web_2));
            walk.from("a SYN opens another connection", CLIENT, &syn, there);
            let fin = idle.out().fin();
            let refused = Refused(NO_BACKEND, reset(&fin));
            walk.from(
                "an idle one ends with its next packet",
                CLIENT,
                &fin,
                refused,
            );
            walk.end();
        }
    }
}

/// A client that waits for data sends nothing, and would wait for hours.
#[test]
fn a_waiting_client_gets_a_reset_in_the_place_of_data() {
    for family in families() {
        let (mut walk, [repeated, both, closing], _) = opened(&family);
        let out = repeated.out().seq(1001).ack_number(151);
        let back = repeated.back().payload(&[7; 100]);
        let there = Delivered(CLIENT, repeated.is_at_client(&back));
        walk.from("data", WEB, &back, there);
        let there = Delivered(WEB, repeated.is_at_backend(&out));
        walk.from("its ACK", CLIENT, &out, there);
        for (fin, from) in [(closing.out().fin(), CLIENT), (closing.back().fin(), WEB)] {
            let (to, there) = match from {
                CLIENT => (WEB, closing.is_at_backend(&fin)),
                _ => (CLIENT, closing.is_at_client(&fin)),
            };
            walk.from("FIN", from, &fin, Delivered(to, there));
        }
        walk.reload(&config(None, "0s"));

        let ended = Ended(NO_BACKEND, Some(CLIENT), repeated.reset(151));
        walk.from("data that has come is sent again", WEB, &back, ended);
        let out = repeated.out().ack_number(151);
        let refused = Refused(NO_BACKEND, reset(&out));
        walk.from("a client that did not believe it", CLIENT, &out, refused);
        let probe = both.back().seq(50);
        let ended = Ended(NO_BACKEND, Some(CLIENT), both.reset(51));
        walk.from("a keepalive probe", WEB, &probe, ended);

        let rst = both.back().rst().seq(51);
        walk.from("the backend ends it too", WEB, &rst, Dropped(NO_BACKEND));

        let fin = closing.back().fin();
        let refused = Refused(NO_BACKEND, reset(&fin));
        walk.from("a connection that is closed", WEB, &fin, refused);
        walk.end();
    }
}

#[test]
fn a_client_of_the_network_gets_it_too() {
    for family in families() {
        let external = |config: &str| {
            let services = uplink_config();
            let web = config.split_once("[services.web]").expect("the service").1;
            let web = web.split_once("\n\n").expect("its end").0;
            let own = services
                .split_once("[services.web]")
                .expect("the service")
                .1;
            let own = own.split_once("\n\n").expect("its end").0;
            changed(&services, own, &format!("{web}\nexternal = true"))
        };
        let mut walk = Walk::new(family.name, &external(&config(Some("active"), "1h")));
        walk.reload(&external(CONFIG));
        let stream = Stream {
            client: at(family.world, 7001),
            frontend: at(family.web_service, 80),
            backend: at(family.web, 8080),
        };
        let syn = packet::tcp(stream.client, stream.frontend).syn().seq(1000);
        let there = Delivered(WEB, stream.is_at_backend(&syn));
        walk.net("SYN", UPLINK, &syn, there);
        let syn_ack = stream.back().syn().seq(50);
        let there = Routed(stream.is_at_client(&syn_ack));
        walk.from("SYN, ACK", WEB, &syn_ack, there);
        let there = Delivered(WEB, stream.is_at_backend(&stream.out()));
        walk.net("ACK", UPLINK, &stream.out(), there);
        walk.reload(&external(&config(None, "0s")));
        let data = stream.back().payload(b"news");
        let ended = Ended(NO_BACKEND, None, stream.reset(51));
        walk.from("data", WEB, &data, ended);
        let refused = Refused(NO_BACKEND, reset(&data));
        walk.from("the next", WEB, &data, refused);
        walk.end();
    }
}

/// It has no TCP header that a reset could be made of.
#[test]
fn a_later_fragment_gets_nothing_sent() {
    for family in families() {
        let (mut walk, [stream, ..], _) = opened(&family);
        let long = stream.back().id(9).payload(&[9; 200]);
        let first = stream.is_at_client(&long).fragment(0, 64);
        let there = Delivered(CLIENT, first);
        walk.from("the first", WEB, &long.clone().fragment(0, 64), there);
        walk.reload(&config(None, "0s"));
        let later = long.clone().fragment(64, 220);
        walk.from("a later one", WEB, &later, Dropped(NO_BACKEND));
        let ended = Ended(NO_BACKEND, Some(CLIENT), stream.reset(51));
        walk.from("the whole", WEB, &stream.back().payload(b"1"), ended);
        walk.end();
    }
}

/// The client's first SYN is with a backend that leaves: it sends it again.
#[test]
fn a_client_that_connects_gets_another_backend() {
    for family in families() {
        let (mut walk, [stream, ..], _) = opened(&family);
        let client = at(family.client, 6010);
        let syn = packet::tcp(client, stream.frontend).syn().seq(1000);
        let there = Delivered(WEB, stream.is_at_backend(&syn));
        walk.from("SYN", CLIENT, &syn, there);
        walk.reload(&config(None, "0s"));
        let syn_ack = packet::tcp(stream.backend, client)
            .syn()
            .ack()
            .seq(50)
            .ack_number(1001);
        let refused = Refused(NO_BACKEND, reset(&syn_ack));
        walk.from("the reply of the one that left", WEB, &syn_ack, refused);
        let there = Delivered(WEB_2, syn.clone().dst(at(family.web_2, 8080)));
        walk.from("the same SYN again", CLIENT, &syn, there);
        walk.end();
    }
}

/// The reset of a server that is killed ends both sides: nothing is left of the connection.
#[test]
fn a_reset_of_the_backend_is_the_clients_and_leaves_nothing() {
    for family in families() {
        let (mut walk, [stream, ..], _) = opened(&family);
        walk.reload(&config(None, "0s"));
        let rst = stream.back().rst().seq(51);
        let ended = Ended(NO_BACKEND, Some(CLIENT), stream.reset(51));
        walk.from("RST", WEB, &rst, ended);
        let connections = walk.node().connections();
        let ports = connections.iter().map(|open| open.src.port());
        let ports: Vec<u16> = ports.collect();
        walk.check("it is gone", !ports.contains(&6001), &ports);
        walk.check("the others stay", ports.contains(&6002), &ports);
        walk.end();
    }
}

/// The backend is on another host: its replies come by the uplink, or by the host's stack.
#[test]
fn the_client_of_a_backend_on_another_host_gets_it() {
    for family in families() {
        for stack in [false, true] {
            let mut config = uplink_config();
            if stack {
                let uplink = "role = \"uplink\"";
                config = changed(
                    &config,
                    uplink,
                    &format!("{uplink}\nforwarding = \"stack\""),
                );
            }
            let gone = changed(
                &config,
                "[\"10.200.1.45:8080\", \"[fd00:201::45]:8080\"]",
                "[]",
            );
            let far = far(&family);
            let mut walk = Walk::new(format!("{}, stack {stack}", family.name), &config);
            let stream = Stream {
                client: at(family.client, 7002),
                frontend: at(far.service, 80),
                backend: at(far.backend, 8080),
            };
            let out = |walk: &mut Walk, says: &str, packet: &Packet| {
                let there = stream.is_at_backend(packet);
                let expect = if stack {
                    PassedAs(there)
                } else {
                    Routed(there)
                };
                walk.from(says, CLIENT, packet, expect);
            };
            let back = |walk: &mut Walk, says: &str, packet: &Packet, expect: Expect| {
                if !stack {
                    walk.net(says, UPLINK, packet, expect);
                    return;
                }
                walk.net(says, UPLINK, packet, Passed);
                walk.forwarded(says, UPLINK, CLIENT, packet, expect);
            };
            let at_client = |packet: &Packet| match stack {
                true => PassedAs(stream.is_at_client(packet)),
                false => Delivered(CLIENT, stream.is_at_client(packet)),
            };
            let syn = packet::tcp(stream.client, stream.frontend).syn().seq(1000);
            out(&mut walk, "SYN", &syn);
            let syn_ack = stream.back().syn().seq(50);
            back(&mut walk, "SYN, ACK", &syn_ack, at_client(&syn_ack));
            out(&mut walk, "ACK", &stream.out());
            walk.reload(&gone);
            let data = stream.back().payload(b"news");
            let to = (!stack).then_some(CLIENT);
            let ended = Ended(NO_BACKEND, to, stream.reset(51));
            back(&mut walk, "data", &data, ended);
            walk.end();
        }
    }
}
