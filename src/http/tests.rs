//! The server with clients of every kind, the bad ones among them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::*;

/// Nothing here takes so long on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn here() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn respond(path: &str) -> Response {
    match path {
        "/page" => Response::text(Status::Ok, "a page"),
        "/long" => Response::text(Status::Ok, &"x".repeat(64 << 20)),
        _ => Response::text(Status::NotFound, "nothing here"),
    }
}

fn start(limits: Limits) -> Server {
    Server::start(Port::open(here()).unwrap(), limits, respond).unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that is answered to these bytes, until the server closes.
fn ask(server: &Server, bytes: &str) -> String {
    let mut stream = connect(server);
    let mut answer = String::new();
    // One that is turned away may find the connection closed before it has asked.
    let _ = stream.write_all(bytes.as_bytes());
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn pages_are_served_and_nothing_else() {
    let server = start(Limits::default());
    let rows = [
        (
            "a page",
            "GET /page HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            "\r\n\r\na page\n",
        ),
        (
            "its head",
            "HEAD /page HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            "Content-Length: 7\r\nConnection: close\r\n\r\n",
        ),
        (
            "no page",
            "GET /other HTTP/1.1\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\n",
            "nothing here\n",
        ),
        (
            "a method that changes something",
            "POST /page HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed\r\n",
            "only read\n",
        ),
        (
            "no HTTP",
            "hello\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
            "\n",
        ),
    ];
    for (sentence, question, begin, end) in rows {
        let answer = ask(&server, question);
        assert!(answer.starts_with(begin), "{sentence}: {answer}");
        assert!(answer.ends_with(end), "{sentence}: {answer}");
    }
}

#[test]
fn clients_are_answered_at_the_same_time() {
    let both = Arc::new(Barrier::new(2));
    let inside = both.clone();
    let port = Port::open(here()).unwrap();
    let server = Server::start(port, Limits::default(), move |_| {
        inside.wait();
        Response::text(Status::Ok, "met")
    })
    .unwrap();
    // Each answer waits until the other is being made.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert!(ask(&server, "GET / HTTP/1.1\r\n\r\n").ends_with("met\n")));
        }
    });
}

#[test]
fn one_too_many_is_told_so_and_the_others_are_not_disturbed() {
    let server = start(Limits {
        connections: 1,
        ..Limits::default()
    });
    let mut first = connect(&server);
    first.write_all(b"GET /page").unwrap();
    let deadline = Instant::now() + PATIENCE;
    // The first has its place once the acceptor has come to it.
    let refused = loop {
        let answer = ask(&server, "GET /page HTTP/1.1\r\n\r\n");
        if answer.starts_with("HTTP/1.1 503") {
            break answer;
        }
        assert!(Instant::now() < deadline, "{answer}");
    };
    assert!(refused.ends_with("ask again later\n"), "{refused}");
    first.write_all(b" HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("a page\n"), "{answer}");
    // And its place is free again.
    while !ask(&server, "GET /page HTTP/1.1\r\n\r\n").ends_with("a page\n") {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn who_is_silent_or_does_not_read_is_let_go() {
    let short = Duration::from_millis(50);
    let server = start(Limits {
        connections: 2,
        request_timeout: short,
        response_timeout: short,
    });
    let mut silent = connect(&server);
    silent.write_all(b"GET /page HTTP/1.1\r\n").unwrap();
    let mut answer = Vec::new();
    silent.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty(), "it is closed without an answer");
    let wait_for = |connections| {
        let deadline = Instant::now() + PATIENCE;
        while server.open_connections() != connections {
            assert!(Instant::now() < deadline, "not {connections}");
            std::thread::yield_now();
        }
    };
    wait_for(0);

    let mut deaf = connect(&server);
    deaf.write_all(b"GET /long HTTP/1.1\r\n\r\n").unwrap();
    wait_for(1);
    wait_for(0); // its thread has not waited for it any longer
    let mut answer = Vec::new();
    let _ = deaf.read_to_end(&mut answer);
    assert!(answer.len() < 64 << 20, "only what fitted on the way");
}

#[test]
fn a_port_is_taken_by_one_alone() {
    let server = start(Limits::default());
    let taken = Port::open(server.address()).unwrap_err();
    assert!(format!("{taken:#}").contains("in use"), "{taken:#}");
    let address = server.address();
    drop(server);
    Port::open(address).expect("it is free again");
}

#[test]
fn an_address_that_the_host_does_not_have_yet_is_taken_ahead() {
    for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        let port = Port::open(address.parse().unwrap()).expect(address);
        let taken = Port::open(port.address()).expect_err("by one alone");
        assert!(format!("{taken:#}").contains("in use"), "{taken:#}");
    }
}

#[test]
fn a_server_can_move_to_where_it_overlaps_itself() {
    let server = start(Limits::default());
    let everywhere = SocketAddr::new("0.0.0.0".parse().unwrap(), server.address().port());
    Port::open(everywhere).expect_err("its own port is in the way");
    let port = server
        .open_beside(everywhere)
        .expect("it makes room itself");
    assert_eq!(
        ask(&server, "GET /page HTTP/1.1\r\n\r\n").lines().last(),
        Some("a page"),
        "the old one is answered until it goes"
    );
    drop(server);
    let server = Server::start(port, Limits::default(), respond).unwrap();
    let answer = ask(&server, "GET /page HTTP/1.1\r\n\r\n");
    assert!(answer.ends_with("a page\n"), "{answer}");
    Port::open(everywhere).expect_err("and nobody else gets in");

    let other = start(Limits::default());
    server
        .open_beside(other.address())
        .expect_err("a port of somebody else is none");
    let answer = ask(&server, "GET /page HTTP/1.1\r\n\r\n");
    assert!(answer.ends_with("a page\n"), "and the old one stays");
}
