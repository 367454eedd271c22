//! The server with clients of every kind, misbehaving ones included.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::*;

/// Longer than anything here takes on any machine.
const TIMEOUT: Duration = Duration::from_secs(20);

fn here() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn respond(path: &str) -> Response {
    match path {
        "/page" => Response::text(Status::Ok, "a page"),
        "/large" => Response::text(Status::Ok, &"x".repeat(16 << 20)),
        "/long" => Response::text(Status::Ok, &"x".repeat(64 << 20)),
        _ => Response::text(Status::NotFound, "nothing here"),
    }
}

fn start(limits: Limits) -> Server {
    Server::start(Port::open(here()).unwrap(), limits, respond).unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// The whole response to these bytes, until the server closes.
fn request(server: &Server, bytes: &str) -> String {
    let mut stream = connect(server);
    let mut response = String::new();
    // A refused client may find the connection closed before it has sent its request.
    let _ = stream.write_all(bytes.as_bytes());
    let _ = stream.read_to_string(&mut response);
    response
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
            "are supported\n",
        ),
        (
            "no HTTP",
            "hello\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
            "\n",
        ),
    ];
    for (sentence, bytes, begin, end) in rows {
        let response = request(&server, bytes);
        assert!(response.starts_with(begin), "{sentence}: {response}");
        assert!(response.ends_with(end), "{sentence}: {response}");
    }
}

#[test]
fn clients_are_served_concurrently() {
    let both = Arc::new(Barrier::new(2));
    let inside = both.clone();
    let port = Port::open(here()).unwrap();
    let server = Server::start(port, Limits::default(), move |_| {
        inside.wait();
        Response::text(Status::Ok, "met")
    })
    .unwrap();
    // Each response waits until the other is being made.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert!(request(&server, "GET / HTTP/1.1\r\n\r\n").ends_with("met\n")));
        }
    });
}

/// More than are served at once.
const CROWD: usize = 200;

#[test]
fn silent_slow_and_deaf_clients_keep_nobody_out() {
    let server = start(Limits {
        // Longer than the test: only making room ends them.
        request_timeout: 10 * TIMEOUT,
        response_timeout: 10 * TIMEOUT,
        ..Limits::default()
    });
    let rows = [
        ("silent", "", ""),
        ("a byte now and then", "GET /page HTTP/1.1\r\nX: ", "x"),
        ("nothing is read", "GET /large HTTP/1.1\r\n\r\n", ""),
    ];
    for (sentence, first, next) in rows {
        let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| connect(&server)).collect();
        for bytes in [first, next, next] {
            for stream in &mut crowd {
                // Those that made room are closed.
                let _ = stream.write_all(bytes.as_bytes());
            }
            let response = request(&server, "GET /page HTTP/1.1\r\n\r\n");
            assert!(response.ends_with("a page\n"), "{sentence}: {response}");
        }
    }
}

#[test]
fn a_client_that_is_served_stays_while_others_come() {
    let both = Arc::new(Barrier::new(2));
    let inside = both.clone();
    let port = Port::open(here()).unwrap();
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let server = Server::start(port, limits, move |_| {
        inside.wait();
        inside.wait();
        Response::text(Status::Ok, "served")
    })
    .unwrap();
    std::thread::scope(|scope| {
        let served = scope.spawn(|| request(&server, "GET / HTTP/1.1\r\n\r\n"));
        both.wait(); // its response is being made
        let _others: Vec<TcpStream> = (0..3).map(|_| connect(&server)).collect();
        both.wait();
        assert!(served.join().unwrap().ends_with("served\n"));
    });
}

#[test]
fn a_client_that_does_not_send_or_read_in_time_is_closed() {
    let short = Duration::from_millis(50);
    let server = start(Limits {
        connections: 2,
        request_timeout: short,
        response_timeout: short,
    });
    let mut silent = connect(&server);
    silent.write_all(b"GET /page HTTP/1.1\r\n").unwrap();
    let mut response = Vec::new();
    silent.read_to_end(&mut response).unwrap();
    assert!(response.is_empty(), "it is closed without a response");
    let wait_for = |connections| {
        let deadline = Instant::now() + TIMEOUT;
        while server.open_connections() != connections {
            assert!(Instant::now() < deadline, "not {connections}");
            std::thread::yield_now();
        }
    };
    wait_for(0);

    let mut stalled = connect(&server);
    stalled.write_all(b"GET /long HTTP/1.1\r\n\r\n").unwrap();
    wait_for(1);
    wait_for(0); // response_timeout is over
    let mut response = Vec::new();
    let _ = stalled.read_to_end(&mut response);
    assert!(
        response.len() < 64 << 20,
        "only what the socket buffers hold"
    );
}

#[test]
fn a_client_that_keeps_sending_after_its_response_is_closed() {
    let server = start(Limits::default());
    let mut drip = connect(&server);
    drip.write_all(b"GET /page HTTP/1.1\r\n\r\n").unwrap();
    let began = Instant::now();
    while drip.write_all(b"x").is_ok() {
        // Less than the time that it may take to close, more than a sixteenth of what would be too much.
        std::thread::sleep(Duration::from_millis(300));
        assert!(began.elapsed() < Duration::from_secs(3), "it is still open");
    }
}

#[test]
fn a_port_belongs_to_one_process() {
    let server = start(Limits::default());
    let taken = Port::open(server.address()).unwrap_err();
    assert!(format!("{taken:#}").contains("in use"), "{taken:#}");
    let address = server.address();
    drop(server);
    Port::open(address).expect("it is free again");
}

#[test]
fn an_address_that_the_host_does_not_have_yet_is_bound() {
    for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        let port = Port::open(address.parse().unwrap()).expect(address);
        let taken = Port::open(port.address()).expect_err("the port is in use");
        assert!(format!("{taken:#}").contains("in use"), "{taken:#}");
    }
}

#[test]
fn a_server_can_move_to_an_address_that_overlaps_its_own() {
    let server = start(Limits::default());
    let everywhere = SocketAddr::new("0.0.0.0".parse().unwrap(), server.address().port());
    Port::open(everywhere).expect_err("its own port is in use");
    let port = server
        .open_port(everywhere)
        .expect("the server shares its port with the new one");
    assert_eq!(
        request(&server, "GET /page HTTP/1.1\r\n\r\n")
            .lines()
            .last(),
        Some("a page"),
        "the old one is served until it is closed"
    );
    drop(server);
    let server = Server::start(port, Limits::default(), respond).unwrap();
    let response = request(&server, "GET /page HTTP/1.1\r\n\r\n");
    assert!(response.ends_with("a page\n"), "{response}");
    Port::open(everywhere).expect_err("no other process can share it");

    let other = start(Limits::default());
    server
        .open_port(other.address())
        .expect_err("the port of another server is in use");
    let response = request(&server, "GET /page HTTP/1.1\r\n\r\n");
    assert!(response.ends_with("a page\n"), "the old one stays");
}
