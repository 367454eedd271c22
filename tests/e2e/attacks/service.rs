//! Packets in the name of a service, or of its backend, to a workload that has not asked: its own connections to the service
//! still reach a backend.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::seat::{Inbox, Seat, at, families};
use super::talk::{Talk, connect_from, listen};
use crate::common::packet::{tcp, udp};
use crate::lab::{DEADLINE, NetnsLab, eventually};

/// A service with its backend on the client's host; the one of `bulk` is on the other host.
const NEAR: &str = r#"
[services.near]
frontends = ["10.32.0.53:53/tcp", "10.32.0.53:53/udp", "[fd00:32::53]:53/tcp", "[fd00:32::53]:53/udp"]
backends  = ["10.200.0.44:5201", "[fd00:200::44]:5201"]
"#;

/// The client's ports.
const PORTS: std::ops::Range<u16> = 41_000..41_100;

struct Server {
    tcp: TcpListener,
    udp: Inbox,
}

impl Server {
    fn start(lab: &NetnsLab, place: &str, address: SocketAddr) -> Server {
        Server {
            tcp: listen(lab, place, address),
            udp: Inbox::open(lab, place, address),
        }
    }
}

/// One connection and one query to a frontend, both from this port.
fn is_served(lab: &NetnsLab, from: SocketAddr, frontend: SocketAddr, server: &Server) {
    let client = connect_from(lab, "client", from, frontend);
    let client = client.unwrap_or_else(|error| panic!("{from} to {frontend}: {error}"));
    let mut talk = Talk::accepted(client, &server.tcp);
    talk.round_trip()
        .unwrap_or_else(|error| panic!("{from} to {frontend}: {error}"));

    let client = lab.within("client", || UdpSocket::bind(from));
    let client = client.expect("a socket");
    client.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    client.connect(frontend).expect("the client's peer");
    client.send(b"query").expect("send a query");
    let (query, asker) = eventually(&format!("{from} to {frontend}"), || {
        server.udp.next().ok_or(lab.drops())
    });
    assert_eq!(query, "query");
    server.udp.reply(b"reply", asker);
    let mut reply = [0; 16];
    let length = client.recv(&mut reply);
    let length = length.unwrap_or_else(|error| panic!("{from} to {frontend}: {error}"));
    assert_eq!(&reply[..length], b"reply");
}

#[test]
fn a_service_is_not_taken_over() {
    let (a, b) = NetnsLab::hosts_laid(1500);
    a.drop_in("attacks", NEAR);
    a.start();
    b.start();
    let (network, intruder) = (Seat::network(&a), Seat::workload(&a, "intruder"));
    for family in families() {
        let near = (
            family.frontend("53", 53),
            at(family.server, 5201),
            "coredns-a",
        );
        let far = (family.frontend("52", 52), at(family.far, 5201), "coredns");
        let mut ports = PORTS;
        for (frontend, backend, place) in [near, far] {
            let server = Server::start(&a, place, backend);
            let unused = at(frontend.ip(), 4444);
            for (seat, name) in [(&network, "network"), (&intruder, "intruder")] {
                for sender in [frontend, unused, backend] {
                    let says = format!("{name} as {sender}");
                    let port = ports.next().unwrap_or_else(|| panic!("{says}: no port"));
                    let client = at(family.client, port);
                    seat.send(&udp(sender, client).payload(says.as_bytes()));
                    for segment in [
                        tcp(sender, client).syn().seq(9),
                        tcp(sender, client).ack().seq(10),
                        tcp(sender, client).syn().ack().seq(9),
                    ] {
                        seat.send(&segment);
                    }
                    is_served(&a, client, frontend, &server);
                }
            }
        }
    }
}
