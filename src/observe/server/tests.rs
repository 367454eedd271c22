//! The server with clients of every kind, misbehaving ones included.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::observe::samples::{denied, request};
use crate::observe::socket::MODE;

/// Longer than anything here takes on any machine.
const TIMEOUT: Duration = Duration::from_secs(20);

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn status() -> DaemonStatus {
    DaemonStatus {
        drop_ins: Vec::new(),
        announcements: Vec::new(),
        pid: 7,
        version: "1".to_owned(),
        uptime_seconds: 3,
        config: "/etc/dpd/config.toml".to_owned(),
        last_error: None,
        reloads: 0,
        is_reloading: false,
        reload_error: None,
        applied_seconds_ago: 2,
        pending: Vec::new(),
        warnings: Vec::new(),
        hints: Vec::new(),
        observers_lost: 0,
        recent_drops: None,
        journal_lost: 0,
        drift: crate::model::status::DriftCounts::default(),
    }
}

fn start(limits: Limits) -> (TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let socket = Socket::open(&folder.path().join("dpd.sock")).unwrap();
    let server = Server::start(socket, limits, status).unwrap();
    (folder, server)
}

fn connect(server: &Server) -> UnixStream {
    let stream = UnixStream::connect(&server._socket.path).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

fn send_request(server: &Server, request: &str) -> BufReader<UnixStream> {
    let mut stream = connect(server);
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    BufReader::new(stream)
}

/// The next line, without its newline; empty at the end.
fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn numbered(bytes: u32) -> Arc<Flow> {
    Arc::new(Flow { bytes, ..request() })
}

/// The number in a flow's line; the error is a line of another kind.
fn number(line: &str) -> Result<u32, String> {
    match serde_json::from_str(line) {
        Ok(Reply::Flow(record)) => Ok(record.bytes),
        _ => Err(line.to_owned()),
    }
}

fn open(server: &Server) -> usize {
    server._listener.open_clients().len()
}

#[test]
fn a_status_request_gets_the_status() {
    let (_folder, server) = start(Limits::default());
    let mut reader = send_request(&server, r#"{"request":"status"}"#);
    let Reply::Status(reply) = serde_json::from_str(&line(&mut reader)).unwrap() else {
        panic!("no status");
    };
    assert_eq!(reply, status());
    assert_eq!(line(&mut reader), "", "one request, one reply");
}

#[test]
fn several_clients_get_the_flows_of_their_filters() {
    let (_folder, server) = start(Limits::default());
    server.publish(numbered(1));
    server.publish(numbered(2));
    let mut last = send_request(&server, r#"{"request":"observe","last":1}"#);
    assert_eq!(number(&line(&mut last)), Ok(2));
    assert_eq!(line(&mut last), "", "without follow it ends");

    let mut all = send_request(&server, r#"{"request":"observe","last":2,"follow":true}"#);
    // A flow of the history proves that the watch has begun.
    assert_eq!(number(&line(&mut all)), Ok(1));
    let drops =
        r#"{"request":"observe","last":9,"follow":true,"filter":{"only":{"verdict":["dropped"]}}}"#;
    let refused = Arc::new(denied());
    server.publish(refused.clone());
    let mut drops = send_request(&server, drops);
    assert_eq!(number(&line(&mut drops)), Ok(60));
    server.publish(numbered(3));
    server.publish(refused);
    assert_eq!(number(&line(&mut drops)), Ok(60));
    let rest = [(); 4].map(|()| number(&line(&mut all)).unwrap());
    assert_eq!(rest, [2, 60, 3, 60]);
}

#[test]
fn an_invalid_request_gets_an_error_and_is_closed() {
    let (_folder, server) = start(Limits::default());
    let long = "x".repeat(REQUEST_MAX + 1);
    let rows = [
        ("an empty line", ""),
        ("half an object", r#"{"request":"#),
        ("an unknown request", r#"{"request":"dance"}"#),
        ("a request without its name", r#"{"last":3}"#),
        (
            "a filter of the wrong kind",
            r#"{"request":"observe","filter":{"only":{"port":["x"]}}}"#,
        ),
        (
            "a filter that is not known",
            r#"{"request":"observe","filter":{"only":{"colour":["red"]}}}"#,
        ),
        ("a negative number", r#"{"request":"observe","last":-1}"#),
        ("bytes that are no text", "\u{0}\u{1}\u{7f}"),
        ("a line without end", &long),
    ];
    for (sentence, request) in rows {
        let mut stream = connect(&server);
        // The server may have closed before all of it was written.
        let _ = stream.write_all(format!("{request}\n").as_bytes());
        let mut reader = BufReader::new(stream);
        let mut reply = String::new();
        match reader.read_line(&mut reply) {
            Ok(_) => assert!(
                reply.starts_with(r#"{"error":"invalid request"#),
                "{sentence}: {reply}"
            ),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{sentence}"),
        }
    }
    wait_until("all are closed", || open(&server) == 0);
}

#[test]
fn a_client_without_a_request_is_closed() {
    let limits = Limits {
        request_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let (_folder, server) = start(limits);
    let mut silent = BufReader::new(connect(&server));
    assert_eq!(line(&mut silent), "", "silent");

    let mut drip = connect(&server);
    wait_until("a client that sends a byte at a time is closed", || {
        drip.write_all(b"x").is_err()
    });
    wait_until("both slots are free", || open(&server) == 0);
}

#[test]
fn a_slow_observer_loses_flows_and_delays_no_other() {
    const FLOWS: u32 = 20_000;
    let sizes = Sizes {
        recent: 4,
        queue: 16,
    };
    let (_folder, server) = start(Limits {
        sizes,
        ..Limits::default()
    });
    server.publish(numbered(0));
    let mut slow = send_request(&server, r#"{"request":"observe","last":1,"follow":true}"#);
    assert_eq!(number(&line(&mut slow)), Ok(0));
    // It reads nothing now, and still everything is published at once.
    for flow in 1..=FLOWS {
        server.publish(numbered(flow));
    }
    assert!(server.lost() > 0);

    let (mut seen, mut lost) = (0, 0);
    while seen + lost < FLOWS {
        match serde_json::from_str(&line(&mut slow)).unwrap() {
            Reply::Flow(_) => seen += 1,
            Reply::Lost(count) => lost += u32::try_from(count).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        u64::from(lost),
        server.lost(),
        "each loss is reported to it"
    );

    let mut status = send_request(&server, r#"{"request":"status"}"#);
    let reported = format!(r#""observers_lost":{lost}"#);
    assert!(line(&mut status).contains(&reported));
}

#[test]
fn the_slot_of_a_closed_observer_is_freed_without_flows() {
    let (_folder, server) = start(Limits::default());
    server.publish(numbered(1));
    let mut gone = send_request(&server, r#"{"request":"observe","last":1,"follow":true}"#);
    assert_eq!(number(&line(&mut gone)), Ok(1));
    assert_eq!(open(&server), 1);
    drop(gone);
    wait_until("its slot is free", || open(&server) == 0);
}

#[test]
fn an_observer_that_has_shut_down_its_sending_side_still_gets_flows() {
    let (_folder, server) = start(Limits::default());
    server.publish(numbered(1));
    let mut stream = connect(&server);
    // End of file ends the request, too.
    stream
        .write_all(br#"{"request":"observe","last":1,"follow":true}"#)
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reader = BufReader::new(&stream);
    assert_eq!(number(&line(&mut reader)), Ok(1));
    assert!(!is_gone(server._listener.open_clients()[0].stream()).unwrap());
    server.publish(numbered(2));
    assert_eq!(number(&line(&mut reader)), Ok(2));
}

#[test]
fn an_observer_over_the_limit_gets_an_error() {
    const FOLLOW: &str = r#"{"request":"observe","last":1,"follow":true}"#;
    let (_folder, server) = start(Limits {
        observers: 2,
        ..Limits::default()
    });
    server.publish(numbered(1));
    let (mut first, mut second) = (send_request(&server, FOLLOW), send_request(&server, FOLLOW));
    assert_eq!(number(&line(&mut first)), Ok(1));
    assert_eq!(number(&line(&mut second)), Ok(1));
    let mut third = send_request(&server, FOLLOW);
    assert_eq!(
        line(&mut third),
        r#"{"error":"2 observers are connected already"}"#
    );
    assert_eq!(line(&mut third), "");
    let mut status = send_request(&server, r#"{"request":"status"}"#);
    assert!(
        line(&mut status).starts_with(r#"{"status""#),
        "status has spare slots"
    );
    drop(first);
    wait_until("the first's slot is free", || {
        number(&line(&mut send_request(&server, FOLLOW))) == Ok(1)
    });
}

/// More than are served at once.
const CROWD: usize = 200;

#[test]
fn silent_slow_and_deaf_clients_keep_nobody_out() {
    let sizes = Sizes {
        recent: 8192,
        queue: 16,
    };
    let (_folder, server) = start(Limits {
        // Longer than the test: only making room ends them.
        request_timeout: 10 * TIMEOUT,
        response_timeout: 10 * TIMEOUT,
        sizes,
        ..Limits::default()
    });
    for number in 0..8192 {
        server.publish(numbered(number));
    }
    let mut healthy = send_request(&server, r#"{"request":"observe","last":1,"follow":true}"#);
    assert_eq!(number(&line(&mut healthy)), Ok(8191));
    // The whole history is more than socket buffers hold.
    let rows = [
        ("silent", ""),
        ("a part of a request", r#"{"request":"#),
        (
            "what it asks for is not read",
            "{\"request\":\"observe\",\"last\":8192}\n",
        ),
    ];
    for (sentence, bytes) in rows {
        let mut crowd: Vec<UnixStream> = (0..CROWD).map(|_| connect(&server)).collect();
        for _ in 0..3 {
            for stream in &mut crowd {
                // Those that made room are closed.
                let _ = stream.write_all(bytes.as_bytes());
            }
            let mut status = send_request(&server, r#"{"request":"status"}"#);
            let reply = line(&mut status);
            assert!(reply.starts_with(r#"{"status""#), "{sentence}: {reply}");
            let mut last = send_request(&server, r#"{"request":"observe","last":1}"#);
            assert_eq!(number(&line(&mut last)), Ok(8191), "{sentence}");
        }
    }
    server.publish(numbered(9000));
    assert_eq!(
        number(&line(&mut healthy)),
        Ok(9000),
        "who follows and reads stays"
    );
}

#[test]
fn an_observer_that_does_not_read_makes_room_for_another() {
    const FOLLOW: &str = r#"{"request":"observe","last":8192,"follow":true}"#;
    let (_folder, server) = start(Limits {
        observers: 2,
        patience: Duration::ZERO,
        ..Limits::default()
    });
    for number in 0..8192 {
        server.publish(numbered(number));
    }
    let deaf = [FOLLOW; 2].map(|request| send_request(&server, request));
    wait_until("both are waited for, and one makes room", || {
        let mut third = send_request(&server, r#"{"request":"observe","last":1,"follow":true}"#);
        number(&line(&mut third)) == Ok(8191)
    });
    drop(deaf);
}

#[test]
fn a_response_that_is_not_read_in_time_ends() {
    let (_folder, server) = start(Limits {
        response_timeout: Duration::from_millis(50),
        ..Limits::default()
    });
    for number in 0..8192 {
        server.publish(numbered(number));
    }
    let deaf = send_request(&server, r#"{"request":"observe","last":8192}"#);
    wait_until("it is connected", || open(&server) == 1);
    wait_until("its time is over", || open(&server) == 0);
    drop(deaf);
}

#[test]
fn a_client_that_only_connects_frees_its_slot_soon() {
    let (_folder, server) = start(Limits {
        observers: 1,
        request_timeout: Duration::from_millis(50),
        ..Limits::default()
    });
    let silent: Vec<UnixStream> = (0..1 + SPARE).map(|_| connect(&server)).collect();
    for stream in silent {
        assert_eq!(line(&mut BufReader::new(stream)), "", "each is closed");
    }
    wait_until("their slots are free again", || open(&server) == 0);
    let mut status = send_request(&server, r#"{"request":"status"}"#);
    assert!(line(&mut status).starts_with(r#"{"status""#));
}

#[test]
fn the_sockets_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/dpd.sock");
    let start = || Server::start(Socket::open(&path)?, Limits::default(), status);

    let server = start().unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(
        mode & 0o7777,
        MODE,
        "the folder is created, and the mode is as documented"
    );

    let error = start().err().unwrap().to_string();
    assert!(
        error.contains("another daemon listens at"),
        "a second daemon is refused: {error}"
    );
    assert!(path.exists());

    server.publish(numbered(1));
    let mut watcher = send_request(&server, r#"{"request":"observe","last":1,"follow":true}"#);
    assert_eq!(number(&line(&mut watcher)), Ok(1));
    drop(server);
    assert_eq!(line(&mut watcher), "", "observers are closed");
    assert!(!path.exists(), "and the file is removed");

    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a killed daemon leaves its file");
    let server = start().unwrap();
    connect(&server);

    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    drop(server);
    assert_eq!(
        fs::read(&path).unwrap(),
        b"mine",
        "another process's file is left alone"
    );
    let error = start().err().unwrap().to_string();
    assert!(error.contains("is not a socket"), "{error}");
    fs::remove_file(&path).unwrap();

    let first = Socket::open(&path).unwrap();
    let second = Socket::open(&path).unwrap();
    let error = Server::start(first, Limits::default(), status).err();
    let error = error.unwrap().to_string();
    assert!(error.contains("was replaced by another process"), "{error}");
    drop(second);

    let socket = Socket::open(&path).unwrap();
    let refused = UnixStream::connect(&path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "not yet");
    drop(socket);
    assert!(!path.exists(), "removed without ever having listened");

    let long = folder.path().join("x".repeat(200));
    let error = Socket::open(&long).unwrap_err();
    assert!(error.to_string().contains("108 bytes"), "{error:#}");
}
