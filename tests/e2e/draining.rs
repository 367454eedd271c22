//! Backends that drain and leave, under load: nothing is lost, and what does not end in time is ended.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::Value;

use crate::lab::{DEADLINE, NetnsLab, eventually, text};
use crate::web;

/// A workload with a web server that may be a backend: its name, its addresses and the server's folder.
struct Server {
    workload: &'static str,
    ipv4: &'static str,
    ipv6: &'static str,
    folder: &'static str,
}

const SERVERS: [Server; 2] = [
    Server {
        workload: "coredns",
        ipv4: "10.200.0.44",
        ipv6: "fd00:200::44",
        folder: "web-one",
    },
    Server {
        workload: "intruder",
        ipv4: "10.200.0.65",
        ipv6: "fd00:200::65",
        folder: "web-two",
    },
];

impl Server {
    fn backend(&self) -> String {
        format!("{}:8080", self.ipv4)
    }

    fn serve(&self, lab: &NetnsLab) {
        web::serve_in(lab, self.workload, self.ipv4, self.ipv6, self.folder);
        for (name, length) in [("slow", 100_000), ("endless", 100_000_000)] {
            let file = lab.folder().join(self.folder).join(name);
            let file = fs::File::create(file).expect("make a file");
            file.set_len(length).expect("make it that long");
        }
    }

    fn quit(&self, lab: &NetnsLab) {
        let place = lab.folder().join(self.folder);
        let place = place.display();
        let quit = format!("nginx -p {place} -e {place}/error.log -c {place}/nginx.conf -s quit");
        lab.ok(self.workload, &quit);
    }
}

/// The service with these backends; `more`: other keys.
fn pool(backends: &[(&Server, &str)], more: &str) -> String {
    let backends = backends.iter().map(|(server, state)| {
        let (ipv4, ipv6) = (server.ipv4, server.ipv6);
        let row = |address: String| format!("{{ address = \"{address}\", state = \"{state}\" }}");
        [row(format!("{ipv4}:8080")), row(format!("[{ipv6}]:8080"))].join(", ")
    });
    let backends: Vec<String> = backends.collect();
    format!(
        "[services.pool]\nfrontends = [\"10.32.0.88:80/tcp\", \"[fd00:32::88]:80/tcp\"]\nbackends = [{}]\n{more}\n",
        backends.join(", ")
    )
}

/// Clients of the service until the end; each notes what it lost.
struct Clients<'a> {
    lab: &'a NetnsLab,
    end: AtomicBool,
    requests: AtomicU64,
}

impl Clients<'_> {
    /// Runs curl with these arguments again and again; each prints who has replied to each of `count` requests.
    fn repeat(&self, arguments: &str, count: usize) -> Vec<String> {
        let mut lost = Vec::new();
        while !self.end.load(Ordering::Relaxed) {
            let output = self
                .lab
                .run("client", &format!("curl -fsS -m 20 {arguments}"));
            let printed = text(&output);
            let replies = SERVERS
                .iter()
                .map(|server| printed.matches(server.ipv4).count());
            if !output.status.success() || replies.sum::<usize>() != count {
                lost.push(printed);
            }
            self.requests.fetch_add(count as u64, Ordering::Relaxed);
        }
        lost
    }

    /// Waits for some more requests.
    fn wait_for_requests(&self) {
        let enough = self.requests.load(Ordering::Relaxed) + 40;
        eventually("the clients", || {
            match self.requests.load(Ordering::Relaxed) {
                now if now >= enough => Ok(()),
                now => Err(now),
            }
        });
    }
}

/// The steps of docs/load-balancing.md.
fn replace(lab: &NetnsLab, clients: &Clients<'_>, old: &Server, new: &Server) {
    new.serve(lab);
    lab.drop_in("pool", &pool(&[(old, "draining"), (new, "active")], ""));
    lab.dpd("reload");
    clients.wait_for_requests();
    old.quit(lab);
    let waited = lab.dpd(&format!(
        "service wait pool {} --timeout 20s",
        old.backend()
    ));
    let expected = format!(
        "backend {} of service pool has no connection left\n",
        old.backend()
    );
    assert_eq!(waited, expected);
    lab.drop_in("pool", &pool(&[(new, "active")], ""));
    lab.dpd("reload");
    clients.wait_for_requests();
}

#[test]
fn backends_are_replaced_under_load_without_a_lost_request() {
    let lab = NetnsLab::laid();
    let [one, two] = &SERVERS;
    lab.drop_in("pool", &pool(&[(one, "active")], ""));
    lab.start();
    one.serve(&lab);
    let clients = Clients {
        lab: &lab,
        end: AtomicBool::new(false),
        requests: AtomicU64::new(0),
    };
    let who = "http://10.32.0.88/who";
    let kept = [who; 20].join(" ");
    let (lost, downloads) = thread::scope(|scope| {
        let running = [
            scope.spawn(|| clients.repeat(who, 1)),
            scope.spawn(|| clients.repeat("http://[fd00:32::88]/who", 1)),
            scope.spawn(|| clients.repeat(&kept, 20)),
        ];
        clients.wait_for_requests();
        let mut downloads = Vec::new();
        for (old, new) in [(one, two), (two, one), (one, two)] {
            // Five seconds long: the old server is waited for.
            let slow = "curl -fsS -m 20 -w %{size_download} -o /dev/null http://10.32.0.88/slow";
            let slow = scope.spawn(|| text(&lab.run("client", slow)));
            eventually("the download", || match open_of(&lab, &old.backend()) {
                0 => Err(()),
                _ => Ok(()),
            });
            replace(&lab, &clients, old, new);
            downloads.push(slow.join().expect("curl's thread"));
        }
        clients.end.store(true, Ordering::Relaxed);
        let lost = running.map(|client| client.join().expect("a client's thread"));
        (lost.concat(), downloads)
    });
    assert_eq!(lost, [""; 0], "of {:?} requests", clients.requests);
    assert_eq!(downloads, ["100000"; 3]);
    assert_eq!(lab.drops(), [""; 0]);
}

/// The row of a backend in the listing.
fn row(lab: &NetnsLab, backend: &str) -> Option<Value> {
    let services = lab.json("service get pool");
    let frontends = services.as_array().expect("a list").iter();
    let mut backends = frontends.flat_map(|row| row["backends"].as_array().expect("a list"));
    backends.find(|row| row["address"] == backend).cloned()
}

/// Its open connections.
fn open_of(lab: &NetnsLab, backend: &str) -> u64 {
    let row = row(lab, backend);
    row.and_then(|row| row["connections"].as_u64())
        .expect("a number")
}

/// A client that reads a file that does not end.
fn wait_for_data(lab: &NetnsLab) -> TcpStream {
    let mut stream = lab.connect("client", "10.32.0.88:80").expect("connect");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("set a timeout");
    stream
        .write_all(b"GET /endless HTTP/1.1\r\nHost: pool\r\n\r\n")
        .expect("ask");
    read_some(&mut stream).expect("the first data");
    stream
}

fn read_some(stream: &mut TcpStream) -> std::io::Result<usize> {
    match stream.read(&mut [0; 512])? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}

fn until_error(stream: &mut TcpStream) -> std::io::Error {
    loop {
        if let Err(error) = read_some(stream) {
            return error;
        }
    }
}

#[test]
fn the_connections_of_a_backend_that_has_left_end_when_its_time_is_over() {
    let lab = NetnsLab::laid();
    let [one, two] = &SERVERS;
    let timeout = "drain_timeout = \"1h\"";
    lab.drop_in("pool", &pool(&[(one, "active")], timeout));
    lab.start();
    one.serve(&lab);
    two.serve(&lab);
    let mut waiting = wait_for_data(&lab);
    let backend = one.backend();
    let wrong = lab.run(
        "node",
        &format!(
            "{} service wait pool {backend} --timeout 1ms",
            env!("CARGO_BIN_EXE_dpd")
        ),
    );
    assert_eq!(wrong.status.code(), Some(1), "it has a connection");
    let wrong = text(&wrong);
    assert!(wrong.contains("gets new connections meanwhile"), "{wrong}");
    assert!(wrong.contains("has 1 connection left after 1ms"), "{wrong}");

    lab.drop_in("pool", &pool(&[(two, "active")], timeout));
    lab.dpd("reload");
    let left = row(&lab, &backend).expect("it is kept");
    assert_eq!(
        (&left["state"], &left["connections"]),
        (&"removed".into(), &1.into())
    );
    let seconds = |row: &Value| row["drain_seconds_left"].as_f64().expect("a time");
    assert!(
        lab.log().contains("state active → removed"),
        "{}",
        lab.log()
    );
    let table = lab.dpd("service list");
    assert!(table.contains("  removed ("), "{table}");
    let answers = lab.ok("client", "curl -fsS -m 20 http://10.32.0.88/who");
    assert_eq!(answers.trim_end(), two.ipv4, "new connections go elsewhere");

    lab.stop();
    lab.start();
    let again = row(&lab, &backend).expect("a restart keeps it");
    assert!(
        seconds(&again) < seconds(&left),
        "the time runs: {again} {left}"
    );
    for _ in 0..3 {
        read_some(&mut waiting).expect("it keeps its connection");
    }

    // The time runs since the backend was removed.
    lab.drop_in("pool", &pool(&[(two, "active")], "drain_timeout = \"1s\""));
    lab.dpd("reload");
    eventually("it is gone", || row(&lab, &backend).map_or(Ok(()), Err));
    let ends = format!("- backend {backend} of service pool: 1 connection ends");
    eventually("the log says what has ended", || match lab.log() {
        log if log.contains(&ends) => Ok(()),
        log => Err(log),
    });
    let ended = until_error(&mut waiting);
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{ended}");
}

/// Nothing happens but that time passes.
#[test]
fn the_daemon_ends_the_connections_by_itself() {
    let lab = NetnsLab::laid();
    let [one, two] = &SERVERS;
    let timeout = "drain_timeout = \"3s\"";
    lab.drop_in("pool", &pool(&[(one, "active"), (two, "active")], timeout));
    lab.start();
    one.serve(&lab);
    two.serve(&lab);
    let state = |server: &Server| match row(&lab, &server.backend()) {
        Some(row) => row["state"].as_str().expect("a word").to_owned(),
        None => "gone".to_owned(),
    };
    let mut opened = Vec::new();
    let counts = || [one, two].map(|server| open_of(&lab, &server.backend()));
    while counts().contains(&0) {
        opened.push(wait_for_data(&lab));
    }
    let connections = lab.connections();
    let backend_of = |stream: TcpStream| {
        let port = stream.local_addr().expect("its address").port();
        let row = connections.iter().find(|row| row["src_port"] == port);
        let backend = row.expect("it is open")["dnat_ip"].as_str();
        (stream, format!("{}:8080", backend.expect("an address")))
    };
    let opened: Vec<(TcpStream, String)> = opened.into_iter().map(backend_of).collect();
    lab.drop_in(
        "pool",
        &pool(&[(one, "draining"), (two, "active")], timeout),
    );
    lab.dpd("reload");
    assert!(["draining", "drained"].contains(&state(one).as_str()));
    eventually("its time is over", || match state(one).as_str() {
        "drained" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(open_of(&lab, &one.backend()), 0);
    let waited = lab.dpd(&format!("service wait pool {}", one.backend()));
    assert!(waited.contains("has no connection left"), "{waited}");
    for (mut stream, backend) in opened {
        if backend == two.backend() {
            read_some(&mut stream).expect("the other keeps its connections");
            continue;
        }
        let ended = until_error(&mut stream);
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{ended}");
    }
}
