//! A backend that leaves the file while its clients are silent, or wait for it.

use std::net::{SocketAddr, UdpSocket};

use super::seat::{Inbox, at, families};
use super::talk::{Talk, connect_from, listen, reset};
use crate::lab::{DEADLINE, NetnsLab};

/// The service with one backend: `44` for coredns, `65` for the intruder.
fn service(backend: &str) -> String {
    format!(
        r#"
[services.moved]
frontends = ["10.32.0.70:70/tcp", "10.32.0.70:70/udp", "[fd00:32::70]:70/tcp", "[fd00:32::70]:70/udp"]
backends  = ["10.200.0.{backend}:5201", "[fd00:200::{backend}]:5201"]
"#
    )
}

fn retransmitted(lab: &NetnsLab) -> String {
    lab.ok("client", "nstat -asz TcpRetransSegs TcpExtTCPSynRetrans")
}

#[test]
fn a_syn_from_the_port_of_a_silent_connection_opens_a_new_one() {
    let lab = NetnsLab::laid();
    lab.drop_in("moved", &service("44"));
    lab.start();
    // The client goes without a word.
    lab.ok(
        "client",
        "nft 'table inet silence { chain out { type filter hook output priority 0; tcp flags & (rst|fin) != 0 drop; }; }'",
    );
    let from = |client| at(client, 40001);
    let open = |from: SocketAddr, to: SocketAddr, place: &str, server: SocketAddr| {
        let listener = listen(&lab, place, server);
        let client = connect_from(&lab, "client", from, to);
        let client = client.unwrap_or_else(|error| panic!("{from} to {place}: {error}"));
        let mut talk = Talk::accepted(client, &listener);
        talk.round_trip()
            .unwrap_or_else(|error| panic!("{from} to {place}: {error}"));
        talk
    };
    for family in families() {
        let to = family.frontend("70", 70);
        let first = open(from(family.client), to, "coredns", at(family.server, 5201));
        reset(first.client);
    }
    lab.apply("moved", &service("65"));
    let before = retransmitted(&lab);
    let later = families().map(|family| {
        let to = family.frontend("70", 70);
        open(
            from(family.client),
            to,
            "intruder",
            at(family.intruder, 5201),
        )
    });
    assert_eq!(retransmitted(&lab), before, "the first SYN was served");
    drop(later);
}

#[test]
fn an_answer_that_is_under_way_arrives() {
    let lab = NetnsLab::laid();
    lab.drop_in("moved", &service("44"));
    lab.start();
    let clients = families().map(|family| {
        let socket = lab.within("client", || UdpSocket::bind(at(family.client, 0)));
        let socket = socket.expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        socket
            .connect(family.frontend("70", 70))
            .expect("the client's peer");
        socket
    });
    let inboxes = |place: &str| {
        families().map(|family| {
            let address = if place == "coredns" {
                family.server
            } else {
                family.intruder
            };
            Inbox::open(&lab, place, at(address, 5201))
        })
    };
    let (old, new) = (inboxes("coredns"), inboxes("intruder"));
    let ask = |inboxes: &[Inbox; 2], what: &str| {
        let asked = std::iter::zip(&clients, inboxes).map(|(client, inbox)| {
            client.send(what.as_bytes()).expect("ask");
            let (text, from) = crate::lab::eventually(what, || inbox.next().ok_or(lab.drops()));
            assert_eq!(text, what);
            from
        });
        asked.collect::<Vec<SocketAddr>>()
    };
    let answer = |inboxes: &[Inbox; 2], to: &[SocketAddr], what: &str| {
        for ((client, inbox), to) in std::iter::zip(std::iter::zip(&clients, inboxes), to) {
            inbox.reply(what.as_bytes(), *to);
            let mut bytes = [0; 32];
            let length = client.recv(&mut bytes);
            let length = length.unwrap_or_else(|error| panic!("{what} to {to}: {error}"));
            assert_eq!(&bytes[..length], what.as_bytes());
        }
    };
    let askers = ask(&old, "a question");
    lab.apply("moved", &service("65"));
    answer(&old, &askers, "the answer of one that is gone");
    let askers = ask(&new, "the next question");
    answer(&new, &askers, "the answer of the new one");
}
