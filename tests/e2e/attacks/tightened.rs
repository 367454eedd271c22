//! A policy that is tightened cuts what runs, for good: nothing that either side sends afterwards opens it again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use super::seat::{at, families};
use super::talk::{Talk, listen};
use crate::lab::{DEADLINE, NetnsLab, eventually};

/// Ports of the server: it sends, or it receives; at its own address, or behind a service.
const PORTS: [(u16, bool, bool); 4] = [
    (9001, true, false),
    (9002, false, false),
    (9003, true, true),
    (9004, false, true),
];

fn services() -> String {
    let of_port = |port: u16| {
        format!(
            r#"
[services.port-{port}]
frontends = ["10.32.0.90:{port}/tcp", "10.32.0.90:{port}/udp", "[fd00:32::90]:{port}/tcp", "[fd00:32::90]:{port}/udp"]
backends  = ["10.200.0.44:{port}", "[fd00:200::44]:{port}"]
"#
        )
    };
    PORTS
        .iter()
        .filter(|(_, _, by_service)| *by_service)
        .map(|(port, ..)| of_port(*port))
        .collect()
}

const ALLOWED: &str =
    "[policies.streams]\nsubject = \"kube-dns\"\ningress = [{ from = [\"client\"] }]\n";
const TIGHTENED: &str = "[policies.streams]\nsubject = \"kube-dns\"\ningress = []\n";

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Socket {
    /// Sends unless the kernel has no room for it.
    fn send(&self) {
        let _ = match self {
            Socket::Tcp(stream) => { stream }.write(&[7; 500]),
            Socket::Udp(socket) => socket.send(&[7; 500]),
        };
    }

    /// All bytes that have arrived.
    fn receive(&self) -> usize {
        let mut bytes = [0; 2048];
        let mut received = 0;
        loop {
            let read = match self {
                Socket::Tcp(stream) => { stream }.read(&mut bytes),
                Socket::Udp(socket) => socket.recv(&mut bytes),
            };
            match read {
                Ok(length) if length > 0 => received += length,
                _ => return received,
            }
        }
    }
}

/// A one-way stream.
struct Stream {
    name: String,
    from: Socket,
    to: Socket,
    received: usize,
}

impl Stream {
    fn new(name: String, server_sends: bool, client: Socket, server: Socket) -> Stream {
        for socket in [&client, &server] {
            let result = match socket {
                Socket::Tcp(stream) => stream.set_nonblocking(true),
                Socket::Udp(socket) => socket.set_nonblocking(true),
            };
            result.expect("not to block");
        }
        let (from, to) = match server_sends {
            true => (server, client),
            false => (client, server),
        };
        Stream {
            name,
            from,
            to,
            received: 0,
        }
    }
}

fn udp(lab: &NetnsLab, client: SocketAddr, to: SocketAddr, server: SocketAddr) -> [UdpSocket; 2] {
    let [client, server] = [("client", client), ("coredns", server)].map(|(place, address)| {
        let socket = lab.within(place, || UdpSocket::bind(address));
        let socket = socket.unwrap_or_else(|error| panic!("{place}: {address}: {error}"));
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        socket
    });
    client.connect(to).expect("the client's peer");
    client.send(b"hello").expect("the first datagram");
    let (_, from) = server
        .recv_from(&mut [0; 8])
        .unwrap_or_else(|error| panic!("the first datagram to {to}: {error}"));
    server.connect(from).expect("the server's peer");
    server.send(b"hello").expect("the first reply");
    client.recv(&mut [0; 8]).expect("the first reply");
    [client, server]
}

fn streams(lab: &NetnsLab) -> Vec<Stream> {
    let mut streams = Vec::new();
    for family in families() {
        for (port, server_sends, by_service) in PORTS {
            let server = at(family.server, port);
            let to = match by_service {
                true => family.frontend("90", port),
                false => server,
            };
            let sender = if server_sends { "server" } else { "client" };
            let talk = Talk::open(lab, "client", to, &listen(lab, "coredns", server));
            let (client, accepted) = (Socket::Tcp(talk.client), Socket::Tcp(talk.server));
            let name = format!("TCP to {to}, the {sender} sends");
            streams.push(Stream::new(name, server_sends, client, accepted));
            let [client, server] = udp(lab, at(family.client, 0), to, server).map(Socket::Udp);
            let name = format!("UDP to {to}, the {sender} sends");
            streams.push(Stream::new(name, server_sends, client, server));
        }
    }
    streams
}

/// Sends on every stream, and receives; returns the streams that have received nothing.
fn pump(streams: &mut [Stream]) -> Vec<String> {
    for stream in streams.iter() {
        stream.from.send();
    }
    drain(streams)
}

fn drain(streams: &mut [Stream]) -> Vec<String> {
    let mut idle = Vec::new();
    for stream in streams {
        let received = stream.to.receive();
        stream.received += received;
        if received == 0 {
            idle.push(stream.name.clone());
        }
    }
    idle
}

fn all_run(streams: &mut [Stream], when: &str) {
    let before: Vec<usize> = streams.iter().map(|stream| stream.received).collect();
    eventually(&format!("{when}: all streams run"), || {
        pump(streams);
        let idle = std::iter::zip(&*streams, &before).filter(|(s, before)| s.received <= **before);
        let idle: Vec<&str> = idle.map(|(stream, _)| stream.name.as_str()).collect();
        if idle.is_empty() {
            Ok(())
        } else {
            Err(format!("{idle:?}"))
        }
    });
}

/// How many TCP connections there have sent the same segment three times.
fn retrying(lab: &NetnsLab, place: &str) -> usize {
    let sockets = lab.ok(place, "ss -Htin");
    let backoff = |line: &str| {
        line.split("backoff:")
            .nth(1)?
            .split(' ')
            .next()?
            .parse()
            .ok()
    };
    sockets
        .lines()
        .filter(|line| backoff(line).is_some_and(|times: u32| times >= 2))
        .count()
}

fn tighten(settings: &str) {
    let lab = NetnsLab::laid();
    lab.drop_in("servers", &services());
    lab.drop_in("settings", settings);
    lab.drop_in("streams", ALLOWED);
    lab.start();
    let mut streams = streams(&lab);
    all_run(&mut streams, "allowed");

    lab.apply("streams", TIGHTENED);
    let all = streams.len();
    eventually("nothing is under way", || {
        let idle = drain(&mut streams);
        if idle.len() == all { Ok(()) } else { Err(idle) }
    });
    let drops = lab.dropped("policy denied: no rule");
    eventually("both sides have sent again and again", || {
        let idle = pump(&mut streams);
        assert_eq!(idle.len(), all, "only these are cut: {idle:#?}");
        let state = (
            retrying(&lab, "client"),
            retrying(&lab, "coredns"),
            lab.dropped("policy denied: no rule") - drops,
        );
        let is_enough = state.0 >= all / 4 && state.1 >= all / 4 && state.2 >= 200;
        if is_enough { Ok(()) } else { Err(state) }
    });

    lab.apply("streams", ALLOWED);
    all_run(&mut streams, "allowed again");
}

#[test]
fn a_tightened_policy_cuts_what_runs() {
    tighten("# the defaults\n");
}

#[test]
fn a_tightened_policy_cuts_what_runs_if_conntrack_is_strict() {
    tighten("[conntrack]\nstrict = true\n");
}
