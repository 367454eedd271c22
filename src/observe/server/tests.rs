//! The server with clients of every kind, the bad ones among them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::observe::samples::{question, refusal};
use crate::observe::socket::MODE;

/// Nothing here takes so long on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn status() -> DaemonStatus {
    DaemonStatus {
        pid: 7,
        version: "1".to_owned(),
        uptime_seconds: 3,
        config: "/etc/dpd/config.toml".to_owned(),
        last_error: None,
        reloads: Some(0),
        is_reloading: false,
        reload_error: None,
        applied_seconds_ago: 2,
        waiting: Vec::new(),
        warnings: Vec::new(),
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
    let stream = UnixStream::connect(&server.socket.path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(server: &Server, request: &str) -> BufReader<UnixStream> {
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
    Arc::new(Flow {
        bytes,
        ..question()
    })
}

/// The number of a flow's line, or what else the line is.
fn number(line: &str) -> Result<u32, String> {
    match serde_json::from_str(line) {
        Ok(Reply::Flow(record)) => Ok(record.bytes),
        _ => Err(line.to_owned()),
    }
}

fn open(server: &Server) -> usize {
    server.shared.clients().open.len()
}

#[test]
fn the_daemon_says_how_it_is() {
    let (_folder, server) = start(Limits::default());
    let mut reader = ask(&server, r#"{"request":"status"}"#);
    let Reply::Status(answer) = serde_json::from_str(&line(&mut reader)).unwrap() else {
        panic!("no status");
    };
    assert_eq!(answer, status());
    assert_eq!(line(&mut reader), "", "one request, one answer");
}

#[test]
fn several_clients_see_what_they_asked_for() {
    let (_folder, server) = start(Limits::default());
    server.publish(numbered(1));
    server.publish(numbered(2));
    let mut last = ask(&server, r#"{"request":"observe","last":1}"#);
    assert_eq!(number(&line(&mut last)), Ok(2));
    assert_eq!(line(&mut last), "", "without follow it ends");

    let mut all = ask(&server, r#"{"request":"observe","last":2,"follow":true}"#);
    // What stands in the history proves that the watch has begun.
    assert_eq!(number(&line(&mut all)), Ok(1));
    let drops =
        r#"{"request":"observe","last":9,"follow":true,"filter":{"only":{"verdict":["dropped"]}}}"#;
    let refused = Arc::new(refusal());
    server.publish(refused.clone());
    let mut drops = ask(&server, drops);
    assert_eq!(number(&line(&mut drops)), Ok(60));
    server.publish(numbered(3));
    server.publish(refused);
    assert_eq!(number(&line(&mut drops)), Ok(60));
    let rest = [(); 4].map(|()| number(&line(&mut all)).unwrap());
    assert_eq!(rest, [2, 60, 3, 60]);
}

#[test]
fn garbage_is_told_and_closed() {
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
        (
            "a number below nothing",
            r#"{"request":"observe","last":-1}"#,
        ),
        ("bytes that are no text", "\u{0}\u{1}\u{7f}"),
        ("a line without end", &long),
    ];
    for (sentence, request) in rows {
        let mut stream = connect(&server);
        // The server may have closed before all of it was written.
        let _ = stream.write_all(format!("{request}\n").as_bytes());
        let mut reader = BufReader::new(stream);
        let mut answer = String::new();
        match reader.read_line(&mut answer) {
            Ok(_) => assert!(
                answer.starts_with(r#"{"error":"this is no request"#),
                "{sentence}: {answer}"
            ),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{sentence}"),
        }
    }
    until("all are closed", || open(&server) == 0);
}

#[test]
fn who_does_not_ask_is_closed() {
    let limits = Limits {
        request_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let (_folder, server) = start(limits);
    let mut silent = BufReader::new(connect(&server));
    assert_eq!(line(&mut silent), "", "silent");

    let mut drip = connect(&server);
    until("one who sends a byte now and then is closed", || {
        drip.write_all(b"x").is_err()
    });
    until("both are forgotten", || open(&server) == 0);
}

#[test]
fn a_slow_one_loses_its_own_and_slows_nobody() {
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
    let mut slow = ask(&server, r#"{"request":"observe","last":1,"follow":true}"#);
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
    assert_eq!(u64::from(lost), server.lost(), "it is told of each");

    let mut asked = ask(&server, r#"{"request":"status"}"#);
    let told = format!(r#""observers_lost":{lost}"#);
    assert!(line(&mut asked).contains(&told));
}

#[test]
fn who_vanishes_is_forgotten_though_nothing_happens() {
    let (_folder, server) = start(Limits::default());
    server.publish(numbered(1));
    let mut gone = ask(&server, r#"{"request":"observe","last":1,"follow":true}"#);
    assert_eq!(number(&line(&mut gone)), Ok(1));
    assert_eq!(open(&server), 1);
    drop(gone);
    until("it is forgotten", || open(&server) == 0);
}

#[test]
fn who_has_only_stopped_sending_still_hears() {
    let (_folder, server) = start(Limits::default());
    server.publish(numbered(1));
    let mut stream = connect(&server);
    // The end of what is sent ends the request, too.
    stream
        .write_all(br#"{"request":"observe","last":1,"follow":true}"#)
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reader = BufReader::new(&stream);
    assert_eq!(number(&line(&mut reader)), Ok(1));
    assert!(!is_gone(&server.shared.clients().open[&0]).unwrap());
    server.publish(numbered(2));
    assert_eq!(number(&line(&mut reader)), Ok(2));
}

#[test]
fn one_too_many_is_told_so() {
    const FOLLOW: &str = r#"{"request":"observe","last":1,"follow":true}"#;
    let (_folder, server) = start(Limits {
        observers: 2,
        ..Limits::default()
    });
    server.publish(numbered(1));
    let (mut first, mut second) = (ask(&server, FOLLOW), ask(&server, FOLLOW));
    assert_eq!(number(&line(&mut first)), Ok(1));
    assert_eq!(number(&line(&mut second)), Ok(1));
    let mut third = ask(&server, FOLLOW);
    assert_eq!(
        line(&mut third),
        r#"{"error":"2 observers are connected already"}"#
    );
    assert_eq!(line(&mut third), "");
    let mut asked = ask(&server, r#"{"request":"status"}"#);
    assert!(
        line(&mut asked).starts_with(r#"{"status""#),
        "status has room"
    );
    drop(first);
    until("the first's place is free", || {
        number(&line(&mut ask(&server, FOLLOW))) == Ok(1)
    });
}

#[test]
fn who_only_connects_takes_nobodys_place_for_long() {
    let (_folder, server) = start(Limits {
        observers: 1,
        request_timeout: Duration::from_millis(50),
        ..Limits::default()
    });
    let silent: Vec<UnixStream> = (0..1 + SPARE).map(|_| connect(&server)).collect();
    for stream in silent {
        assert_eq!(line(&mut BufReader::new(stream)), "", "each is closed");
    }
    until("their places are free again", || open(&server) == 0);
    let mut asked = ask(&server, r#"{"request":"status"}"#);
    assert!(line(&mut asked).starts_with(r#"{"status""#));
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
        "the folder is made, and the mode is what it should be"
    );

    let error = start().err().unwrap().to_string();
    assert!(
        error.contains("another daemon listens at"),
        "a live one is refused: {error}"
    );
    assert!(path.exists());

    server.publish(numbered(1));
    let mut watcher = ask(&server, r#"{"request":"observe","last":1,"follow":true}"#);
    assert_eq!(number(&line(&mut watcher)), Ok(1));
    drop(server);
    assert_eq!(line(&mut watcher), "", "whoever watches is closed");
    assert!(!path.exists(), "and the file is gone");

    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead daemon leaves its file");
    let server = start().unwrap();
    connect(&server);

    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    drop(server);
    assert_eq!(
        fs::read(&path).unwrap(),
        b"mine",
        "another's file is left alone"
    );
    let error = start().err().unwrap().to_string();
    assert!(error.contains("is no socket"), "{error}");
    fs::remove_file(&path).unwrap();

    let first = Socket::open(&path).unwrap();
    let second = Socket::open(&path).unwrap();
    let error = Server::start(first, Limits::default(), status).err();
    let error = error.unwrap().to_string();
    assert!(error.contains("has taken the place"), "{error}");
    drop(second);

    let socket = Socket::open(&path).unwrap();
    let asked = UnixStream::connect(&path).unwrap_err();
    assert_eq!(asked.kind(), ErrorKind::ConnectionRefused, "not yet");
    drop(socket);
    assert!(!path.exists(), "nobody ever listened");

    let long = folder.path().join("x".repeat(200));
    let error = Socket::open(&long).unwrap_err();
    assert!(error.to_string().contains("108 bytes"), "{error:#}");
}
